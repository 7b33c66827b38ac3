//! Amazon EC2's instance metadata, by version 2 of its service: a session's token for each request ("Use the
//! Instance Metadata Service", Amazon EC2 User Guide).

use anyhow::{Context, Result};
use async_trait::async_trait;
use aws_config::imds::client::{Client, error::ImdsError};
use chrono::{DateTime, TimeDelta};
use serde::Deserialize;
use shared::id::Timestamp;

use super::{Fate, Instance, Notice, Provider, Service};
use crate::patience::Chain;

/// A lifecycle hook holds the machine up for an hour if nobody says otherwise; jobs have what they want of it.
const HOOK: TimeDelta = TimeDelta::hours(1);

/// The service.
pub struct Aws(Client);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    instance_id: String,
    instance_type: String,
    region: String,
    availability_zone: String,
}

#[derive(Deserialize)]
struct Action {
    action: String,
    time: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    code: String,
    state: String,
    not_before: String,
}

impl Aws {
    pub fn new(url: Option<&str>) -> Result<Self> {
        let builder = Client::builder();
        let builder = match url {
            Some(url) => builder.endpoint(url).map_err(|error| anyhow::anyhow!("{url}: {error}"))?,
            None => builder,
        };
        Ok(Self(builder.build()))
    }

    /// What is there; none where nothing is.
    async fn get(&self, path: &str) -> Result<Option<String>> {
        match self.0.get(path).await {
            Ok(text) => Ok(Some(text.into())),
            Err(ImdsError::ErrorResponse(error)) if error.response().status().as_u16() == 404 => Ok(None),
            Err(error) => Err(anyhow::anyhow!("{path}: {}", Chain(&error))),
        }
    }
}

#[async_trait]
impl Service for Aws {
    async fn instance(&self) -> Result<Instance> {
        let document = self.get("/latest/dynamic/instance-identity/document").await?;
        let document: Document = serde_json::from_str(&document.context("there is no identity document")?)
            .context("the identity document is not understood")?;
        let life_cycle = self.get("/latest/meta-data/instance-life-cycle").await?;
        Ok(Instance {
            provider: Provider::Aws,
            id: document.instance_id,
            name: None,
            region: document.region,
            zone: Some(document.availability_zone),
            machine_type: document.instance_type,
            spot: life_cycle.as_deref() == Some("spot"),
        })
    }

    async fn notices(&self, now: Timestamp) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        if let Some(text) = self.get("/latest/meta-data/spot/instance-action").await? {
            let Action { action, time } = serde_json::from_str(&text)?;
            notices.push(Notice { what: format!("spot {action}"), fate: Fate::Gone, at: time });
        }
        // An Auto Scaling group that scales in, which a lifecycle hook holds up.
        let state = self.get("/latest/meta-data/autoscaling/target-lifecycle-state").await?;
        if state.as_deref() == Some("Terminated") {
            let at = now + HOOK;
            notices.push(Notice { what: "Auto Scaling: Terminated".into(), fate: Fate::Gone, at });
        }
        let events = self.get("/latest/meta-data/events/maintenance/scheduled").await?;
        let events: Vec<Event> = events.map_or(Ok(Vec::new()), |text| serde_json::from_str(&text))?;
        notices.extend(events.iter().filter_map(maintenance));
        Ok(notices)
    }
}

/// A scheduled event that has not happened. Of one that stops the machine it comes back as well, on other hardware,
/// when somebody starts it again.
fn maintenance(event: &Event) -> Option<Notice> {
    let at = DateTime::parse_from_rfc2822(&event.not_before).ok()?.to_utc();
    let what = format!("scheduled event {}", event.code);
    (event.state == "active").then_some(Notice { what, fate: Fate::Maintenance, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_over_is_none() {
        let event = |state: &str| Event {
            code: "system-reboot".into(),
            state: state.into(),
            not_before: "21 Jan 2026 09:00:43 GMT".into(),
        };
        let notice = maintenance(&event("active")).expect("it is to come");
        assert_eq!(notice.to_string(), "scheduled event system-reboot at 2026-01-21T09:00:43Z");
        assert_eq!(maintenance(&event("completed")), None);
    }
}
