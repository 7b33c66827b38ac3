//! One record of output, in the CRI logging format.

use std::fmt;

use chrono::SecondsFormat;

use crate::id::Timestamp;

/// Which of the process's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// A line of output, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When the engine read it.
    pub at: Timestamp,
    /// Where the process wrote it.
    pub stream: Stream,
    /// Whether a newline followed; without, the next record of the stream goes on.
    pub complete: bool,
    /// The bytes, without the newline.
    pub bytes: Vec<u8>,
}

/// Text that is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no record")]
pub struct RecordError(String);

impl Record {
    /// Appends the record as a line.
    pub fn write(&self, text: &mut Vec<u8>) {
        let at = self.at.to_rfc3339_opts(SecondsFormat::Nanos, true);
        let flag = if self.complete { 'F' } else { 'P' };
        text.extend_from_slice(format!("{at} {} {flag} ", self.stream).as_bytes());
        text.extend_from_slice(&self.bytes);
        text.push(b'\n');
    }

    /// The bytes as the process wrote them, newline included where there was one.
    pub fn raw(&self) -> impl Iterator<Item = &[u8]> {
        let newline: &[u8] = if self.complete { b"\n" } else { b"" };
        [self.bytes.as_slice(), newline].into_iter()
    }

    fn read(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let at = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let complete = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { at, stream, complete, bytes: parts.next()?.to_vec() })
    }
}

/// All records of a text.
pub(super) fn read_all(text: &[u8]) -> Result<Vec<Record>, RecordError> {
    let lines = text.strip_suffix(b"\n").unwrap_or(text);
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    lines
        .split(|b| *b == b'\n')
        .map(|line| {
            let shown = || RecordError(String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned());
            Record::read(line).ok_or_else(shown)
        })
        .collect()
}
