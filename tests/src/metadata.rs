//! A cloud's metadata service, as a machine reaches it, with what a test says of the machine.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crate::eventually;

/// The session's token of version 2 of Amazon's.
const TOKEN: &str = "t0ken";

/// One that serves until it is dropped.
pub struct Metadata {
    address: SocketAddr,
    pages: Arc<Mutex<BTreeMap<String, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Metadata {
    /// Amazon EC2's: a spot instance.
    pub fn aws() -> Self {
        Self::aws_at(Ipv4Addr::LOCALHOST)
    }

    /// The same, at an address of the machine's that hosts reach.
    pub fn aws_at(address: Ipv4Addr) -> Self {
        let document = r#"{"instanceId": "i-0123456789abcdef0", "instanceType": "p5.48xlarge",
            "region": "eu-central-1", "availabilityZone": "eu-central-1a", "accountId": "1"}"#;
        Self::start_at(
            address,
            &[
                ("/latest/dynamic/instance-identity/document", document),
                ("/latest/meta-data/instance-life-cycle", "spot"),
            ],
        )
    }

    /// Google Compute Engine's.
    pub fn gcp() -> Self {
        let vm = r#"{"id": 4567890123456789012, "name": "train-1", "zone": "projects/7/zones/europe-west4-b",
            "machineType": "projects/7/machineTypes/a3-highgpu-8g", "preempted": "FALSE",
            "scheduling": {"preemptible": "FALSE", "onHostMaintenance": "TERMINATE"}}"#;
        Self::start(&[
            ("/computeMetadata/v1/instance/?recursive=true", vm),
            ("/computeMetadata/v1/instance/preempted", "FALSE"),
            ("/computeMetadata/v1/instance/maintenance-event", "NONE"),
        ])
    }

    /// Microsoft Azure's.
    pub fn azure() -> Self {
        let compute = r#"{"vmId": "02aab8a4-74ef-476e-8182-f6d2ba4166a6", "name": "train-1", "zone": "1",
            "location": "westeurope", "vmSize": "Standard_NC6s_v3", "priority": "Spot"}"#;
        Self::start(&[
            ("/metadata/instance/compute?api-version=2021-02-01", compute),
            (
                "/metadata/scheduledevents?api-version=2020-07-01",
                r#"{"DocumentIncarnation": 1, "Events": []}"#,
            ),
        ])
    }

    fn start(pages: &[(&str, &str)]) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, pages)
    }

    fn start_at(address: Ipv4Addr, pages: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let pages = pages.iter().map(|(path, body)| ((*path).to_owned(), (*body).to_owned())).collect();
        let (pages, stop) = (Arc::new(Mutex::new(pages)), Arc::new(AtomicBool::new(false)));
        let (served, stopped) = (pages.clone(), stop.clone());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A client that went away needs no answer.
                let _ = serve(&served, &noted, stream);
            }
        });
        Self { address, pages, asked, stop, thread: Some(thread) }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// It says this from now on, and has been asked for it twice when this returns.
    pub fn heard(&self, path: &str, body: &str) {
        self.set(path, body);
        let before = self.asked(path);
        eventually("it is asked twice", || (self.asked(path) >= before + 2).then_some(()));
    }

    fn asked(&self, path: &str) -> usize {
        lock(&self.asked).iter().filter(|asked| *asked == path).count()
    }

    /// It says this from now on.
    pub fn set(&self, path: &str, body: &str) {
        lock(&self.pages).insert(path.to_owned(), body.to_owned());
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(
    pages: &Mutex<BTreeMap<String, String>>,
    asked: &Mutex<Vec<String>>,
    mut stream: TcpStream,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let request = lines.first().cloned().unwrap_or_default();
    let (method, path) = request.split_once(' ').unwrap_or_default();
    let path = path.split(' ').next().unwrap_or_default();
    lock(asked).push(path.to_owned());
    let has = |name: &str, value: &str| {
        lines
            .iter()
            .filter_map(|line| line.split_once(": "))
            .any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value)
    };
    let may = match path {
        path if path.starts_with("/latest/") => has("x-aws-ec2-metadata-token", TOKEN),
        path if path.starts_with("/computeMetadata/") => has("metadata-flavor", "Google"),
        _ => has("metadata", "true"),
    };
    let page = lock(pages).get(path).cloned();
    let (status, body) = match page {
        _ if (method, path) == ("PUT", "/latest/api/token") => ("200 OK", TOKEN.to_owned()),
        _ if !may => ("401 Unauthorized", String::new()),
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", String::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
