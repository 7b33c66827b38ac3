//! Google Compute Engine's metadata server ("About VM metadata", Compute Engine documentation).

use anyhow::Result;
use async_trait::async_trait;
use serde::Deserialize;
use shared::id::Timestamp;

use super::{Instance, Notice, Provider, Service, web::Web};

/// The service.
pub struct Gcp(Web);

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
        Web::new(url, ("Metadata-Flavor", "Google")).map(Self)
    }
}

/// What is behind the last slash.
fn last(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

#[async_trait]
impl Service for Gcp {
    async fn instance(&self) -> Result<Instance> {
        let vm: Vm = self.0.json("/computeMetadata/v1/instance/?recursive=true").await?;
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

    async fn notice(&self, _now: Timestamp) -> Result<Option<Notice>> {
        let preempted = self.0.text("/computeMetadata/v1/instance/preempted").await?;
        if preempted.is_some_and(|text| text.trim().eq_ignore_ascii_case("true")) {
            return Ok(Some(Notice { what: "preempted".into(), at: None }));
        }
        // Machines with GPUs do not move to another host: they are ended.
        let event = self.0.text("/computeMetadata/v1/instance/maintenance-event").await?;
        let event = event.filter(|text| text.trim() == "TERMINATE_ON_HOST_MAINTENANCE");
        Ok(event.map(|event| Notice { what: format!("maintenance-event {}", event.trim()), at: None }))
    }
}
