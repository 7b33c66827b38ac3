//! A container's output from the engine's log: frames with their times.

use std::{cmp::Ordering, collections::VecDeque};

use bollard::{container::LogOutput, errors::Error, query_parameters::LogsOptionsBuilder};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use shared::{id::Timestamp, output::Stream};

use crate::engine::{ContainerId, EngineError, Frame};

/// Frames from a time on, each once. The API counts whole seconds, so earlier frames of that
/// second are left out here. `shares_times` says that lines may have the time of the one before.
pub(super) fn frames(
    client: &bollard::Docker,
    id: &ContainerId,
    since: Option<Timestamp>,
    follow: bool,
    shares_times: bool,
    failed: impl Fn(Error) -> EngineError + Send + 'static,
) -> BoxStream<'static, Result<Frame, EngineError>> {
    let seconds = since.and_then(|since| i32::try_from(since.timestamp()).ok()).unwrap_or(0).max(0);
    let options = LogsOptionsBuilder::new()
        .follow(follow)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .since(seconds)
        .build();
    let mut streams = [Delivered::default(), Delivered::default()];
    let frames = client.logs(id.as_str(), Some(options)).filter_map(move |output| {
        let frame = output.map_err(&failed).and_then(frame);
        let is_wanted = frame.as_ref().map_or(true, |frame| {
            let delivered = &mut streams[usize::from(frame.stream == Stream::Stderr)];
            since.is_none_or(|since| frame.at >= since) && delivered.is_new(frame, shares_times)
        });
        std::future::ready(is_wanted.then_some(frame))
    });
    frames.boxed()
}

/// How many times are remembered of each stream. Repetition begins within milliseconds of the turn
/// of a log file, so this is plenty.
const REMEMBERED: usize = 4096;

/// What was delivered of one stream.
///
/// When its log file turns, dockerd (20.10 and others) may take the notice of it twice, and then
/// follows the new file from its beginning once more. Such frames are known by their times. That a
/// time is merely earlier than the last is no sign: the host's clock may have been set back.
#[derive(Debug, Default)]
struct Delivered {
    /// The times of the last frames, oldest first.
    times: VecDeque<Timestamp>,
    /// How many of the newest time there were: the parts of a long line share one.
    newest: usize,
    /// Whether the last of them ended its line.
    complete: bool,
    /// How many of the newest time are still to come again.
    again: usize,
}

impl Delivered {
    /// Whether the frame has not been delivered; notes it if so.
    fn is_new(&mut self, frame: &Frame, shares_times: bool) -> bool {
        match self.times.back().map(|last| frame.at.cmp(last)) {
            Some(Ordering::Less) if self.times.contains(&frame.at) => {
                self.again = self.newest;
                return false;
            }
            Some(Ordering::Equal) if self.again > 0 => {
                self.again -= 1;
                return false;
            }
            // A new line would have a new time.
            Some(Ordering::Equal) if self.complete && !shares_times => return false,
            Some(Ordering::Equal) => self.newest += 1,
            Some(Ordering::Less | Ordering::Greater) | None => {
                self.newest = 1;
                self.again = 0;
                if self.times.len() == REMEMBERED {
                    self.times.pop_front();
                }
                self.times.push_back(frame.at);
            }
        }
        self.complete = frame.complete;
        true
    }
}

/// A frame is `2026-11-24T10:00:00.123456789Z text\n`; a part of a long line has no newline. What is
/// neither is the engine's own message amid the output, such as that it cannot read its log; were
/// it passed over, output would be missing without a word.
fn frame(output: LogOutput) -> Result<Frame, EngineError> {
    let (stream, bytes) = match output {
        LogOutput::StdOut { message } => (Stream::Stdout, message),
        LogOutput::StdErr { message } => (Stream::Stderr, message),
        LogOutput::StdIn { message } | LogOutput::Console { message } => {
            return Err(message_of_engine(&message));
        }
    };
    let time = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    let Some(at) = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok()) else {
        return Err(message_of_engine(&bytes));
    };
    // A part may end right after its time.
    let text = bytes.slice((time.len() + 1).min(bytes.len())..);
    let complete = text.last() == Some(&b'\n');
    let bytes = if complete { text.slice(..text.len() - 1) } else { text };
    Ok(Frame { at, stream, bytes, complete })
}

fn message_of_engine(message: &Bytes) -> EngineError {
    let text: String =
        String::from_utf8_lossy(message).chars().filter(|c| !c.is_control()).take(500).collect();
    EngineError::Other { call: "give the output", detail: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Frame {
        frame(LogOutput::StdOut { message: Bytes::from_static(text.as_bytes()) }).expect("a frame")
    }

    #[test]
    fn a_frame_has_its_time_and_its_text() {
        let whole = read("2026-11-24T10:00:00.123456789Z hello world\n");
        assert_eq!((&whole.bytes[..], whole.complete), (&b"hello world"[..], true));
        assert_eq!(whole.at.timestamp_subsec_nanos(), 123_456_789);
        let part = read("2026-11-24T10:00:00Z part");
        assert_eq!((&part.bytes[..], part.complete), (&b"part"[..], false));
        assert!(read("2026-11-24T10:00:00Z \n").bytes.is_empty());
    }

    #[test]
    fn the_engines_own_message_is_no_output() {
        let message = Bytes::from_static(b"\x03\0\0\0\0\0\0\x20Error grabbing logs: invalid character\n");
        let error = frame(LogOutput::Console { message }).expect_err("no output");
        assert_eq!(
            error.to_string(),
            "the engine could not give the output:  Error grabbing logs: invalid character"
        );
        assert!(frame(LogOutput::StdOut { message: Bytes::from_static(b"no time") }).is_err());
    }

    /// Whether each of these frames of one stream is new: its second, and whether its line ends.
    fn new(frames: &[(i64, bool)], shares_times: bool) -> Vec<bool> {
        let mut delivered = Delivered::default();
        let frame = |(second, complete): (i64, bool)| Frame {
            at: Timestamp::from_timestamp(second, 0).expect("a time"),
            stream: Stream::Stdout,
            bytes: Bytes::new(),
            complete,
        };
        frames.iter().map(|given| delivered.is_new(&frame(*given), shares_times)).collect()
    }

    #[test]
    fn frames_that_come_again_are_left_out() {
        let lines = [(1, true), (2, true), (3, true), (1, true), (2, true), (3, true), (4, true)];
        assert_eq!(new(&lines, false), [true, true, true, false, false, false, true]);
        assert_eq!(new(&lines, true), [true, true, true, false, false, false, true]);
        let last = [(1, true), (1, true), (2, true)];
        assert_eq!(new(&last, false), [true, false, true]);
        assert_eq!(new(&last, true), [true, true, true]);
    }

    #[test]
    fn parts_of_a_line_are_all_new_and_come_again_together() {
        let parts =
            [(1, true), (2, false), (2, false), (1, true), (2, false), (2, false), (2, true), (3, true)];
        assert_eq!(new(&parts, false), [true, true, true, false, false, false, true, true]);
    }

    #[test]
    fn nothing_is_lost_when_the_clock_is_set_back() {
        let lines = [(100, true), (200, true), (50, true), (60, true), (201, true)];
        assert_eq!(new(&lines, false), [true; 5]);
    }
}
