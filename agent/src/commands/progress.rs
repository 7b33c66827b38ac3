//! A progress bar on standard error while somebody watches; nothing in a pipe.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shared::log::Job;

/// How far a wait is.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar over so many jobs.
    pub fn new(jobs: usize) -> Self {
        let bar = ProgressBar::new(jobs as u64);
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
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
