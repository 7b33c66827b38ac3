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

/// Writes records as a chunk, going on from `cursor`.
async fn create(chunks: &Chunks, n: u64, records: &[Record], cursor: &mut Cursor) {
    records.iter().for_each(|record| cursor.pass(record));
    chunks.create(n, &text(records), cursor).await.expect("new");
}

fn new_of(cursor: Cursor, again: &[Record]) -> Vec<Record> {
    let since = cursor.since();
    // The engine gives again what is at or after the cursor's time.
    let again = again.iter().filter(|record| since.is_none_or(|since| record.at >= since));
    let mut is_new = cursor.filter();
    again.filter(|record| is_new(record.stream, record.at)).cloned().collect()
}

#[tokio::test]
async fn the_same_chunk_twice_is_a_success_and_another_is_not() {
    let (chunks, end) = (chunks(), Cursor::default());
    chunks.create(0, &text(&[record(1, "a")]), &end).await.expect("new");
    chunks.create(0, &text(&[record(1, "a")]), &end).await.expect("the same");
    let error = chunks.create(0, &text(&[record(1, "b")]), &end).await.expect_err("taken");
    assert_eq!(error.to_string(), "chunk 0 of job j, attempt 1, was written by somebody else");
}

#[tokio::test]
async fn a_writer_that_takes_over_finds_where_the_last_one_stopped() {
    let (chunks, mut cursor) = (chunks(), Cursor::default());
    assert_eq!(chunks.resume().await.expect("read"), (0, Cursor::default()));
    let all =
        [record(1, "a"), record(5, "b"), record(5, "c"), record(5, "d"), record(5, "e"), record(6, "f")];
    create(&chunks, 0, &all[..2], &mut cursor).await;
    create(&chunks, 1, &all[2..3], &mut cursor).await;
    create(&chunks, 2, &all[3..4], &mut cursor).await;
    let (next, resumed) = chunks.resume().await.expect("read");
    assert_eq!((next, resumed), (3, cursor));
    assert_eq!(new_of(resumed, &all), all[4..]);
}

#[test]
fn streams_out_of_step_lose_nothing() {
    // The engine wrote a line of stderr stamped 9 before a line of stdout stamped 8.
    let error = |nanos| Record { stream: Stream::Stderr, ..record(nanos, "e") };
    let all = [record(1, "a"), error(9), record(8, "b"), error(9)];
    let mut cursor = Cursor::default();
    all[..2].iter().for_each(|record| cursor.pass(record));
    assert_eq!(new_of(cursor, &all), all[2..]);
}

#[test]
fn a_line_that_never_ends_loses_none_of_its_parts() {
    // A progress bar begun long ago, whose parts all carry the time of its first.
    let minute = 60_000_000_000;
    let bar = |text: &str| Record { stream: Stream::Stderr, complete: false, ..record(1, text) };
    let all = [bar("10%"), bar("20%"), record(minute, "a"), bar("30%"), record(2 * minute, "b"), bar("40%")];
    for written in 0..all.len() {
        let mut cursor = Cursor::default();
        all[..written].iter().for_each(|record| cursor.pass(record));
        assert_eq!(new_of(cursor, &all), all[written..], "after {written}");
    }
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
            let (chunks, mut cursor) = (chunks(), Cursor::default());
            let (mut rest, mut n) = (all.as_slice(), 0);
            for cut in cuts.iter().take(died_after) {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                if now.is_empty() { break; }
                create(&chunks, n, now, &mut cursor).await;
                (rest, n) = (later, n + 1);
            }
            let (next, resumed) = chunks.resume().await.expect("read");
            prop_assert_eq!(next, n);
            prop_assert_eq!(new_of(resumed, &all), rest);
            Ok(())
        })?;
    }
}
