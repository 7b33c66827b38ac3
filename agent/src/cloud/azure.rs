//! Microsoft Azure's instance metadata and scheduled events ("Azure Instance Metadata Service" and "Scheduled
//! Events for Linux VMs", Azure documentation).

use anyhow::Result;
use async_trait::async_trait;
use serde::Deserialize;
use shared::id::Timestamp;

use super::{Instance, Notice, Provider, Service, web::Web};

/// The service.
pub struct Azure(Web);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Compute {
    vm_id: String,
    name: String,
    location: String,
    zone: String,
    vm_size: String,
    #[serde(default)]
    priority: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scheduled {
    events: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    event_type: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    not_before: String,
}

impl Azure {
    pub fn new(url: Option<&str>) -> Result<Self> {
        Web::new(url.unwrap_or("http://169.254.169.254"), ("Metadata", "true")).map(Self)
    }

    async fn compute(&self) -> Result<Compute> {
        self.0.json("/metadata/instance/compute?api-version=2021-02-01").await
    }
}

#[async_trait]
impl Service for Azure {
    async fn instance(&self) -> Result<Instance> {
        let compute = self.compute().await?;
        Ok(Instance {
            provider: Provider::Azure,
            id: compute.vm_id,
            name: Some(compute.name),
            // Zones are numbers, of each region its own.
            zone: Some(compute.zone)
                .filter(|zone| !zone.is_empty())
                .map(|zone| format!("{}-{zone}", compute.location)),
            region: compute.location,
            machine_type: compute.vm_size,
            spot: matches!(compute.priority.as_str(), "Spot" | "Low"),
        })
    }

    async fn notice(&self, _now: Timestamp) -> Result<Option<Notice>> {
        let scheduled: Scheduled = self.0.json("/metadata/scheduledevents?api-version=2020-07-01").await?;
        if !scheduled.events.iter().any(ends) {
            return Ok(None);
        }
        // A scale set's or an availability set's other machines hear of it as well.
        let name = self.compute().await?.name;
        let own = scheduled.events.into_iter().find(|event| ends(event) && event.resources.contains(&name));
        Ok(own.map(|event| Notice {
            what: format!("scheduled event {}", event.event_type),
            at: Some(event.not_before).filter(|at| !at.is_empty()),
        }))
    }
}

/// Whether containers do not outlive it; a freeze of some seconds they do.
fn ends(event: &Event) -> bool {
    event.event_type != "Freeze"
}
