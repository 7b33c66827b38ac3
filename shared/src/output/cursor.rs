//! Where the output written so far ends.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::{Record, Stream};
use crate::id::Timestamp;

/// How far the two streams of a process may be out of step in an engine's log: each is stamped
/// and written by a thread of its own.
const SLACK: TimeDelta = TimeDelta::seconds(5);

/// The last record written of each stream.
///
/// Within one stream the engine's times never go back; between the two they may, by microseconds
/// as a rule. So each stream has a mark of its own. The parts of a long line all carry the time
/// of the first, however much later they come: a progress bar that never ends its line goes on at
/// a time long past.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdout: Option<Mark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stderr: Option<Mark>,
}

/// A stream's last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Its time.
    at: Timestamp,
    /// How many records have that very time.
    count: u64,
    /// Whether it ended its line.
    complete: bool,
}

impl Mark {
    /// From when on there may be records that are not written yet.
    fn since(&self, newest: Timestamp) -> Timestamp {
        if self.complete { newest - SLACK } else { self.at.min(newest - SLACK) }
    }
}

impl Cursor {
    fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.stdout.iter().chain(&self.stderr)
    }

    /// From when on the engine's log is to be read again; all earlier records are written.
    pub fn since(&self) -> Option<Timestamp> {
        let newest = self.marks().map(|mark| mark.at).max()?;
        self.marks().map(|mark| mark.since(newest)).min()
    }

    fn mark(&mut self, stream: Stream) -> &mut Option<Mark> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Notes a record that was written.
    pub fn pass(&mut self, record: &Record) {
        let Record { at, stream, complete, .. } = *record;
        let mark = self.mark(stream);
        let before = mark.filter(|mark| mark.at == at).map_or(0, |mark| mark.count);
        *mark = Some(Mark { at, count: before + 1, complete });
    }

    /// A filter for records read anew from [`Cursor::since`] on: says of each, in order, whether
    /// it is new.
    pub fn filter(mut self) -> impl FnMut(Stream, Timestamp) -> bool + Send {
        let since = self.since();
        move |stream, at| {
            if since.is_some_and(|since| at < since) {
                return false;
            }
            match self.mark(stream) {
                None => true,
                Some(mark) if at == mark.at && mark.count > 0 => {
                    mark.count -= 1;
                    false
                }
                Some(mark) => at >= mark.at,
            }
        }
    }
}
