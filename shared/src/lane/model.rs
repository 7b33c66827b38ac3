//! Whether a GPU is of the model that a job names.
//!
//! Drivers and people spell models differently: `NVIDIA A100-SXM4-80GB`, `Tesla P100-PCIE-16GB`,
//! `NVIDIA GeForce RTX 4090` against `A100`, `a100 80gb`, `RTX4090`. Both are cut into lower-case
//! words of letters and digits, and the job's words must occur in the driver's, in order. One model's
//! name may occur in another's (`NVIDIA H100` in `NVIDIA H100 NVL`); a wish that begins with `=` is
//! for the one model of exactly this name.

/// What a wish for one model begins with.
const EXACTLY: char = '=';

/// The words of a model's name.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// The one spelling under which two equal wishes are equal.
pub(super) fn canonical(name: &str) -> String {
    let spelled = words(name).map(str::to_ascii_lowercase).collect::<Vec<_>>().join(" ");
    if name.trim_start().starts_with(EXACTLY) { format!("{EXACTLY}{spelled}") } else { spelled }
}

/// The wish for exactly the model of which the driver says so.
pub fn exactly(driver_name: &str) -> String {
    format!("{EXACTLY}{driver_name}")
}

/// Does the driver's name for a GPU fit what the job asked for?
pub(super) fn matches(wish: &str, driver_name: &str) -> bool {
    if wish.starts_with(EXACTLY) {
        return canonical(wish) == canonical(&exactly(driver_name));
    }
    let mut rest = words(driver_name);
    if words(wish).all(|word| rest.any(|has| has.eq_ignore_ascii_case(word))) {
        return true;
    }
    // Written without the spaces: some run of the driver's words, put together, is the wish.
    let (has, length): (Vec<&str>, usize) = (words(driver_name).collect(), words(wish).map(str::len).sum());
    let together = |run: &[&str]| {
        run.iter().map(|word| word.len()).sum::<usize>() == length
            && run.concat().eq_ignore_ascii_case(&words(wish).collect::<String>())
    };
    (0..has.len()).any(|from| (from + 1..=has.len()).any(|to| together(&has[from..to])))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("A100", "NVIDIA A100-SXM4-80GB", true)]
    #[case("a100 80gb", "NVIDIA A100-SXM4-80GB", true)]
    #[case("A10", "NVIDIA A100-SXM4-80GB", false)]
    #[case("A10", "NVIDIA A10", true)]
    #[case("P100", "Tesla P100-PCIE-16GB", true)]
    #[case("RTX4090", "NVIDIA GeForce RTX 4090", true)]
    #[case("rtx 4090", "NVIDIA GeForce RTX 4090", true)]
    #[case("80gb a100", "NVIDIA A100-SXM4-80GB", false)]
    #[case("V100", "Tesla V100S-PCIE-32GB", false)]
    #[case("NVIDIA H100", "NVIDIA H100 NVL", true)]
    #[case("=NVIDIA H100", "NVIDIA H100 NVL", false)]
    #[case("= nvidia-h100", "NVIDIA H100", true)]
    #[case("=H100", "NVIDIA H100", false)]
    fn models_match_by_words(#[case] wish: &str, #[case] has: &str, #[case] fits: bool) {
        assert_eq!(matches(wish, has), fits);
        assert_eq!(matches(&canonical(wish), has), fits);
    }
}
