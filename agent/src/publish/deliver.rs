//! Telling one receiver of one event.

use std::{sync::OnceLock, time::Duration};

use reqwest::{StatusCode, header, redirect};
use shared::{
    clock::Clock,
    event::{SigningKey, StatusEvent, Webhook},
    id::Team,
    queue::{Outgoing, Queue, QueueError, QueueName},
};

use super::note::Receiver;
use crate::{patience::Chain, secret::Secrets};

/// How long a webhook may take to answer.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long the status queue may take.
const QUEUE_DEADLINE: Duration = Duration::from_secs(30);

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// It has been told.
    Told,
    /// It has perhaps not; to be tried again.
    Failed(String),
    /// It does not want to be told any more (HTTP 410).
    Gone,
}

/// What deliveries need.
pub struct Courier {
    queue: std::sync::Arc<dyn Queue>,
    secrets: Secrets,
    clock: std::sync::Arc<dyn Clock>,
    /// Made for the first webhook: it holds connections and certificates.
    http: OnceLock<Result<reqwest::Client, String>>,
}

impl Courier {
    /// With these secrets, to this fleet's status queue and any webhook.
    pub fn new(queue: std::sync::Arc<dyn Queue>, secrets: Secrets, clock: std::sync::Arc<dyn Clock>) -> Self {
        Self { queue, secrets, clock, http: OnceLock::new() }
    }

    /// Tells it once.
    pub async fn deliver(&self, to: &Receiver, team: Team, event: &StatusEvent) -> Delivered {
        match to {
            Receiver::Status => {
                let message = Outgoing::new(team, event.to_body());
                match tokio::time::timeout(QUEUE_DEADLINE, self.send(&message)).await {
                    Ok(Ok(())) => Delivered::Told,
                    Ok(Err(error)) => Delivered::Failed(Chain(&error).to_string()),
                    Err(_) => Delivered::Failed(format!("no answer within {QUEUE_DEADLINE:?}")),
                }
            }
            Receiver::Webhook(hook) => match self.post(hook, event).await {
                Ok(StatusCode::GONE) => Delivered::Gone,
                Ok(status) if status.is_success() => Delivered::Told,
                Ok(status) => Delivered::Failed(format!("answered {status}")),
                Err(why) => Delivered::Failed(why),
            },
        }
    }

    /// Tells the status queue of something in the inbox that is no job.
    pub async fn refused(&self, message: &str, reason: &str) -> Result<(), QueueError> {
        let event = StatusEvent::refused(message, reason, self.clock.now());
        self.send(&Outgoing::new(Team::default(), event.to_body())).await
    }

    async fn send(&self, message: &Outgoing) -> Result<(), QueueError> {
        self.queue.deliver(&QueueName::Status, message, Duration::ZERO).await
    }

    async fn post(&self, hook: &Webhook, event: &StatusEvent) -> Result<StatusCode, String> {
        let secrets = self.secrets.read(std::slice::from_ref(&hook.secret));
        let secrets = secrets.map_err(|e| Chain(&e).to_string())?;
        let key = secrets.get(&hook.secret).map(|secret| SigningKey::read(secret.expose()));
        let key = key.transpose().map_err(|e| format!("secret {}: {e}", hook.secret))?;
        let key = key.ok_or_else(|| format!("this host does not hold secret {}", hook.secret))?;
        let (body, now) = (event.to_body(), self.clock.now().timestamp());
        let request = self
            .http()?
            .post(hook.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", key.sign(&event.id, now, body.as_bytes()))
            .body(body);
        // The address may hold a token: errors are told without it.
        let answer = request.send().await.map_err(|e| Chain(&e.without_url()).to_string())?;
        Ok(answer.status())
    }

    fn http(&self) -> Result<&reqwest::Client, String> {
        let made = self.http.get_or_init(|| {
            reqwest::Client::builder()
                .timeout(DEADLINE)
                // The receiver that was named, and no other.
                .redirect(redirect::Policy::none())
                .user_agent(concat!("haul/", env!("CARGO_PKG_VERSION")))
                .pool_idle_timeout(Duration::from_secs(60))
                .pool_max_idle_per_host(2)
                .build()
                .map_err(|e| Chain(&e).to_string())
        });
        made.as_ref().map_err(Clone::clone)
    }
}
