//! Several requests on one queue at about the same time are one request: SQS takes up to ten
//! entries for the price of one.
//!
//! Whoever comes first leads: it waits [`LINGER`] for others, then sends what has gathered. The
//! request itself is made after leadership has passed on, so that batches may overlap. A caller
//! that is dropped takes only its own entry with it, or, if it was sending, leaves those that it
//! was sending for to send again: deleting twice is harmless, and so is a message that comes twice.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::queue::{MAX_MESSAGE, QueueName};

/// How long the first waits for others.
const LINGER: Duration = Duration::from_millis(2);

/// Entries of one request (Amazon SQS API Reference, `SendMessageBatch`).
pub const MAX_ENTRIES: usize = 10;

/// Gathers entries, by queue.
pub struct Batches<T, E> {
    groups: Mutex<BTreeMap<QueueName, Arc<Group<T, E>>>>,
}

struct Group<T, E> {
    waiting: Mutex<VecDeque<Waiting<T, E>>>,
    lead: tokio::sync::Mutex<()>,
}

struct Waiting<T, E> {
    entry: T,
    size: usize,
    answer: oneshot::Sender<Result<(), E>>,
}

impl<T, E> Default for Batches<T, E> {
    fn default() -> Self {
        Self { groups: Mutex::default() }
    }
}

impl<T: Clone, E: Clone> Batches<T, E> {
    fn group(&self, queue: &QueueName) -> Arc<Group<T, E>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Group { waiting: Mutex::default(), lead: tokio::sync::Mutex::default() });
        groups.entry(queue.clone()).or_insert_with(new).clone()
    }

    /// Has the entry sent, with others of the same queue if there are any. `send` gives an answer
    /// for each entry it is given, in order; `size` is the entry's in bytes, of which a request
    /// takes [`MAX_MESSAGE`] in all.
    pub async fn submit<F>(
        &self,
        queue: &QueueName,
        entry: T,
        size: usize,
        send: impl Fn(Vec<T>) -> F,
    ) -> Result<(), E>
    where
        F: Future<Output = Vec<Result<(), E>>>,
    {
        let group = self.group(queue);
        let mut answer = group.add(entry.clone(), size);
        loop {
            let lead = tokio::select! {
                biased;
                answered = &mut answer => match answered {
                    Ok(answered) => return answered,
                    // Whoever sent it was dropped.
                    Err(_) => {
                        answer = group.add(entry.clone(), size);
                        continue;
                    }
                },
                lead = group.lead.lock() => lead,
            };
            tokio::time::sleep(LINGER).await;
            let batch = group.take();
            drop(lead);
            // Another leader may have taken all there was; then its answer is on the way.
            if batch.is_empty() {
                if let Ok(answered) = (&mut answer).await {
                    return answered;
                }
                answer = group.add(entry.clone(), size);
                continue;
            }
            let (entries, waiting): (Vec<T>, Vec<_>) =
                batch.into_iter().map(|waiting| (waiting.entry, waiting.answer)).unzip();
            for (answer, answered) in waiting.into_iter().zip(send(entries).await) {
                // Its caller may be gone.
                let _ = answer.send(answered);
            }
        }
    }
}

impl<T, E> Group<T, E> {
    fn add(&self, entry: T, size: usize) -> oneshot::Receiver<Result<(), E>> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(Waiting { entry, size, answer });
        answered
    }

    /// What goes into one request. Entries whose callers are gone are left out.
    fn take(&self) -> Vec<Waiting<T, E>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut size): (Vec<Waiting<T, E>>, usize) = (Vec::new(), 0);
        while batch.len() < MAX_ENTRIES
            && let Some(next) = waiting.pop_front()
        {
            if next.answer.is_closed() {
                continue;
            }
            if size + next.size > MAX_MESSAGE && !batch.is_empty() {
                waiting.push_front(next);
                break;
            }
            size += next.size;
            batch.push(next);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    fn queue() -> QueueName {
        "lane".parse().expect("valid")
    }

    /// Sends these entries at once; gives the answers, and what each request had.
    async fn sent(entries: Vec<(u32, usize)>) -> (Vec<Result<(), u32>>, Vec<Vec<u32>>) {
        let (batches, requests) = (Batches::default(), Mutex::new(Vec::new()));
        let send = |entries: Vec<u32>| {
            requests.lock().expect("no panic").push(entries.clone());
            async move { entries.into_iter().map(|n| if n == 13 { Err(n) } else { Ok(()) }).collect() }
        };
        let queue = queue();
        let answers = join_all(entries.iter().map(|(n, size)| batches.submit(&queue, *n, *size, send))).await;
        (answers, requests.into_inner().expect("no panic"))
    }

    #[tokio::test(start_paused = true)]
    async fn one_alone_is_sent_within_five_milliseconds() {
        let began = tokio::time::Instant::now();
        assert_eq!(sent(vec![(1, 1)]).await, (vec![Ok(())], vec![vec![1]]));
        assert!(began.elapsed() <= Duration::from_millis(5));
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_are_sent_by_tens_and_each_gets_its_own_answer() {
        let (answers, requests) = sent((1..=25).map(|n| (n, 1)).collect()).await;
        assert_eq!(requests.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(requests.concat(), (1..=25).collect::<Vec<_>>());
        for (answer, n) in answers.into_iter().zip(1..) {
            assert_eq!(answer, if n == 13 { Err(13) } else { Ok(()) });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_holds_no_more_than_a_message_may() {
        let (_, requests) = sent(vec![(1, MAX_MESSAGE - 1), (2, 1), (3, 1), (4, MAX_MESSAGE)]).await;
        assert_eq!(requests, [vec![1, 2], vec![3], vec![4]]);
    }

    #[tokio::test(start_paused = true)]
    async fn those_whose_leader_is_dropped_are_sent_by_another() {
        let (batches, queue) = (Batches::<u32, ()>::default(), queue());
        let never = |_| std::future::pending();
        let mut leader = Box::pin(batches.submit(&queue, 1, 1, never));
        let mut follower = Box::pin(
            batches.submit(&queue, 2, 1, |entries: Vec<u32>| async move { vec![Ok(()); entries.len()] }),
        );
        // Both wait; the leader has taken both and never gets an answer.
        assert!(futures::poll!(&mut leader).is_pending() && futures::poll!(&mut follower).is_pending());
        tokio::time::advance(LINGER * 2).await;
        assert!(futures::poll!(&mut leader).is_pending() && futures::poll!(&mut follower).is_pending());
        drop(leader);
        assert_eq!(follower.await, Ok(()));
    }
}
