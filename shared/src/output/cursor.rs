//! Where the output written so far ends.

use chrono::TimeDelta;

use super::{Record, Stream};
use crate::id::Timestamp;

/// How far the two streams of a process may be out of step in an engine's log: each is stamped
/// and written by a thread of its own.
const SLACK: TimeDelta = TimeDelta::seconds(5);

/// The last record written of each stream: its time, and how many records have that very time,
/// since the parts of a long line share one.
///
/// Within one stream the engine's times never go back; between the two they may, by microseconds
/// as a rule. So each stream has a mark of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    stdout: Option<Mark>,
    stderr: Option<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    at: Timestamp,
    count: u64,
}

impl Cursor {
    /// From when on the engine's log is to be read again; all earlier records are written.
    pub fn since(&self) -> Option<Timestamp> {
        let last = self.stdout.map(|mark| mark.at).max(self.stderr.map(|mark| mark.at))?;
        Some(last - SLACK)
    }

    fn mark(&mut self, stream: Stream) -> &mut Option<Mark> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Notes a record that was written.
    pub fn pass(&mut self, stream: Stream, at: Timestamp) {
        let mark = self.mark(stream);
        *mark = match *mark {
            Some(Mark { at: last, count }) if last == at => Some(Mark { at, count: count + 1 }),
            _ => Some(Mark { at, count: 1 }),
        };
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

    /// The cursor after the records of the last chunks, newest chunk first; `None` while more
    /// chunks are needed to tell.
    pub(super) fn after(chunks: &[Vec<Record>]) -> Option<Self> {
        let newest = chunks.iter().flatten().map(|record| record.at).max()?;
        // The whole of the slack must be there, or a stream's mark could be missing.
        let covered = chunks.iter().flatten().any(|record| record.at < newest - SLACK);
        covered.then(|| Self::of(chunks))
    }

    /// The cursor after all chunks, newest first.
    pub(super) fn of(chunks: &[Vec<Record>]) -> Self {
        let mut cursor = Self::default();
        for record in chunks.iter().rev().flatten() {
            cursor.pass(record.stream, record.at);
        }
        cursor
    }
}
