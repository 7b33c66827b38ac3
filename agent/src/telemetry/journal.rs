//! systemd's journal: each line as a text for people, and each of its fields by name, so that
//! `journalctl HAUL_JOB=ID` finds all that became of a job ("Native Journal Protocol", systemd.io).
//!
//! The `tracing-journald` crate sends the fields alone beside a bare message: `journalctl` would show "ended" and
//! not what.

use std::{
    fmt::{Debug, Write as _},
    io::{self, Write as _},
    os::{linux::fs::MetadataExt, unix::net::UnixDatagram},
};

use tracing::{
    Event, Id, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

/// Where it listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal.
pub struct Journal(UnixDatagram);

/// Names and values, in order.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.others.push((field.name(), value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl Journal {
    /// The journal, if standard error goes there (`JOURNAL_STREAM`, `systemd.exec(5)`).
    pub fn of_stderr() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
        if stream != format!("{}:{}", stderr.st_dev(), stderr.st_ino()) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        // A journal that hangs does not hold up the agent.
        socket.set_nonblocking(true).ok()?;
        Some(Self(socket))
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.others.extend(of_span.others.iter().cloned());
            }
        }
        let level = *event.metadata().level();
        if self.0.send(&entry(level, &fields)).is_err() {
            // Too long for a datagram, or the journal is being started anew: standard error is kept open for it.
            let _ = writeln!(io::stderr(), "{}", text(&fields));
        }
    }
}

/// `ended outcome=exited exit_code=3 job=…`
fn text(fields: &Fields) -> String {
    let mut text = fields.message.clone();
    for (name, value) in &fields.others {
        // Whoever formats into a text does not fail.
        let _ = if value.is_empty() || value.contains([' ', '"']) {
            write!(text, " {name}={value:?}")
        } else {
            write!(text, " {name}={value}")
        };
    }
    text
}

fn entry(level: Level, fields: &Fields) -> Vec<u8> {
    // As syslog(3) numbers them.
    let priority = match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    let mut entry = Vec::new();
    put(&mut entry, "PRIORITY", priority);
    put(&mut entry, "SYSLOG_IDENTIFIER", "haul");
    put(&mut entry, "MESSAGE", &text(fields));
    for (name, value) in &fields.others {
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        put(&mut entry, &format!("HAUL_{name}"), value);
    }
    entry
}

/// One field; a value of several lines is written with its length.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn an_entry_has_a_text_and_each_field_by_name() {
        let (sender, receiver) = UnixDatagram::pair().expect("a pair");
        let subscriber = tracing_subscriber::registry().with(Journal(sender));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("job", job = "j1", attempt = 2);
            let _entered = span.enter();
            tracing::warn!(outcome = "exited", detail = "two words", lines = "a\nb", "ended");
        });
        let mut bytes = [0; 1000];
        let length = receiver.recv(&mut bytes).expect("an entry");
        let entry = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let (before, _) = entry.split_once("lines=").expect("a field");
        // The text has two lines, so it is written with its length.
        assert!(before.starts_with("PRIORITY=4\nSYSLOG_IDENTIFIER=haul\nMESSAGE\n"), "{entry:?}");
        assert!(before.ends_with("ended outcome=exited detail=\"two words\" "), "{entry:?}");
        for field in ["HAUL_OUTCOME=exited\n", "HAUL_DETAIL=two words\n", "HAUL_JOB=j1\n", "HAUL_ATTEMPT=2\n"]
        {
            assert!(entry.contains(field), "{entry:?}");
        }
        assert!(entry.contains("HAUL_LINES\n\u{3}\0\0\0\0\0\0\0a\nb\n"), "{entry:?}");
    }

    #[test]
    fn a_text_of_one_line_is_written_as_it_is() {
        let fields = Fields { message: "claimed".into(), others: vec![("gpus", "1".into())] };
        let entry = String::from_utf8(entry(Level::INFO, &fields)).expect("text");
        assert_eq!(entry, "PRIORITY=6\nSYSLOG_IDENTIFIER=haul\nMESSAGE=claimed gpus=1\nHAUL_GPUS=1\n");
    }
}
