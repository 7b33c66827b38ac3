//! Tasks with a name and an owner: nothing is spawned and forgotten.
//!
//! A panic in a debug build becomes an `error` event that names the task. The shipped binary
//! aborts instead: containers outlive the agent, and its next start picks up where the log stands,
//! which is a better state than a half-dead process.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// The tasks of one owner. Those that are asked to stop do so at their next await.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    halt: CancellationToken,
}

impl Tasks {
    /// Runs a task until it is done or [`Tasks::halt`] is called. Halting drops it at an await,
    /// which must leave what a crash would leave; every task of the agent is written for that.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let halt = self.halt.clone();
        let task = async move {
            tokio::select! {
                // What is told to stop does not take another step.
                biased;
                () = halt.cancelled() => {}
                done = AssertUnwindSafe(task).catch_unwind() => {
                    if done.is_err() {
                        tracing::error!(task = name, "the task panicked; please report this as a bug");
                    }
                }
            }
        };
        tokio::spawn(self.tracker.track_future(task.in_current_span()));
    }

    /// Drops all tasks and waits until they are gone.
    pub async fn halt(&self) {
        self.halt.cancel();
        self.finished().await;
    }

    /// Waits until all tasks are done by themselves.
    pub async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
        self.tracker.reopen();
    }
}
