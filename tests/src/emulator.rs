//! Amazon SQS and S3 on this machine, by two independent emulators that keep all in memory.
//!
//! They are installed by `tests/run` from `tests/emulators.txt`. Each test starts its own on a free
//! port, and stops it by its process id.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{eventually, world::root};

/// The emulators that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// moto's server: 50 to 130 requests a second.
    Moto,
    /// ministack: about ten times as many.
    Ministack,
}

impl Kind {
    /// Whether it checks that a key is free and takes the object in two steps, so that of two
    /// creators at once both may win. S3 lets one win, and that is what haul stands on; the proxy
    /// passes on one write at a time to such an emulator.
    pub fn lets_two_creators_win(self) -> bool {
        match self {
            Self::Moto => true,
            Self::Ministack => false,
        }
    }
}

/// The bucket that each emulator has.
pub const BUCKET: &str = "fleet";

/// The region in which all is.
pub const REGION: &str = "us-east-1";

/// An emulator that runs.
pub struct Emulator {
    kind: Kind,
    process: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Emulator {
    /// Starts one and waits until it answers and has its bucket.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn start(kind: Kind) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        // Freed again at once: another process could take it, but ports are given out in turn.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let port = address.port().to_string();
        let mut command = match kind {
            Kind::Moto => {
                let mut moto = Command::new(program("moto_server"));
                moto.args(["-H", "127.0.0.1", "-p", &port]);
                moto
            }
            Kind::Ministack => {
                let mut ministack = Command::new(program("ministack"));
                ministack.env("GATEWAY_PORT", &port).env("MINISTACK_HOST", "127.0.0.1");
                ministack.env("STATE_DIR", dir.path().join("state")).env("LOG_LEVEL", "WARNING");
                ministack
            }
        };
        let log = File::create(dir.path().join("log")).expect("made");
        command.current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("open")).stderr(log);
        let process = command.spawn().expect("the emulator starts");
        let mut emulator = Self { kind, process, address, dir };
        emulator.until_ready();
        emulator
    }

    /// Which it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn until_ready(&mut self) {
        let (address, log) = (self.address, self.dir.path().join("log"));
        let process = &mut self.process;
        eventually("the emulator has its bucket", || {
            if let Some(status) = process.try_wait().expect("asked") {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("the emulator ended with {status}: {said}");
            }
            make_bucket(address).ok().filter(|made| *made).map(drop)
        });
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Variables and their values.
pub type Environment = Vec<(String, String)>;

/// What a client of an emulator, or of a proxy to one, finds in its environment.
pub fn environment(url: &str) -> Environment {
    let vars = [
        ("AWS_ENDPOINT_URL", url),
        ("AWS_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        // Nothing of whoever runs the tests.
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ];
    vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// A program in Python, which has boto3.
pub fn python(text: &str) -> Command {
    let mut python = Command::new(program("python"));
    python.args(["-c", text]);
    python
}

fn program(name: &str) -> PathBuf {
    let path = root().join(".cache/emulators/bin").join(name);
    assert!(path.is_file(), "{} is not there; tests/run fleet installs it", path.display());
    path
}

/// Neither emulator looks at who asks.
fn make_bucket(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "PUT /{BUCKET} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
