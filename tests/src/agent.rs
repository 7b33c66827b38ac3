//! An agent's process.

use std::{fs::File, path::PathBuf, process::Child};

use rustix::process::Signal;

use crate::{World, engine::signal, eventually};

/// An agent that runs, or ran.
pub struct Agent<'w> {
    world: &'w World,
    name: String,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    process: Option<Child>,
}

impl<'w> Agent<'w> {
    /// Starts an agent of this name and waits until it is ready.
    pub fn start(world: &'w World, name: &str, flags: &[&str]) -> Self {
        Self::start_with(world, name, flags, &[])
    }

    /// Starts an agent with these variables.
    pub fn start_with(world: &'w World, name: &str, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut agent = Self { world, name: name.into(), flags, env, process: None };
        agent.launch();
        agent.until_ready();
        agent
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.world.path(&format!("state-{}", self.name))
    }

    /// Starts the guard of its containers, which lives until it is dropped.
    pub fn guard(&self) -> Guard {
        let log = self.world.path(&format!("{}.guard.log", self.name));
        let log = File::options().create(true).append(true).open(log).expect("opened");
        let mut command = self.world.command(["guard", "--state-dir"]);
        command.arg(self.state_dir()).stderr(log);
        Guard(command.spawn().expect("haul starts"))
    }

    /// Leaves the file `go` beside a job's checkpoint, for one that waits for it.
    ///
    /// # Panics
    /// When the job has not begun here.
    pub fn go(&self, job: &str) {
        let file = self.state_dir().join("outputs").join(job).join("checkpoint/go");
        std::fs::write(file, "").expect("written");
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.world.path(&format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Starts its process again.
    pub fn launch(&mut self) {
        let log = self.world.path(&format!("{}.log", self.name));
        let log = File::options().create(true).append(true).open(log).expect("opened");
        let mut command = self.world.command(["agent", "--node", &self.name]);
        command.arg("--state-dir").arg(self.state_dir()).args(&self.flags).envs(self.env.clone()).stderr(log);
        self.process = Some(command.spawn().expect("haul starts"));
    }

    /// Waits until it answers.
    pub fn until_ready(&mut self) {
        let dir = self.state_dir();
        eventually("the agent answers", || {
            let process = self.process.as_mut().expect("started");
            if let Some(status) = process.try_wait().expect("asked") {
                panic!("the agent ended with {status}: {}", self.said());
            }
            let args = ["agent".as_ref(), "status".as_ref(), "--state-dir".as_ref(), dir.as_os_str()];
            (self.world.run(args).code == 0).then_some(())
        });
    }

    /// Its process.
    ///
    /// # Panics
    /// When it has none.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("running").id()
    }

    /// kill -9: it gets no word in.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(process.id(), Signal::KILL);
            process.wait().expect("ends");
        }
    }

    /// SIGTERM, and its exit code.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) -> i32 {
        self.ask_to_stop();
        self.ended()
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        signal(self.pid(), Signal::TERM);
    }

    /// Its exit code, once it has ended.
    ///
    /// # Panics
    /// When it does not end.
    pub fn ended(&mut self) -> i32 {
        let mut process = self.process.take().expect("running");
        eventually("the agent ends", || process.try_wait().expect("asked")).code().unwrap_or(-1)
    }
}

/// A guard that runs.
pub struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        signal(self.0.id(), Signal::KILL);
        let _ = self.0.wait();
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- what agent {} said:\n{}", self.name, self.said());
        }
    }
}
