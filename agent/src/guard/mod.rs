//! The guard: freezes a node's containers when its agent cannot.
//!
//! An agent that is stopped, hangs or has crashed keeps no deadline, while its containers run on.
//! This small process of its own reads the deadline that the agent notes on disk
//! ([`crate::fence`]), and once it has passed, pauses the node's containers, again and again, until
//! there is a later one. It never thaws: only the agent can find out whether the jobs are still its
//! own. It knows neither the store nor the queue.

mod sign;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use shared::{
    clock::{Clock, SystemClock},
    lease::FenceFile,
};

use crate::{
    engine::{ContainerState, Docker, Engine, EngineError},
    execute::{freezes, labels_of},
    fence,
};

pub use sign::{Presence, presence};

/// How often the deadline on disk is looked at, and what runs past it is frozen.
const LOOK: Duration = Duration::from_secs(1);

/// An agent that has started notes its lease sooner than this.
const UNUSUAL: Duration = Duration::from_secs(300);

/// The shortest pause between two looks.
const SHORTEST: Duration = Duration::from_millis(10);

/// What an engine may take to answer before it is asked anew: there are two beats for freezing, and it
/// does no harm to ask twice.
const PATIENCE: Duration = Duration::from_secs(5);

/// The engine that the agent uses.
struct Known {
    address: Option<String>,
    engine: Arc<dyn Engine>,
    /// Whether it answered when it was asked last; one that has answered is not asked again.
    answers: Option<bool>,
}

impl Known {
    fn at(address: Option<String>) -> Result<Self> {
        let engine = Arc::new(Docker::connect(address.as_deref())?);
        Ok(Self { address, engine, answers: None })
    }

    /// Finds out whether it could be asked to freeze anything, while there is time to mend it.
    async fn ask(&mut self) {
        let answers = tokio::time::timeout(PATIENCE, self.engine.is_up()).await.unwrap_or(false);
        let engine = self.address.as_deref().unwrap_or("the default");
        match (self.answers, answers) {
            (None, false) => tracing::warn!(
                engine,
                "the agent's engine does not answer the guard, which could freeze nothing; where it is reached over \
                 TCP, the service must be let out (see `systemctl cat haul-guard`)"
            ),
            (None | Some(false), true) => tracing::info!(engine, "the engine answers the guard"),
            _ => {}
        }
        self.answers = Some(answers);
    }
}

/// Guards until it is dropped.
///
/// # Errors
/// When the engine's address is none.
pub async fn run(state_dir: &Path, engine: Option<String>) -> Result<()> {
    let (path, boot, clock) = (fence::path(state_dir), fence::boot(), SystemClock);
    let mut known: Option<Known> = None;
    let (mut frozen, mut without, mut sign) = (false, Duration::ZERO, sign::Sign::default());
    crate::notify::ready();
    loop {
        crate::notify::alive();
        sign.show(state_dir, known.as_ref().is_some_and(|known| known.answers == Some(false)));
        let mut pause = LOOK;
        let file = fence::read(&path);
        if file.is_some() {
            without = Duration::ZERO;
        } else {
            without += LOOK;
            if without == UNUSUAL {
                tracing::warn!(path = %path.display(), "no agent has noted its lease there; the agent's state_dir must be the guard's --state-dir");
            }
        }
        if let Some(file) = file {
            let past = file.is_past(&boot, clock.elapsed());
            if past != frozen {
                frozen = past;
                if past {
                    tracing::warn!(node = %file.node, "the agent's lease is over; its containers are frozen");
                } else {
                    tracing::info!(node = %file.node, "the agent holds its lease again");
                }
            }
            let address = engine.clone().or_else(|| file.engine.clone());
            let known = match &mut known {
                Some(known) if known.address == address => known,
                other => other.insert(Known::at(address)?),
            };
            let left = file.deadline().left(clock.elapsed());
            if past {
                freeze(&*known.engine, &file).await;
            } else if left > 2 * PATIENCE && known.answers != Some(true) {
                known.ask().await;
            } else {
                // The next look is when it passes: a container runs on for no longer.
                pause = left.clamp(SHORTEST, LOOK);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Pauses all containers of the node that run and are to be frozen. False where the engine did not do
/// all of it; it is to be asked again then.
pub async fn freeze(engine: &dyn Engine, file: &FenceFile) -> bool {
    let labels = labels_of(&file.fleet, &file.node);
    let containers = match in_time("list", engine.list(&labels)).await {
        Ok(containers) => containers,
        Err(error) => {
            tracing::error!(%error, "the containers to freeze cannot be listed");
            return false;
        }
    };
    let running = containers
        .iter()
        .filter(|container| container.state == ContainerState::Running && freezes(container));
    let pauses = running.map(|container| async move {
        let paused = in_time("pause", engine.pause(&container.id)).await;
        match &paused {
            Ok(()) => tracing::warn!(container = container.name, "frozen"),
            Err(error) => tracing::error!(%error, container = container.name, "it cannot be frozen"),
        }
        paused.is_ok()
    });
    // One stuck container does not keep the others running.
    futures::future::join_all(pauses).await.into_iter().all(|paused| paused)
}

async fn in_time<T>(
    call: &'static str,
    answer: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let timeout = EngineError::Timeout { call, seconds: PATIENCE.as_secs() };
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(timeout))
}
