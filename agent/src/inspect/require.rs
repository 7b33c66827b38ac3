//! What an image demands of the host's driver and GPUs.
//!
//! CUDA images carry `NVIDIA_REQUIRE_CUDA` (and others named `NVIDIA_REQUIRE_*`): groups parted
//! by spaces, of which one must hold, each of conditions parted by commas, all of which must hold:
//! `cuda>=12.4 brand=tesla,driver>=470,driver<471`. As NVIDIA's container toolkit documents it
//! ("Constraints", NVIDIA Container Toolkit user guide). `NVIDIA_DISABLE_REQUIRE` switches it off.

use std::collections::BTreeMap;

use shared::{
    id::GpuUuid,
    job::{ComputeCapability, CudaVersion, JobSpec, Version2},
};

use crate::gpu::Inventory;

/// A container's environment.
pub type Env = BTreeMap<String, String>;

/// The CUDA version that the first driver of each branch supports (CUDA Toolkit Release Notes, "CUDA Toolkit and
/// Corresponding Driver Versions").
const BRANCHES: [(u32, u32, u32); 25] = [
    (384, 9, 0),
    (390, 9, 1),
    (396, 9, 2),
    (410, 10, 0),
    (418, 10, 1),
    (440, 10, 2),
    (450, 11, 0),
    (455, 11, 1),
    (460, 11, 2),
    (465, 11, 3),
    (470, 11, 4),
    (495, 11, 5),
    (510, 11, 6),
    (515, 11, 7),
    (520, 11, 8),
    (525, 12, 0),
    (530, 12, 1),
    (535, 12, 2),
    (545, 12, 3),
    (550, 12, 4),
    (555, 12, 5),
    (560, 12, 6),
    (570, 12, 8),
    (575, 12, 9),
    (580, 13, 0),
];

/// What the image sets, with what the job sets in its place.
pub fn overlaid(image: &[(String, String)], spec: &JobSpec) -> Env {
    let own = spec.env.iter().map(|(name, value)| (name.to_string(), value.0.clone()));
    image.iter().cloned().chain(own).collect()
}

/// What no host can do without.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Least {
    /// The oldest CUDA version that the driver may support.
    pub cuda: Option<CudaVersion>,
    /// The GPUs' lowest compute capability.
    pub arch: Option<ComputeCapability>,
}

/// The least that meets the demands: of groups that may stand for each other, the one that wants least.
pub fn least(env: &Env) -> Least {
    let mut all = Least::default();
    for (_, demand) in demands(env) {
        let groups = || demand.split_whitespace().map(least_of);
        all.cuda = all.cuda.max(groups().map(|group| group.cuda).min().flatten());
        all.arch = all.arch.max(groups().map(|group| group.arch).min().flatten());
    }
    all
}

/// What a group wants at least; what it wants at most is not asked here.
fn least_of(group: &str) -> Least {
    let mut least = Least::default();
    for (key, op, wanted) in group.split(',').filter_map(split) {
        if !matches!(op, ">=" | ">" | "=" | "==") {
            continue;
        }
        let wanted = numbers(wanted);
        let part = |i: usize| wanted.get(i).copied().unwrap_or(0);
        match key {
            "cuda" => least.cuda = least.cuda.max(Some(Version2 { major: part(0), minor: part(1) })),
            "arch" => least.arch = least.arch.max(Some(Version2 { major: part(0), minor: part(1) })),
            "driver" => least.cuda = least.cuda.max(cuda_of(part(0))),
            _ => {}
        }
    }
    least
}

fn cuda_of(branch: u32) -> Option<CudaVersion> {
    let (_, major, minor) = *BRANCHES.iter().rev().find(|(first, ..)| *first <= branch)?;
    Some(Version2 { major, minor })
}

/// What names of demands begin with.
const DEMAND: &str = "NVIDIA_REQUIRE_";

/// Switches them off.
const DISABLE: &str = "NVIDIA_DISABLE_REQUIRE";

/// Whether a variable of this name is part of what an image demands.
pub fn is_demand(name: &str) -> bool {
    name.starts_with(DEMAND) || name == DISABLE
}

/// The demands by their names; none where they are switched off.
fn demands(env: &Env) -> impl Iterator<Item = (&String, &String)> {
    let disabled = env.get(DISABLE);
    let disabled = disabled.is_some_and(|value| matches!(value.as_str(), "1" | "true" | "True" | "TRUE"));
    let all = env.iter().filter(|(name, demand)| name.starts_with(DEMAND) && !demand.trim().is_empty());
    all.filter(move |_| !disabled)
}

/// Whether the host meets the demands of a container's environment with these GPUs.
///
/// # Errors
/// The demand that is not met, and what the host has.
pub fn check(env: &Env, gpus: &[GpuUuid], inventory: &Inventory) -> Result<(), String> {
    let Some(driver) = &inventory.driver else { return Ok(()) };
    if gpus.is_empty() {
        return Ok(());
    }
    let weakest =
        inventory.gpus.iter().filter(|gpu| gpus.contains(&gpu.uuid)).map(|gpu| gpu.compute_capability);
    let host = Host { cuda: driver.cuda, driver: &driver.version, arch: weakest.min() };
    for (name, demand) in demands(env) {
        if !demand.split_whitespace().any(|group| host.meets(group)) {
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

    #[rstest]
    #[case("cuda>=12.4", Some("12.4"), None)]
    #[case("cuda>=12.4,arch>=7.0", Some("12.4"), Some("7.0"))]
    // An older driver of a data centre's branch will do (forward compatibility).
    #[case(
        "cuda>=12.6 brand=tesla,driver>=535,driver<536 brand=tesla,driver>=470,driver<471",
        Some("11.4"),
        None
    )]
    #[case("cuda>=12.6 brand=tesla,driver>=472", Some("11.4"), None)]
    // Of a branch before all that are known, and of none.
    #[case("cuda>=12.6 driver>=300", None, None)]
    #[case("cuda>=12.6 brand=tesla", None, None)]
    #[case("cuda<13", None, None)]
    #[case(" ", None, None)]
    fn every_host_needs_the_least(
        #[case] demand: &str,
        #[case] cuda: Option<&str>,
        #[case] arch: Option<&str>,
    ) {
        let version = |text: &str| text.parse::<Version2>().expect("valid");
        let env = |more: (&str, &str)| -> Env {
            let all = [("NVIDIA_REQUIRE_CUDA", demand), ("NVIDIA_VISIBLE_DEVICES", "all"), more];
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let wanted = Least { cuda: cuda.map(version), arch: arch.map(version) };
        assert_eq!(least(&env(("A", "1"))), wanted);
        assert_eq!(least(&env(("NVIDIA_DISABLE_REQUIRE", "true"))), Least::default());
        let both = least(&env(("NVIDIA_REQUIRE_APP", "cuda>=9.0,arch>=9.0")));
        assert_eq!((both.cuda, both.arch), (wanted.cuda.max(Some(version("9.0"))), Some(version("9.0"))));
    }

    #[test]
    fn a_group_that_every_host_needs_is_met_by_whom_the_demand_is() {
        for (branch, major, minor) in BRANCHES {
            let driver = format!("{branch}.10");
            let host = Host { cuda: Version2 { major, minor }, driver: &driver, arch: None };
            let group = format!("driver>={branch},driver<{}", branch + 1);
            assert!(host.meets(&group) && least_of(&group).cuda == Some(host.cuda));
        }
        assert!(BRANCHES.is_sorted());
    }
}
