//! The store: where a fleet's truth lies.
//!
//! Any object store that can create a key only if it is absent will do: S3, Google Cloud Storage,
//! Azure Blob Storage, or a directory. [`Store`] narrows `object_store` to what haul needs, says
//! what each call promises, counts requests by kind, and tries again what is worth it.
//!
//! - [`Store::create`] is the one primitive on which all else rests: of many creators of one key,
//!   exactly one wins, and an object that was created is there for every later read.
//! - Nothing here ever rewrites an object of the truth; [`Store::put`] is for records that their
//!   one owner rewrites (a node's heartbeat) and for markers.
//! - A directory is as good as a bucket for several processes on one host, or on an NFS mount:
//!   an object is written beside its key, synced to disk, and linked to its name, which fails
//!   when the name is taken (`link(2)`). A crash leaves nothing half-written under a key.
//!
//! Requests that fail for a passing reason are repeated with exponential backoff and full jitter
//! (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

mod backend;
mod count;
mod credentials;
mod error;
mod probe;
mod wide;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use std::{fmt, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path};

pub use count::{Counts, Kind};
pub use error::StoreError;
pub use probe::{ProbeError, probe};
use url::Url;

use crate::id::Timestamp;

/// The name of an object, below the fleet's URL. Made only of names that are safe segments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Takes text whose segments are valid names already.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key as text, segments parted by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// When it was last written, by the store's clock: to be compared with nothing but other times
    /// of the same store.
    pub modified: Timestamp,
    /// What changes whenever it is written; some stores have none.
    pub tag: Option<String>,
}

/// What became of [`Store::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The object is new.
    New,
    /// The key was taken, by this.
    Exists(Bytes),
}

/// How many objects one request lists, as S3 has it.
pub const PAGE: usize = 1000;

/// A fleet's objects.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    url: Url,
    counts: Arc<Counts>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url)
    }
}

/// Up to six tries over about ten seconds. What lasts longer is an outage, and its handling is
/// the caller's: a client says so, an agent goes on when the store is back.
fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(4))
        .with_max_times(5)
        .with_jitter()
}

impl Store {
    /// Opens the store at a URL: `file:///srv/haul`, `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix` or `memory:///`. Cloud credentials come from the environment
    /// (`AWS_*`, `GOOGLE_*`, `AZURE_*`) and the host's own identity. Nothing is requested yet.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`], or [`StoreError::Denied`] for a directory that cannot be made.
    pub fn open(url: &Url) -> Result<Self, StoreError> {
        let (inner, prefix) = backend::open(url)?;
        Ok(Self { inner, prefix, url: url.clone(), counts: Arc::default() })
    }

    /// The store behind this implementation, from its root on; `url` is what it is called.
    pub fn with(inner: Arc<dyn ObjectStore>, url: Url) -> Self {
        Self { inner, prefix: Path::default(), url, counts: Arc::default() }
    }

    /// The URL it was opened with.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The directory, where the store is one.
    pub fn directory(&self) -> Option<std::path::PathBuf> {
        (self.url.scheme() == "file").then(|| self.url.to_file_path().ok()).flatten()
    }

    /// Requests made so far, by kind, tries included.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn path(&self, key: &str) -> Path {
        self.prefix.parts().chain(Path::from(key).parts()).collect()
    }

    fn key(&self, path: &Path) -> Key {
        let below = path.prefix_match(&self.prefix).map(Iterator::collect::<Path>);
        Key::new(below.unwrap_or_else(|| path.clone()).as_ref())
    }

    async fn retried<T, F>(&self, kind: Kind, key: &str, request: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, object_store::Error>>,
    {
        let once = || async {
            self.counts.add(kind);
            request().await.map_err(|e| StoreError::from_request(kind, &self.url, key, e))
        };
        once.retry(backoff()).when(StoreError::is_transient).await
    }

    /// The object, or `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        Ok(self.get_dated(key).await?.map(|(body, _)| body))
    }

    /// The object and when it was written, by the store's own clock, or `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn get_dated(&self, key: &Key) -> Result<Option<(Bytes, Timestamp)>, StoreError> {
        let path = self.path(key.as_str());
        let read = || async {
            match self.inner.get(&path).await {
                Ok(found) => {
                    let written = found.meta.last_modified;
                    found.bytes().await.map(|body| Some((body, written)))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(e) => Err(e),
            }
        };
        self.retried(Kind::Get, key.as_str(), read).await
    }

    /// Creates the object if its key is free. Of many callers at once, one gets
    /// [`Created::New`]; a caller whose own put won without its knowing (the answer was lost and
    /// the put repeated) gets [`Created::Exists`] with its own body.
    ///
    /// # Errors
    /// [`StoreError`]; the object may or may not be there then.
    pub async fn create(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        let path = self.path(key.as_str());
        let create = || async {
            let put =
                self.inner.put_opts(&path, PutPayload::from(body.clone()), PutMode::Create.into()).await;
            match put {
                Ok(_) => Ok(Created::New),
                Err(
                    taken @ (object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. }),
                ) => {
                    self.counts.add(Kind::Get);
                    match self.inner.get(&path).await {
                        Ok(found) => found.bytes().await.map(Created::Exists),
                        // S3 answers 409 to both sides of a race: nobody has it yet, so try again.
                        Err(object_store::Error::NotFound { .. }) => {
                            Err(object_store::Error::Generic { store: "haul", source: taken.into() })
                        }
                        Err(e) => Err(e),
                    }
                }
                Err(e) => Err(e),
            }
        };
        self.retried(Kind::Put, key.as_str(), create).await
    }

    /// Writes the object, over an older one if there is one.
    ///
    /// # Errors
    /// [`StoreError`]; the object may or may not be there then.
    pub async fn put(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        let path = self.path(key.as_str());
        let put = || async { self.inner.put(&path, PutPayload::from(body.clone())).await.map(|_| ()) };
        self.retried(Kind::Put, key.as_str(), put).await
    }

    /// Deletes the object; that there is none is no error.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let path = self.path(key.as_str());
        let delete = || async {
            match self.inner.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(e) => Err(e),
            }
        };
        self.retried(Kind::Delete, key.as_str(), delete).await
    }

    /// An object as a listing would show it, or `None` where there is none. Counts as a read.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn head(&self, key: &Key) -> Result<Option<Listed>, StoreError> {
        let path = self.path(key.as_str());
        let head = || async {
            match self.inner.head(&path).await {
                Ok(meta) => Ok(Some(self.listed(&meta))),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(e) => Err(e),
            }
        };
        self.retried(Kind::Get, key.as_str(), head).await
    }

    fn listed(&self, meta: &object_store::ObjectMeta) -> Listed {
        Listed { key: self.key(&meta.location), modified: meta.last_modified, tag: meta.e_tag.clone() }
    }

    /// All objects below a prefix of whole segments, by key. One request for each thousand.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn list_objects(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let path = self.path(prefix);
        let list = || async {
            self.inner.list(Some(&path)).map_ok(|meta| self.listed(&meta)).try_collect::<Vec<_>>().await
        };
        let mut objects = self.retried(Kind::List, prefix, list).await?;
        self.counts.add_pages(objects.len());
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// The first objects below a prefix whose key comes after `after`, at most [`PAGE`]: one request.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn list_page(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError> {
        let path = self.path(prefix);
        let offset = after.map(|after| self.path(after.as_str()));
        let list = || async {
            let all = match &offset {
                Some(offset) => self.inner.list_with_offset(Some(&path), offset),
                None => self.inner.list(Some(&path)),
            };
            all.take(PAGE).map_ok(|meta| self.listed(&meta)).try_collect::<Vec<_>>().await
        };
        let mut objects = self.retried(Kind::List, prefix, list).await?;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// All keys below a prefix of whole segments, in order.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn list(&self, prefix: &str) -> Result<Vec<Key>, StoreError> {
        Ok(self.list_objects(prefix).await?.into_iter().map(|object| object.key).collect())
    }

    /// The next segments below a prefix: of `jobs/a/log/0` and `jobs/b/log/0`, the names `a` and
    /// `b` for `jobs`. In order.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn list_names(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let path = self.path(prefix);
        let list = || async { self.inner.list_with_delimiter(Some(&path)).await };
        let found = self.retried(Kind::List, prefix, list).await?;
        let dirs = found.common_prefixes.iter().filter_map(|dir| dir.filename().map(str::to_owned));
        let objects = found.objects.iter().filter_map(|meta| meta.location.filename().map(str::to_owned));
        let mut names: Vec<String> = dirs.chain(objects).collect();
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
