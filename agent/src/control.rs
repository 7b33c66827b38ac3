//! The agent's local control socket: one JSON request a line, one JSON answer a line, over a unix
//! socket in the state directory, so that whoever may write there may ask.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use shared::{
    fleet::Drain,
    id::{Incarnation, JobId, NodeId, Timestamp},
    lane::Offer,
    node::{Capacity, Mode},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use crate::{drain, node::Node, task::Tasks};

/// What an agent may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How it is.
    Status,
    /// To take no new jobs.
    Drain {
        /// When those that still run are stopped with notice and queued again.
        #[serde(default)]
        deadline: Option<Timestamp>,
    },
    /// To take jobs again.
    Resume,
}

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its node.
    pub node: NodeId,
    /// This run of it.
    pub incarnation: Incarnation,
    /// Its process.
    pub pid: u32,
    /// Its fleet.
    pub fleet: String,
    /// Whether it takes jobs.
    pub mode: Mode,
    /// What keeps it from taking any.
    pub problems: Vec<String>,
    /// What it has, and what of it is free.
    pub offer: Offer,
    /// Whether its GPUs are made up.
    pub simulated: bool,
    /// Its CPU and memory.
    pub capacity: Capacity,
    /// The jobs that it has.
    pub jobs: Vec<JobId>,
    /// Requests to the store since its start: reads, writes, deletes, lists.
    pub store_requests: [u64; 4],
    /// Requests to the queue since its start.
    pub queue_requests: u64,
}

/// An agent's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It was done.
    Status(Box<Status>),
    /// It was not.
    Error(String),
}

/// Why an agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No agent listens.
    #[error("no agent is running with the state directory {}; start one with: haul agent", dir.display())]
    NoAgent {
        /// Where it was sought.
        dir: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("the agent's socket {} cannot be used", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered nothing that makes sense, or nothing at all.
    #[error("the agent did not answer: {0}")]
    NoAnswer(String),
}

/// Where the socket of an agent with this state directory is.
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.sock")
}

/// Listens, and answers until it is dropped. Only the holder of the state directory's lock may
/// call this: it removes what an earlier run left.
///
/// # Errors
/// [`ControlError::Socket`]
pub fn listen(node: Arc<Node>, tasks: &Tasks) -> Result<(), ControlError> {
    let path = socket(&node.config.state_dir);
    let failed = |source| ControlError::Socket { path: path.clone(), source };
    let listener = bind(&path).map_err(failed)?;
    let connections = tasks.clone();
    tasks.spawn("control", async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let node = node.clone();
                    connections.spawn("control connection", async move {
                        if let Err(error) = serve(&node, stream).await {
                            tracing::debug!(%error, "a control connection broke");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket does not accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(())
}

/// Listens on a socket, in place of one that an earlier run left. Its directory's group may use it, where nobody else
/// can reach it; otherwise its owner alone.
///
/// # Errors
/// What the file system says, or that something else is there.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(known) if known.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    let dir = path.parent().map(std::fs::metadata).transpose()?;
    let is_closed = dir.is_some_and(|dir| dir.permissions().mode() & 0o007 == 0);
    std::fs::set_permissions(path, Permissions::from_mode(if is_closed { 0o660 } else { 0o600 }))?;
    Ok(listener)
}

async fn serve(node: &Node, stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match serde_json::from_str::<Request>(&line) {
            Ok(request) => answer(node, request),
            Err(error) => Answer::Error(format!("no request: {error}")),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        write.write_all(&text).await?;
    }
    Ok(())
}

fn answer(node: &Node, request: Request) -> Answer {
    match request {
        Request::Status => {}
        Request::Drain { deadline } => node.drains.order(Some(Drain { deadline })),
        Request::Resume => node.drains.order(None),
    }
    // The answer says what holds from now on.
    drain::apply(node);
    let counts = node.fleet.store.counts();
    use shared::store::Kind;
    let store_requests = [Kind::Get, Kind::Put, Kind::Delete, Kind::List].map(|kind| counts.get(kind));
    Answer::Status(Box::new(Status {
        node: node.id.clone(),
        incarnation: node.incarnation.clone(),
        pid: std::process::id(),
        fleet: node.fleet.store.url().to_string(),
        mode: node.ledger.mode(),
        problems: node.ledger.problems(),
        offer: node.ledger.offer(),
        simulated: node.ledger.inventory().simulated,
        capacity: node.ledger.capacity(),
        jobs: node.ledger.holdings().into_keys().collect(),
        store_requests,
        queue_requests: node.fleet.queue.requests(),
    }))
}

/// Asks the agent of a state directory.
///
/// # Errors
/// [`ControlError`]
pub async fn ask(state_dir: &Path, request: Request) -> Result<Status, ControlError> {
    let path = socket(state_dir);
    let stream = UnixStream::connect(&path).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NoAgent { dir: state_dir.to_owned() }
        }
        _ => ControlError::Socket { path: path.clone(), source },
    })?;
    let talk = async move {
        let (read, mut write) = stream.into_split();
        let mut text = serde_json::to_vec(&request)?;
        text.push(b'\n');
        write.write_all(&text).await?;
        let line = BufReader::new(read).lines().next_line().await?;
        line.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    };
    let line = tokio::time::timeout(Duration::from_secs(10), talk)
        .await
        .map_err(|_| ControlError::NoAnswer("nothing within 10 s".into()))?
        .map_err(|e: io::Error| ControlError::NoAnswer(e.to_string()))?;
    match serde_json::from_str(&line) {
        Ok(Answer::Status(status)) => Ok(*status),
        Ok(Answer::Error(error)) => Err(ControlError::NoAnswer(error)),
        Err(error) => Err(ControlError::NoAnswer(error.to_string())),
    }
}
