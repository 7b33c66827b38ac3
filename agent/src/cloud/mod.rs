//! What a cloud says of the machine that it rents out: who and where it is, and that it is about to go.
//!
//! Each cloud has a metadata service, which only the machine itself reaches. Which cloud it is, the firmware
//! says, so that no other machine waits for an answer that never comes.

mod aws;
mod azure;
mod firmware;
mod gcp;
mod web;

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Context, Result};
use async_trait::async_trait;
use chrono::{SecondsFormat, TimeDelta};
use serde::{Deserialize, Serialize};
use shared::id::{NodeId, Timestamp};

use crate::{node::Node, notify};

/// Which cloud's metadata is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// That of the cloud whose machine this is by its firmware.
    #[default]
    Auto,
    /// None.
    None,
    /// Amazon EC2's.
    Aws,
    /// Google Compute Engine's.
    Gcp,
    /// Microsoft Azure's.
    Azure,
}

/// A cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Amazon EC2.
    Aws,
    /// Google Compute Engine.
    Gcp,
    /// Microsoft Azure.
    Azure,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Azure => "azure",
        })
    }
}

/// A machine, as its cloud knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Whose it is.
    pub provider: Provider,
    /// The cloud's id of it; no other machine ever has the same.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// Such as `eu-central-1`.
    pub region: String,
    /// Such as `eu-central-1a`.
    pub zone: Option<String>,
    /// Such as `p5.48xlarge`.
    pub machine_type: String,
    /// The cloud may take it back at any time.
    pub spot: bool,
}

impl Instance {
    /// The node's name: of the cloud's id, which a machine made of the same image does not share.
    pub fn node(&self) -> Option<NodeId> {
        // A UUID's first part will do beside a name.
        let id = self.id.split('-').next().filter(|part| part.len() == 8).unwrap_or(&self.id);
        let name = match &self.name {
            Some(name) => format!("{}-{id}", name.chars().take(42).collect::<String>()),
            None => self.id.clone(),
        };
        NodeId::new(name).ok()
    }

    /// What jobs may require of it, and prices and pools may name.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = [
            ("provider", Some(self.provider.to_string())),
            ("region", Some(self.region.clone())),
            ("zone", self.zone.clone()),
            ("machine_type", Some(self.machine_type.clone())),
            ("spot", Some(self.spot.to_string())),
        ];
        labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// What becomes of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is taken away, or ended.
    Gone,
    /// It is started anew, or moved to other hardware, and comes back.
    Maintenance,
}

/// Something is about to become of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What the cloud calls it.
    pub what: String,
    /// What becomes of it.
    pub fate: Fate,
    /// When.
    pub at: Timestamp,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.what, self.at.to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

/// Before maintenance, jobs are handed back so long ahead: it may be told of days ahead.
const AHEAD: TimeDelta = TimeDelta::minutes(10);

impl Notice {
    /// Whether it is to be acted on at this time, on a machine that was started at that time: what should have
    /// happened before has, or was put off.
    fn is_due(&self, now: Timestamp, booted: Option<Timestamp>) -> bool {
        let ahead = match self.fate {
            Fate::Gone => return true,
            Fate::Maintenance => AHEAD,
        };
        self.at - ahead <= now && booted.is_none_or(|booted| booted <= self.at)
    }
}

/// A cloud's metadata service.
#[async_trait]
trait Service: Send + Sync {
    /// The machine.
    async fn instance(&self) -> Result<Instance>;

    /// All that is about to become of it.
    async fn notices(&self, now: Timestamp) -> Result<Vec<Notice>>;
}

/// The cloud that this machine is in.
pub struct Cloud {
    service: Box<dyn Service>,
    /// This machine.
    pub instance: Instance,
}

/// How often it is asked whether the machine is about to go. What is announced half a minute ahead is heard of
/// in time.
const LOOK: Duration = Duration::from_secs(2);

/// How often a service that does not answer is asked.
const TRIES: u32 = 10;

impl Cloud {
    /// The cloud that is meant; none where this machine is in none of those that are known.
    ///
    /// # Errors
    /// When its service does not answer.
    pub async fn find(choice: Choice) -> Result<Option<Self>> {
        let provider = match choice {
            Choice::None => None,
            Choice::Auto => firmware::provider(firmware::DMI.as_ref()),
            Choice::Aws => Some(Provider::Aws),
            Choice::Gcp => Some(Provider::Gcp),
            Choice::Azure => Some(Provider::Azure),
        };
        let Some(provider) = provider else { return Ok(None) };
        // Where the service is reached by another way than the cloud's own.
        let url = std::env::var("HAUL_METADATA_URL").ok().filter(|url| !url.is_empty());
        let service = service(provider, url.as_deref())?;
        let instance = service.instance().await.with_context(|| {
            format!(
                "the metadata service of {provider}, whose machine this is, does not answer; allow it, or set \
                 cloud = \"none\" and name the node"
            )
        })?;
        Ok(Some(Self { service, instance }))
    }

    /// The same, with patience: a machine that has just booted may be ahead of its network.
    ///
    /// # Errors
    /// When the service has not answered for long.
    pub async fn wait(choice: Choice) -> Result<Option<Self>> {
        for _ in 1..TRIES {
            match Self::find(choice).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "no metadata yet");
                    notify::status("waiting for the cloud's metadata service");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        Self::find(choice).await
    }

    /// Waits until the cloud says that the machine is about to go, and drains it meanwhile for maintenance. Safe to
    /// drop.
    pub async fn gone(&self, node: &Node) -> Notice {
        let mut answers = true;
        loop {
            match self.service.notices(node.clock.now()).await {
                Ok(notices) => {
                    if !std::mem::replace(&mut answers, true) {
                        tracing::info!("the metadata service answers again");
                    }
                    if let Some(gone) = self.act(node, notices) {
                        return gone;
                    }
                }
                Err(error) => {
                    if std::mem::replace(&mut answers, false) {
                        let error = format!("{error:#}");
                        tracing::warn!(error, "the metadata service does not answer; no notice is heard");
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn act(&self, node: &Node, notices: Vec<Notice>) -> Option<Notice> {
        let (now, booted) = (node.clock.now(), node.clock.booted());
        let mut due: Vec<Notice> = notices.into_iter().filter(|notice| notice.is_due(now, booted)).collect();
        if let Some(gone) = due.iter().position(|notice| notice.fate == Fate::Gone) {
            return Some(due.swap_remove(gone));
        }
        // The rest is maintenance.
        node.drains.maintain(due.first());
        None
    }
}

fn service(provider: Provider, url: Option<&str>) -> Result<Box<dyn Service>> {
    let made: Result<Box<dyn Service>> = match provider {
        Provider::Aws => aws::Aws::new(url).map(|aws| Box::new(aws) as _),
        Provider::Gcp => gcp::Gcp::new(url).map(|gcp| Box::new(gcp) as _),
        Provider::Azure => azure::Azure::new(url).map(|azure| Box::new(azure) as _),
    };
    made.with_context(|| format!("cannot ask the metadata service of {provider}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Fate::Gone, 0, true)]
    #[case(Fate::Maintenance, 1399, false)]
    #[case(Fate::Maintenance, 1400, true)]
    // It comes late.
    #[case(Fate::Maintenance, 9000, true)]
    fn maintenance_is_waited_for_until_it_is_near(#[case] fate: Fate, #[case] now: i64, #[case] due: bool) {
        let at = |second: i64| Timestamp::from_timestamp(second, 0).expect("a time");
        let notice = Notice { what: "reboot".into(), fate, at: at(2000) };
        assert_eq!(notice.is_due(at(now), None), due);
        assert_eq!(notice.is_due(at(now), Some(at(1000))), due);
        // The machine has been started since.
        assert_eq!(notice.is_due(at(now), Some(at(2001))), fate == Fate::Gone);
    }

    #[rstest]
    #[case("i-0123456789abcdef0", None, "i-0123456789abcdef0")]
    #[case("4567890123456789012", Some("train-1"), "train-1-4567890123456789012")]
    #[case("02aab8a4-74ef-476e-8182-f6d2ba4166a6", Some("train-1"), "train-1-02aab8a4")]
    fn a_node_is_named_by_what_no_other_machine_has(
        #[case] id: &str,
        #[case] name: Option<&str>,
        #[case] node: &str,
    ) {
        let instance = Instance {
            provider: Provider::Aws,
            id: id.into(),
            name: name.map(Into::into),
            region: "r".into(),
            zone: None,
            machine_type: "m".into(),
            spot: true,
        };
        assert_eq!(instance.node().expect("a name").as_str(), node);
        let labels: Vec<String> =
            instance.labels().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["machine_type=m", "provider=aws", "region=r", "spot=true"]);
    }
}
