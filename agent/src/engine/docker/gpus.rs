//! Whether a container's GPUs have arrived.
//!
//! An engine that passes over a device request, as podman does with those of a driver that it does not know, starts the
//! container without a GPU, where a training job would run on the CPU for days. So what Docker recorded is compared with
//! what was asked for, and the device nodes are looked for in the container.

use std::{
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use bollard::models::ContainerInspectResponse;

use shared::id::GpuUuid;

use super::create::CDI_GPU;
use crate::engine::{EngineError, GpuAccess};

/// Nodes that computing does without, and that a CDI specification may be too old to name.
const SPARE: [&str; 2] = ["nvidia-modeset", "nvidia-uvm-tools"];

/// Whether it has what was asked for, as far as this host can tell, and where the engine `records` device requests also
/// whether it took them. podman does not record CDI names, and does not start what asks for one that it does not know.
pub(super) async fn verify(
    seen: &ContainerInspectResponse,
    gpus: &GpuAccess,
    records: bool,
) -> Result<(), EngineError> {
    match gpus {
        GpuAccess::None | GpuAccess::Simulated(_) => Ok(()),
        GpuAccess::Nvidia { uuids, nodes } => {
            let asked = uuids.iter().map(GpuUuid::as_str);
            if records && let Some(missing) = unrecorded(seen, asked) {
                let detail = format!("the engine ignored the request for {missing}");
                return Err(EngineError::GpusMissing { detail });
            }
            let pid = seen.state.as_ref().and_then(|state| state.pid).filter(|pid| *pid > 0);
            match pid {
                Some(pid) => {
                    let needed = nodes.iter().filter(|node| !SPARE.iter().any(|spare| node.ends_with(spare)));
                    arrived(PathBuf::from(format!("/proc/{pid}/root")), needed).await
                }
                // It has ended already, and what it had is gone with it.
                None => Ok(()),
            }
        }
    }
}

/// The first of these that no device request of the container names.
fn unrecorded<'a>(
    seen: &ContainerInspectResponse,
    mut asked: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let requests = seen.host_config.as_ref().and_then(|host| host.device_requests.as_ref());
    let recorded: Vec<&str> = requests
        .into_iter()
        .flatten()
        .filter_map(|request| request.device_ids.as_ref())
        .flatten()
        .map(|id| id.strip_prefix(CDI_GPU).unwrap_or(id))
        .collect();
    asked.find(|id| !recorded.contains(id))
}

/// Whether these device nodes are below this root.
async fn arrived(root: PathBuf, nodes: impl Iterator<Item = &PathBuf>) -> Result<(), EngineError> {
    for node in nodes {
        let inside = root.join(node.strip_prefix("/").unwrap_or(node));
        match tokio::fs::symlink_metadata(&inside).await {
            Ok(found) if found.file_type().is_char_device() => {}
            Ok(_) => return Err(missing(node, "is no device in the container")),
            // Only root may look into another's file system, and a process that ended has none.
            Err(e) if !is_there(&root, &e).await => {
                tracing::debug!(root = %root.display(), "cannot look for device nodes in the container");
                return Ok(());
            }
            Err(_) => return Err(missing(node, "is not in the container")),
        }
    }
    Ok(())
}

/// Whether the root can be looked into, so that what is not found below it is really missing.
async fn is_there(root: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && tokio::fs::symlink_metadata(root.join("dev")).await.is_ok()
}

fn missing(node: &Path, why: &str) -> EngineError {
    EngineError::GpusMissing { detail: format!("{} {why}", node.display()) }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, DeviceRequest, HostConfig};

    use super::*;

    /// What is recorded of a container with this process and this GPU.
    fn seen(pid: i64, gpu: &str) -> ContainerInspectResponse {
        let request = DeviceRequest { device_ids: Some(vec![gpu.into()]), ..DeviceRequest::default() };
        ContainerInspectResponse {
            state: Some(ContainerState { pid: Some(pid), ..ContainerState::default() }),
            host_config: Some(HostConfig { device_requests: Some(vec![request]), ..HostConfig::default() }),
            ..ContainerInspectResponse::default()
        }
    }

    fn nvidia(nodes: &[&str]) -> GpuAccess {
        let uuid = GpuUuid::new("GPU-1").expect("valid");
        GpuAccess::Nvidia { uuids: vec![uuid], nodes: nodes.iter().map(PathBuf::from).collect() }
    }

    fn own_pid() -> i64 {
        i64::from(std::process::id())
    }

    async fn refused(seen: &ContainerInspectResponse, gpus: &GpuAccess) -> String {
        match verify(seen, gpus, true).await.expect_err("the GPUs are not there") {
            EngineError::GpusMissing { detail } => detail,
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn a_request_that_the_engine_passed_over_is_noticed() {
        let detail = refused(&seen(own_pid(), "GPU-2"), &nvidia(&[])).await;
        assert_eq!(detail, "the engine ignored the request for GPU-1");
        let nothing = ContainerInspectResponse::default();
        assert_eq!(refused(&nothing, &nvidia(&[])).await, "the engine ignored the request for GPU-1");
    }

    #[tokio::test]
    async fn device_nodes_are_looked_for_in_the_container() {
        let seen = seen(own_pid(), "GPU-1");
        verify(&seen, &nvidia(&["/dev/null", "/dev/zero"]), true).await.expect("both are there");
        let detail = refused(&seen, &nvidia(&["/dev/null", "/dev/nvidia-no-such"])).await;
        assert_eq!(detail, "/dev/nvidia-no-such is not in the container");
        assert_eq!(
            refused(&seen, &nvidia(&["/etc/passwd"])).await,
            "/etc/passwd is no device in the container"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_looked_into_is_not_called_missing() {
        // A process that ended, and one whose pid was unknown.
        for pid in [i64::from(i32::MAX), 0] {
            verify(&seen(pid, "GPU-1"), &nvidia(&["/dev/nvidia0"]), true).await.expect("nobody can tell");
        }
    }
}
