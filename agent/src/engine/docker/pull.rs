//! Fetching an image.

use std::{collections::BTreeMap, time::Duration};

use bollard::{
    auth::DockerCredentials, models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder,
};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::{Call, Docker};
use crate::engine::{
    EngineError, PullProgress,
    credentials::{self, Credential},
};

/// A pull that says nothing for so long is given up. Unpacking one large layer of an image for
/// deep learning takes minutes, and says nothing meanwhile on some engines.
const SILENCE: Duration = Duration::from_secs(600);

impl Docker {
    /// Fetches it and tells how far it is.
    pub(super) async fn pull_image(
        &self,
        image: &str,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<(), EngineError> {
        let client = self.client().await?;
        let credential = self.credential(image).await?;
        let (name, tag) = split(image);
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let mut answers = client.create_image(Some(options), None, credential);
        let mut layers = Layers::default();
        loop {
            let answer = match tokio::time::timeout(SILENCE, answers.next()).await {
                Ok(Some(answer)) => answer.map_err(|error| self.failed("pull", Call::Image(image), error))?,
                Ok(None) => return Ok(()),
                Err(_) => {
                    let detail = format!("the pull made no progress for {} minutes", SILENCE.as_secs() / 60);
                    return Err(EngineError::RegistryUnavailable { image: image.into(), detail });
                }
            };
            layers.note(&answer);
            // A slow reader misses some; the next one tells it all anyway.
            let _ = progress.try_send(layers.progress());
        }
    }

    /// The host's credential, read on a thread where a helper program may take its time.
    async fn credential(&self, image: &str) -> Result<Option<DockerCredentials>, EngineError> {
        let (config, owned) = (self.credentials.clone(), image.to_owned());
        let read = tokio::task::spawn_blocking(move || credentials::read(config, &owned)).await;
        let denied = |detail: String| EngineError::NoAccess {
            image: image.into(),
            registry: credentials::registry(image).into(),
            detail,
        };
        let credential = read.map_err(|e| denied(e.to_string()))?.map_err(denied)?;
        let serveraddress = Some(credentials::registry(image).to_owned());
        Ok(credential.map(|credential| match credential {
            Credential::Password { username, password } => DockerCredentials {
                username: Some(username),
                password: Some(password),
                serveraddress,
                ..DockerCredentials::default()
            },
            Credential::Token(token) => DockerCredentials {
                identitytoken: Some(token),
                serveraddress,
                ..DockerCredentials::default()
            },
        }))
    }
}

/// The name and the tag or digest; without one, `latest`, since the API would fetch all tags.
fn split(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

/// The layers of a pull, by id.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, Layer>);

#[derive(Debug, Default)]
struct Layer {
    done: bool,
    current: u64,
    total: u64,
}

impl Layers {
    fn note(&mut self, answer: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&answer.id, answer.status.as_deref()) else { return };
        // Of the image itself, not of a layer.
        if status.starts_with("Pulling from") {
            return;
        }
        let layer = self.0.entry(id.clone()).or_default();
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

    fn progress(&self) -> PullProgress {
        PullProgress {
            layers_done: self.0.values().filter(|layer| layer.done).count(),
            layers_total: self.0.len(),
            bytes_done: self.0.values().map(|layer| layer.current).sum(),
            bytes_total: self.0.values().map(|layer| layer.total).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a", ("a", "latest"))]
    #[case("a:1", ("a", "1"))]
    #[case("localhost:5000/a", ("localhost:5000/a", "latest"))]
    #[case("localhost:5000/a:1", ("localhost:5000/a", "1"))]
    #[case("a@sha256:00", ("a", "sha256:00"))]
    fn a_reference_is_split(#[case] image: &str, #[case] expected: (&str, &str)) {
        assert_eq!(split(image), expected);
    }
}
