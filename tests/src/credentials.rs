//! A host's credentials that expire, as a container's or an instance's do: served over HTTP, each
//! time with another key.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet};

use crate::{emulator::Environment, wall_clock};

/// Serves until it is dropped.
pub struct Credentials {
    _runtime: Runtime,
    address: SocketAddr,
}

impl Credentials {
    /// Serves keys that live so long.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn serve(lifetime: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        runtime.spawn(answer(listener, lifetime));
        Self { _runtime: runtime, address }
    }

    /// The environment, with fixed keys replaced by these.
    pub fn instead(&self, env: Environment) -> Environment {
        let fixed = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        let mut env: Environment =
            env.into_iter().filter(|(name, _)| !fixed.contains(&name.as_str())).collect();
        env.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI".into(), format!("http://{}/keys", self.address)));
        env
    }
}

async fn answer(listener: TcpListener, lifetime: Duration) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let answer = service_fn(move |_| async move {
            let keys = json!({
                "AccessKeyId": format!("KEY{}", COUNT.fetch_add(1, Ordering::Relaxed)),
                "SecretAccessKey": "secret",
                "Token": "token",
                "Expiration": (wall_clock() + lifetime).format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            });
            let body = Full::new(Bytes::from(keys.to_string()));
            Response::builder().header(header::CONTENT_TYPE, "application/json").body(body)
        });
        connections.spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}
