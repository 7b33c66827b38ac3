//! What people and programs are shown: tables for a terminal or a pipe, JSON for programs.
//! Commands gather data; everything that prints is here.

mod demand;
mod job;
mod node;
mod policy;
mod queue;
mod settings;
mod spend;
mod table;
mod time;
mod usage;

use std::io::{IsTerminal, Write};

use serde::Serialize;

pub use demand::demands;
pub use job::{fits, jobs, status, status_json};
pub use node::{agent, gpus, lanes, nodes};
pub use policy::policies;
pub use queue::{dead_letters, queues};
pub use settings::{settings, settings_history};
pub use spend::{bills, kinds, plot};
pub use table::Table;

use crate::cli::Color;

/// Where output goes, and how it may look.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    color: bool,
    terminal: bool,
}

impl Out {
    /// Standard output; colours on a terminal unless `NO_COLOR` (no-color.org) or the flag says
    /// otherwise.
    pub fn new(color: Color) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let color = match color {
            Color::Auto => terminal && wanted,
            Color::Always => true,
            Color::Never => false,
        };
        Self { color, terminal }
    }

    /// Whether somebody is watching.
    pub fn is_terminal(self) -> bool {
        self.terminal
    }

    /// Whether colours may be used.
    pub fn color(self) -> bool {
        self.color
    }

    /// Prints text and a newline. A reader that has gone away (`| head`) is no error.
    pub fn line(self, text: impl AsRef<str>) {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_ref().as_bytes()).and_then(|()| out.write_all(b"\n"));
        if written.and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Prints bytes as they are.
    pub fn raw(self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Prints one JSON document.
    pub fn json<T: Serialize>(self, value: &T) {
        self.line(serde_json::to_string_pretty(value).expect("listings have only text keys"));
    }
}
