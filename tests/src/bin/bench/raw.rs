//! The engine by its own API, doing for a job what haul has it do and nothing else.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result};
use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType},
    query_parameters::{CreateContainerOptions, RemoveContainerOptions, WaitContainerOptions},
};
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use tests::{World, world::BUSYBOX};

/// An engine and a directory to mount.
pub struct Raw {
    engine: Docker,
    mounts: [String; 2],
    fleet: String,
}

impl Raw {
    /// The machine's own engine.
    pub async fn connect(world: &World) -> Result<Self> {
        let engine = Docker::connect_with_local_defaults()?.negotiate_version().await?;
        let mounts = ["output", "checkpoint"].map(|name| world.path(name).display().to_string());
        for dir in &mounts {
            std::fs::create_dir_all(dir)?;
        }
        Ok(Self { engine, mounts, fleet: world.fleet() })
    }

    /// The same container that haul makes for such a job; `limits` are left to the engine, as haul
    /// leaves them where the engine may not raise them.
    fn body(&self, command: &[&str]) -> ContainerCreateBody {
        let mount = |source: &String, target: &str| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.clone()),
            target: Some(target.into()),
            ..Mount::default()
        };
        let [output, checkpoint] = &self.mounts;
        let log = HashMap::from([("max-size".into(), "512m".into()), ("max-file".into(), "2".into())]);
        ContainerCreateBody {
            image: Some(BUSYBOX.into()),
            cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            labels: Some(HashMap::from([("haul.fleet".to_owned(), self.fleet.clone())])),
            host_config: Some(HostConfig {
                init: Some(true),
                cgroup_parent: Some("/haul".into()),
                mounts: Some(vec![mount(output, "/haul/output"), mount(checkpoint, "/haul/checkpoint")]),
                log_config: Some(HostConfigLogConfig { typ: Some("json-file".into()), config: Some(log) }),
                security_opt: Some(vec!["no-new-privileges".into()]),
                shm_size: Some(8 << 30),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// Seconds from before its creation to its start.
    pub async fn start_one(&self) -> Result<f64> {
        let began = tests::wall_clock();
        let id = self.create(&["true"]).await?;
        self.engine.start_container(&id, None).await?;
        let seen = self.engine.inspect_container(&id, None).await?;
        let started = seen.state.and_then(|state| state.started_at).context("it was not started")?;
        let started: DateTime<Utc> = started.parse()?;
        self.end(&id).await?;
        Ok((started - began).as_seconds_f64())
    }

    async fn create(&self, command: &[&str]) -> Result<String> {
        let made = self.engine.create_container(None::<CreateContainerOptions>, self.body(command)).await?;
        Ok(made.id)
    }

    /// Waits for it and removes it.
    async fn end(&self, id: &str) -> Result<()> {
        let options = WaitContainerOptions { condition: "not-running".into() };
        self.engine.wait_container(id, Some(options)).next().await;
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        Ok(self.engine.remove_container(id, Some(options)).await?)
    }

    /// Jobs a second, so many at once.
    pub async fn rate(&self, jobs: usize, at_once: usize) -> Result<f64> {
        let began = tests::now();
        let mut runs = stream::iter(0..jobs)
            .map(|_| async {
                let id = self.create(&["true"]).await?;
                self.engine.start_container(&id, None).await?;
                self.end(&id).await
            })
            .buffer_unordered(at_once);
        while let Some(run) = runs.next().await {
            run?;
        }
        let took: Duration = began.elapsed();
        Ok(jobs as f64 / took.as_secs_f64())
    }
}
