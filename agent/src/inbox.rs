//! The inbox: job specs that programs in any language leave in a queue, as bare JSON.
//!
//! Any agent routes them, busy or not: it checks the spec, submits the job, and deletes the message.
//! The job's id derives from the message's own, so that a message that is received twice is one job.
//! What is no valid spec goes to the dead letters with the reason beside it; nothing is dropped in
//! silence. What fails for another reason is left in the queue and seen again.

use std::{sync::Arc, time::Duration};

use shared::{
    client::{Client, ClientError},
    id::{JobId, Team},
    job::{Format, parse},
    log::Author,
    queue::{MAX_BATCH, MAX_MESSAGE, MAX_WAIT, Outgoing, Queue, QueueError, QueueName, Received},
};

use tokio_util::sync::CancellationToken;

use crate::{node::Node, patience::Chain};

/// How long a message stays hidden while it is routed; a submit takes a second at most.
const VISIBILITY: Duration = Duration::from_secs(30);

/// The longest reason that goes beside a dead letter, in characters.
const LONGEST_REASON: usize = 2000;

/// Why a message is not routed.
enum Refused {
    /// It never will be.
    Dead(String),
    /// Not now.
    Later(ClientError),
}

/// Routes what comes, until it is dropped, or closing and no long poll is under way.
pub async fn run(node: Arc<Node>, closing: CancellationToken) {
    let author = Author::Node { name: node.id.clone(), incarnation: node.incarnation.clone() };
    let client = Client::new(node.fleet.clone(), author, node.clock.clone(), node.chance.clone());
    while !closing.is_cancelled() {
        let settings = node.fleet.settings();
        if !settings.inbox || node.fence.epoch().is_none() {
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                () = tokio::time::sleep(settings.beat.0) => continue,
            }
        }
        let received = tokio::select! {
            biased;
            () = closing.cancelled(), if settings.queue.is_embedded() => return,
            received = node.fleet.queue.receive(&QueueName::Inbox, MAX_BATCH, MAX_WAIT, VISIBILITY) => received,
        };
        match received {
            Ok(messages) => {
                for message in messages {
                    route(&node, &client, &message).await;
                }
            }
            Err(QueueError::NoSuchQueue { .. }) => make(&node).await,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the inbox does not answer");
                tokio::time::sleep(node.fleet.settings().beat.0).await;
            }
        }
    }
}

async fn make(node: &Node) {
    for name in [QueueName::Inbox, QueueName::Dead] {
        if let Err(error) = node.fleet.queue.ensure(&name).await {
            tracing::warn!(error = %Chain(&error), queue = %name, "the queue cannot be made");
            tokio::time::sleep(node.fleet.settings().beat.0).await;
        }
    }
}

async fn route(node: &Node, client: &Client, message: &Received) {
    let id = JobId::of_message(&message.id);
    let routed = match submit(client, &id, &message.body).await {
        Ok(()) => {
            tracing::info!(job = %id, received = message.id, "routed from the inbox");
            Ok(())
        }
        Err(Refused::Later(error)) => {
            tracing::warn!(error = %Chain(&error), received = message.id, "left in the inbox for later");
            return;
        }
        Err(Refused::Dead(reason)) => {
            tracing::warn!(reason, received = message.id, "no valid job; moved to the dead letters");
            bury(node, message, &reason).await
        }
    };
    // One that is not deleted is routed again, to the same job.
    let deleted = match routed {
        Ok(()) => node.fleet.queue.delete(&QueueName::Inbox, &message.receipt).await,
        Err(error) => Err(error),
    };
    if let Err(error) = deleted {
        tracing::warn!(error = %Chain(&error), received = message.id, "the message is seen again");
    }
}

async fn submit(client: &Client, id: &JobId, body: &str) -> Result<(), Refused> {
    let spec = parse(body, Format::Json).map_err(|error| Refused::Dead(error.to_string()))?;
    match client.submit(spec, Some(id.clone())).await {
        Ok(_) => Ok(()),
        Err(error @ (ClientError::IdInUse(_) | ClientError::Lane(_))) => {
            Err(Refused::Dead(Chain(&error).to_string()))
        }
        Err(error) => Err(Refused::Later(error)),
    }
}

async fn bury(node: &Node, message: &Received, reason: &str) -> Result<(), QueueError> {
    let mut letter = Outgoing::new(Team::default(), message.body.as_str());
    let reason = sendable(reason);
    letter.attributes.insert("reason".into(), reason.clone());
    letter.attributes.insert("message".into(), message.id.clone());
    let beside = letter.size() - letter.body.len();
    let mut most = letter.body.len().min(MAX_MESSAGE - beside);
    while !letter.body.is_char_boundary(most) {
        most -= 1;
    }
    letter.body.truncate(most);
    node.fleet.queue.deliver(&QueueName::Dead, &letter, Duration::ZERO).await?;
    if node.fleet.settings().status {
        node.events.refused(&message.id, &reason).await?;
    }
    Ok(())
}

/// A reason as it may stand beside a message. It may quote the spec, whose JSON may have characters that
/// messages may not (Amazon SQS API Reference, `SendMessage`).
fn sendable(reason: &str) -> String {
    let allowed = |c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..);
    let shown = reason.chars().map(|c| if allowed(c) { c } else { char::REPLACEMENT_CHARACTER });
    shown.take(LONGEST_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_quotes_a_control_character_can_be_sent() {
        let spec = "{\"image\":\"x\",\"a\\u0001\\uFFFF\":1}";
        let reason = parse(spec, Format::Json).expect_err("no such field").to_string();
        assert!(reason.contains('\u{1}') && reason.contains('\u{FFFF}'), "{reason}");
        let sent = sendable(&reason);
        assert!(sent.contains("a\u{FFFD}\u{FFFD}"), "{sent}");
        assert_eq!(sendable("a\tb\né\u{1F600}"), "a\tb\né\u{1F600}");
        assert_eq!(sendable(&"x".repeat(3000)).len(), LONGEST_REASON);
    }
}
