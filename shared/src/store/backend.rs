//! From a URL to an `object_store` implementation.

use std::sync::Arc;

use object_store::{
    ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, memory::InMemory, path::Path,
};
use url::Url;

use super::{StoreError, credentials::AwsChain};

/// [`Store`](super::Store) repeats requests itself, for every kind of store in the same way.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn client() -> ClientOptions {
    ClientOptions::new()
        .with_timeout(std::time::Duration::from_secs(30))
        .with_connect_timeout(std::time::Duration::from_secs(5))
}

/// The store and the prefix within it.
pub(super) fn open(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path), StoreError> {
    let bad = |detail: String| StoreError::BadUrl { url: url.to_string(), detail };
    let built = |e: object_store::Error| bad(e.to_string());
    let prefix = || Path::from_url_path(url.path()).map_err(|e| bad(e.to_string()));
    match url.scheme() {
        "file" => {
            let dir =
                url.to_file_path().map_err(|()| bad("a directory's URL is file:///absolute/path".into()))?;
            std::fs::create_dir_all(&dir)
                .map_err(|source| StoreError::Directory { dir: dir.clone(), source })?;
            let store = LocalFileSystem::new_with_prefix(&dir).map_err(built)?.with_fsync(true);
            Ok((Arc::new(store), Path::default()))
        }
        "memory" => Ok((Arc::new(InMemory::new()), prefix()?)),
        "s3" | "s3a" => {
            let store = AmazonS3Builder::from_env()
                .with_url(url.as_str())
                .with_credentials(Arc::new(AwsChain::default()))
                .with_retry(no_retries())
                .with_client_options(client().with_allow_http(true))
                .build();
            Ok((Arc::new(store.map_err(built)?), prefix()?))
        }
        "gs" => {
            let store = GoogleCloudStorageBuilder::from_env()
                .with_url(url.as_str())
                .with_retry(no_retries())
                .with_client_options(client().with_allow_http(true))
                .build();
            Ok((Arc::new(store.map_err(built)?), prefix()?))
        }
        "az" | "azure" | "abfs" | "abfss" => {
            let store = MicrosoftAzureBuilder::from_env()
                .with_url(url.as_str())
                .with_retry(no_retries())
                .with_client_options(client().with_allow_http(true))
                .build();
            Ok((Arc::new(store.map_err(built)?), prefix()?))
        }
        other => Err(bad(format!("{other:?} is no kind of store; use file, s3, gs or az"))),
    }
}
