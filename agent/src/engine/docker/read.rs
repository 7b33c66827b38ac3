//! From the API's records, in which everything is optional, to what haul knows.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bollard::models::{
    ContainerInspectResponse, ContainerState as ApiState, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, ImageInspect, SystemInfo, SystemInfoCgroupDriverEnum,
};
use shared::{
    id::{GpuUuid, Timestamp},
    units::Size,
};

use crate::engine::{Container, ContainerId, ContainerState, EngineError, EngineInfo, Exit, ImageInfo};

pub(super) fn info(info: SystemInfo, api: String) -> EngineInfo {
    let podman =
        info.operating_system.as_deref().is_some_and(|_| {
            info.security_options
                .as_ref()
                .is_some_and(|options| options.iter().any(|option| option == "rootless=false"))
        }) || info.docker_root_dir.as_deref().is_some_and(|root| root.contains("/containers/storage"));
    EngineInfo {
        name: if podman { "Podman" } else { "Docker" },
        version: info.server_version.unwrap_or_default(),
        api,
        root: PathBuf::from(info.docker_root_dir.unwrap_or_default()),
        systemd_cgroups: info.cgroup_driver == Some(SystemInfoCgroupDriverEnum::SYSTEMD),
        live_restore: info.live_restore_enabled.unwrap_or(false),
    }
}

pub(super) fn image(image: ImageInspect) -> ImageInfo {
    let env = image.config.and_then(|config| config.env).unwrap_or_default();
    ImageInfo {
        id: image.id.unwrap_or_default(),
        digest: image.repo_digests.unwrap_or_default().into_iter().next(),
        env: env.iter().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect(),
        size: Size(image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()),
    }
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
    Exit {
        code: state.exit_code.unwrap_or_default(),
        oom: state.oom_killed.unwrap_or(false),
        error: state.error.filter(|error| !error.is_empty()),
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
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

/// Whether a container has the GPUs that were asked for, as far as this host can tell.
pub(super) fn verify(
    seen: &ContainerInspectResponse,
    uuids: &[GpuUuid],
    nodes: &[PathBuf],
) -> Result<(), EngineError> {
    let requests = seen.host_config.as_ref().and_then(|host| host.device_requests.as_ref());
    let recorded: Vec<&String> =
        requests.into_iter().flatten().filter_map(|request| request.device_ids.as_ref()).flatten().collect();
    if let Some(missing) = uuids.iter().find(|uuid| !recorded.iter().any(|id| id.as_str() == uuid.as_str())) {
        return Err(EngineError::GpusMissing {
            detail: format!("the engine ignored the request for {missing}"),
        });
    }
    let pid = seen.state.as_ref().and_then(|state| state.pid).filter(|pid| *pid > 0);
    let Some(pid) = pid else { return Ok(()) };
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    // Only root may look into another's file system; it ended already if it is not there.
    if !root.join("dev/null").exists() {
        tracing::debug!(pid, "cannot look into the container for its device nodes");
        return Ok(());
    }
    let inside = |node: &Path| root.join(node.strip_prefix("/").unwrap_or(node)).exists();
    match nodes.iter().find(|node| !inside(node)) {
        Some(node) => {
            Err(EngineError::GpusMissing { detail: format!("{} is not in the container", node.display()) })
        }
        None => Ok(()),
    }
}
