//! Amazon SQS, and services that speak its protocol.
//!
//! - *Queues* are called `<prefix>-<name>` and made on first use, set up and tagged as [`client`]
//!   has it. Their URLs are asked for once and kept until SQS says that there is no such queue.
//! - *Credentials, endpoints, FIPS, dual stack* are those of the SDK's usual chain: environment,
//!   profile, web identity, container, instance (`docs/cloud-credentials.md`). The SDK asks for new
//!   credentials before they expire, and corrects its signatures by the service's clock.
//! - *Tries.* The SDK repeats what was throttled, failed or not answered, up to [`TRIES`] times,
//!   with exponential backoff, full jitter and a budget ("standard" retry mode). What it gives up
//!   is sorted in [`error`].
//! - *Batches.* Deletions and messages that come within milliseconds go as one request ([`batch`]).
//! - *Long polls* are waited for longer than SQS lets them last. The future of one must be awaited
//!   to its end: SQS may hand a message to a connection that nobody reads any more, and hides it.
//!   Nothing here drops one.
//! - *Teams* are message groups, by which standard queues are fair (Amazon SQS Developer Guide,
//!   "Fair queues"); a service that takes no groups on standard queues is used without.
//! - A receipt that is outdated may or may not delete its message; SQS promises neither.

mod batch;
mod client;
mod error;
mod naming;
mod receive;
mod urls;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_sqs::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    types::{
        BatchResultErrorEntry, DeleteMessageBatchRequestEntry, DeleteMessageBatchResultEntry,
        MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry, SendMessageBatchResultEntry,
    },
};
use backon::{ExponentialBuilder, Retryable};
use url::Url;

use super::{Depth, MAX_MESSAGE, Outgoing, Queue, QueueError, QueueName, Receipt, Received};
use crate::clock::Clock;
use batch::Batches;
use error::{Failure, Fault};
pub use naming::{Prefix, PrefixError};
use urls::Urls;

/// How often a request is tried.
const TRIES: u32 = 5;

/// The queues of one fleet at SQS.
pub struct SqsQueue {
    clients: client::Clients,
    prefix: Prefix,
    /// Where the queues are, for people.
    place: String,
    clock: Arc<dyn Clock>,
    urls: Urls,
    sends: Batches<SendMessageBatchRequestEntry, Failure>,
    deletes: Batches<String, Failure>,
    /// False once the service refused a message group on a standard queue.
    groups: AtomicBool,
}

impl SqsQueue {
    /// Reads the SDK's configuration; asks for nothing yet. `endpoint` is the service's URL where
    /// it is not the region's own and not named by the environment.
    pub async fn open(region: &str, prefix: Prefix, endpoint: Option<&Url>, clock: Arc<dyn Clock>) -> Self {
        let clients = client::Clients::load(region, endpoint).await;
        let place = match endpoint {
            Some(endpoint) => format!("SQS at {endpoint}, queues {prefix}-*"),
            None => format!("SQS in {region}, queues {prefix}-*"),
        };
        Self {
            clients,
            prefix,
            place,
            clock,
            urls: Urls::default(),
            sends: Batches::default(),
            deletes: Batches::default(),
            groups: AtomicBool::new(true),
        }
    }

    fn client(&self) -> &Client {
        &self.clients.plain
    }

    /// Sorts what the SDK gave up on.
    fn failure<E>(&self, action: &'static str, error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        Failure::of(action, error, self.clock.now())
    }

    /// What the caller is told; a queue that is gone is forgotten.
    fn told(&self, queue: &QueueName, size: usize, failure: Failure) -> QueueError {
        if failure.fault() == Fault::NoSuchQueue {
            self.urls.forget(queue);
        }
        failure.into_error(Some(queue), &self.place, size)
    }

    fn failed<E>(
        &self,
        queue: &QueueName,
        action: &'static str,
        error: &SdkError<E, HttpResponse>,
    ) -> QueueError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.told(queue, 0, self.failure(action, error))
    }

    /// The queue's URL.
    async fn url(&self, queue: &QueueName) -> Result<String, QueueError> {
        if let Some(url) = self.urls.get(queue) {
            return Ok(url);
        }
        let found = self.client().get_queue_url().queue_name(self.prefix.name(queue)).send().await;
        let found = found.map_err(|e| self.failed(queue, "sqs:GetQueueUrl", &e))?;
        let url = found.queue_url().unwrap_or_default().to_owned();
        self.urls.put(queue, &url);
        Ok(url)
    }

    async fn create(&self, queue: &QueueName) -> Result<(), QueueError> {
        let mut made = self.client().create_queue().queue_name(self.prefix.name(queue));
        for (name, value) in client::attributes() {
            made = made.attributes(name, value);
        }
        for (name, value) in client::tags(&self.prefix, queue) {
            made = made.tags(name, value);
        }
        let mut answer = made.clone().send().await;
        if answer.as_ref().is_err_and(|e| self.failure("", e).fault() == Fault::BadAttribute) {
            // A service whose messages are smaller.
            let mut fewer = made.get_attributes().clone().unwrap_or_default();
            fewer.remove(&QueueAttributeName::MaximumMessageSize);
            answer = made.set_attributes(Some(fewer)).send().await;
        }
        match answer {
            Ok(made) => {
                self.urls.put(queue, made.queue_url().unwrap_or_default());
                Ok(())
            }
            // Somebody made it just now, or has set it up otherwise since; that is theirs to decide.
            Err(e) if self.failure("", &e).fault() == Fault::OtherAttributes => {
                self.url(queue).await.map(drop)
            }
            Err(e) => Err(self.failed(queue, "sqs:CreateQueue", &e)),
        }
    }

    fn entry(&self, message: &Outgoing, delay: Duration) -> Result<SendMessageBatchRequestEntry, QueueError> {
        let mut entry = SendMessageBatchRequestEntry::builder().id("0").message_body(&message.body);
        if !delay.is_zero() {
            entry = entry.delay_seconds(receive::seconds(delay, MAX_DELAY));
        }
        if self.groups.load(Ordering::Relaxed) {
            entry = entry.message_group_id(message.team.as_str());
        }
        for (name, value) in &message.attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(value).build();
            let value = value.expect("a data type is given");
            entry = entry.message_attributes(name, value);
        }
        Ok(entry.build().expect("id and body are given"))
    }

    async fn send_batch(
        &self,
        url: String,
        entries: Vec<SendMessageBatchRequestEntry>,
    ) -> Vec<Result<(), Failure>> {
        const ACTION: &str = "sqs:SendMessage";
        let count = entries.len();
        let numbered = entries.into_iter().enumerate().map(|(n, mut entry)| {
            entry.id = n.to_string();
            entry
        });
        let request = self.client().send_message_batch().queue_url(url);
        match request.set_entries(Some(numbered.collect())).send().await {
            Ok(sent) => {
                let done = sent.successful().iter().map(SendMessageBatchResultEntry::id);
                answers(ACTION, count, done, sent.failed())
            }
            Err(e) => vec![Err(self.failure(ACTION, &e)); count],
        }
    }

    async fn delete_batch(&self, url: String, receipts: Vec<String>) -> Vec<Result<(), Failure>> {
        const ACTION: &str = "sqs:DeleteMessage";
        let count = receipts.len();
        let entries = receipts.into_iter().enumerate().map(|(n, receipt)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(n.to_string()).receipt_handle(receipt);
            entry.build().expect("id and receipt are given")
        });
        let request = self.client().delete_message_batch().queue_url(url);
        match request.set_entries(Some(entries.collect())).send().await {
            Ok(deleted) => {
                let done = deleted.successful().iter().map(DeleteMessageBatchResultEntry::id);
                answers(ACTION, count, done, deleted.failed())
            }
            Err(e) => vec![Err(self.failure(ACTION, &e)); count],
        }
    }
}

/// Between tries of a single entry.
fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default().with_min_delay(Duration::from_millis(100)).with_max_times(3).with_jitter()
}

/// The longest delay, as SQS has it.
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);

/// The longest visibility timeout, as SQS has it.
const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 3600);

/// Each entry's answer, in order.
fn answers<'a>(
    action: &'static str,
    count: usize,
    done: impl Iterator<Item = &'a str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Result<(), Failure>> {
    let mut answers = vec![Err(Failure::silent(action)); count];
    let mut set = |id: &str, answer| {
        if let Some(slot) = id.parse::<usize>().ok().and_then(|n| answers.get_mut(n)) {
            *slot = answer;
        }
    };
    for id in done {
        set(id, Ok(()));
    }
    for entry in failed {
        let message = entry.message().unwrap_or_default();
        set(entry.id(), Err(Failure::of_entry(action, entry.code(), message, entry.sender_fault())));
    }
    answers
}

#[async_trait]
impl Queue for SqsQueue {
    async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError> {
        match self.url(queue).await {
            Ok(_) => Ok(()),
            Err(QueueError::NoSuchQueue { .. }) => self.create(queue).await,
            Err(e) => Err(e),
        }
    }

    async fn send(&self, queue: &QueueName, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        let size = message.size();
        if size > MAX_MESSAGE {
            return Err(QueueError::TooLarge { size });
        }
        let url = self.url(queue).await?;
        let mut entry = self.entry(message, delay)?;
        loop {
            let grouped = entry.message_group_id().is_some();
            let send = |entries| self.send_batch(url.clone(), entries);
            let once = || self.sends.submit(queue, entry.clone(), size, send);
            match once.retry(backoff()).when(Failure::is_worth_another_try).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.fault() == Fault::NoGroups && grouped => {
                    self.groups.store(false, Ordering::Relaxed);
                    entry.message_group_id = None;
                }
                Err(failure) => return Err(self.told(queue, size, failure)),
            }
        }
    }

    async fn receive(
        &self,
        queue: &QueueName,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        let url = self.url(queue).await?;
        let wait = receive::seconds(wait, super::MAX_WAIT);
        let client = if wait == 0 { &self.clients.plain } else { &self.clients.patient };
        let max = max.clamp(1, super::MAX_BATCH);
        let request = client
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(i32::try_from(max).unwrap_or(1))
            .wait_time_seconds(wait)
            .visibility_timeout(receive::seconds(visibility, MAX_VISIBILITY));
        let answer = receive::with_attributes(request).send().await;
        let answer = answer.map_err(|e| self.failed(queue, "sqs:ReceiveMessage", &e))?;
        let now = self.clock.now();
        Ok(answer
            .messages
            .unwrap_or_default()
            .into_iter()
            .map(|message| receive::read(message, now))
            .collect())
    }

    async fn delete(&self, queue: &QueueName, receipt: &Receipt) -> Result<(), QueueError> {
        let url = self.url(queue).await?;
        let delete = |receipts| self.delete_batch(url.clone(), receipts);
        let once = || self.deletes.submit(queue, receipt.0.clone(), 0, delete);
        match once.retry(backoff()).when(Failure::is_worth_another_try).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.fault() == Fault::Receipt => Ok(()),
            Err(failure) => Err(self.told(queue, 0, failure)),
        }
    }

    async fn change_visibility(
        &self,
        queue: &QueueName,
        receipt: &Receipt,
        visibility: Duration,
    ) -> Result<(), QueueError> {
        let url = self.url(queue).await?;
        let request = self.client().change_message_visibility().queue_url(url).receipt_handle(&receipt.0);
        match request.visibility_timeout(receive::seconds(visibility, MAX_VISIBILITY)).send().await {
            Ok(_) => Ok(()),
            Err(e) => {
                let failure = self.failure("sqs:ChangeMessageVisibility", &e);
                if failure.fault() == Fault::Receipt { Ok(()) } else { Err(self.told(queue, 0, failure)) }
            }
        }
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        let url = self.url(queue).await?;
        let mut request = self.client().get_queue_attributes().queue_url(url);
        for name in receive::DEPTH {
            request = request.attribute_names(name);
        }
        let answer = request.send().await.map_err(|e| self.failed(queue, "sqs:GetQueueAttributes", &e))?;
        let count = |name| answer.attributes()?.get(&name)?.parse().ok();
        let [waiting, in_flight, delayed] = receive::DEPTH.map(|name| count(name).unwrap_or(0));
        Ok(Depth { waiting, in_flight, delayed })
    }

    async fn purge(&self, queue: &QueueName) -> Result<(), QueueError> {
        let url = self.url(queue).await?;
        match self.client().purge_queue().queue_url(url).send().await {
            Ok(_) => Ok(()),
            Err(e) => {
                let failure = self.failure("sqs:PurgeQueue", &e);
                if failure.fault() == Fault::PurgeInProgress {
                    tracing::warn!(%queue, "purged less than 60 s ago; messages sent since then stay");
                    return Ok(());
                }
                Err(self.told(queue, 0, failure))
            }
        }
    }

    async fn list(&self) -> Result<Vec<QueueName>, QueueError> {
        let prefix = format!("{}-", self.prefix);
        let mut pages =
            self.client().list_queues().queue_name_prefix(&prefix).into_paginator().page_size(1000).send();
        let mut queues = Vec::new();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|e| self.failure("sqs:ListQueues", &e).into_error(None, &self.place, 0))?;
            queues.extend(page.queue_urls().iter().filter_map(|url| self.prefix.queue(url)));
        }
        queues.sort();
        Ok(queues)
    }
}
