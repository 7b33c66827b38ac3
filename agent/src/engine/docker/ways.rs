//! How a container is asked for: engines differ, and some tell only by refusing.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::{DOCKER, EngineError, EngineInfo};

/// How this engine is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways {
    /// systemd manages its control groups.
    pub systemd_cgroups: bool,
    /// It may raise limits; an engine inside a container often may not.
    pub raises_limits: bool,
    /// It is asked for GPUs by their names in the Container Device Interface: podman from 5.4 on, and a Docker that has
    /// no hook of NVIDIA's. One with the hook is asked by UUID, since a CDI specification may be older than the driver.
    pub cdi: bool,
}

/// What the engine has refused so far, and is not asked for again.
#[derive(Debug, Default)]
pub(super) struct Refused {
    limits: AtomicBool,
    /// GPUs through NVIDIA's hook, which Docker looks for when it starts.
    hook: AtomicBool,
}

impl Refused {
    pub(super) fn ways(&self, engine: &EngineInfo) -> Ways {
        let has_hook = engine.name == DOCKER && !self.hook.load(Ordering::Relaxed);
        Ways {
            systemd_cgroups: engine.systemd_cgroups,
            raises_limits: !self.limits.load(Ordering::Relaxed),
            cdi: engine.cdi && !has_hook,
        }
    }

    /// Notes what a start was refused for; what the engine can be asked for in another way is told apart.
    pub(super) fn learn(&self, engine: &EngineInfo, error: EngineError) -> EngineError {
        match error {
            EngineError::AskedTooMuch { detail } => {
                if !self.limits.swap(true, Ordering::Relaxed) {
                    tracing::info!(detail, "containers get the engine's own memlock and stack limits");
                }
                EngineError::AskedTooMuch { detail }
            }
            EngineError::GpusMissing { detail }
                if engine.cdi && detail.contains("could not select device driver \"nvidia\"") =>
            {
                if !self.hook.swap(true, Ordering::Relaxed) {
                    tracing::info!(detail, "containers get GPUs by their CDI names");
                }
                EngineError::AskedTooMuch { detail }
            }
            // By its name neither: whoever mends the host may do so by installing the hook.
            EngineError::GpusMissing { detail } => {
                self.hook.store(false, Ordering::Relaxed);
                EngineError::GpusMissing { detail }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::PODMAN;

    fn engine(name: &'static str, cdi: bool) -> EngineInfo {
        EngineInfo {
            name,
            version: "1".into(),
            api: "1".into(),
            root: "/".into(),
            images_in_containerd: false,
            systemd_cgroups: true,
            cdi,
            live_restore: false,
        }
    }

    #[test]
    fn docker_is_asked_by_cdi_name_once_it_has_no_hook() {
        let no_hook = || EngineError::GpusMissing {
            detail: "could not select device driver \"nvidia\" with capabilities: [[gpu]]".into(),
        };
        let refused = Refused::default();
        let without = engine(DOCKER, false);
        assert!(matches!(refused.learn(&without, no_hook()), EngineError::GpusMissing { .. }));
        let docker = engine(DOCKER, true);
        assert!(!refused.ways(&docker).cdi);
        let unknown =
            EngineError::GpusMissing { detail: "unresolvable CDI devices nvidia.com/gpu=GPU-1".into() };
        assert!(matches!(refused.learn(&docker, no_hook()), EngineError::AskedTooMuch { .. }));
        assert!(refused.ways(&docker).cdi && refused.ways(&docker).raises_limits);
        assert!(matches!(refused.learn(&docker, unknown), EngineError::GpusMissing { .. }));
        assert!(!refused.ways(&docker).cdi, "a hook that was installed since is found");
        assert!(Refused::default().ways(&engine(PODMAN, true)).cdi);
    }
}
