//! Plain HTTP requests, for what is asked of an emulator past haul and past the SDKs.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::runtime::Runtime;

/// What came back.
pub type Answer = Response<Bytes>;

/// Why nothing came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The connection broke.
    #[error("the connection broke")]
    Broken,
    /// There was no answer in time.
    #[error("there was no answer in time")]
    Silent,
}

/// A client.
pub struct Http {
    runtime: Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Default for Http {
    fn default() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self {
            runtime: runtime.expect("a thread"),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }
}

impl Http {
    /// Makes a request, once, and waits so long for the answer.
    ///
    /// # Errors
    /// [`Unanswered`]
    pub fn send(&self, request: Request<Full<Bytes>>, patience: Duration) -> Result<Answer, Unanswered> {
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|_| Unanswered::Broken)?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(|_| Unanswered::Broken)?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        self.runtime.block_on(async {
            tokio::time::timeout(patience, exchange).await.unwrap_or(Err(Unanswered::Silent))
        })
    }

    /// A request that is answered.
    ///
    /// # Panics
    /// When it is not, or with neither success nor 404.
    pub fn ask(&self, request: Request<Full<Bytes>>) -> Option<Bytes> {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = self.send(request, Duration::from_secs(60)).unwrap_or_else(|e| panic!("{what}: {e}"));
        let status = answer.status();
        assert!(status.is_success() || status == StatusCode::NOT_FOUND, "{what}: {answer:?}");
        status.is_success().then(|| answer.into_body())
    }
}

/// A request without a body.
pub fn request(method: Method, url: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(url).body(Full::default()).expect("a valid request")
}

/// A `PutObject`.
pub fn put(url: &str, body: &str) -> Request<Full<Bytes>> {
    let body = Full::from(body.to_owned());
    Request::builder().method(Method::PUT).uri(url).body(body).expect("a valid request")
}
