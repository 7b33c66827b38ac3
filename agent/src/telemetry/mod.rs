//! What haul says of its own doing: lines for people on a terminal, entries with fields in systemd's journal
//! ([`journal`]), and JSON where an agent's go elsewhere.
//! Levels: `error`, a person must act; `warn`, haul healed or waits; `info`, a state changed.

mod journal;

use std::io::IsTerminal;

use journal::Journal;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts it, on standard error. `HAUL_LOG` chooses levels, as in `debug` or `haul=debug,warn`.
pub fn start(default: LevelFilter, is_agent: bool) {
    let filter = EnvFilter::builder()
        .with_default_directive(default.into())
        .with_env_var("HAUL_LOG")
        .from_env_lossy()
        // Its debug lines show whole requests, and with them a job's secrets.
        .add_directive("bollard=info".parse().expect("a valid directive"))
        .add_directive("bollard::docker=info".parse().expect("a valid directive"));
    if let Some(journal) = Journal::of_stderr().filter(|_| is_agent) {
        tracing_subscriber::registry().with(filter).with(journal).init();
        return;
    }
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if !is_agent {
        builder.compact().without_time().init();
    } else if std::io::stderr().is_terminal() {
        builder.compact().init();
    } else {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
    }
}
