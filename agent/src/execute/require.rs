//! What an image demands of the host's driver and GPUs.
//!
//! CUDA images carry `NVIDIA_REQUIRE_CUDA` (and others named `NVIDIA_REQUIRE_*`): groups parted
//! by spaces, of which one must hold, each of conditions parted by commas, all of which must hold:
//! `cuda>=12.4 brand=tesla,driver>=470,driver<471`. As NVIDIA's container toolkit documents it
//! ("Constraints", NVIDIA Container Toolkit user guide). `NVIDIA_DISABLE_REQUIRE` switches it off.

use shared::{id::GpuUuid, job::Version2};

use crate::{engine::ImageInfo, gpu::Inventory};

/// Whether the host meets the image's demands with these GPUs.
///
/// # Errors
/// The demand that is not met, and what the host has.
pub fn check(image: &ImageInfo, gpus: &[GpuUuid], inventory: &Inventory) -> Result<(), String> {
    let Some(driver) = &inventory.driver else { return Ok(()) };
    let disabled = image.env.iter().any(|(name, value)| {
        name == "NVIDIA_DISABLE_REQUIRE" && matches!(value.as_str(), "1" | "true" | "True" | "TRUE")
    });
    if gpus.is_empty() || disabled {
        return Ok(());
    }
    let weakest =
        inventory.gpus.iter().filter(|gpu| gpus.contains(&gpu.uuid)).map(|gpu| gpu.compute_capability);
    let host = Host { cuda: driver.cuda, driver: &driver.version, arch: weakest.min() };
    for (name, demand) in image.env.iter().filter(|(name, _)| name.starts_with("NVIDIA_REQUIRE_")) {
        if !demand.trim().is_empty() && !demand.split_whitespace().any(|group| host.meets(group)) {
            return Err(format!(
                "the image demands {name}={demand:?}; the host has driver {} with CUDA {}",
                driver.version, driver.cuda
            ));
        }
    }
    Ok(())
}

struct Host<'i> {
    cuda: Version2,
    driver: &'i str,
    arch: Option<Version2>,
}

impl Host<'_> {
    fn meets(&self, group: &str) -> bool {
        group.split(',').all(|condition| self.holds(condition))
    }

    fn holds(&self, condition: &str) -> bool {
        let Some((key, op, wanted)) = split(condition) else { return true };
        let has = match key {
            "cuda" => vec![self.cuda.major, self.cuda.minor],
            "arch" => self.arch.map(|arch| vec![arch.major, arch.minor]).unwrap_or_default(),
            "driver" => numbers(self.driver),
            // A brand is a marketing name; what matters of it the driver's versions say.
            _ => return true,
        };
        let wanted = numbers(wanted);
        let order = compare(&has, &wanted);
        match op {
            ">=" => order.is_ge(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            "<" => order.is_lt(),
            "!=" => order.is_ne(),
            _ => order.is_eq(),
        }
    }
}

fn split(condition: &str) -> Option<(&str, &str, &str)> {
    let at = condition.find(['<', '>', '=', '!'])?;
    let (key, rest) = condition.split_at(at);
    let len = if rest[1..].starts_with('=') { 2 } else { 1 };
    let (op, value) = rest.split_at(len);
    Some((key, op, value))
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// Compares as many parts as are wanted, so that driver 470.82 equals 470.
fn compare(has: &[u32], wanted: &[u32]) -> std::cmp::Ordering {
    let part = |i: usize| has.get(i).copied().unwrap_or(0);
    let has: Vec<u32> = (0..wanted.len()).map(part).collect();
    has.as_slice().cmp(wanted)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("cuda>=11.8", true)]
    #[case("cuda>=12.4", true)]
    #[case("cuda>=12.6", false)]
    #[case("cuda>=12.6 brand=tesla,driver>=535,driver<536", true)]
    #[case("cuda>=12.6 brand=tesla,driver>=470,driver<471", false)]
    #[case("cuda>=9.0,arch>=7.0", false)]
    #[case("cuda!=12.4", false)]
    fn demands_are_compared(#[case] demand: &str, #[case] met: bool) {
        let version = |text: &str| text.parse().expect("valid");
        let host = Host { cuda: version("12.4"), driver: "535.104.05", arch: Some(version("6.0")) };
        assert_eq!(demand.split_whitespace().any(|group| host.meets(group)), met);
    }
}
