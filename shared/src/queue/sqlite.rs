//! The embedded queue: one SQLite file, for all processes of a host.
//!
//! SQLite's write-ahead log lets several processes read while one writes; each change is one
//! short immediate transaction. `synchronous = NORMAL`: a killed process loses nothing, a power
//! cut may lose the last messages, and the queue is but a hint.
//!
//! A receiver that waits does not poll. It sleeps until somebody rings, in whichever process, or
//! until the next hidden message becomes visible. The bell is a file beside the database, whose
//! time stamp whoever has sent something sets and all receivers watch (`inotify(7)`). Watching the
//! database's own log would not do: it is written before what it says can be read.
//!
//! Times are the wall clock's, since they are compared between processes; a clock that is set
//! back hides messages for as long.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use inotify::{EventMask, Inotify, WatchMask};
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use tokio::sync::watch;

use super::{Depth, MAX_MESSAGE, Outgoing, Queue, QueueError, QueueName, Receipt, Received};
use crate::{clock::Clock, id::Timestamp};

/// The schema that this program writes, as SQLite's `user_version`.
const SCHEMA_VERSION: i64 = 2;

/// What an older version held goes: the sweep sends again what waits.
const SCHEMA: &str = "
    DROP TABLE IF EXISTS lanes;
    DROP TABLE IF EXISTS messages;
    CREATE TABLE IF NOT EXISTS queues (name TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS messages (
        id INTEGER PRIMARY KEY,
        uid TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
        queue TEXT NOT NULL,
        team TEXT NOT NULL,
        body TEXT NOT NULL,
        attributes TEXT NOT NULL,     -- as JSON
        sent_at INTEGER NOT NULL,     -- milliseconds since 1970
        visible_at INTEGER NOT NULL,  -- milliseconds since 1970
        receives INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX IF NOT EXISTS messages_by_visibility ON messages (queue, visible_at);
    PRAGMA user_version = 2;
";

/// A queue in an SQLite file.
pub struct SqliteQueue {
    inner: Arc<Inner>,
}

struct Inner {
    /// Locked on blocking threads only.
    connection: Mutex<Connection>,
    name: String,
    clock: Arc<dyn Clock>,
    changes: watch::Sender<()>,
    /// What other processes watch; none in memory.
    bell: Option<File>,
}

impl Inner {
    /// Wakes all receivers, here and in other processes.
    fn ring(&self) {
        self.changes.send_replace(());
        let Some(bell) = &self.bell else { return };
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        if let Err(error) = rustix::fs::futimens(bell, &times) {
            tracing::debug!(%error, "receivers in other processes wake later");
        }
    }
}

impl SqliteQueue {
    /// Opens the file, which is made if it is not there, as are the directories above it.
    ///
    /// # Errors
    /// [`QueueError::Unusable`] for a file that is no queue of this version or cannot be written.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, QueueError> {
        let name = path.display().to_string();
        let unusable = |detail: String| QueueError::Unusable { queue: name.clone(), detail };
        let dir = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
        std::fs::create_dir_all(&dir).map_err(|e| unusable(e.to_string()))?;
        let connection = Connection::open(path).map_err(|e| unusable(e.to_string()))?;
        let bell = path.with_extension("bell");
        let ringer = File::options().create(true).truncate(false).write(true).open(&bell);
        let ringer = ringer.map_err(|e| unusable(format!("{} cannot be written: {e}", bell.display())))?;
        let queue =
            Self::with(connection, name.clone(), clock, Some(ringer)).map_err(|e| unusable(e.to_string()))?;
        watch(&bell, Arc::downgrade(&queue.inner))
            .map_err(|e| unusable(format!("it cannot be watched: {e}")))?;
        Ok(queue)
    }

    /// A queue that only this process sees, and that is gone with it.
    ///
    /// # Errors
    /// [`QueueError::Unusable`] if there is no memory for it.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, QueueError> {
        let opened = Connection::open_in_memory().map_err(Opening::from);
        let queue = opened.and_then(|connection| Self::with(connection, ":memory:".into(), clock, None));
        queue.map_err(|e| QueueError::Unusable { queue: ":memory:".into(), detail: e.to_string() })
    }

    fn with(
        mut connection: Connection,
        name: String,
        clock: Arc<dyn Clock>,
        bell: Option<File>,
    ) -> Result<Self, Opening> {
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version > SCHEMA_VERSION {
            return Err(Opening::Newer(version));
        }
        if version < SCHEMA_VERSION {
            transaction.execute_batch(SCHEMA)?;
        }
        transaction.commit()?;
        let (connection, changes) = (Mutex::new(connection), watch::Sender::new(()));
        Ok(Self { inner: Arc::new(Inner { connection, name, clock, changes, bell }) })
    }

    /// Runs it on a thread where blocking does no harm.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, i64) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection, inner.clock.now().timestamp_millis())
        });
        match done.await {
            Ok(done) => done.map_err(|e| self.failed(e)),
            Err(stopped) => {
                Err(QueueError::Unavailable { queue: self.inner.name.clone(), source: stopped.into() })
            }
        }
    }

    fn failed(&self, error: rusqlite::Error) -> QueueError {
        let queue = self.inner.name.clone();
        let lasting = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::ReadOnly
                    | ErrorCode::NotADatabase
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::PermissionDenied
                    | ErrorCode::DiskFull
            )
        );
        if lasting {
            QueueError::Unusable { queue, detail: error.to_string() }
        } else {
            QueueError::Unavailable { queue, source: error.into() }
        }
    }

    /// Takes what is visible, or says when the next message will be.
    async fn take(&self, queue: &QueueName, max: usize, visibility: Duration) -> Result<Taken, QueueError> {
        let name = queue.to_string();
        let taken = self.run(move |connection, now| take(connection, &name, max, visibility, now)).await?;
        taken.ok_or_else(|| QueueError::NoSuchQueue { queue: queue.clone() })
    }
}

/// Why the file is no queue.
#[derive(Debug, thiserror::Error)]
enum Opening {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(
        "it was written by a newer haul (version {0}, this one reads {SCHEMA_VERSION}); upgrade this host"
    )]
    Newer(i64),
}

/// What a look into the queue gave.
enum Taken {
    Messages(Vec<Received>),
    /// Nothing; the next hidden message is seen at this time, in milliseconds since 1970.
    Nothing {
        next: Option<i64>,
    },
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// `None` where there is no such queue.
fn take(
    connection: &mut Connection,
    queue: &str,
    max: usize,
    visibility: Duration,
    now: i64,
) -> rusqlite::Result<Option<Taken>> {
    let next: Option<i64> = connection
        .prepare_cached("SELECT min(visible_at) FROM messages WHERE queue = ?1")?
        .query_row([queue], |row| row.get(0))?;
    if next.is_none_or(|next| next > now) {
        let known = next.is_some() || is_known(connection, queue)?;
        return Ok(known.then_some(Taken::Nothing { next }));
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut messages = Vec::new();
    {
        let mut select = transaction.prepare_cached(
            "SELECT id, uid, body, attributes, sent_at, receives FROM messages
             WHERE queue = ?1 AND visible_at <= ?2 ORDER BY visible_at, id LIMIT ?3",
        )?;
        let mut hide =
            transaction.prepare_cached("UPDATE messages SET visible_at = ?2, receives = ?3 WHERE id = ?1")?;
        let rows = select.query_map(params![queue, now, i64::try_from(max).unwrap_or(1)], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get::<_, String>(3)?,
                row.get::<_, i64>(4)?,
                row.get::<_, u32>(5)?,
            ))
        })?;
        for row in rows {
            let (id, uid, body, attributes, sent_at, before) = row?;
            let receives = before + 1;
            hide.execute(params![id, now + millis(visibility), receives])?;
            let sent_at = Timestamp::from_timestamp_millis(sent_at).unwrap_or_default();
            let attributes = serde_json::from_str(&attributes).unwrap_or_default();
            let receipt = Receipt(format!("{id}.{receives}"));
            messages.push(Received { id: uid, body, attributes, receipt, receives, sent_at });
        }
    }
    transaction.commit()?;
    // Another process may have been faster.
    Ok(Some(if messages.is_empty() { Taken::Nothing { next: Some(now) } } else { Taken::Messages(messages) }))
}

fn is_known(connection: &Connection, queue: &str) -> rusqlite::Result<bool> {
    let found = connection
        .prepare_cached("SELECT 1 FROM queues WHERE name = ?1")?
        .query_row([queue], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

/// The message and the count of its receives that a receipt is of.
fn parts(receipt: &Receipt) -> Option<(i64, i64)> {
    let (id, receives) = receipt.0.split_once('.')?;
    Some((id.parse().ok()?, receives.parse().ok()?))
}

/// Tells the queue of each ring of the bell, for as long as it lives.
fn watch(bell: &Path, queue: Weak<Inner>) -> std::io::Result<()> {
    let mut inotify = Inotify::init()?;
    inotify.watches().add(bell, WatchMask::ATTRIB | WatchMask::DELETE_SELF)?;
    let look = move || {
        let mut buffer = [0; 4096];
        while let Ok(events) = inotify.read_events_blocking(&mut buffer) {
            let Some(queue) = queue.upgrade() else { return };
            queue.changes.send_replace(());
            if events.into_iter().any(|event| event.mask.contains(EventMask::IGNORED)) {
                return;
            }
        }
    };
    // Blocked in the kernel but for rings; a thread of its own costs its stack, 64 KiB.
    std::thread::Builder::new().name("queue-bell".into()).stack_size(64 << 10).spawn(look)?;
    Ok(())
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError> {
        let name = queue.to_string();
        self.run(move |connection, _| {
            if !is_known(connection, &name)? {
                connection.execute("INSERT OR IGNORE INTO queues (name) VALUES (?1)", [&name])?;
            }
            Ok(())
        })
        .await
    }

    async fn send(&self, queue: &QueueName, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        if message.size() > MAX_MESSAGE {
            return Err(QueueError::TooLarge { size: message.size() });
        }
        let (name, team, body) = (queue.to_string(), message.team.to_string(), message.body.clone());
        let attributes =
            serde_json::to_string(&message.attributes).expect("attributes have only text keys and values");
        let sent = self
            .run(move |connection, now| {
                connection
                    .prepare_cached(
                        "INSERT INTO messages (queue, team, body, attributes, sent_at, visible_at)
                         SELECT name, ?2, ?3, ?4, ?5, ?6 FROM queues WHERE name = ?1",
                    )?
                    .execute(params![name, team, body, attributes, now, now + millis(delay)])
            })
            .await?;
        if sent == 0 {
            return Err(QueueError::NoSuchQueue { queue: queue.clone() });
        }
        self.inner.ring();
        Ok(())
    }

    async fn receive(
        &self,
        queue: &QueueName,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        let deadline = self.inner.clock.elapsed() + wait.min(super::MAX_WAIT);
        let max = max.clamp(1, super::MAX_BATCH);
        let mut changes = self.inner.changes.subscribe();
        loop {
            // Before looking, so that a change meanwhile is not missed.
            changes.mark_unchanged();
            let next = match self.take(queue, max, visibility).await? {
                Taken::Messages(messages) => return Ok(messages),
                Taken::Nothing { next } => next,
            };
            let left = deadline.saturating_sub(self.inner.clock.elapsed());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            let now = self.inner.clock.now().timestamp_millis();
            let until_next =
                next.map_or(left, |next| Duration::from_millis(u64::try_from(next - now).unwrap_or(0)));
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                // A millisecond more, so that it is not looked for within the same one.
                () = tokio::time::sleep(left.min(until_next + Duration::from_millis(1))) => {}
            }
        }
    }

    async fn delete(&self, _: &QueueName, receipt: &Receipt) -> Result<(), QueueError> {
        let Some((id, receives)) = parts(receipt) else { return Ok(()) };
        self.run(move |connection, _| {
            connection
                .prepare_cached("DELETE FROM messages WHERE id = ?1 AND receives = ?2")?
                .execute([id, receives])
        })
        .await?;
        Ok(())
    }

    async fn change_visibility(
        &self,
        _: &QueueName,
        receipt: &Receipt,
        visibility: Duration,
    ) -> Result<(), QueueError> {
        let Some((id, receives)) = parts(receipt) else { return Ok(()) };
        self.run(move |connection, now| {
            connection
                .prepare_cached("UPDATE messages SET visible_at = ?3 WHERE id = ?1 AND receives = ?2")?
                .execute([id, receives, now + millis(visibility)])
        })
        .await?;
        self.inner.ring();
        Ok(())
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        let name = queue.to_string();
        let depth = self
            .run(move |connection, now| {
                if !is_known(connection, &name)? {
                    return Ok(None);
                }
                let count = |row: &rusqlite::Row<'_>, column| {
                    row.get::<_, Option<u32>>(column).map(|count| u64::from(count.unwrap_or_default()))
                };
                connection
                    .prepare_cached(
                        "SELECT sum(visible_at <= ?2), sum(visible_at > ?2 AND receives > 0),
                                sum(visible_at > ?2 AND receives = 0)
                         FROM messages WHERE queue = ?1",
                    )?
                    .query_row(params![name, now], |row| {
                        Ok(Depth {
                            waiting: count(row, 0)?,
                            in_flight: count(row, 1)?,
                            delayed: count(row, 2)?,
                        })
                    })
                    .map(Some)
            })
            .await?;
        depth.ok_or_else(|| QueueError::NoSuchQueue { queue: queue.clone() })
    }

    async fn purge(&self, queue: &QueueName) -> Result<(), QueueError> {
        let name = queue.to_string();
        self.run(move |connection, _| connection.execute("DELETE FROM messages WHERE queue = ?1", [&name]))
            .await?;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<QueueName>, QueueError> {
        self.run(|connection, _| {
            let mut select = connection.prepare_cached("SELECT name FROM queues ORDER BY name")?;
            let names = select.query_map([], |row| row.get::<_, String>(0))?;
            Ok(names.filter_map(|name| name.ok()?.parse().ok()).collect())
        })
        .await
    }
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
