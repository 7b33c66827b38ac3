//! The guard: freezes a node's containers when its agent cannot.
//!
//! An agent that is stopped, hangs or has crashed keeps no deadline, while its containers run on.
//! This small process of its own reads the deadline that the agent notes on disk
//! ([`crate::fence`]), and once it has passed, pauses the node's containers, again and again, until
//! there is a later one. It never thaws: only the agent can find out whether the jobs are still its
//! own. It knows neither the store nor the queue.

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

/// How often the deadline on disk is looked at, and what runs past it is frozen.
const LOOK: Duration = Duration::from_secs(1);

/// An agent that has started notes its lease sooner than this.
const UNUSUAL: Duration = Duration::from_secs(300);

/// The shortest pause between two looks.
const SHORTEST: Duration = Duration::from_millis(10);

/// What an engine may take to answer before it is asked anew: there are two beats for freezing, and it
/// does no harm to ask twice.
const PATIENCE: Duration = Duration::from_secs(5);

/// Guards until it is dropped.
///
/// # Errors
/// When the engine's address is none.
pub async fn run(state_dir: &Path, engine: Option<String>) -> Result<()> {
    let (path, boot, clock) = (fence::path(state_dir), fence::boot(), SystemClock);
    let mut engines: Option<(Option<String>, Arc<dyn Engine>)> = None;
    let (mut frozen, mut without) = (false, Duration::ZERO);
    crate::notify::ready();
    loop {
        crate::notify::alive();
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
            if !past {
                // The next look is when it passes: a container runs on for no longer.
                pause = file.deadline().left(clock.elapsed()).clamp(SHORTEST, LOOK);
            } else {
                let address = engine.clone().or_else(|| file.engine.clone());
                let engine = match &engines {
                    Some((known, engine)) if *known == address => engine.clone(),
                    _ => {
                        let engine: Arc<dyn Engine> = Arc::new(Docker::connect(address.as_deref())?);
                        engines = Some((address, engine.clone()));
                        engine
                    }
                };
                freeze(&*engine, &file).await;
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
