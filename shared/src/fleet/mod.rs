//! A fleet: one store URL, and the settings that lie there.
//!
//! Settings are a log as well: `fleet/<seq>.json`, each created by put-if-absent, the newest
//! holds. A directory that holds none becomes an embedded fleet on first use, so that nothing
//! need be set up on one host. Whoever runs for long looks for newer ones ([`Fleet::refresh`]) and
//! asks for each value when it is needed ([`Fleet::settings`]), never before.

mod change;
mod drain;
mod live;
mod pool;
mod tariff;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    clock::Clock,
    event::Webhook,
    id::{NodeId, Seq},
    log::Policy,
    queue::{Counted, Prefix, Queue, QueueError, SqliteQueue, SqsQueue},
    record::{self, RecordError},
    store::{Created, Key, Store, StoreError},
    units::Span,
};

pub use change::{SettingError, Version, change, history};
pub use drain::Drain;
pub use live::Change;
use live::Live;
pub use pool::Pool;
pub use tariff::Tariff;

/// What all agents and clients of a fleet go by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The version of this record's form.
    pub v: u32,
    /// Where messages go.
    pub queue: QueueSettings,
    /// How often a node rewrites its record and looks at its jobs' logs.
    pub beat: Span,
    /// How long a node may be silent before its jobs are taken over.
    pub lease: Span,
    /// How often agents look for new lanes.
    pub lane_refresh: Span,
    /// How many messages a team may have in a lane's queue; its further jobs are parked.
    #[serde(default = "default_window")]
    pub window: u32,
    /// How often one lane or node is swept, over the whole fleet.
    #[serde(default = "default_sweep")]
    pub sweep: Span,
    /// How long a job waits before a host that it would fit keeps room for it.
    #[serde(default = "default_patience")]
    pub patience: Span,
    /// How long a host keeps room for a job at most.
    #[serde(default = "default_reserve_max")]
    pub reserve_max: Span,
    /// Whether agents route the specs that programs leave in the inbox.
    #[serde(default)]
    pub inbox: bool,
    /// Whether the status queue is told of every change of a job.
    #[serde(default)]
    pub status: bool,
    /// Who else is told.
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
    /// Machines that an autoscaler starts and ends, by the name of their kind.
    #[serde(default)]
    pub pools: BTreeMap<String, Pool>,
    /// What hosts cost that do not say so themselves.
    #[serde(default)]
    pub prices: Vec<Tariff>,
    /// Nodes that take no jobs.
    #[serde(default)]
    pub drained: BTreeMap<NodeId, Drain>,
    /// How often what is not a job's fault is tried again.
    #[serde(flatten)]
    pub policy: Policy,
}

/// A fleet's message queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum QueueSettings {
    /// A database file on this host.
    Sqlite {
        /// Where; in the store's own directory without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
    },
    /// Amazon SQS, or a service that speaks its protocol. As text: `sqs://REGION/PREFIX`.
    Sqs {
        /// Such as `eu-central-1`.
        region: String,
        /// What the names of the fleet's queues begin with.
        prefix: Prefix,
        /// Where the service is, if not at the region's own address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<Url>,
    },
}

impl QueueSettings {
    /// Whether it is in this host's own hands: then a receive that is dropped takes no message with it.
    pub fn is_embedded(&self) -> bool {
        matches!(self, Self::Sqlite { .. })
    }
}

fn default_window() -> u32 {
    8
}

fn default_sweep() -> Span {
    Span::secs(60)
}

fn default_patience() -> Span {
    Span::secs(60)
}

fn default_reserve_max() -> Span {
    Span::secs(3600)
}

impl Settings {
    /// The form that this program writes, and the newest that it reads.
    pub const VERSION: u32 = 1;

    /// A fleet on one host, whose store answers in microseconds and costs nothing: beats are
    /// short, so that a cancel is heard at once.
    pub fn embedded(path: Option<PathBuf>) -> Self {
        Self {
            v: Self::VERSION,
            queue: QueueSettings::Sqlite { path },
            beat: Span::secs(1),
            lease: Span::secs(180),
            lane_refresh: Span(std::time::Duration::from_millis(500)),
            window: default_window(),
            sweep: default_sweep(),
            patience: default_patience(),
            reserve_max: default_reserve_max(),
            inbox: false,
            status: false,
            webhooks: Vec::new(),
            pools: BTreeMap::new(),
            prices: Vec::new(),
            drained: BTreeMap::new(),
            policy: Policy::default(),
        }
    }

    /// A fleet of many hosts, whose store and queue are paid for by the request: an idle node's
    /// day costs cents. Its inbox is open: whoever may send to it is the cloud's own matter.
    pub fn cloud(queue: QueueSettings) -> Self {
        Self {
            queue,
            beat: Span::secs(15),
            lane_refresh: Span::secs(15),
            inbox: true,
            ..Self::embedded(None)
        }
    }

    /// What suits this queue on this store.
    pub fn suited(queue: QueueSettings, store: &Store) -> Self {
        match queue {
            QueueSettings::Sqlite { path } if store.directory().is_some() => Self::embedded(path),
            queue => Self::cloud(queue),
        }
    }
}

/// Why a fleet cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue cannot be opened.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Nobody made a fleet here.
    #[error("there is no fleet at {0}; make one with: haul init {0}")]
    NoFleet(Url),
    /// The settings cannot be used.
    #[error("the settings {seq} of the fleet {url} cannot be used")]
    Record {
        /// The fleet.
        url: String,
        /// Which.
        seq: String,
        /// What is wrong with them.
        #[source]
        source: RecordError,
    },
    /// A setting cannot be so.
    #[error(transparent)]
    Setting(Box<SettingError>),
    /// There are settings already.
    #[error("there is a fleet at {0} already")]
    Exists(Url),
    /// An embedded queue needs a file.
    #[error(
        "the store {0} is no directory, so say where its queue is: --queue sqs://REGION/PREFIX, or, for one host, \
         --queue sqlite:/path/to/queue.sqlite"
    )]
    NoQueuePath(Url),
}

/// A fleet, opened.
#[derive(Clone)]
pub struct Fleet {
    /// Its objects.
    pub store: Store,
    /// Its messages.
    pub queue: Arc<Counted>,
    live: Live,
}

impl Fleet {
    /// A fleet of these parts, whose settings lie at `seq`.
    pub fn assemble(store: Store, queue: Arc<Counted>, seq: Seq, settings: Settings) -> Self {
        Self { store, queue, live: Live::new(seq, settings) }
    }

    /// The settings that hold now. Ask again each time: they change while a program runs.
    pub fn settings(&self) -> Arc<Settings> {
        self.live.settings()
    }

    /// Where the settings that hold now lie.
    pub fn seq(&self) -> Seq {
        self.live.seq()
    }

    /// Looks for newer settings: one request where there are none. Without them, what held goes
    /// on to hold.
    ///
    /// # Errors
    /// [`FleetError`]
    pub async fn refresh(&self) -> Result<Option<Change>, FleetError> {
        self.live.refresh(&self.store).await
    }

    /// Opens the fleet at a URL; makes an embedded one where the URL is a directory without.
    ///
    /// # Errors
    /// [`FleetError`]
    pub async fn open(url: &Url, clock: Arc<dyn Clock>) -> Result<Self, FleetError> {
        let store = Store::open(url)?;
        let (seq, settings) = match newest(&store).await? {
            Some(found) => found,
            None if store.directory().is_some() => {
                match create(&store, Settings::embedded(None)).await {
                    Ok(settings) => (Seq::FIRST, settings),
                    // Somebody else was faster.
                    Err(FleetError::Exists(url)) => newest(&store).await?.ok_or(FleetError::NoFleet(url))?,
                    Err(e) => return Err(e),
                }
            }
            None => return Err(FleetError::NoFleet(url.clone())),
        };
        let queue = Arc::new(Counted::new(open_queue(&store, &settings, clock).await?));
        Ok(Self::assemble(store, queue, seq, settings))
    }
}

fn key(seq: Seq) -> Key {
    Key::new(format!("fleet/{seq}.json"))
}

fn seq_of(key: &Key) -> Option<Seq> {
    key.name().strip_suffix(".json").and_then(|seq| seq.parse().ok()).map(Seq)
}

fn read(store: &Store, key: &Key, body: &[u8]) -> Result<Settings, FleetError> {
    record::read(body, Settings::VERSION).map_err(|source| unreadable(store, key, source))
}

fn unreadable(store: &Store, key: &Key, source: RecordError) -> FleetError {
    FleetError::Record { url: store.url().to_string(), seq: key.name().into(), source }
}

/// The settings that hold, or `None` where there is no fleet.
async fn newest(store: &Store) -> Result<Option<(Seq, Settings)>, FleetError> {
    let keys = store.list("fleet").await?;
    let Some((seq, key)) = keys.iter().rev().find_map(|key| Some((seq_of(key)?, key))) else {
        return Ok(None);
    };
    match store.get(key).await? {
        Some(body) => Ok(Some((seq, read(store, key, &body)?))),
        None => Ok(None),
    }
}

/// Makes a fleet where there is none.
///
/// # Errors
/// [`FleetError::Exists`] where there is one.
pub async fn create(store: &Store, settings: Settings) -> Result<Settings, FleetError> {
    if let QueueSettings::Sqlite { path: None } = &settings.queue
        && store.directory().is_none()
    {
        return Err(FleetError::NoQueuePath(store.url().clone()));
    }
    let key = key(Seq::FIRST);
    let body = record::write(&settings);
    match store.create(&key, body.clone()).await? {
        Created::New => Ok(settings),
        Created::Exists(found) if found == body => Ok(settings),
        Created::Exists(_) => Err(FleetError::Exists(store.url().clone())),
    }
}

async fn open_queue(
    store: &Store,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Queue>, FleetError> {
    match &settings.queue {
        QueueSettings::Sqlite { path } => {
            // A directory of its own, which the queue watches for the writes of other processes.
            let inside = || store.directory().map(|dir| dir.join("queue").join("queue.sqlite"));
            let path = path.clone().or_else(inside);
            let path = path.ok_or_else(|| FleetError::NoQueuePath(store.url().clone()))?;
            Ok(Arc::new(SqliteQueue::open(&path, clock)?))
        }
        QueueSettings::Sqs { region, prefix, endpoint } => {
            Ok(Arc::new(SqsQueue::open(region, prefix.clone(), endpoint.as_ref(), clock).await))
        }
    }
}
