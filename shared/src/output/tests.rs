use proptest::prelude::*;

use super::*;
use crate::id::Timestamp;

fn at(nanos: i64) -> Timestamp {
    Timestamp::from_timestamp_nanos(nanos)
}

fn record(nanos: i64, text: &str) -> Record {
    Record { at: at(nanos), stream: Stream::Stdout, complete: true, bytes: text.into() }
}

fn chunks() -> Chunks {
    let store = Store::open(&"memory:///".parse().expect("url")).expect("opens");
    Chunks::new(store, JobId::new("j").expect("valid"), Attempt::FIRST)
}

fn text(records: &[Record]) -> Vec<u8> {
    let mut text = Vec::new();
    records.iter().for_each(|record| record.write(&mut text));
    text
}

#[tokio::test]
async fn the_same_chunk_twice_is_a_success_and_another_is_not() {
    let chunks = chunks();
    chunks.create(0, &text(&[record(1, "a")])).await.expect("new");
    chunks.create(0, &text(&[record(1, "a")])).await.expect("the same");
    let error = chunks.create(0, &text(&[record(1, "b")])).await.expect_err("taken");
    assert_eq!(error.to_string(), "chunk 0 of job j, attempt 1, was written by somebody else");
}

#[tokio::test]
async fn a_writer_that_takes_over_finds_where_the_last_one_stopped() {
    let chunks = chunks();
    assert_eq!(chunks.resume().await.expect("read"), (0, Cursor::default()));
    chunks.create(0, &text(&[record(1, "a"), record(5, "b")])).await.expect("new");
    chunks.create(1, &text(&[record(5, "c")])).await.expect("new");
    chunks.create(2, &text(&[record(5, "d")])).await.expect("new");
    let (next, cursor) = chunks.resume().await.expect("read");
    assert_eq!(next, 3);
    let again = [(1, "a"), (5, "b"), (5, "c"), (5, "d"), (5, "e"), (6, "f")];
    let mut is_new = cursor.filter();
    let new: Vec<&str> =
        again.iter().filter(|(nanos, _)| is_new(Stream::Stdout, at(*nanos))).map(|(_, text)| *text).collect();
    assert_eq!(new, ["e", "f"]);
}

#[tokio::test]
async fn streams_out_of_step_lose_nothing() {
    let chunks = chunks();
    let error = |nanos| Record { stream: Stream::Stderr, ..record(nanos, "e") };
    // The engine wrote a line of stderr stamped 9 before a line of stdout stamped 8.
    chunks.create(0, &text(&[record(1, "a"), error(9)])).await.expect("new");
    let (_, cursor) = chunks.resume().await.expect("read");
    let mut is_new = cursor.filter();
    let again = [record(1, "a"), error(9), record(8, "b"), error(9)];
    let new: Vec<bool> = again.iter().map(|record| is_new(record.stream, record.at)).collect();
    assert_eq!(new, [false, false, true, true]);
}

proptest! {
    #[test]
    fn any_bytes_survive(bytes in prop::collection::vec(any::<u8>().prop_filter("no newline", |b| *b != b'\n'), 0..200), complete: bool) {
        let record = Record { at: at(1_700_000_000_123_456_789), stream: Stream::Stderr, complete, bytes };
        let read = record::read_all(&text(std::slice::from_ref(&record))).expect("valid");
        prop_assert_eq!(read, vec![record]);
    }

    /// However the output is cut into chunks, and wherever the writer dies, the one that takes
    /// over leaves out nothing and repeats nothing.
    #[test]
    fn resuming_neither_repeats_nor_omits(
        // Some at the same time, some a little later, some past the slack.
        gaps in prop::collection::vec(prop::sample::select(vec![(0, 0), (0, 1), (1, 0), (1, 1), (1, 3_000_000_000), (0, 6_000_000_000i64)]), 1..40),
        cuts in prop::collection::vec(1..5usize, 1..40),
        died_after in 0..20usize,
    ) {
        let mut time = 0;
        let all: Vec<Record> = gaps.iter().enumerate().map(|(i, (stream, gap))| {
            time += gap;
            let stream = [Stream::Stdout, Stream::Stderr][*stream];
            Record { stream, ..record(time, &i.to_string()) }
        }).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            let chunks = chunks();
            let (mut rest, mut n) = (all.as_slice(), 0);
            for cut in cuts.iter().take(died_after) {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                if now.is_empty() { break; }
                chunks.create(n, &text(now)).await.expect("new");
                (rest, n) = (later, n + 1);
            }
            let (next, cursor) = chunks.resume().await.expect("read");
            prop_assert_eq!(next, n);
            // The engine gives again what is at or after the cursor's time.
            let again = all.iter().filter(|record| cursor.since().is_none_or(|since| record.at >= since));
            let mut is_new = cursor.filter();
            let new: Vec<Record> = again.filter(|record| is_new(record.stream, record.at)).cloned().collect();
            prop_assert_eq!(new.as_slice(), rest);
            Ok(())
        })?;
    }
}
