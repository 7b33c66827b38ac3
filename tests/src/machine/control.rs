//! A socket over which an emulated machine is driven, a line of JSON for each request and each answer: QEMU's monitor
//! (QMP) and the guest's agent speak alike.
//!
//! <https://www.qemu.org/docs/master/interop/qmp-spec.html>, <https://www.qemu.org/docs/master/interop/qemu-ga.html>

use std::{
    io::{BufRead, BufReader, Error, Result, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of the two.
pub struct Control(BufReader<UnixStream>);

impl Control {
    /// QEMU's monitor at this socket.
    pub fn monitor(socket: &Path) -> Result<Self> {
        let mut control = Self::open(socket, PATIENCE)?;
        control.line()?;
        control.ask("qmp_capabilities", &json!({}))?;
        Ok(control)
    }

    /// The agent in the guest, which answers once it runs.
    pub fn agent(socket: &Path) -> Result<Self> {
        let mut control = Self::open(socket, Duration::from_secs(2))?;
        // An agent that starts late answers what was asked before, too.
        static ASKED: AtomicU32 = AtomicU32::new(1);
        let id = ASKED.fetch_add(1, Ordering::Relaxed);
        control.send("guest-sync", &json!({ "id": id }))?;
        while control.line()?["return"] != id {}
        control.0.get_ref().set_read_timeout(Some(PATIENCE))?;
        Ok(control)
    }

    fn open(socket: &Path, patience: Duration) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// What a command gives.
    pub fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.send(command, arguments)?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                return Err(Error::other(format!("{command}: {}", error["desc"])));
            }
            if let Some(given) = answer.get_mut("return") {
                return Ok(given.take());
            }
        }
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.0.get_mut(), "{request}")
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(Error::other("it has hung up"));
        }
        Ok(serde_json::from_str(&line)?)
    }
}
