//! From the API's records, in which everything is optional, to what haul knows.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bollard::models::{
    ContainerInspectResponse, ContainerState as ApiState, ContainerStateStatusEnum, ContainerStatsResponse,
    ContainerSummary, ContainerSummaryStateEnum, ImageInspect, SystemInfo, SystemInfoCgroupDriverEnum,
    SystemVersion,
};
use semver::Version;
use shared::{id::Timestamp, units::Size};

use crate::engine::{
    Container, ContainerId, ContainerState, DOCKER, EngineInfo, Exit, ImageInfo, PODMAN, Stats,
    reference::Reference,
};

pub(super) fn info(info: SystemInfo, version: &SystemVersion, api: String) -> EngineInfo {
    let components = version.components.iter().flatten();
    let podman = components.into_iter().any(|component| component.name.starts_with("Podman"));
    let driver = info.driver_status.iter().flatten().flatten();
    let images_in_containerd = driver.into_iter().any(|word| word.starts_with("io.containerd.snapshotter"));
    let version = version.version.clone().or(info.server_version).unwrap_or_default();
    EngineInfo {
        name: if podman { PODMAN } else { DOCKER },
        api,
        root: PathBuf::from(info.docker_root_dir.unwrap_or_default()),
        images_in_containerd,
        systemd_cgroups: info.cgroup_driver == Some(SystemInfoCgroupDriverEnum::SYSTEMD),
        cdi: if podman {
            has_cdi(&version)
        } else {
            // Docker names the directories only where the feature is on.
            info.cdi_spec_dirs.is_some_and(|dirs| !dirs.is_empty())
        },
        live_restore: info.live_restore_enabled.unwrap_or(false),
        version,
    }
}

/// Whether this version of podman takes CDI names through Docker's API. 5.4 was tried; some older ones do not
/// (containers/podman#19338).
fn has_cdi(podman: &str) -> bool {
    Version::parse(podman).is_ok_and(|version| version >= Version::new(5, 4, 0))
}

/// An image that was found under this name.
pub(super) fn image(image: ImageInspect, asked: &Reference) -> ImageInfo {
    let env = image.config.and_then(|config| config.env).unwrap_or_default();
    ImageInfo {
        id: image.id.unwrap_or_default(),
        digest: digest(&image.repo_digests.unwrap_or_default(), asked),
        env: env.iter().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect(),
        size: Size(image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()),
    }
}

/// The digest under which the registry that was asked has it. An image may have come from
/// several, and each has its own.
fn digest(digests: &[String], asked: &Reference) -> Option<String> {
    let of_asked = |digest: &&String| {
        Reference::parse(digest).is_ok_and(|reference| reference.is_same_repository(asked))
    };
    // Under an id, or another name for it, any tells which image it is.
    digests.iter().find(of_asked).or(digests.first()).cloned()
}

/// What a container uses. The kernel's cache of files is not counted, as `docker stats` has it.
pub(super) fn stats(stats: ContainerStatsResponse) -> Stats {
    let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage).and_then(|usage| usage.total_usage);
    let memory = stats.memory_stats.unwrap_or_default();
    let counts = memory.stats.unwrap_or_default();
    // By its names in cgroup v1 and v2.
    let cached = ["total_inactive_file", "inactive_file"].iter().find_map(|name| counts.get(*name));
    let used = memory.usage.unwrap_or_default().saturating_sub(cached.copied().unwrap_or_default());
    Stats { cpu: Duration::from_nanos(cpu.unwrap_or_default()), memory: Size(used) }
}

/// The engine's zero time, `0001-01-01T00:00:00Z`, means never.
fn time(text: Option<String>) -> Option<Timestamp> {
    let time: Timestamp = text?.parse().ok()?;
    (time.timestamp() > 0).then_some(time)
}

fn state(state: Option<ContainerStateStatusEnum>) -> ContainerState {
    use ContainerStateStatusEnum as S;
    match state {
        Some(S::CREATED) => ContainerState::Created,
        Some(S::RUNNING | S::STOPPING) => ContainerState::Running,
        Some(S::PAUSED) => ContainerState::Paused,
        Some(S::RESTARTING) => ContainerState::Restarting,
        Some(S::EXITED) => ContainerState::Exited,
        Some(S::REMOVING) => ContainerState::Removing,
        Some(S::DEAD | S::EMPTY) | None => ContainerState::Dead,
    }
}

fn exit(state: ApiState) -> Exit {
    let started_at = time(state.started_at);
    Exit {
        code: state.exit_code.unwrap_or_default(),
        oom: state.oom_killed.unwrap_or(false),
        error: state.error.filter(|error| !error.is_empty()),
        started_at,
        // The engine notes the start once it is told of it, which may be after a short one's end.
        finished_at: time(state.finished_at).map(|at| started_at.map_or(at, |started| at.max(started))),
    }
}

pub(super) fn container(seen: ContainerInspectResponse) -> Container {
    let api = seen.state.unwrap_or_default();
    let state = state(api.status);
    let started_at = time(api.started_at.clone());
    let ended = matches!(state, ContainerState::Exited | ContainerState::Dead);
    Container {
        id: ContainerId::new(seen.id.unwrap_or_default()),
        name: seen.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        labels: seen.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect(),
        state,
        started_at,
        exit: (ended && started_at.is_some()).then(|| exit(api)),
    }
}

pub(super) fn summary(seen: ContainerSummary) -> Option<Container> {
    use ContainerSummaryStateEnum as S;
    let state = match seen.state {
        Some(S::CREATED) => ContainerState::Created,
        Some(S::RUNNING | S::STOPPING) => ContainerState::Running,
        Some(S::PAUSED) => ContainerState::Paused,
        Some(S::RESTARTING) => ContainerState::Restarting,
        Some(S::EXITED) => ContainerState::Exited,
        Some(S::REMOVING) => ContainerState::Removing,
        Some(S::DEAD | S::EMPTY) | None => ContainerState::Dead,
    };
    let name = seen.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    Some(Container {
        id: ContainerId::new(seen.id?),
        name: name.trim_start_matches('/').to_owned(),
        labels: seen.labels.unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>(),
        state,
        started_at: None,
        exit: None,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_digest_is_that_of_the_registry_that_was_asked() {
        let hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let digests = [format!("busybox@sha256:{hex}"), format!("ghcr.io/a/b@sha256:{hex}")];
        let of = |name: &str| digest(&digests, &Reference::parse(name).expect("a reference"));
        assert_eq!(of("ghcr.io/a/b:1").as_deref(), Some(&*digests[1]));
        assert_eq!(of("docker.io/library/busybox").as_deref(), Some(&*digests[0]));
    }

    #[test]
    fn a_container_that_never_ran_has_no_exit() {
        let api = ApiState {
            status: Some(ContainerStateStatusEnum::CREATED),
            exit_code: Some(127),
            started_at: Some("0001-01-01T00:00:00Z".into()),
            ..ApiState::default()
        };
        let seen = container(ContainerInspectResponse { state: Some(api), ..Default::default() });
        assert_eq!((seen.state, seen.started_at, seen.exit), (ContainerState::Created, None, None));
    }

    #[rstest]
    #[case("5.4.2", true)]
    #[case("6.0.0-dev", true)]
    #[case("5.3.1", false)]
    #[case("4.9.3", false)]
    #[case("", false)]
    fn podman_is_asked_by_cdi_names_where_it_takes_them(#[case] version: &str, #[case] expected: bool) {
        assert_eq!(has_cdi(version), expected);
    }

    #[test]
    fn where_images_are_is_told_by_the_driver() {
        let in_containerd = |driver: &str| {
            let driver = Some(vec![vec!["driver-type".into(), driver.into()]]);
            let said = SystemInfo { driver_status: driver, ..SystemInfo::default() };
            info(said, &SystemVersion::default(), "1.51".into()).images_in_containerd
        };
        assert!(in_containerd("io.containerd.snapshotter.v1") && !in_containerd("overlay2"));
    }
}
