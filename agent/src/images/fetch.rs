//! Fetching the image of a job: once, however many jobs want it at the same time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{job::Pull, log::Job, units::Size};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, mpsc, watch};

use crate::{
    engine::{EngineError, ImageInfo, PullProgress},
    node::Node,
};

/// Whose turn it is to pull an image, by its name.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<String, Arc<Turn<()>>>>);

impl Turns {
    /// Waits until nobody else pulls the image.
    async fn take(&self, name: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody has or waits for.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(name.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

/// A pull that breaks off is tried again at once, most often from the beginning: engines throw away the layers of a
/// pull that ended early (moby/moby#26146).
const TRIES: u32 = 3;

/// The image as the host has it, if the job may run that.
async fn here(node: &Node, job: &Job, name: &str) -> Result<Option<ImageInfo>, EngineError> {
    if job.spec.pull == Pull::Always { Ok(None) } else { node.engine.image(name).await }
}

/// The job's image, pulled if it must be.
///
/// # Errors
/// [`EngineError`]
pub async fn fetch(node: &Node, job: &Job) -> Result<ImageInfo, EngineError> {
    let name = wanted(job);
    if let Some(image) = here(node, job, name).await? {
        return Ok(image);
    }
    let _turn = node.images.turns.take(name).await;
    // Another job may have brought it meanwhile. Where a tag may have moved the registry is asked all the same, and
    // what is there already is not transferred again.
    if let Some(image) = here(node, job, name).await? {
        return Ok(image);
    }
    if name.starts_with("sha256:") {
        let detail = "it came from no registry, and this host does not have it".into();
        return Err(EngineError::NoSuchImage { image: name.into(), detail });
    }
    let known = node.engine.image(name).await?.map(|image| image.id);
    let began = node.clock.elapsed();
    let image = pull(node, name).await?;
    node.metrics.pulled(node.clock.elapsed().saturating_sub(began));
    if known.as_ref() != Some(&image.id) {
        node.images.pulled.add(name, &image, node.clock.now());
    }
    Ok(image)
}

/// The image by the name under which it is wanted: the job's, or the digest that its first attempt found under
/// that.
pub fn wanted(job: &Job) -> &str {
    let first = job.image.as_deref().filter(|_| job.spec.pull == Pull::Digest);
    first.unwrap_or(&job.spec.image)
}

async fn pull(node: &Node, name: &str) -> Result<ImageInfo, EngineError> {
    tracing::info!(image = name, "pulling");
    let mut tries = 1;
    loop {
        let (send, receive) = mpsc::channel(16);
        let (pulled, ()) = futures::join!(node.engine.pull(name, send), progress(&node.pulling, receive));
        match pulled {
            Ok(image) => {
                let size = image.size.human();
                tracing::info!(image = name, digest = image.digest, %size, "pulled");
                return Ok(image);
            }
            Err(EngineError::RegistryUnavailable { detail, .. }) if tries < TRIES => {
                tracing::warn!(image = name, detail, "the pull broke off; trying again");
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Tells whoever watches how far a pull is, and says so now and then.
async fn progress(watched: &watch::Sender<Option<PullProgress>>, mut receive: mpsc::Receiver<PullProgress>) {
    let mut every = tokio::time::interval(Duration::from_secs(10));
    every.reset();
    let mut last = None;
    loop {
        tokio::select! {
            // Any order will do, as long as it is always the same.
            biased;
            progress = receive.recv() => match progress {
                Some(progress) => {
                    watched.send_replace(Some(progress));
                    last = Some(progress);
                }
                None => {
                    watched.send_replace(None);
                    return;
                }
            },
            _ = every.tick() => {
                if let Some(PullProgress { layers_done, layers_total, bytes_done, .. }) = &last {
                    tracing::info!(layers_done, layers_total, bytes = %Size(*bytes_done).human(), "pulling");
                }
            }
        }
    }
}
