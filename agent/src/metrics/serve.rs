//! Serving the page over HTTP, on a port or a unix socket of the host.

use std::{
    convert::Infallible, fmt, future::ready, io, net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Deserializer, de::Error as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

use super::page;
use crate::{control, node::Node, task::Tasks};

/// Prometheus' "Exposition formats", "Text-based format".
const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a scraper may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long until a place that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Where the page is. As text: `127.0.0.1:9469`, `unix:/run/haul/metrics.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// On a port.
    Port(SocketAddr),
    /// On a unix socket.
    Socket(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(address) => address.fmt(f),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "{text:?} is neither an address such as 127.0.0.1:9469 nor a socket such as unix:/run/haul/metrics.sock"
            )
        };
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Socket(path.into())),
            Some(_) => Err(error()),
            None => text.parse().map(Self::Port).map_err(|_| error()),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Serves until it is dropped. A page that cannot be served keeps no job from running.
pub async fn serve(node: Arc<Node>, tasks: Tasks) {
    match &node.config.metrics {
        None => {}
        Some(listen @ Listen::Port(address)) => {
            let listener = place(listen, || TcpListener::bind(address)).await;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => answer(&node, &tasks, stream),
                    Err(error) => pause(&error).await,
                }
            }
        }
        Some(listen @ Listen::Socket(path)) => {
            let listener = place(listen, || ready(control::bind(path))).await;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => answer(&node, &tasks, stream),
                    Err(error) => pause(&error).await,
                }
            }
        }
    }
}

/// Listens there as soon as that can be: the address may come after the agent, with an interface that is not up yet, or
/// be another's until then. An error is said once, not each time.
async fn place<L, F: Future<Output = io::Result<L>>>(listen: &Listen, mut bind: impl FnMut() -> F) -> L {
    let mut said = None;
    loop {
        match bind().await {
            Ok(listener) => {
                if said.is_some() {
                    tracing::info!(%listen, "metrics are served at last");
                }
                return listener;
            }
            Err(error) => {
                let error = error.to_string();
                if said.as_ref() != Some(&error) {
                    tracing::warn!(%error, %listen, "metrics cannot be served there yet; trying again");
                    said = Some(error);
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// One connection that fails, or a process that has too many files open, ends nothing.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a scraper cannot be let in");
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn answer(node: &Arc<Node>, tasks: &Tasks, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let node = node.clone();
    tasks.spawn("metrics connection", async move {
        let service = service_fn(move |request| ready(Ok::<_, Infallible>(respond(&node, &request))));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a scraper went away");
        }
    });
}

fn respond(node: &Node, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    if request.method() != Method::GET || request.uri().path() != "/metrics" {
        *answer.status_mut() = StatusCode::NOT_FOUND;
        *answer.body_mut() = Full::from("the metrics are at /metrics\n");
        return answer;
    }
    match page::page(node) {
        Ok(page) => {
            answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(TYPE));
            *answer.body_mut() = Full::from(page);
        }
        Err(_) => *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use rstest::rstest;
    use tokio::time::timeout;

    use super::*;

    #[rstest]
    #[case("127.0.0.1:9469", true)]
    #[case("[::1]:9469", true)]
    #[case("unix:/run/haul/metrics.sock", true)]
    #[case("unix:metrics.sock", false)]
    #[case("9469", false)]
    #[case("localhost:9469", false)]
    fn a_place_for_the_page(#[case] text: &str, #[case] valid: bool) {
        match text.parse::<Listen>() {
            Ok(listen) => assert!(valid && listen.to_string() == text),
            Err(error) => assert!(!valid && error.contains(text), "{error}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_another_has_is_listened_on_once_it_is_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("its address");
        let listen = Listen::Port(address);
        let mut place = pin!(place(&listen, || TcpListener::bind(address)));
        assert!(timeout(20 * AGAIN, &mut place).await.is_err(), "another has it");
        drop(taken);
        let listener = timeout(AGAIN, place).await.expect("it is free");
        assert_eq!(listener.local_addr().expect("its address"), address);
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_is_listened_on_once_its_directory_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/metrics.sock");
        let listen = Listen::Socket(path.clone());
        let mut place = pin!(place(&listen, || ready(control::bind(&path))));
        assert!(timeout(20 * AGAIN, &mut place).await.is_err(), "it has no place");
        std::fs::create_dir(dir.path().join("run")).expect("made");
        timeout(AGAIN, place).await.expect("it has one");
        assert!(path.exists());
    }
}
