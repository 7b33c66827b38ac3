//! What happened, in order: the end of it for people, a hash of all of it for `sim meta`.

use std::{
    collections::VecDeque,
    fmt::Display,
    hash::{DefaultHasher, Hasher},
    time::Duration,
};

/// How many lines are kept for a failure's report.
const KEPT: usize = 150;

/// The record of a run.
#[derive(Debug)]
pub struct Trace {
    hash: DefaultHasher,
    tail: VecDeque<String>,
    lines: u64,
    shown: bool,
}

impl Trace {
    /// An empty one; `shown` prints each line.
    pub fn new(shown: bool) -> Self {
        // Keyed with zeros: the same in every run.
        Self { hash: DefaultHasher::new(), tail: VecDeque::with_capacity(KEPT), lines: 0, shown }
    }

    /// Adds a line.
    pub fn note(&mut self, at: Duration, who: &str, what: &dyn Display) {
        let mut line = if self.tail.len() == KEPT { self.tail.pop_front() } else { None }.unwrap_or_default();
        line.clear();
        let (secs, millis) = (at.as_secs(), at.subsec_millis());
        let written = std::fmt::write(&mut line, format_args!("{secs:>6}.{millis:03} {who:<10} {what}"));
        written.expect("writing to memory does not fail");
        self.hash.write(line.as_bytes());
        self.lines += 1;
        if self.shown {
            println!("{line}");
        }
        // Beats would fill it.
        if !line.contains("PUT nodes/") {
            self.tail.push_back(line);
        }
    }

    /// A number for all that happened.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// How much happened.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The end of it.
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}
