//! A proxy between haul and the emulators, which counts, makes faults, and holds to policies.
//!
//! Each client gets a [`Door`] of its own: an address, whose faults and policy touch nobody else.
//! Faults are by service, so that a node can be cut off from the store alone. They hold from the
//! moment they are set, for requests that wait for their answer as well.

mod policy;
mod request;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch, task::JoinSet};

pub use request::{Ask, Asked, Service};

use crate::Emulator;

type Answer = Response<Full<Bytes>>;

/// What goes wrong between a client and one service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// Connections break, those with requests in flight too.
    pub cut: bool,
    /// Requests are taken and never answered, nor passed on; those under way are not answered either.
    pub black_hole: bool,
    /// Requests wait that long before they are passed on.
    pub delay: Duration,
    /// Requests are answered with this status and not passed on: 500, or 503 as `SlowDown`.
    pub answer: Option<u16>,
    /// Requests are refused because their host's clock is so far behind, as the answer's date says.
    pub behind: Option<Duration>,
    /// This share of the answers is lost after the request was done.
    pub lose: f64,
}

/// The faults of both services.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Weather {
    s3: Faults,
    sqs: Faults,
}

impl Weather {
    fn of(&self, service: Service) -> Faults {
        match service {
            Service::S3 => self.s3,
            Service::Sqs => self.sqs,
        }
    }
}

/// The proxy; its doors are closed when it is dropped.
pub struct Proxy {
    runtime: Runtime,
    target: SocketAddr,
    seed: AtomicU64,
    turns: Option<Turns>,
}

/// Held while an object is written, where the emulator cannot take two writes at once.
type Turns = Arc<tokio::sync::Mutex<()>>;

/// One client's way in.
#[derive(Clone)]
pub struct Door(Arc<State>);

struct State {
    address: SocketAddr,
    target: SocketAddr,
    turns: Option<Turns>,
    client: Client<HttpConnector, Full<Bytes>>,
    weather: watch::Sender<Weather>,
    record: Mutex<Record>,
}

/// A kind of request: its service, its operation, and what it is about.
pub type Counted = (Service, String, String);

/// What is remembered of a door.
struct Record {
    counts: BTreeMap<Counted, u64>,
    policy: Option<Value>,
    denied: Vec<Ask>,
    credentials: BTreeSet<(Service, String)>,
    chance: SmallRng,
}

impl Proxy {
    /// A proxy to an emulator. What it draws by chance comes from the seed.
    pub fn new(emulator: &Emulator, seed: u64) -> Self {
        let turns = emulator.kind().lets_two_creators_win().then(Turns::default);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).thread_name("proxy").enable_all().build();
        Self {
            runtime: runtime.expect("threads"),
            target: emulator.address(),
            seed: AtomicU64::new(seed),
            turns,
        }
    }

    /// A way in for one client of this machine.
    pub fn door(&self) -> Door {
        self.door_at(Ipv4Addr::LOCALHOST)
    }

    /// A way in for one client that reaches this address of the machine's.
    pub fn door_at(&self, address: Ipv4Addr) -> Door {
        let listener = self.runtime.block_on(TcpListener::bind((address, 0))).expect("a free port");
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        let record = Record {
            counts: BTreeMap::new(),
            policy: None,
            denied: Vec::new(),
            credentials: BTreeSet::new(),
            chance: SmallRng::seed_from_u64(seed),
        };
        let state = Arc::new(State {
            address: listener.local_addr().expect("bound"),
            target: self.target,
            turns: self.turns.clone(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            weather: watch::Sender::new(Weather::default()),
            record: Mutex::new(record),
        });
        self.runtime.spawn(serve(listener, state.clone()));
        Door(state)
    }
}

impl Door {
    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Sets the faults between this client and a service; [`Faults::default`] heals.
    pub fn set(&self, service: Service, faults: Faults) {
        self.0.weather.send_modify(|weather| match service {
            Service::S3 => weather.s3 = faults,
            Service::Sqs => weather.sqs = faults,
        });
    }

    /// From now on, what this policy does not allow is refused.
    pub fn allow_only(&self, policy: Value) {
        self.0.record().policy = Some(policy);
    }

    /// What was refused.
    pub fn denied(&self) -> Vec<Ask> {
        self.0.record().denied.clone()
    }

    /// Requests so far, by service and operation, refused ones and lost answers included.
    pub fn counts(&self) -> BTreeMap<(Service, String), u64> {
        let mut counts = BTreeMap::new();
        for ((service, operation, _), count) in self.topics() {
            *counts.entry((service, operation)).or_default() += count;
        }
        counts
    }

    /// Requests so far, also by what they are about.
    pub fn topics(&self) -> BTreeMap<Counted, u64> {
        self.0.record().counts.clone()
    }

    /// Requests so far to a service.
    pub fn count(&self, service: Service) -> u64 {
        self.counts().iter().filter(|((of, _), _)| *of == service).map(|(_, count)| count).sum()
    }

    /// The access keys that requests were signed with, by service.
    pub fn credentials(&self) -> BTreeSet<(Service, String)> {
        self.0.record().credentials.clone()
    }
}

impl State {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        connections.spawn(async move {
            let answer = service_fn(|request| answer(state.clone(), request));
            // A connection that breaks is what is wanted, or the client's doing.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Answer, Cut> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let asked = Asked::read(&parts, &body);
    let denied = {
        let mut record = state.record();
        *record.counts.entry((asked.service, asked.operation.clone(), asked.topic.clone())).or_default() += 1;
        let key = parts.headers.get(header::AUTHORIZATION).and_then(access_key);
        record.credentials.extend(key.map(|key| (asked.service, key)));
        let policy = record.policy.clone();
        let denied = asked.asks.iter().find(|ask| policy.as_ref().is_some_and(|of| !policy::allows(of, ask)));
        record.denied.extend(denied.cloned());
        denied.cloned()
    };
    let mut weather = state.weather.subscribe();
    let mut work = std::pin::pin!(pass(&state, &asked, denied, parts, body));
    loop {
        if weather.borrow_and_update().of(asked.service).cut {
            return Err(Cut);
        }
        tokio::select! {
            answer = &mut work => return answer,
            _ = weather.changed() => {}
        }
    }
}

async fn pass(
    state: &State,
    asked: &Asked,
    denied: Option<Ask>,
    mut parts: http::request::Parts,
    body: Bytes,
) -> Result<Answer, Cut> {
    let faults = state.weather.borrow().of(asked.service);
    tokio::time::sleep(faults.delay).await;
    // A delayed request meets the faults of the time when it is passed on.
    let faults = state.weather.borrow().of(asked.service);
    if faults.black_hole {
        return std::future::pending().await;
    }
    if let Some(status) = faults.answer {
        return Ok(failure(
            asked.service,
            status,
            if status == 503 { "SlowDown" } else { "InternalError" },
            "a fault",
        ));
    }
    if let Some(behind) = faults.behind {
        return Ok(too_old(asked.service, behind));
    }
    if let Some(ask) = denied {
        let text =
            format!("User: x is not authorized to perform: {} on resource: {}", ask.action, ask.resource);
        return Ok(failure(asked.service, 403, "AccessDenied", &text));
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::try_from(format!("http://{}{path}", state.target)).expect("a path that came as one");
    let turn = match &state.turns {
        Some(turns) if asked.operation == "PutObject" => Some(turns.lock().await),
        _ => None,
    };
    let passed = state.client.request(Request::from_parts(parts, Full::new(body))).await.map_err(|_| Cut)?;
    let (mut parts, body) = passed.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    drop(turn);
    // As do answers: a long poll may have been under way when they were set.
    let faults = state.weather.borrow().of(asked.service);
    if faults.black_hole {
        return std::future::pending().await;
    }
    if faults.lose > 0.0 && state.record().chance.random_bool(faults.lose) {
        return Err(Cut);
    }
    if parts.status == StatusCode::NOT_FOUND && asked.operation == "GetObject" && !may_list(state, asked) {
        return Ok(failure(
            Service::S3,
            403,
            "AccessDenied",
            "without s3:ListBucket, what is not there is denied",
        ));
    }
    for name in [header::TRANSFER_ENCODING, header::CONNECTION] {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, Full::new(body)))
}

/// S3 says that an object is not there only to those who may list its bucket (Amazon S3 API
/// Reference, `GetObject`).
fn may_list(state: &State, asked: &Asked) -> bool {
    let record = state.record();
    let Some(policy) = &record.policy else { return true };
    let bucket = asked.asks[0].resource.split('/').next().unwrap_or_default().to_owned();
    let list = Ask { action: "s3:ListBucket".into(), resource: bucket, context: BTreeMap::new() };
    policy::allows(policy, &list)
}

fn failure(service: Service, status: u16, code: &str, text: &str) -> Answer {
    let answer = Response::builder().status(status);
    let answer = match service {
        Service::S3 => {
            let body = format!("<Error><Code>{code}</Code><Message>{text}</Message></Error>");
            answer.header(header::CONTENT_TYPE, "application/xml").body(Full::from(body))
        }
        Service::Sqs => {
            let body = json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": text });
            let kind = "application/x-amz-json-1.0";
            answer
                .header(header::CONTENT_TYPE, kind)
                .header("x-amzn-query-error", format!("{code};Sender"))
                .body(Full::from(body.to_string()))
        }
    };
    answer.expect("a whole answer")
}

/// What a service says to a host whose clock is behind.
fn too_old(service: Service, behind: Duration) -> Answer {
    let mut answer = match service {
        Service::S3 => failure(service, 403, "RequestTimeTooSkewed", "The difference is too large."),
        Service::Sqs => failure(service, 403, "InvalidSignatureException", "Signature expired"),
    };
    let theirs = (crate::wall_clock() + behind).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    answer.headers_mut().insert(header::DATE, theirs.parse().expect("a date"));
    answer
}

/// The access key of a signature of version 4.
fn access_key(authorization: &http::HeaderValue) -> Option<String> {
    let (_, credential) = authorization.to_str().ok()?.split_once("Credential=")?;
    credential.split('/').next().map(str::to_owned)
}
