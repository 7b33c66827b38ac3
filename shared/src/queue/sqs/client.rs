//! The SDK's clients, and how queues are set up.

use std::time::Duration;

use aws_config::{
    BehaviorVersion, Region, SdkConfig, retry::RetryConfig,
    stalled_stream_protection::StalledStreamProtectionConfig, timeout::TimeoutConfig,
};
use aws_sdk_sqs::{Client, config::Builder, types::QueueAttributeName};
use url::Url;

use super::{Prefix, TRIES};
use crate::queue::{MAX_MESSAGE, MAX_WAIT, QueueName};

/// How long one try may take.
const TRY: Duration = Duration::from_secs(10);

/// How long all tries of a request may take together.
const ALL_TRIES: Duration = Duration::from_secs(30);

/// Two clients on the same connections.
pub(super) struct Clients {
    /// For what is answered at once.
    pub(super) plain: Client,
    /// For long polls.
    pub(super) patient: Client,
}

impl Clients {
    pub(super) async fn load(region: &str, endpoint: Option<&Url>) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
            // A long poll is silent for as long as it waits.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint.as_str());
        }
        Self::new(&loader.load().await)
    }

    fn new(config: &SdkConfig) -> Self {
        let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(5));
        let plain = timeouts.clone().operation_attempt_timeout(TRY).operation_timeout(ALL_TRIES);
        // The answer to a long poll may come at the very end of its wait.
        let patient = timeouts.operation_attempt_timeout(MAX_WAIT + TRY);
        let client = |timeouts: TimeoutConfig| {
            Client::from_conf(Builder::from(config).timeout_config(timeouts).build())
        };
        Self { plain: client(plain.build()), patient: client(patient.build()) }
    }
}

/// How a queue is made (Amazon SQS API Reference, `SetQueueAttributes`). Each receive says its own
/// visibility and wait; these are for consumers of others.
pub(super) fn attributes() -> [(QueueAttributeName, String); 4] {
    [
        // The longest there is. The sweep sends again what a limit removed.
        (QueueAttributeName::MessageRetentionPeriod, (14 * 24 * 3600).to_string()),
        (QueueAttributeName::ReceiveMessageWaitTimeSeconds, MAX_WAIT.as_secs().to_string()),
        (QueueAttributeName::VisibilityTimeout, "60".into()),
        (QueueAttributeName::MaximumMessageSize, MAX_MESSAGE.to_string()),
    ]
}

/// What a queue is tagged with, so that it can be told apart on a bill and in a policy.
pub(super) fn tags(prefix: &Prefix, queue: &QueueName) -> [(&'static str, String); 2] {
    let kind = if queue.lane().is_some() { "lane" } else { queue.as_str() };
    [("haul", kind.to_owned()), ("haul-fleet", prefix.to_string())]
}
