//! Records of every version that was ever written must load. A change that makes one of these
//! fail breaks every fleet there is: give the record a new version instead.

use std::path::Path;

use shared::{
    fleet::Settings,
    id::{Attempt, JobId},
    index::Summary,
    lane::{GpuState, Lane, Misfit, Needs, When},
    log::{Entry, Event, Job},
    message::Message,
    node::NodeRecord,
    output::Chunks,
    record,
    store::{Key, Store},
};

fn samples(version: u32) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/samples/v{version}"));
    let files = std::fs::read_dir(dir).expect("samples").map(|entry| entry.expect("an entry").path());
    let named = files.map(|path| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read(path).expect("a file"))
    });
    named.collect()
}

fn sample(version: u32, name: &str) -> Vec<u8> {
    let found = samples(version).into_iter().find(|(found, _)| found == name);
    found.unwrap_or_else(|| panic!("no sample {name}")).1
}

#[test]
fn every_record_of_version_1_loads() {
    for (name, body) in samples(1) {
        let loaded = match name.as_str() {
            "settings" => record::read::<Settings>(&body, 1).map(drop),
            "lane" | "lane-share" | "lane-mig" => record::read::<Lane>(&body, 1).map(drop),
            "node" | "node-sharing" | "node-reserving" | "node-newer" => {
                record::read::<NodeRecord>(&body, 1).map(drop)
            }
            "marker" => record::read::<Summary>(&body, 1).map(drop),
            "message" => Message::read(std::str::from_utf8(&body).expect("text")).map(drop),
            "output" => continue,
            entry if entry.starts_with("entry-") => record::read::<Entry>(&body, 1).map(drop),
            other => panic!("{other} is a sample of nothing that is known"),
        };
        loaded.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// One word of a newer haul must not hide a whole node from the others.
#[test]
fn what_a_newer_haul_says_of_a_gpu_or_a_refusal_is_passed_over() {
    let node = record::read::<NodeRecord>(&sample(1, "node-newer"), 1).expect("loads");
    assert_eq!((&node.offer.gpus[0].state, node.offer.gpus.len()), (&GpuState::Unknown, 2));
    assert_eq!(node.refusals.values().next().expect("one").why, [Misfit::Unknown]);
}

#[test]
fn what_a_node_keeps_room_for_is_read() {
    let node = record::read::<NodeRecord>(&sample(1, "node-reserving"), 1).expect("loads");
    let kept = node.reserved.expect("there");
    let When::At(start) = kept.start else { panic!("{:?}", kept.start) };
    assert!(kept.since < start && start < kept.until);
    assert_eq!(node.offer.gpus[1].state, GpuState::Reserved { job: kept.job });
}

#[test]
fn the_lanes_of_shares_and_instances_are_named_as_they_were() {
    for name in ["lane-share", "lane-mig"] {
        let lane: Lane = record::read(&sample(1, name), 1).expect("loads");
        assert_eq!(lane.needs.lane_id(), lane.id);
    }
}

#[test]
fn there_is_a_sample_of_every_event() {
    let entry = |name: &str| record::read::<Entry>(&sample(1, name), 1).expect("loads").event;
    // Exhaustive, so that a new event is not forgotten here.
    let name = |event: &Event| match event {
        Event::Submitted(_) => "submitted",
        Event::Claimed(_) => "claimed",
        Event::Started(_) => "started",
        Event::Resumed(_) => "resumed",
        Event::Ended(_) => "ended-final",
        Event::CancelRequested(_) => "cancel_requested",
        Event::Cancelled => "cancelled",
        Event::Rejected(_) => "rejected",
        Event::Retried => "retried",
    };
    for sample in [
        "submitted",
        "claimed",
        "started",
        "resumed",
        "ended-final",
        "cancel_requested",
        "cancelled",
        "rejected",
        "retried",
    ] {
        assert_eq!(name(&entry(&format!("entry-{sample}"))), sample);
    }
}

#[test]
fn what_was_written_means_what_it_meant() {
    let lane: Lane = record::read(&sample(1, "lane"), 1).expect("loads");
    assert_eq!(lane.needs.lane_id(), lane.id, "the same needs have the same id for ever");
    let submitted: Entry = record::read(&sample(1, "entry-submitted"), 1).expect("loads");
    let job = Job::begin(JobId::new("j").expect("valid"), &submitted).expect("begins");
    assert_eq!(Needs::of(&job.spec).lane_id(), job.lane);
}

#[tokio::test]
async fn output_of_version_1_is_read() {
    let store = Store::open(&"memory:///".parse().expect("url")).expect("opens");
    let key = Key::new("jobs/j/attempts/1/log/0000000000");
    store.put(&key, sample(1, "output").into()).await.expect("put");
    let chunks = Chunks::new(store, JobId::new("j").expect("valid"), Attempt::FIRST);
    let (next, end) = chunks.resume().await.expect("reads");
    assert!(next == 1 && end.since().is_some());
    let records = chunks.read(0).await.expect("reads").expect("there");
    let mut lines: Vec<&str> =
        records.iter().map(|record| std::str::from_utf8(&record.bytes).expect("text")).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
}
