//! A container's making, with the defaults that deep learning wants.

use std::{collections::HashMap, path::Path};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountType,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use shared::{id::GpuUuid, units::Size};

use super::ways::Ways;
use crate::engine::{Bind, GpuAccess, Plan};

/// Before a GPU's UUID in its name in the Container Device Interface, as `nvidia-ctk cdi generate` gives it
/// (NVIDIA Container Toolkit, "Support for Container Device Interface").
pub(super) const CDI_GPU: &str = "nvidia.com/gpu=";

/// What is sent to make it.
pub(super) fn body(plan: &Plan, ways: Ways) -> ContainerCreateBody {
    let env = environment(plan, ways);
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
        host_config: Some(host(plan, ways)),
        ..ContainerCreateBody::default()
    }
}

/// Its variables, and what decides over GPUs wherever NVIDIA's runtime is the engine's default:
/// there an image that says `NVIDIA_VISIBLE_DEVICES=all`, as all of NVIDIA's do, or a job that
/// says so, would get every GPU of the host. `void` means none (NVIDIA Container Toolkit,
/// "Environment variables"). With a device request the engine sets the variable itself.
fn environment(plan: &Plan, ways: Ways) -> Vec<String> {
    const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";
    let own = plan.env.iter().filter(|(name, _)| name != VISIBLE);
    let visible = match &plan.gpus {
        GpuAccess::None => Some("void".to_owned()),
        GpuAccess::Simulated(uuids) => Some(joined(uuids)),
        GpuAccess::Nvidia { .. } => ways.cdi.then(|| "void".to_owned()),
    };
    own.map(|(name, value)| format!("{name}={value}"))
        .chain(visible.map(|visible| format!("{VISIBLE}={visible}")))
        .collect()
}

fn joined(uuids: &[GpuUuid]) -> String {
    uuids.iter().map(GpuUuid::as_str).collect::<Vec<_>>().join(",")
}

fn bytes(size: Size) -> i64 {
    i64::try_from(size.bytes()).unwrap_or(i64::MAX)
}

fn host(plan: &Plan, Ways { systemd_cgroups, raises_limits, cdi }: Ways) -> HostConfig {
    let (device_requests, devices) = match &plan.gpus {
        GpuAccess::None | GpuAccess::Simulated(_) => (None, None),
        GpuAccess::Nvidia { uuids, .. } if cdi => (Some(vec![by_cdi(uuids)]), None),
        // The nodes are passed explicitly as well: under systemd's cgroup driver a `daemon-reload` otherwise takes from
        // a running container what only NVIDIA's hook had given it (NVIDIA Container Toolkit, "Containers losing
        // access to GPUs").
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
        // The engine's own hard limit stays where it may not raise it. The soft stack limit of some
        // hosts is too small for compilers of kernels. Pinned host memory and RDMA buffers count as locked memory.
        ulimits: raises_limits.then(|| vec![ulimit("memlock", -1), ulimit("stack", 64 << 20)]),
        ..HostConfig::default()
    }
}

fn ulimit(name: &str, limit: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.into()), soft: Some(limit), hard: Some(limit) }
}

/// Two bounded files, so that a job that prints for weeks does not fill the host's disk. Reading
/// goes on across the turn from one to the other; only a job that outruns its reader by what they
/// hold loses its oldest lines. The engine never holds up the job for that.
fn log(limit: Size) -> HostConfigLogConfig {
    let config = HashMap::from([
        ("max-size".to_owned(), format!("{}", (limit.bytes() / 2).max(1))),
        ("max-file".to_owned(), "2".to_owned()),
    ]);
    HostConfigLogConfig { typ: Some("json-file".into()), config: Some(config) }
}

/// A mount object, not the older `source:target` text: with this one a source that is not there is
/// an error, where the other makes an empty directory of root's and the job trains on nothing.
/// The engine's own `rprivate` stays. `rslave` would show mounts that the host makes below the
/// source later, but the start fails wherever the source's file system is not shared, and a source
/// that is itself mounted anew would stay unseen all the same.
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

fn by_cdi(uuids: &[GpuUuid]) -> DeviceRequest {
    let names = uuids.iter().map(|uuid| format!("{CDI_GPU}{uuid}")).collect();
    DeviceRequest { driver: Some("cdi".into()), device_ids: Some(names), ..DeviceRequest::default() }
}

fn device(node: &Path) -> DeviceMapping {
    let path = Some(node.display().to_string());
    DeviceMapping {
        path_on_host: path.clone(),
        path_in_container: path,
        cgroup_permissions: Some("rwm".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf, time::Duration};

    use super::*;

    fn plan(gpus: GpuAccess) -> Plan {
        Plan {
            name: "p".into(),
            image: "busybox".into(),
            command: Some(vec!["true".into()]),
            entrypoint: None,
            workdir: None,
            user: None,
            env: vec![("A".into(), "1".into()), ("NVIDIA_VISIBLE_DEVICES".into(), "all".into())],
            labels: BTreeMap::new(),
            binds: vec![Bind { source: "/data".into(), target: "/in".into(), read_only: true }],
            gpus,
            cpus: Some(1.5),
            memory: Some(Size::GIB),
            shm: Size::MIB,
            grace: Duration::from_secs(30),
            log_limit: Size(10 << 20),
        }
    }

    const HOOK: Ways = Ways { systemd_cgroups: false, raises_limits: true, cdi: false };
    const CDI: Ways = Ways { cdi: true, ..HOOK };

    fn env(gpus: GpuAccess, ways: Ways) -> Vec<String> {
        body(&plan(gpus), ways).env.unwrap_or_default()
    }

    fn uuid() -> GpuUuid {
        GpuUuid::new("GPU-5ecf1a1e-0000-0000-0000-000000000001").expect("valid")
    }

    #[test]
    fn a_job_without_gpus_gets_none_whatever_it_or_its_image_says() {
        assert_eq!(env(GpuAccess::None, HOOK), ["A=1", "NVIDIA_VISIBLE_DEVICES=void"]);
        let simulated = format!("NVIDIA_VISIBLE_DEVICES={}", uuid());
        assert_eq!(env(GpuAccess::Simulated(vec![uuid()]), CDI), ["A=1", &simulated]);
        let real = GpuAccess::Nvidia { uuids: vec![uuid()], nodes: Vec::new() };
        assert_eq!(env(real.clone(), HOOK), ["A=1"]);
        assert_eq!(env(real, CDI), ["A=1", "NVIDIA_VISIBLE_DEVICES=void"]);
    }

    #[test]
    fn gpus_are_asked_for_by_uuid_or_by_cdi_name() {
        let nodes = vec![PathBuf::from("/dev/nvidia0")];
        let plan = plan(GpuAccess::Nvidia { uuids: vec![uuid()], nodes });
        let host = host(&plan, HOOK);
        let request = &host.device_requests.expect("one")[0];
        assert_eq!(request.driver.as_deref(), Some("nvidia"));
        assert_eq!(request.device_ids, Some(vec![uuid().to_string()]));
        assert_eq!(host.devices.expect("one")[0].path_on_host.as_deref(), Some("/dev/nvidia0"));

        let host = super::host(&plan, CDI);
        let request = &host.device_requests.expect("one")[0];
        assert_eq!((request.driver.as_deref(), &request.capabilities), (Some("cdi"), &None));
        assert_eq!(request.device_ids, Some(vec![format!("nvidia.com/gpu={}", uuid())]));
        assert_eq!(host.devices, None);
    }

    #[test]
    fn the_defaults_are_bounded_and_unprivileged() {
        let host =
            host(&plan(GpuAccess::None), Ways { systemd_cgroups: true, raises_limits: false, cdi: false });
        assert_eq!((host.privileged, host.init), (Some(false), Some(true)));
        assert_eq!((host.memory, host.memory_swap), (Some(1 << 30), Some(1 << 30)));
        assert_eq!((host.nano_cpus, host.ulimits), (Some(1_500_000_000), None));
        assert_eq!(host.cgroup_parent.as_deref(), Some("haul.slice"));
        let log = host.log_config.and_then(|log| log.config).expect("bounded");
        assert_eq!((&*log["max-size"], &*log["max-file"]), ("5242880", "2"));
        assert_eq!(host.mounts.expect("one")[0].read_only, Some(true));
    }
}
