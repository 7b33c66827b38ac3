use shared::{
    id::{Attempt, Incarnation, Nonce, Seq, Team},
    index::Marker,
    job::JobSpec,
    log::{Author, Claimed, Entry, Event, Submitted},
};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_700_000_000 + seconds, 0).expect("in range")
}

fn node() -> NodeId {
    NodeId::new("n").expect("valid")
}

fn job(claimed: bool) -> Job {
    let lane = "l".parse().expect("valid");
    let mut events =
        vec![Event::Submitted(Box::new(Submitted { spec: JobSpec::new("i"), lane, local: false }))];
    if claimed {
        let incarnation = Incarnation::new("one").expect("valid");
        events.push(Event::Claimed(Claimed { attempt: Attempt(1), node: node(), incarnation, gpus: vec![] }));
    }
    let entry = |(seq, event)| Entry {
        v: 1,
        seq: Seq(seq),
        at: at(0),
        author: Author::Client("me".into()),
        nonce: Nonce::new("x").expect("valid"),
        event,
    };
    let entries: Vec<Entry> = (0..).zip(events).map(entry).collect();
    Job::fold("j".parse().expect("valid"), &entries).expect("a history").expect("entries")
}

fn marker(shelf: Shelf, modified: i64) -> Aged {
    let marker = Marker { shelf, job: "j".parse().expect("valid"), round: Attempt::FIRST };
    Aged { marker, modified: at(modified) }
}

fn sent(modified: i64) -> Aged {
    marker(Shelf::Sent { lane: "l".parse().expect("valid"), team: Team::default() }, modified)
}

fn parked(modified: i64) -> Aged {
    marker(Shelf::Parked { lane: "l".parse().expect("valid"), team: Team::default() }, modified)
}

fn on_node(modified: i64) -> Aged {
    marker(Shelf::Held { node: node() }, modified)
}

#[test]
fn young_markers_are_left_alone_whatever_the_log_says() {
    for job in [None, Some(job(false)), Some(job(true))] {
        assert!(matches!(waiting(&sent(0), job.as_ref(), false, at(299)), Repair::Leave));
        assert!(matches!(held(&on_node(0), job.as_ref(), &node(), None, at(299)), Repair::Leave));
    }
}

#[test]
fn markers_that_the_log_contradicts_are_moved() {
    assert!(matches!(waiting(&sent(0), Some(&job(false)), false, at(300)), Repair::Leave));
    assert!(matches!(waiting(&sent(0), Some(&job(true)), false, at(300)), Repair::Move));
    assert!(matches!(waiting(&parked(0), Some(&job(false)), false, at(300)), Repair::Leave));
    assert!(matches!(waiting(&parked(0), Some(&job(false)), true, at(300)), Repair::Remove));
    assert!(matches!(held(&on_node(0), Some(&job(false)), &node(), None, at(300)), Repair::Move));
}

#[test]
fn markers_of_an_earlier_attempt_are_moved() {
    let of_round =
        |marker: Aged, round| Aged { marker: Marker { round: Attempt(round), ..marker.marker }, ..marker };
    let record = None;
    assert!(matches!(waiting(&of_round(sent(0), 9), Some(&job(false)), false, at(300)), Repair::Move));
    assert!(matches!(
        held(&of_round(on_node(0), 9), Some(&job(true)), &node(), record, at(300)),
        Repair::Move
    ));
}

#[test]
fn a_marker_of_no_job_goes_after_an_hour() {
    assert!(matches!(waiting(&sent(0), None, false, at(3599)), Repair::Leave));
    assert!(matches!(waiting(&sent(0), None, false, at(3600)), Repair::Remove));
    assert!(matches!(held(&on_node(0), None, &node(), None, at(3600)), Repair::Remove));
}

#[test]
fn a_claim_of_a_node_without_a_record_is_ended() {
    let repair = held(&on_node(0), Some(&job(true)), &node(), None, at(300));
    assert!(matches!(repair, Repair::End(Evidence::NoRecord)), "{repair:?}");
}

#[test]
fn the_oldest_of_those_without_a_message_are_sent_again() {
    let sent: Vec<Aged> = (0..5).map(|i| sent(i * 10)).collect();
    let depth = |waiting| Depth { waiting, ..Depth::default() };
    assert_eq!(lost_messages(&sent, &depth(5), at(1000), Span::secs(60)).len(), 0);
    assert_eq!(lost_messages(&sent, &depth(4), at(1000), Span::secs(60)).len(), 2);
    assert_eq!(lost_messages(&sent, &depth(0), at(1000), Span::secs(60)).len(), 5);
    assert_eq!(
        lost_messages(&sent, &depth(0), at(75), Span::secs(60)).len(),
        2,
        "the others may be on their way"
    );
    assert_eq!(
        lost_messages(&sent, &depth(0), at(41), Span::secs(1)).len(),
        5,
        "as the fleet's interval says"
    );
}
