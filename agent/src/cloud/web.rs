//! Asking a metadata service over HTTP: on the machine's own link, so that it answers at once or never.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{Client, StatusCode, header::HeaderMap};
use serde::de::DeserializeOwned;

use crate::patience::Chain;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// A metadata service.
pub struct Web {
    client: Client,
    url: String,
}

impl Web {
    /// The service at this address, which wants this header: no browser can be made to send one.
    pub fn new(url: &str, header: (&'static str, &'static str)) -> Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(header.0, header.1.parse().context("the header of a metadata service")?);
        let client = Client::builder()
            .default_headers(headers)
            .timeout(DEADLINE)
            // It is on this machine's own link.
            .no_proxy()
            .build()?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned() })
    }

    /// What is there; none where nothing is.
    pub async fn text(&self, path: &str) -> Result<Option<String>> {
        let url = format!("{}{path}", self.url);
        let asked = async {
            let answer = self.client.get(&url).send().await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            answer.error_for_status()?.text().await.map(Some)
        };
        asked.await.map_err(|error: reqwest::Error| anyhow::anyhow!("{url}: {}", Chain(&error.without_url())))
    }

    /// What is there.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let text = self.text(path).await?.with_context(|| format!("{}{path}: nothing is there", self.url))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{}{path}: the answer is not understood", self.url))
    }
}
