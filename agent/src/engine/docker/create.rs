//! A container's making, with the defaults that deep learning wants.

use std::{collections::HashMap, path::Path};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountType,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use shared::{id::GpuUuid, units::Size};

use crate::engine::{Bind, GpuAccess, Plan};

/// What is sent to make it.
pub(super) fn body(plan: &Plan, systemd_cgroups: bool, raises_limits: bool) -> ContainerCreateBody {
    let mut env: Vec<String> = plan.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if let GpuAccess::Simulated(uuids) = &plan.gpus {
        env.push(format!("NVIDIA_VISIBLE_DEVICES={}", joined(uuids)));
    }
    ContainerCreateBody {
        image: Some(plan.image.clone()),
        cmd: plan.command.clone(),
        entrypoint: plan.entrypoint.clone(),
        working_dir: plan.workdir.clone(),
        user: plan.user.clone(),
        env: Some(env),
        labels: Some(plan.labels.clone().into_iter().collect()),
        stop_signal: Some("SIGTERM".into()),
        stop_timeout: Some(i64::try_from(plan.grace.as_secs()).unwrap_or(i64::MAX)),
        host_config: Some(host(plan, systemd_cgroups, raises_limits)),
        ..ContainerCreateBody::default()
    }
}

fn joined(uuids: &[GpuUuid]) -> String {
    uuids.iter().map(GpuUuid::as_str).collect::<Vec<_>>().join(",")
}

fn bytes(size: Size) -> i64 {
    i64::try_from(size.bytes()).unwrap_or(i64::MAX)
}

fn host(plan: &Plan, systemd_cgroups: bool, raises_limits: bool) -> HostConfig {
    let (device_requests, devices) = match &plan.gpus {
        GpuAccess::None | GpuAccess::Simulated(_) => (None, None),
        GpuAccess::Nvidia { uuids, nodes } => {
            (Some(vec![nvidia(uuids)]), Some(nodes.iter().map(|node| device(node)).collect()))
        }
    };
    HostConfig {
        // Under systemd's driver a slice's name, else a path.
        cgroup_parent: Some(if systemd_cgroups { "haul.slice" } else { "/haul" }.into()),
        device_requests,
        devices,
        init: Some(true),
        log_config: Some(log(plan.log_limit)),
        memory: plan.memory.map(bytes),
        // As much with swap as without: a training job that swaps is lost without a word.
        memory_swap: plan.memory.map(bytes),
        mounts: Some(plan.binds.iter().map(mount).collect()),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a share is far below 2^63 billionths of a core"
        )]
        nano_cpus: plan.cpus.map(|cpus| (cpus * 1e9) as i64),
        privileged: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        security_opt: Some(vec!["no-new-privileges".into()]),
        shm_size: Some(bytes(plan.shm)),
        // Pinned host memory and RDMA buffers count as locked memory.
        ulimits: raises_limits.then(|| vec![ulimit("memlock", -1), ulimit("stack", 64 << 20)]),
        ..HostConfig::default()
    }
}

fn ulimit(name: &str, limit: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.into()), soft: Some(limit), hard: Some(limit) }
}

/// A bounded file, so that a job that prints for weeks does not fill the host's disk. The agent
/// reads it as it grows; only a job that outruns a dead agent by the whole limit loses its oldest
/// lines.
fn log(limit: Size) -> HostConfigLogConfig {
    let config = HashMap::from([
        ("max-size".to_owned(), format!("{}", (limit.bytes() / 2).max(1))),
        ("max-file".to_owned(), "2".to_owned()),
    ]);
    HostConfigLogConfig { typ: Some("json-file".into()), config: Some(config) }
}

fn mount(bind: &Bind) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(bind.source.display().to_string()),
        target: Some(bind.target.clone()),
        read_only: Some(bind.read_only),
        ..Mount::default()
    }
}

fn nvidia(uuids: &[GpuUuid]) -> DeviceRequest {
    DeviceRequest {
        driver: Some("nvidia".into()),
        device_ids: Some(uuids.iter().map(ToString::to_string).collect()),
        capabilities: Some(vec![vec!["gpu".into(), "compute".into(), "utility".into()]]),
        ..DeviceRequest::default()
    }
}

fn device(node: &Path) -> DeviceMapping {
    let path = Some(node.display().to_string());
    DeviceMapping {
        path_on_host: path.clone(),
        path_in_container: path,
        cgroup_permissions: Some("rwm".into()),
    }
}
