//! A host of a fleet in the cloud: an agent, its guard, and their way to the cloud.

use rustix::process::Signal;

use crate::{Agent, Cloud, agent::Guard, engine::signal, proxy::Door};

/// A host that runs.
pub struct Host<'c> {
    /// Its name.
    pub name: String,
    /// Its agent.
    pub agent: Agent<'c>,
    /// Its way to the cloud.
    pub door: Door,
    _guard: Guard,
}

impl<'c> Host<'c> {
    /// Starts one with two simulated GPUs, which may do no more than an agent's policy allows.
    pub fn start(cloud: &'c Cloud, name: &str) -> Self {
        let (door, env) = cloud.other_door();
        door.allow_only(cloud.policy("agent"));
        let env: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let gpus = ["--simulate-gpus", "2xP100:16GiB"];
        let agent = Agent::start_with(cloud.world(), name, &gpus, &env);
        let guard = agent.guard();
        Self { name: name.to_owned(), agent, door, _guard: guard }
    }

    /// SIGSTOP: its agent stands still, and its guard does not.
    pub fn suspend(&self) {
        signal(self.agent.pid(), Signal::STOP);
    }

    /// SIGCONT: its agent goes on as if nothing had been.
    pub fn resume(&self) {
        signal(self.agent.pid(), Signal::CONT);
    }
}
