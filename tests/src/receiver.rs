//! Whoever listens to webhooks: a small HTTP server that can be down, refuse, or never answer.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use serde_json::Value;
use shared::event::SigningKey;

/// A secret of the tests, as a node holds it.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Answers with this status.
    Answer(u16),
    /// Takes the request and never answers.
    Mute,
}

/// Something that came.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Its `webhook-id`.
    pub id: String,
    /// Its body.
    pub event: Value,
    /// What it was answered, if it was.
    pub answer: Mood,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    heard: Vec<Heard>,
    wrong: Vec<String>,
    // Connections that are never answered stay open.
    held: Vec<TcpStream>,
}

/// A receiver of webhooks at an address of its own.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Reserves an address; nobody listens there yet.
    pub fn down(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = State { mood, heard: Vec::new(), wrong: Vec::new(), held: Vec::new() };
        Self { address, state: Arc::new(Mutex::new(state)), stop: Arc::default(), thread: None }
    }

    /// Starts one that listens.
    pub fn start(mood: Mood) -> Self {
        let mut receiver = Self::down(mood);
        receiver.up();
        receiver
    }

    /// Begins to listen.
    ///
    /// # Panics
    /// When somebody else has taken the address meanwhile.
    pub fn up(&mut self) {
        let listener = TcpListener::bind(self.address).expect("the address is still free");
        let (state, stop) = (self.state.clone(), self.stop.clone());
        self.thread = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let state = state.clone();
                if let Ok(stream) = stream {
                    std::thread::spawn(move || serve(&state, stream));
                }
            }
        }));
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/haul", self.address)
    }

    /// Changes what it does.
    pub fn set(&self, mood: Mood) {
        lock(&self.state).mood = mood;
    }

    /// What came so far.
    ///
    /// # Panics
    /// When something came that was not signed as it must be.
    pub fn heard(&self) -> Vec<Heard> {
        let state = lock(&self.state);
        assert!(state.wrong.is_empty(), "came unsigned or damaged: {:?}", state.wrong);
        state.heard.clone()
    }

    /// The positions that it acknowledged, by job, in the order in which they came.
    pub fn by_job(&self) -> BTreeMap<String, Vec<u64>> {
        let mut jobs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for heard in self.heard().iter().filter(|heard| heard.answer == Mood::Answer(204)) {
            let data = &heard.event["data"];
            let job = data["job"].as_str().expect("a job").to_owned();
            jobs.entry(job).or_default().push(data["seq"].as_u64().expect("a position"));
        }
        jobs
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        lock(&self.state).held.clear();
        // The listener sees the flag when somebody knocks.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(state: &Mutex<State>, stream: TcpStream) {
    let Ok(clone) = stream.try_clone() else { return };
    let mut reader = BufReader::new(clone);
    let mut stream = stream;
    while let Some((headers, body)) = request(&mut reader) {
        let mut state = lock(state);
        let mood = state.mood;
        match verified(&headers, &body) {
            Ok((id, event)) => state.heard.push(Heard { id, event, answer: mood }),
            Err(why) => state.wrong.push(why),
        }
        let Mood::Answer(status) = mood else {
            state.held.push(stream);
            return;
        };
        drop(state);
        let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads one request: its headers, by name in small letters, and its body.
fn request(reader: &mut impl BufRead) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((headers, body))
}

fn verified(headers: &BTreeMap<String, String>, body: &[u8]) -> Result<(String, Value), String> {
    let header = |name: &str| headers.get(name).cloned().ok_or_else(|| format!("no {name}: {headers:?}"));
    let (id, signature) = (header("webhook-id")?, header("webhook-signature")?);
    let time: i64 = header("webhook-timestamp")?.parse().map_err(|e| format!("no time: {e}"))?;
    let key = SigningKey::read(SECRET).map_err(|e| e.to_string())?;
    if !key.verify(&id, time, body, &signature) {
        return Err(format!("wrong signature of {id}"));
    }
    if (time - crate::wall_clock().timestamp()).abs() > 60 {
        return Err(format!("{id} was signed at another time: {time}"));
    }
    let event: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    if event["id"] != id.as_str() {
        return Err(format!("{id} calls itself {}", event["id"]));
    }
    Ok((id, event))
}
