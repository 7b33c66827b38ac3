//! Output as the engine gives it: order, long lines, resumption, and the turn of its log files.

use std::time::Duration;

use futures::StreamExt;
use shared::{output::Stream, units::Size};

use super::{engine, script, start, written};
use crate::engine::{Bind, Engine, Frame};

fn text(frames: &[Frame], stream: Stream) -> Vec<String> {
    let own = frames.iter().filter(|frame| frame.stream == stream);
    own.map(|frame| String::from_utf8_lossy(&frame.bytes).into_owned()).collect()
}

#[tokio::test]
async fn lines_come_in_order_from_both_streams() {
    let engine = engine().await;
    let made = start(&engine, &script("echo a; echo b >&2; echo c; echo; printf 'no end'")).await;
    engine.wait(&made.id).await.expect("it ends");
    let frames = written(&engine, &made).await;
    assert_eq!(text(&frames, Stream::Stdout), ["a", "c", "", "no end"]);
    assert_eq!(text(&frames, Stream::Stderr), ["b"]);
    let complete: Vec<bool> =
        frames.iter().filter(|frame| frame.stream == Stream::Stdout).map(|frame| frame.complete).collect();
    // The log gives a last line its newline only where the process wrote one.
    assert_eq!(complete, [true, true, true, false]);
}

#[tokio::test]
async fn a_long_line_comes_in_parts_of_one_time() {
    let engine = engine().await;
    let long = "head -c 40000 /dev/zero | tr '\\0' x";
    // A line of the other stream amid the parts, as a progress bar and a log have it.
    let made = start(
        &engine,
        &script(&format!("{long} >&2; sleep 0.3; echo between; sleep 0.3; {long} >&2; echo >&2")),
    )
    .await;
    engine.wait(&made.id).await.expect("it ends");
    let frames = written(&engine, &made).await;
    let parts: Vec<&Frame> = frames.iter().filter(|frame| frame.stream == Stream::Stderr).collect();
    assert_eq!(
        parts.iter().map(|part| part.bytes.len()).collect::<Vec<_>>(),
        [16384, 16384, 16384, 16384, 14464]
    );
    assert!(parts.iter().all(|part| part.bytes.iter().all(|byte| *byte == b'x')));
    assert!(parts.iter().all(|part| part.at == parts[0].at), "the time of the first");
    assert_eq!(
        parts.iter().map(|part| part.complete).collect::<Vec<_>>(),
        [false, false, false, false, true]
    );
    let between = frames.iter().position(|frame| frame.bytes == "between").expect("there");
    assert!(frames[between + 1..].iter().any(|frame| frame.at < frames[between].at), "times go back");
}

#[tokio::test]
async fn reading_goes_on_from_a_time() {
    let engine = engine().await;
    let made = start(&engine, &script("for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done")).await;
    engine.wait(&made.id).await.expect("it ends");
    let frames = written(&engine, &made).await;
    assert_eq!(frames.len(), 6);
    for (nth, frame) in frames.iter().enumerate() {
        let rest = engine.output(&made.id, Some(frame.at), false).await.expect("output");
        let rest: Vec<Frame> = rest.map(|frame| frame.expect("a frame")).collect().await;
        assert_eq!(rest, frames[nth..]);
    }
}

#[tokio::test]
async fn following_gives_lines_as_they_come_and_ends_with_the_container() {
    let engine = engine().await;
    let made =
        start(&engine, &script("echo first; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo last")).await;
    let mut frames = engine.output(&made.id, None, true).await.expect("output");
    let next = async |frames: &mut futures::stream::BoxStream<'static, _>| {
        tokio::time::timeout(Duration::from_secs(30), frames.next()).await.expect("in time")
    };
    let first: Frame = next(&mut frames).await.expect("a line").expect("a frame");
    assert_eq!(first.bytes, "first");
    super::shell(&format!("docker exec {} sh -c 'echo > /tmp/go'", made.id));
    let last: Frame = next(&mut frames).await.expect("a line").expect("a frame");
    assert_eq!(last.bytes, "last");
    assert!(next(&mut frames).await.is_none());
}

/// What is within the limit is never lost, and what is lost is the oldest.
#[tokio::test]
async fn the_newest_half_of_the_limit_is_kept() {
    let engine = engine().await;
    let mut chatty = script("i=0; while [ $i -lt 4000 ]; do echo line $i; i=$((i+1)); done");
    chatty.log_limit = Size(200_000);
    let made = start(&engine, &chatty).await;
    engine.wait(&made.id).await.expect("it ends");
    let lines = text(&written(&engine, &made).await, Stream::Stdout);
    let kept = lines.len();
    assert!((900..4000).contains(&kept), "{kept} lines of some 100 bytes each in the log");
    let expected: Vec<String> = (4000 - kept..4000).map(|i| format!("line {i}")).collect();
    assert_eq!(lines, expected);
}

/// Through many turns of the log's files, as long as the reader keeps up: each hundred lines wait until those before
/// them were read.
#[tokio::test]
async fn following_goes_on_across_the_turn_of_the_log() {
    let engine = engine().await;
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut chatty = script(
        "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); \
         [ $((i%100)) != 0 ] || until [ -e /read/$i ]; do sleep 0.01; done; done",
    );
    chatty.binds = vec![Bind { source: dir.path().to_owned(), target: "/read".into(), read_only: true }];
    chatty.log_limit = Size(200_000);
    let made = start(&engine, &chatty).await;
    let frames = engine.output(&made.id, None, true).await.expect("output");
    let mut count = 0;
    let note = |frame: &Result<Frame, _>| {
        count += usize::from(frame.is_ok());
        if count.is_multiple_of(100) {
            std::fs::write(dir.path().join(count.to_string()), "").expect("written");
        }
    };
    let read = frames.inspect(note).map(|frame| frame.expect("a frame")).collect();
    let frames: Vec<Frame> = tokio::time::timeout(Duration::from_secs(60), read).await.expect("in time");
    let lines = text(&frames, Stream::Stdout);
    let wrong = lines.iter().zip(0..).find(|(line, i): &(_, u32)| **line != format!("line {i}"));
    assert_eq!((wrong, lines.len()), (None, 3000), "each line once, in order");
}
