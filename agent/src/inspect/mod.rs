//! What images say that their containers need: of the CPU, and of the NVIDIA driver and GPUs.
//!
//! Whoever submits a job asks the image's registry and adds to the job what any host must have
//! ([`Needs`]), so that hosts that cannot run it never claim it. That is less than the image demands: of several
//! drivers that will do, a lane knows the oldest. The host checks the rest before it starts a container
//! ([`require::check`]).

mod recall;
mod registry;
pub mod require;

use std::{fmt, path::PathBuf, time::Duration};

use serde::Serialize;
use shared::{
    id::Timestamp,
    job::{Arch, ComputeCapability, CudaVersion, JobSpec, Resources},
    lane::Amount,
};

pub use registry::Stated;

use crate::engine::{Reference, usual_config};

/// Who submits does not wait for a registry longer than this; the job goes without.
const DEADLINE: Duration = Duration::from_secs(3);

/// What a job got from its image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Needs {
    #[serde(skip_serializing_if = "Option::is_none")]
    arch: Option<Arch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cuda: Option<CudaVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compute_capability: Option<ComputeCapability>,
}

impl Needs {
    /// Whether it needs no more than the job says.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.arch.map(|arch| arch.to_string()),
            self.cuda.map(|cuda| format!("CUDA {cuda}")),
            self.compute_capability.map(|capability| format!("compute capability {capability}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Adds to the job what its image needs and the job does not say.
///
/// # Errors
/// Why nothing is known of the image; the job is as it was.
pub async fn add_needs(spec: &mut JobSpec, now: Timestamp) -> Result<Needs, String> {
    if spec.image.starts_with("sha256:") {
        return Err("it is an image's id, which only an engine knows".into());
    }
    let arch = spec.resources.arch;
    let reference = Reference::parse(&spec.image)?;
    let said = match recall::said(&spec.image, arch, now) {
        Some(said) => said,
        None => {
            let said = ask(&reference, arch, usual_config()).await;
            recall::keep(&spec.image, arch, now, &said);
            said
        }
    };
    Ok(add(spec, &said?))
}

async fn ask(reference: &Reference, arch: Arch, credentials: Option<PathBuf>) -> Result<Stated, String> {
    let late = |_| Err(format!("{} did not answer in {} s", reference.registry, DEADLINE.as_secs()));
    let asked = registry::ask(reference, arch, credentials);
    tokio::time::timeout(DEADLINE, asked).await.unwrap_or_else(late)
}

/// The job that was submitted `before`, if this one is the same but for what their image said: a registry need not
/// answer twice, nor say the same. `asked` is what was asked for without it.
pub fn as_before(spec: &JobSpec, asked: &Resources, before: &JobSpec) -> JobSpec {
    let mut spec = spec.clone();
    let had = &before.resources;
    if asked.arch == Arch::default() {
        spec.resources.arch = had.arch;
    }
    spec.resources.cuda = had.cuda.max(asked.cuda);
    spec.resources.compute_capability = had.compute_capability.max(asked.compute_capability);
    spec
}

fn add(spec: &mut JobSpec, stated: &Stated) -> Needs {
    let mut needs = Needs::default();
    if !stated.archs.is_empty() && !stated.archs.contains(&spec.resources.arch) {
        spec.resources.arch = stated.archs[0];
        needs.arch = Some(stated.archs[0]);
    }
    if Amount::of(&spec.resources).is_none() {
        return needs;
    }
    let least = require::least(&require::overlaid(&stated.env, spec));
    let resources = &mut spec.resources;
    if least.cuda > resources.cuda {
        (resources.cuda, needs.cuda) = (least.cuda, least.cuda);
    }
    if least.arch > resources.compute_capability {
        (resources.compute_capability, needs.compute_capability) = (least.arch, least.arch);
    }
    needs
}

#[cfg(test)]
mod live;

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use shared::job::{self, Format};

    use super::*;

    const DEMAND: &str = "cuda>=12.4,arch>=7.0";

    #[rstest]
    #[case("gpus = 1", "CUDA 12.4, compute capability 7.0", Some("12.4"))]
    #[case("gpus = 1\ncuda = \"12.6\"\ncompute_capability = \"7.0\"", "", Some("12.6"))]
    #[case("gpu_share = \"4GiB\"\ncuda = \"11.8\"", "CUDA 12.4, compute capability 7.0", Some("12.4"))]
    #[case("cpus = 1", "", None)]
    fn a_job_needs_what_its_image_does(
        #[case] resources: &str,
        #[case] added: &str,
        #[case] cuda: Option<&str>,
    ) {
        let text = format!("image = \"i\"\n[resources]\n{resources}");
        let mut spec = job::parse(&text, Format::Toml).expect("valid");
        let env = vec![("NVIDIA_REQUIRE_CUDA".into(), DEMAND.into())];
        let needs = add(&mut spec, &Stated { archs: vec![Arch::Arm64, Arch::Amd64], env });
        assert_eq!((needs.to_string().as_str(), needs.is_empty()), (added, added.is_empty()));
        assert_eq!(spec.resources.cuda, cuda.map(|cuda| cuda.parse().expect("a version")));
        assert_eq!(spec.resources.arch, Arch::Amd64);
    }

    #[test]
    fn an_image_for_one_architecture_goes_there() {
        let mut spec = job::parse("image = \"i\"", Format::Toml).expect("valid");
        let needs = add(&mut spec, &Stated { archs: vec![Arch::Arm64], env: Vec::new() });
        assert_eq!((needs.to_string().as_str(), spec.resources.arch), ("arm64", Arch::Arm64));
    }

    #[test]
    fn a_job_may_overrule_its_image() {
        let text = "image = \"i\"\n[env]\nNVIDIA_DISABLE_REQUIRE = \"1\"\n[resources]\ngpus = 1";
        let mut spec = job::parse(text, Format::Toml).expect("valid");
        let env = vec![("NVIDIA_REQUIRE_CUDA".into(), DEMAND.into())];
        assert!(add(&mut spec, &Stated { archs: Vec::new(), env }).is_empty());
    }

    #[test]
    fn the_same_job_again_is_the_same_whatever_the_registry_says_meanwhile() {
        let asked = |resources: &str| {
            let text = format!("image = \"i\"\n[resources]\n{resources}");
            job::parse(&text, Format::Toml).expect("valid")
        };
        let env = vec![("NVIDIA_REQUIRE_CUDA".into(), DEMAND.into())];
        let (spec, mut before) = (asked("gpus = 1"), asked("gpus = 1"));
        add(&mut before, &Stated { archs: vec![Arch::Arm64], env });
        assert_ne!(spec, before);
        assert_eq!(as_before(&spec, &spec.resources, &before), before);
        assert_eq!(as_before(&before, &spec.resources, &spec), spec);
        for other in ["gpus = 2", "gpus = 1\ncuda = \"12.9\""] {
            let other = asked(other);
            assert_ne!(as_before(&other, &other.resources, &before), before);
        }
        let (other, before) = (asked("gpus = 1\narch = \"arm64\""), spec);
        assert_ne!(as_before(&other, &other.resources, &before), before);
    }

    #[tokio::test(start_paused = true)]
    async fn who_submits_does_not_wait_for_a_registry_that_says_nothing() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let host = silent.local_addr().expect("bound");
        let image = Reference::parse(&format!("{host}/a")).expect("valid");
        let why = ask(&image, Arch::Amd64, None).await.expect_err("it says nothing");
        assert_eq!(why, format!("{host} did not answer in 3 s"));
    }
}
