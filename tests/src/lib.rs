//! The harness of the tests that cross a process: real agents, real commands, a real engine.
//!
//! Each test has a [`World`] of its own: a fleet in a temporary directory, agents with state
//! directories of their own, and, when it is dropped, nothing left of it on the engine. Nothing
//! here sleeps for a fixed time; everything waits for a condition ([`eventually`]).

pub mod agent;
pub mod bucket;
pub mod cloud;
pub mod credentials;
pub mod emulator;
pub mod engine;
pub mod histories;
pub mod host;
pub mod http;
pub mod load;
pub mod machine;
pub mod metadata;
pub mod nfs;
pub mod nvml;
pub mod proxy;
pub mod queues;
pub mod receiver;
pub mod recorder;
pub mod relay;
pub mod site;
pub mod timeline;
pub mod user_data;
pub mod world;

use std::time::{Duration, Instant};

pub use agent::Agent;
pub use bucket::Bucket;
pub use cloud::Cloud;
pub use credentials::Credentials;
pub use emulator::Emulator;
pub use histories::Histories;
pub use host::Host;
pub use load::Load;
pub use machine::{Container, Machine, Vm};
pub use metadata::Metadata;
pub use nfs::Nfs;
pub use proxy::Proxy;
pub use receiver::{Mood, Receiver};
pub use recorder::Recorder;
pub use relay::Relay;
pub use site::Site;
pub use timeline::Timeline;
pub use world::{Done, World};

/// How long a condition may take before the test fails. Generous: two cores may run several
/// tests at once.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `probe` gives something.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// As [`eventually`], for what takes longer.
///
/// # Panics
/// When it does not happen within `patience`.
pub fn within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(began.elapsed() < patience, "it did not happen within {patience:?}: {what}");
        pause(Duration::from_millis(50));
    }
}

/// What a function gives for each of these, all at once.
///
/// # Panics
/// When it does for one of them.
pub fn at_once<T: Send, R: Send, const N: usize>(items: [T; N], give: impl Fn(T) -> R + Sync) -> [R; N] {
    let give = &give;
    std::thread::scope(|scope| {
        let threads = items.map(|item| scope.spawn(move || give(item)));
        threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Lets a fault last so long: its length is the condition.
pub fn last(time: Duration) {
    pause(time);
}

/// Between two looks at a condition, or for as long as a fault is to last.
#[expect(clippy::disallowed_methods, reason = "the one pause, for the two reasons above")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The time now, for deadlines.
#[expect(clippy::disallowed_methods, reason = "tests run in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, to compare with what the engine and the logs say on this machine.
#[expect(clippy::disallowed_methods, reason = "tests run in real time")]
pub fn wall_clock() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}
