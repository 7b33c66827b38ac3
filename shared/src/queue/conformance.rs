//! What every queue must do, one case a function: run against every kind of queue and every
//! emulator of one. Times are short; nothing waits for a fixed time but for what it tests.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;

use super::{MAX_MESSAGE, Outgoing, Queue, QueueError, QueueName, Received};
use crate::{
    clock::{Clock, SystemClock},
    id::Team,
};

const HIDDEN: Duration = Duration::from_secs(30);
const NONE: Duration = Duration::ZERO;

/// Runs all cases. `a` and `b` are two handles on the same queues, as two processes have them;
/// no lane whose id begins with `conformance` may exist.
///
/// # Panics
/// Where the queue fails one of them.
pub async fn suite(a: &dyn Queue, b: &dyn Queue) {
    a_message_is_received_until_it_is_deleted(a, b).await;
    a_message_keeps_its_id_and_attributes(a, b).await;
    a_message_that_is_not_deleted_comes_back(a, b).await;
    visibility_can_be_changed(a, b).await;
    a_look_hides_nothing(a, b).await;
    a_delayed_message_is_seen_later(a, b).await;
    an_outdated_receipt_is_no_error(a, b).await;
    a_long_poll_is_woken_by_a_send(a, b).await;
    a_long_poll_ends_with_nothing(a).await;
    depth_counts_and_purge_empties(a, b).await;
    lanes_are_apart_and_listed(a, b).await;
    what_is_too_large_is_refused(a).await;
    large_messages_sent_at_once_come_whole(a, b).await;
    text_of_any_script_comes_back(a, b).await;
    purging_twice_is_no_error(a).await;
    let seen = concurrent_receivers_get_all_messages(a, b).await;
    assert_eq!(seen.len(), MESSAGES);
}

/// What only a queue does that hands each message to one receiver until its visibility has passed,
/// whatever the load. SQS does not promise it (Amazon SQS Developer Guide, "At-least-once
/// delivery"), and moto does not do it.
///
/// # Panics
/// Where it hands one out twice.
pub async fn exactly_one_receiver(a: &dyn Queue, b: &dyn Queue) {
    let seen = concurrent_receivers_get_all_messages(a, b).await;
    assert!(seen.values().all(|count| *count == 1), "received twice within its visibility: {seen:?}");
}

/// How many messages receivers at once share.
const MESSAGES: usize = 100;

async fn lane(queue: &dyn Queue, name: &str) -> QueueName {
    let lane: QueueName = format!("conformance-{name}").parse().expect("a valid name");
    queue.ensure(&lane).await.expect("made");
    queue.ensure(&lane).await.expect("there");
    lane
}

async fn send(queue: &dyn Queue, lane: &QueueName, body: &str, delay: Duration) {
    let message = Outgoing::new(Team::default(), body);
    queue.send(lane, &message, delay).await.expect("sent");
}

async fn receive(queue: &dyn Queue, lane: &QueueName, wait: Duration, hidden: Duration) -> Option<Received> {
    let mut received = queue.receive(lane, 1, wait, hidden).await.expect("answered");
    assert!(received.len() <= 1);
    received.pop()
}

async fn a_message_is_received_until_it_is_deleted(a: &dyn Queue, b: &dyn Queue) {
    let lane = lane(a, "delete").await;
    send(a, &lane, "x", NONE).await;
    let received = receive(b, &lane, NONE, HIDDEN).await.expect("sent");
    assert_eq!((received.body.as_str(), received.receives), ("x", 1));
    assert!((SystemClock.now() - received.sent_at).abs() < chrono::TimeDelta::seconds(60));
    assert_eq!(receive(a, &lane, NONE, HIDDEN).await, None, "it is hidden");
    b.delete(&lane, &received.receipt).await.expect("deleted");
    b.delete(&lane, &received.receipt).await.expect("deleting twice is no error");
    assert_eq!(a.depth(&lane).await.expect("answered").in_flight, 0);
}

async fn a_message_keeps_its_id_and_attributes(a: &dyn Queue, b: &dyn Queue) {
    let lane = lane(a, "attributes").await;
    let mut message = Outgoing::new(Team::default(), "x");
    message.attributes.insert("reason".into(), "no image: \u{fc}".into());
    for _ in 0..2 {
        a.send(&lane, &message, NONE).await.expect("sent");
    }
    let first = receive(b, &lane, NONE, NONE).await.expect("sent");
    assert_eq!(first.attributes, message.attributes);
    let mut ids = vec![first.id];
    for _ in 0..2 {
        ids.push(receive(a, &lane, Duration::from_secs(5), HIDDEN).await.expect("sent").id);
    }
    assert_ne!(ids[1], ids[2], "each message has its own");
    assert!(ids[1..].contains(&ids[0]), "and the same at each receive");
}

async fn a_message_that_is_not_deleted_comes_back(a: &dyn Queue, b: &dyn Queue) {
    let lane = lane(a, "return").await;
    send(a, &lane, "x", NONE).await;
    let first = receive(a, &lane, NONE, Duration::from_secs(1)).await.expect("sent");
    let again = receive(b, &lane, Duration::from_secs(10), HIDDEN).await.expect("comes back");
    assert_eq!((first.receives, again.receives, again.body.as_str()), (1, 2, "x"));
}

async fn visibility_can_be_changed(a: &dyn Queue, b: &dyn Queue) {
    let lane = lane(a, "visibility").await;
    send(a, &lane, "x", NONE).await;
    let first = receive(a, &lane, NONE, HIDDEN).await.expect("sent");
    a.change_visibility(&lane, &first.receipt, NONE).await.expect("shown");
    let second =
        receive(b, &lane, Duration::from_secs(10), Duration::from_secs(1)).await.expect("seen at once");
    b.change_visibility(&lane, &second.receipt, HIDDEN).await.expect("hidden for longer");
    assert_eq!(receive(a, &lane, Duration::from_secs(2), HIDDEN).await, None);
}

async fn a_look_hides_nothing(a: &dyn Queue, b: &dyn Queue) {
    let lane = lane(a, "look").await;
    send(a, &lane, "x", NONE).await;
    let seen = receive(a, &lane, Duration::from_secs(10), NONE).await.expect("sent");
    let again = receive(b, &lane, Duration::from_secs(10), HIDDEN).await.expect("still there");
    assert_eq!((seen.id, seen.sent_at), (again.id, again.sent_at));
}

async fn a_delayed_message_is_seen_later(a: &dyn Queue, b: &dyn Queue) {
    let lane = lane(a, "delay").await;
    send(a, &lane, "x", Duration::from_secs(1)).await;
    assert_eq!(receive(b, &lane, NONE, HIDDEN).await, None);
    assert_eq!(b.depth(&lane).await.expect("answered").delayed, 1);
    assert!(receive(b, &lane, Duration::from_secs(10), HIDDEN).await.is_some());
}

/// SQS promises neither that such a receipt still deletes nor that it does not (Amazon SQS API
/// Reference, `DeleteMessage`); moto's deletes, ministack's does not.
async fn an_outdated_receipt_is_no_error(a: &dyn Queue, b: &dyn Queue) {
    let lane = lane(a, "receipt").await;
    send(a, &lane, "x", NONE).await;
    let first = receive(a, &lane, NONE, NONE).await.expect("sent");
    let second = receive(b, &lane, Duration::from_secs(5), HIDDEN).await.expect("not hidden");
    assert!(first.receives < second.receives);
    a.change_visibility(&lane, &first.receipt, HIDDEN).await.expect("no error");
    a.delete(&lane, &first.receipt).await.expect("no error");
    b.delete(&lane, &second.receipt).await.expect("deleted");
    b.change_visibility(&lane, &second.receipt, HIDDEN).await.expect("of a message that is gone: no error");
    assert_eq!(a.depth(&lane).await.expect("answered").in_flight, 0);
}

async fn a_long_poll_is_woken_by_a_send(a: &dyn Queue, b: &dyn Queue) {
    let lane = lane(a, "wake").await;
    let began = SystemClock.elapsed();
    let (received, ()) = futures::join!(receive(a, &lane, Duration::from_secs(20), HIDDEN), async {
        send(b, &lane, "x", NONE).await;
    });
    assert_eq!(received.expect("woken").body, "x");
    assert!(SystemClock.elapsed() - began < Duration::from_secs(5));
}

async fn a_long_poll_ends_with_nothing(a: &dyn Queue) {
    let lane = lane(a, "nothing").await;
    let began = SystemClock.elapsed();
    assert_eq!(receive(a, &lane, Duration::from_secs(1), HIDDEN).await, None);
    assert!(SystemClock.elapsed() - began >= Duration::from_millis(900));
}

async fn depth_counts_and_purge_empties(a: &dyn Queue, b: &dyn Queue) {
    let lane = lane(a, "depth").await;
    for body in ["x", "y", "z"] {
        send(a, &lane, body, NONE).await;
    }
    receive(b, &lane, NONE, HIDDEN).await.expect("sent");
    let depth = a.depth(&lane).await.expect("answered");
    assert_eq!((depth.waiting, depth.in_flight, depth.delayed), (2, 1, 0));
    a.purge(&lane).await.expect("purged");
    assert_eq!(b.depth(&lane).await.expect("answered"), super::Depth::default());
    assert_eq!(receive(b, &lane, NONE, HIDDEN).await, None);
}

async fn lanes_are_apart_and_listed(a: &dyn Queue, b: &dyn Queue) {
    let (one, two) = (lane(a, "one").await, lane(b, "two").await);
    send(a, &one, "x", NONE).await;
    assert_eq!(receive(b, &two, NONE, HIDDEN).await, None);
    let lanes = a.list().await.expect("answered");
    assert!(lanes.contains(&one) && lanes.contains(&two));
    let nobody: QueueName = "conformance-nobody".parse().expect("a valid name");
    let message = Outgoing::new(Team::default(), "x");
    let no_queue = |error| matches!(error, QueueError::NoSuchQueue { queue } if queue == nobody);
    assert!(no_queue(a.send(&nobody, &message, NONE).await.expect_err("unknown")));
    assert!(no_queue(a.receive(&nobody, 1, NONE, HIDDEN).await.expect_err("unknown")));
    assert!(no_queue(a.depth(&nobody).await.expect_err("unknown")));
}

async fn what_is_too_large_is_refused(a: &dyn Queue) {
    let lane = lane(a, "large").await;
    let body = |size| Outgoing::new(Team::default(), "x".repeat(size));
    a.send(&lane, &body(MAX_MESSAGE), NONE).await.expect("just fits");
    let error = a.send(&lane, &body(MAX_MESSAGE + 1), NONE).await.expect_err("too large");
    assert!(matches!(error, QueueError::TooLarge { size } if size == MAX_MESSAGE + 1));
    assert_eq!(receive(a, &lane, NONE, HIDDEN).await.expect("sent").body.len(), MAX_MESSAGE);
}

/// Ten of them are too much for one request.
async fn large_messages_sent_at_once_come_whole(a: &dyn Queue, b: &dyn Queue) {
    const SIZE: usize = MAX_MESSAGE / 4;
    let lane = lane(a, "large-batch").await;
    let sends = (0..10).map(|n| {
        let (lane, body) = (&lane, n.to_string().repeat(SIZE));
        async move { send(a, lane, &body, NONE).await }
    });
    join_all(sends).await;
    let mut seen = Vec::new();
    while let Some(message) = receive(b, &lane, Duration::from_secs(1), HIDDEN).await {
        assert_eq!(message.body.len(), SIZE);
        seen.push(message.body.chars().next());
        b.delete(&lane, &message.receipt).await.expect("deleted");
    }
    seen.sort();
    assert_eq!(seen, ('0'..='9').map(Some).collect::<Vec<_>>());
}

async fn text_of_any_script_comes_back(a: &dyn Queue, b: &dyn Queue) {
    let lane = lane(a, "text").await;
    let text = "{\"a\": \"<&>\\u0000 \u{e4}\u{4e2d}\u{1f680}\"}\n\t'";
    let mut message = Outgoing::new("team.one_2".parse().expect("valid"), text);
    message.attributes.extend((0..10).map(|n| (format!("name-{n}"), text.to_owned())));
    a.send(&lane, &message, NONE).await.expect("sent");
    let received = receive(b, &lane, Duration::from_secs(5), HIDDEN).await.expect("sent");
    assert_eq!((received.body, received.attributes), (message.body, message.attributes));
}

/// SQS refuses a second purge within 60 s, which is nobody's concern.
async fn purging_twice_is_no_error(a: &dyn Queue) {
    let lane = lane(a, "purge").await;
    send(a, &lane, "x", NONE).await;
    a.purge(&lane).await.expect("purged");
    a.purge(&lane).await.expect("purged just now");
    assert_eq!(a.depth(&lane).await.expect("answered"), super::Depth::default());
}

/// How often each was received.
async fn concurrent_receivers_get_all_messages(a: &dyn Queue, b: &dyn Queue) -> BTreeMap<String, usize> {
    let lane = lane(a, "share").await;
    join_all((0..MESSAGES).map(|n| {
        let lane = &lane;
        async move { send(if n % 2 == 0 { a } else { b }, lane, &n.to_string(), NONE).await }
    }))
    .await;
    let receivers = (0..8).map(|n| {
        let (queue, lane) = (if n % 2 == 0 { a } else { b }, &lane);
        async move {
            let mut bodies = Vec::new();
            loop {
                let received =
                    queue.receive(lane, 3, Duration::from_millis(300), HIDDEN).await.expect("answered");
                assert!(received.len() <= 3);
                if received.is_empty() {
                    return bodies;
                }
                for message in received {
                    queue.delete(lane, &message.receipt).await.expect("deleted");
                    bodies.push(message.body);
                }
            }
        }
    });
    let mut seen = BTreeMap::new();
    for body in join_all(receivers).await.into_iter().flatten() {
        *seen.entry(body).or_insert(0) += 1;
    }
    seen
}
