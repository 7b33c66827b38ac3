//! Google Compute Engine's metadata server ("About VM metadata", Compute Engine documentation).

use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::Result;
use async_trait::async_trait;
use chrono::TimeDelta;
use serde::Deserialize;
use shared::id::Timestamp;

use super::{Fate, Instance, Notice, Provider, Service, web::Web};

/// How long a machine has after it is told that it is preempted.
const PREEMPTION: TimeDelta = TimeDelta::seconds(30);

/// How long one with GPUs has after it is told of maintenance.
const MAINTENANCE: TimeDelta = TimeDelta::hours(1);

/// The service.
pub struct Gcp {
    web: Web,
    /// When maintenance was first told of, in seconds since 1970; 0 while it is not.
    since: AtomicI64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vm {
    id: serde_json::Number,
    name: String,
    /// `projects/NUMBER/zones/ZONE`
    zone: String,
    /// `projects/NUMBER/machineTypes/TYPE`
    machine_type: String,
    scheduling: Scheduling,
}

#[derive(Deserialize)]
struct Scheduling {
    preemptible: String,
}

impl Gcp {
    pub fn new(url: Option<&str>) -> Result<Self> {
        let url = url.unwrap_or("http://metadata.google.internal");
        Web::new(url, ("Metadata-Flavor", "Google")).map(|web| Self { web, since: AtomicI64::new(0) })
    }
}

/// What is behind the last slash.
fn last(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

#[async_trait]
impl Service for Gcp {
    async fn instance(&self) -> Result<Instance> {
        let vm: Vm = self.web.json("/computeMetadata/v1/instance/?recursive=true").await?;
        let zone = last(&vm.zone);
        Ok(Instance {
            provider: Provider::Gcp,
            id: vm.id.to_string(),
            name: Some(vm.name),
            region: zone.rsplit_once('-').map_or_else(|| zone.clone(), |(region, _)| region.to_owned()),
            zone: Some(zone),
            machine_type: last(&vm.machine_type),
            spot: vm.scheduling.preemptible.eq_ignore_ascii_case("true"),
        })
    }

    async fn notices(&self, now: Timestamp) -> Result<Vec<Notice>> {
        let preempted = self.web.text("/computeMetadata/v1/instance/preempted").await?;
        if preempted.is_some_and(|text| text.trim().eq_ignore_ascii_case("true")) {
            return Ok(vec![Notice { what: "preempted".into(), fate: Fate::Gone, at: now + PREEMPTION }]);
        }
        // Machines with GPUs do not move to another host: they are ended, and started again there.
        let event = self.web.text("/computeMetadata/v1/instance/maintenance-event").await?;
        if event.is_none_or(|text| text.trim() != "TERMINATE_ON_HOST_MAINTENANCE") {
            self.since.store(0, Ordering::Relaxed);
            return Ok(Vec::new());
        }
        // It does not say when: an hour after it was first told.
        let known = self.since.compare_exchange(0, now.timestamp(), Ordering::Relaxed, Ordering::Relaxed);
        let since = known.err().and_then(|first| Timestamp::from_timestamp(first, 0)).unwrap_or(now);
        let what = "host maintenance".to_owned();
        Ok(vec![Notice { what, fate: Fate::Maintenance, at: since + MAINTENANCE }])
    }
}
