//! A container's output from the engine's log: frames with their times.

use bollard::{container::LogOutput, errors::Error, query_parameters::LogsOptionsBuilder};
use bytes::{Buf, Bytes};
use futures::{StreamExt, stream::BoxStream};
use shared::{id::Timestamp, output::Stream};

use crate::engine::{ContainerId, EngineError, Frame};

/// Frames from a time on. The API counts whole seconds, so earlier frames of that second are left
/// out here.
pub(super) fn frames(
    client: &bollard::Docker,
    id: &ContainerId,
    since: Option<Timestamp>,
    follow: bool,
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
    let frames = client.logs(id.as_str(), Some(options)).filter_map(move |output| {
        let frame = match output.map_err(&failed) {
            Ok(output) => frame(output).map(Ok),
            Err(error) => Some(Err(error)),
        };
        let early = matches!((&frame, since), (Some(Ok(frame)), Some(since)) if frame.at < since);
        std::future::ready(frame.filter(|_| !early))
    });
    frames.boxed()
}

/// A frame is `2026-11-24T10:00:00.123456789Z text\n`; a part of a long line has no newline.
fn frame(output: LogOutput) -> Option<Frame> {
    let (stream, mut bytes) = match output {
        LogOutput::StdOut { message } | LogOutput::Console { message } => (Stream::Stdout, message),
        LogOutput::StdErr { message } => (Stream::Stderr, message),
        LogOutput::StdIn { .. } => return None,
    };
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let at = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    bytes.advance(space + 1);
    let complete = bytes.last() == Some(&b'\n');
    let bytes: Bytes = if complete { bytes.slice(..bytes.len() - 1) } else { bytes };
    Some(Frame { at, stream, bytes, complete })
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
}
