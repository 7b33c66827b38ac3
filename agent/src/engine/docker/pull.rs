//! Fetching an image.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use bollard::{
    auth::DockerCredentials, models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder,
};
use futures::StreamExt;
use tokio::{sync::mpsc, time::Instant};

use super::{Call, Docker};
use crate::engine::{
    EngineError, PullProgress,
    credentials::{self, Credential},
};

/// A pull that says nothing for so long while it fetches a layer is given up: for as long as fetching what is lost by
/// that has taken, since most engines throw it away, within these bounds.
///
/// The engine goes on by itself, where it was, when a connection breaks. Whether one is dead it learns by TCP's keep-alive,
/// nine probes (`tcp(7)`): five minutes at intervals of 30 s. For a server that is there and sends nothing it waits on.
const STALLED: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(330);

/// How long it may say nothing at all: engines tell of an image when they have its manifest. Meanwhile they may
/// wait for mirrors that are away, one after the other.
const UNANSWERED: Duration = Duration::from_secs(240);

/// The same while it unpacks what it has. Unpacking one large layer of an image for deep learning takes minutes, and says
/// nothing meanwhile on some engines.
const SILENCE: Duration = Duration::from_secs(600);

impl Docker {
    /// Fetches it and tells how far it is.
    pub(super) async fn pull_image(
        &self,
        image: &str,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<(), EngineError> {
        let reference = super::reference(image)?;
        let client = self.client().await?;
        let found = credentials::find(self.credentials.clone(), &reference.registry).await;
        let (credential, unread) = match found {
            Ok(credential) => (credential, None),
            Err(why) => (None, Some(why)),
        };
        // A tag or digest always, or the API fetches every tag there is.
        let options =
            CreateImageOptionsBuilder::new().from_image(&reference.name).tag(&reference.version).build();
        let credential = credential.map(|credential| shown(credential, &reference.registry));
        let failed = |error| match self.failed("pull", Call::Image(image), error) {
            EngineError::NoAccess { image, registry, detail } => EngineError::NoAccess {
                image,
                registry,
                detail: unread.iter().fold(detail, |detail, why| format!("{detail}; {why}")),
            },
            other => other,
        };
        let mut answers = client.create_image(Some(options), None, credential);
        let (mut layers, began) = (Layers::default(), Instant::now());
        loop {
            let patience = layers.patience(began.elapsed());
            let answer = match tokio::time::timeout(patience, answers.next()).await {
                Ok(Some(answer)) => answer.map_err(failed)?,
                Ok(None) => {
                    let _ = progress.try_send(layers.at_the_end());
                    return Ok(());
                }
                Err(_) => {
                    let detail = format!("the pull made no progress for {} s", patience.as_secs());
                    return Err(EngineError::RegistryUnavailable { image: image.into(), detail });
                }
            };
            layers.note(&answer);
            // A slow reader misses some; the next one tells it all anyway.
            let _ = progress.try_send(layers.progress());
        }
    }
}

/// As the API wants it.
fn shown(credential: Credential, registry: &str) -> DockerCredentials {
    let serveraddress = Some(registry.to_owned());
    match credential {
        Credential::Password { username, password } => DockerCredentials {
            username: Some(username),
            password: Some(password),
            serveraddress,
            ..DockerCredentials::default()
        },
        Credential::Token(token) => {
            DockerCredentials { identitytoken: Some(token), serveraddress, ..DockerCredentials::default() }
        }
    }
}

/// The layers of a pull.
#[derive(Debug, Default)]
struct Layers {
    by_id: BTreeMap<String, Layer>,
    /// Whether the engine has told anything yet.
    told: bool,
}

#[derive(Debug, Default)]
struct Layer {
    /// Whether anything of it has come.
    begun: bool,
    done: bool,
    current: u64,
    total: u64,
}

impl Layers {
    fn note(&mut self, answer: &CreateImageInfo) {
        self.told = true;
        let (Some(id), Some(status)) = (&answer.id, answer.status.as_deref()) else { return };
        // Of the image itself, not of a layer.
        if status.starts_with("Pulling from") {
            return;
        }
        let layer = self.by_id.entry(id.clone()).or_default();
        layer.begun |= !matches!(status, "Pulling fs layer" | "Waiting");
        layer.done |= matches!(status, "Pull complete" | "Already exists");
        let Some(detail) = &answer.progress_detail else { return };
        let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
        // Unpacking counts anew from zero; what was fetched stays fetched.
        if status == "Downloading" {
            layer.current = number(detail.current).unwrap_or(layer.current);
            layer.total = number(detail.total).unwrap_or(layer.total);
        } else if layer.total > 0 {
            layer.current = layer.total;
        }
    }

    /// How long a pull that has taken so long may go on saying nothing.
    fn patience(&self, taken: Duration) -> Duration {
        match (self.told, self.wait_for_registry()) {
            (false, _) => UNANSWERED,
            (true, true) => taken.clamp(*STALLED.start(), *STALLED.end()),
            (true, false) => SILENCE,
        }
    }

    /// Whether the registry has something to send: layers that are on their way, or the first of them. Some engines
    /// tell of no layers, or not of their sizes: of those it is not known.
    fn wait_for_registry(&self) -> bool {
        let fetches = |layer: &Layer| !layer.done && layer.current < layer.total;
        let unpacks = |layer: &Layer| !layer.done && layer.begun && layer.current == layer.total;
        self.by_id.values().any(fetches)
            || self.by_id.values().any(|layer| !layer.begun) && !self.by_id.values().any(unpacks)
    }

    /// How far it is when the engine has all: one whose images are in containerd does not tell what it has unpacked.
    fn at_the_end(&self) -> PullProgress {
        PullProgress { layers_done: self.by_id.len(), ..self.progress() }
    }

    fn progress(&self) -> PullProgress {
        PullProgress {
            layers_done: self.by_id.values().filter(|layer| layer.done).count(),
            layers_total: self.by_id.len(),
            bytes_done: self.by_id.values().map(|layer| layer.current).sum(),
            bytes_total: self.by_id.values().map(|layer| layer.total).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_is_not_given_up_soon_and_a_registry_without_an_answer_is() {
        let patience = |layers: &Layers| {
            [1, 100, 1000].map(|taken| layers.patience(Duration::from_secs(taken)).as_secs())
        };
        let mut layers = Layers::default();
        assert_eq!(patience(&layers), [240; 3]);
        let mut note = |answer: &str| {
            layers.note(&serde_json::from_str(answer).expect("an answer"));
            patience(&layers)
        };
        assert_eq!(note(r#"{"status":"Pulling from t/bb","id":"1"}"#), [600; 3]);
        assert_eq!(note(r#"{"status":"Pulling fs layer","progressDetail":{},"id":"aa"}"#), [60, 100, 330]);
        assert_eq!(note(r#"{"status":"Extracting","progressDetail":{},"id":"aa"}"#), [600; 3]);
    }

    #[test]
    fn progress_is_summed_over_layers_and_never_goes_back() {
        // As dockerd 20.10 sends it.
        let answers = r#"
            {"status":"Pulling from t/bb","id":"1"}
            {"status":"Already exists","progressDetail":{},"id":"aa"}
            {"status":"Pulling fs layer","progressDetail":{},"id":"bb"}
            {"status":"Downloading","progressDetail":{"current":300,"total":1000},"id":"bb"}
            {"status":"Verifying Checksum","progressDetail":{},"id":"bb"}
            {"status":"Download complete","progressDetail":{},"id":"bb"}
            {"status":"Extracting","progressDetail":{"current":10,"total":1000},"id":"bb"}
            {"status":"Pull complete","progressDetail":{},"id":"bb"}
            {"status":"Digest: sha256:00"}"#;
        let mut layers = Layers::default();
        let (mut seen, mut waits) = (Vec::new(), Vec::new());
        for answer in answers.lines().filter(|line| !line.trim().is_empty()) {
            layers.note(&serde_json::from_str(answer).expect("an answer"));
            waits.push(layers.wait_for_registry());
            let PullProgress { layers_done, layers_total, bytes_done, bytes_total } = layers.progress();
            seen.push((layers_done, layers_total, bytes_done, bytes_total));
        }
        assert_eq!(waits, [false, false, true, true, false, false, false, false, false]);
        assert_eq!(
            seen,
            [
                (0, 0, 0, 0),
                (1, 1, 0, 0),
                (1, 2, 0, 0),
                (1, 2, 300, 1000),
                (1, 2, 1000, 1000),
                (1, 2, 1000, 1000),
                (1, 2, 1000, 1000),
                (2, 2, 1000, 1000),
                (2, 2, 1000, 1000),
            ]
        );
    }
}
