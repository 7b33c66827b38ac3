//! What a store refuses, by what the caller can do about it.

use std::path::PathBuf;

use url::Url;

use super::count::Kind;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No store has this URL.
    #[error("{url} is no store: {detail}")]
    BadUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The directory of a directory store cannot be made.
    #[error("the store's directory {} cannot be used", dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The store knows who asks and says no, or does not know who asks. Trying again is of no use.
    #[error("the store {url} refused to {verb} {key}")]
    Denied {
        /// The store.
        url: String,
        /// What was attempted.
        verb: &'static str,
        /// On which key.
        key: String,
        /// The store's answer.
        #[source]
        source: Box<object_store::Error>,
    },
    /// The store takes no request that is signed at this host's time. Trying again is of no use
    /// before the clock is set.
    #[error("the store {url} refused to {verb} {key}: this host's clock is wrong; set it (NTP)")]
    Clock {
        /// The store.
        url: String,
        /// What was attempted.
        verb: &'static str,
        /// On which key.
        key: String,
        /// The store's answer.
        #[source]
        source: Box<object_store::Error>,
    },
    /// The store did not answer, or with a passing failure, also after several tries.
    #[error("the store {url} could not {verb} {key}")]
    Unavailable {
        /// The store.
        url: String,
        /// What was attempted.
        verb: &'static str,
        /// On which key.
        key: String,
        /// The last answer.
        #[source]
        source: Box<object_store::Error>,
    },
}

impl StoreError {
    pub(super) fn from_request(kind: Kind, url: &Url, key: &str, source: object_store::Error) -> Self {
        use object_store::Error;
        let (url, verb, key) = (url.to_string(), kind.verb(), key.to_owned());
        let io = io_kind(&source);
        match source {
            source if is_of_clock(&source) => Self::Clock { url, verb, key, source: source.into() },
            // Of an object it is an answer, dealt with before; else there is no such bucket.
            Error::NotFound { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::InvalidPath { .. }
            | Error::UnknownConfigurationKey { .. } => Self::Denied { url, verb, key, source: source.into() },
            source if is_refusal(&source) || io.is_some_and(is_lasting) => {
                Self::Denied { url, verb, key, source: source.into() }
            }
            source => Self::Unavailable { url, verb, key, source: source.into() },
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::BadUrl { .. } | Self::Directory { .. } | Self::Denied { .. } | Self::Clock { .. } => false,
        }
    }
}

/// Whether the store refused because of the time of a request: S3's `RequestTimeTooSkewed` (Amazon S3
/// API Reference, "Error responses"), or Azure's `AuthenticationFailed` with this detail. The code comes in
/// the text only.
fn is_of_clock(error: &object_store::Error) -> bool {
    let text = error.to_string();
    text.contains("RequestTimeTooSkewed") || text.contains("Request date header too old")
}

/// Whether a listing was refused. Of other requests the library says so by the kind of its error.
fn is_refusal(error: &object_store::Error) -> bool {
    let object_store::Error::Generic { source, .. } = error else { return false };
    let text = source.to_string();
    ["401 ", "403 "].iter().any(|status| text.contains(&format!("status code: {status}")))
}

/// The system's error under a directory store's.
fn io_kind(error: &object_store::Error) -> Option<std::io::ErrorKind> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        source = error.source();
    }
    None
}

/// What a directory says that will not pass within seconds.
fn is_lasting(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind as K;
    matches!(
        kind,
        K::PermissionDenied | K::ReadOnlyFilesystem | K::StorageFull | K::QuotaExceeded | K::NotADirectory
    )
}
