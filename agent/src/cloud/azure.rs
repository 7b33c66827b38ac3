//! Microsoft Azure's instance metadata and scheduled events ("Azure Instance Metadata Service" and "Scheduled
//! Events for Linux VMs", Azure documentation).

use anyhow::Result;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use serde::Deserialize;
use shared::id::Timestamp;

use super::{Fate, Instance, Notice, Provider, Service, web::Web};

/// How long a machine has after it is told that it is preempted.
const PREEMPTION: TimeDelta = TimeDelta::seconds(30);

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

    async fn notices(&self, now: Timestamp) -> Result<Vec<Notice>> {
        let scheduled: Scheduled = self.0.json("/metadata/scheduledevents?api-version=2020-07-01").await?;
        if scheduled.events.is_empty() {
            return Ok(Vec::new());
        }
        // A scale set's or an availability set's other machines hear of it as well.
        let name = self.compute().await?.name;
        let own = scheduled.events.iter().filter(|event| event.resources.contains(&name));
        Ok(own.filter_map(|event| notice(event, now)).collect())
    }
}

/// What an event means; one that freezes the machine for seconds, nothing.
fn notice(event: &Event, now: Timestamp) -> Option<Notice> {
    let fate = match event.event_type.as_str() {
        "Freeze" => return None,
        "Preempt" | "Terminate" => Fate::Gone,
        _ => Fate::Maintenance,
    };
    // Empty once it has begun, of which whoever is preempted hears half a minute before.
    let begun = if fate == Fate::Gone { now + PREEMPTION } else { now };
    let at = DateTime::parse_from_rfc2822(&event.not_before).map_or(begun, |at| at.to_utc());
    Some(Notice { what: format!("scheduled event {}", event.event_type), fate, at })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Freeze", "", None)]
    #[case("Preempt", "", Some((Fate::Gone, "2026-01-01T00:00:30Z")))]
    #[case("Preempt", "Mon, 19 Jan 2026 18:29:47 GMT", Some((Fate::Gone, "2026-01-19T18:29:47Z")))]
    #[case("Redeploy", "Mon, 19 Jan 2026 18:29:47 GMT", Some((Fate::Maintenance, "2026-01-19T18:29:47Z")))]
    #[case("Reboot", "", Some((Fate::Maintenance, "2026-01-01T00:00:00Z")))]
    fn an_event_has_a_kind_and_a_time(
        #[case] event_type: &str,
        #[case] not_before: &str,
        #[case] expected: Option<(Fate, &str)>,
    ) {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let (event_type, not_before) = (event_type.into(), not_before.into());
        let found = notice(&Event { event_type, resources: Vec::new(), not_before }, now);
        let expected = expected.map(|(fate, at)| (fate, at.parse::<Timestamp>().expect("a time")));
        assert_eq!(found.map(|notice| (notice.fate, notice.at)), expected);
    }
}
