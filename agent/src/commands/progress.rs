//! A progress bar on standard error while somebody watches; nothing in a pipe.

use std::{io::IsTerminal, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shared::log::Job;

use crate::node::Node;

/// Shows how far a pull is for as long as one runs, until it is dropped.
pub async fn pulls(node: Arc<Node>) {
    let mut pulling = node.pulling.subscribe();
    let mut bar: Option<ProgressBar> = None;
    while pulling.changed().await.is_ok() {
        let Some(progress) = *pulling.borrow_and_update() else {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            continue;
        };
        let bar = bar.get_or_insert_with(|| {
            let form = "pulling {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
            let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
            drawn(ProgressBar::new(0).with_style(style))
        });
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_done);
        bar.set_message(format!("{}/{} layers", progress.layers_done, progress.layers_total));
    }
}

/// Nothing is drawn where nobody watches.
fn drawn(bar: ProgressBar) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// How far a wait is.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar over so many jobs.
    pub fn new(jobs: usize) -> Self {
        let bar = drawn(ProgressBar::new(jobs as u64));
        let form =
            if jobs == 1 { "{spinner} {elapsed} {msg}" } else { "{bar:30} {pos}/{len} {elapsed} {msg}" };
        bar.set_style(ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Shows what a job is doing.
    pub fn seen(&self, job: &Job) {
        let node = job.held().map_or_else(String::new, |claim| format!(" on {}", claim.node));
        self.0.set_message(format!("{} {}{node}", job.id, job.phase()));
    }

    /// One more is finished.
    pub fn done(&self) {
        self.0.inc(1);
    }

    /// Leaves no trace.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
