//! A fleet on an emulator of SQS and S3, whose parts each go through a door of their own.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::{
    Bucket, Emulator, Proxy, World,
    emulator::{self, BUCKET, Environment, Kind, REGION},
    proxy::Door,
    queues::Queues,
};

/// A fleet that was made, and what it stands on.
pub struct Cloud {
    // In the order in which they go: the world's commands need the rest.
    world: World,
    door: Door,
    proxy: Proxy,
    emulator: Emulator,
    prefix: String,
}

/// What the names of the fleet's queues begin with.
pub const PREFIX: &str = "haul";

/// A prefix in the bucket that no other test has, now or ever. The engine's containers carry it, and are told
/// apart by nothing else.
fn prefix() -> String {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("random(4)");
    format!("team/{}", uuid.trim())
}

/// What `haul init` and `--policies` call the fleet's queue.
fn queue() -> String {
    format!("sqs://{REGION}/{PREFIX}")
}

impl Cloud {
    /// Makes a fleet with `haul init`.
    pub fn start(kind: Kind) -> Self {
        Self::start_with(kind, |env| env)
    }

    /// Makes a fleet whose commands find something else in their environment.
    pub fn start_with(kind: Kind, env: impl FnOnce(Environment) -> Environment) -> Self {
        let emulator = Emulator::start(kind);
        let proxy = Proxy::new(&emulator, 1);
        let door = proxy.door();
        let prefix = prefix();
        let fleet = format!("s3://{BUCKET}/{prefix}");
        let world = World::in_cloud(fleet.clone(), env(emulator::environment(&door.url())));
        world.run(["init", &fleet, "--queue", &queue()]).ok();
        Self { world, door, proxy, emulator, prefix }
    }

    /// Its commands, which go through [`Self::door`].
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The way of the commands.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// A way of its own, for an agent, with the environment that leads there.
    pub fn other_door(&self) -> (Door, Environment) {
        self.other_door_at(Ipv4Addr::LOCALHOST)
    }

    /// Likewise, for what reaches this address of the machine's.
    pub fn other_door_at(&self, address: Ipv4Addr) -> (Door, Environment) {
        let door = self.proxy.door_at(address);
        let env = emulator::environment(&door.url());
        (door, env)
    }

    /// The fleet's objects as they are, past all doors.
    pub fn bucket(&self) -> Bucket {
        Bucket::new(&self.emulator, &self.prefix)
    }

    /// The fleet's queues as they are, past all doors.
    pub fn queues(&self) -> Queues {
        Queues::new(&self.emulator, PREFIX)
    }

    /// A policy that `haul init` prints for this fleet.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn policy(&self, name: &str) -> Value {
        let fleet = self.world.fleet();
        let printed = self.world.json(["init", &fleet, "--queue", &queue(), "--policies", "--json"]);
        let policies = printed.as_array().expect("a list").iter();
        let policy =
            policies.into_iter().find(|policy| policy["name"] == name).expect("a policy of this name");
        policy["document"].clone()
    }
}
