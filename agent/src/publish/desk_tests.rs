use std::collections::BTreeMap;

use proptest::prelude::*;
use shared::{
    event::{Subject, Webhook},
    id::{Attempt, Incarnation, LaneId, Nonce, Team, Timestamp},
    job::JobSpec,
    lane::Needs,
    log::{Claimed, Ended, Event, Next, Outcome, OutputSize, Submitted},
};

use super::*;

const NODE: &str = "here";

fn node(name: &str) -> NodeId {
    name.parse().expect("valid")
}

fn by(name: &str) -> Author {
    let incarnation: Incarnation = serde_json::from_str("\"7s910rmj0ankv692\"").expect("valid");
    Author::Node { name: node(name), incarnation }
}

fn entry(seq: u64, author: Author, event: Event) -> Entry {
    let nonce: Nonce = serde_json::from_str("\"aqxyyx0ketp8dhpr\"").expect("valid");
    Entry { v: Entry::VERSION, seq: Seq(seq), at: Timestamp::UNIX_EPOCH, author, nonce, event }
}

fn lane() -> LaneId {
    Needs::of(&JobSpec::new("i")).lane_id()
}

fn submitted() -> Entry {
    let spec = JobSpec::new("i");
    let event = Event::Submitted(Box::new(Submitted { spec, lane: lane(), local: false }));
    entry(0, Author::Client("ann@desk".into()), event)
}

fn claimed(seq: u64, name: &str) -> Entry {
    let Author::Node { incarnation, .. } = by(name) else { panic!("a node's") };
    let claimed = Claimed { attempt: Attempt::FIRST, node: node(name), incarnation, gpus: Vec::new() };
    entry(seq, by(name), Event::Claimed(claimed))
}

fn cancel_requested(seq: u64) -> Entry {
    entry(seq, Author::Client("ann@desk".into()), Event::CancelRequested(Default::default()))
}

fn ended(seq: u64, name: &str) -> Entry {
    let ended = Ended {
        attempt: Attempt::FIRST,
        outcome: Outcome::Succeeded,
        exit_code: Some(0),
        message: None,
        next: Next::Final,
        output: OutputSize::default(),
        started_at: None,
        finished_at: None,
        usage: None,
    };
    entry(seq, by(name), Event::Ended(Box::new(ended)))
}

/// A life here of four entries.
fn life() -> Vec<Entry> {
    vec![submitted(), claimed(1, NODE), cancel_requested(2), ended(3, NODE)]
}

fn hook(n: u8) -> Receiver {
    let url = format!("https://hooks.example/{n}").parse().expect("url");
    Receiver::Webhook(Webhook { url, secret: "HOOK".parse().expect("valid"), events: Vec::new() })
}

fn note(job: &str, mark: u64, to: &[Receiver]) -> Note {
    let job: JobId = job.parse().expect("valid");
    let subject = Subject { job, name: "n".into(), team: Team::default(), lane: lane() };
    let told = to.iter().map(|to| Position { to: to.clone(), next: Seq::FIRST }).collect();
    Note { v: Note::VERSION, subject, mark: Seq(mark), over: None, told }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tells(actions: &[Action]) -> Vec<(Receiver, u64)> {
    let tells = actions.iter().filter_map(|action| match action {
        Action::Tell { to, event, .. } => Some((to.clone(), seq_of(event).0)),
        Action::Read { .. } | Action::Remove { .. } => None,
    });
    tells.collect()
}

/// Does what the desk wants until it wants nothing; every receiver listens but those named, which
/// fail. Gives what was told.
fn run(
    desk: &mut Desk,
    job: &JobId,
    log: &[Entry],
    now: Duration,
    deaf: &[Receiver],
) -> Vec<(Receiver, u64)> {
    let mut told = Vec::new();
    loop {
        let actions = desk.next(now);
        if actions.is_empty() {
            return told;
        }
        for action in actions {
            match action {
                Action::Read { seq, .. } => match log.get(usize::try_from(seq.0).expect("small")) {
                    Some(entry) => desk.seen(job, entry, now),
                    None => desk.absent(job),
                },
                Action::Tell { to, event, .. } if deaf.contains(&to) => {
                    let _ = (desk.failed(&to, job, now, 0), event);
                }
                Action::Tell { to, event, .. } => {
                    told.push((to.clone(), seq_of(&event).0));
                    desk.told(&to, job, seq_of(&event), now);
                }
                Action::Remove { .. } => {}
            }
        }
    }
}

#[test]
fn all_of_a_life_is_told_in_order_and_then_forgotten() {
    let job: JobId = "j".parse().expect("valid");
    let mut desk = Desk::new(node(NODE));
    desk.take(note("j", 1, &[Receiver::Status]), at(0));
    let told = run(&mut desk, &job, &life()[..2], at(0), &[]);
    assert_eq!(told, [(Receiver::Status, 0), (Receiver::Status, 1)]);
    assert_eq!(desk.told_of(&job, Seq(2)), Told::all_before(Seq(2)));
    assert_eq!((desk.len(), desk.is_quiet()), (1, true));
    for entry in &life()[2..] {
        desk.seen(&job, entry, at(1));
    }
    assert_eq!(run(&mut desk, &job, &life(), at(1), &[]), [(Receiver::Status, 2), (Receiver::Status, 3)]);
    assert_eq!(desk.len(), 0, "nothing more is this node's to tell");
    assert_eq!(desk.told_of(&job, Seq(4)), Told::all_before(Seq(4)), "the next node goes on there");
    assert_eq!(desk.told_of(&job, Seq(5)), Told::default(), "of what came later nothing is known");
}

#[test]
fn a_claim_that_another_node_won_is_told_by_that_one() {
    let job: JobId = "j".parse().expect("valid");
    let mut desk = Desk::new(node(NODE));
    desk.take(note("j", 1, &[Receiver::Status]), at(0));
    let log = [submitted(), claimed(1, "there"), ended(2, "there")];
    assert_eq!(run(&mut desk, &job, &log, at(0), &[]), [(Receiver::Status, 0)]);
    assert_eq!(desk.len(), 0);
}

#[test]
fn a_cancel_that_came_before_the_claim_is_told() {
    let job: JobId = "j".parse().expect("valid");
    let mut desk = Desk::new(node(NODE));
    desk.take(note("j", 1, &[hook(1)]), at(0));
    let log = [submitted(), entry(1, Author::Client("ann@desk".into()), Event::Cancelled)];
    assert_eq!(run(&mut desk, &job, &log, at(0), &[]), [(hook(1), 0), (hook(1), 1)]);
    assert_eq!(desk.len(), 0);
}

#[test]
fn a_lost_nodes_end_is_told_by_whoever_wrote_it() {
    let job: JobId = "j".parse().expect("valid");
    let mut desk = Desk::new(node(NODE));
    desk.take(note("j", 2, &[Receiver::Status]), at(0));
    let log = [submitted(), claimed(1, "there"), ended(2, NODE)];
    assert_eq!(run(&mut desk, &job, &log, at(0), &[]).len(), 3);
    assert_eq!(desk.len(), 0);
}

#[test]
fn a_receiver_that_is_down_keeps_nobody_waiting_and_is_tried_ever_more_seldom() {
    let job: JobId = "j".parse().expect("valid");
    let mut desk = Desk::new(node(NODE));
    desk.take(note("j", 1, &[hook(1), hook(2)]), at(0));
    let told = run(&mut desk, &job, &life(), at(0), &[hook(1)]);
    assert_eq!(told, (0..4).map(|seq| (hook(2), seq)).collect::<Vec<_>>());
    let mut tries = 0;
    for second in 1..3600 {
        if desk.wake_at().is_some_and(|due| due <= at(second)) {
            tries += tells(&desk.next(at(second))).len();
            if tries > 0 && desk.lines[&hook(1)].flying == 1 {
                desk.failed(&hook(1), &job, at(second), 0);
            }
        }
    }
    assert!((8..25).contains(&tries), "{tries} tries in an hour");
    let told = run(&mut desk, &job, &life(), at(7200), &[]);
    assert_eq!(told, (0..4).map(|seq| (hook(1), seq)).collect::<Vec<_>>());
}

#[test]
fn after_days_of_failures_it_is_given_up() {
    let job: JobId = "j".parse().expect("valid");
    let mut desk = Desk::new(node(NODE));
    desk.take(note("j", 1, &[hook(1)]), at(0));
    let mut now = at(0);
    while desk.len() > 0 {
        run(&mut desk, &job, &life(), now, &[hook(1)]);
        now += at(900);
    }
    assert!((GIVE_UP..GIVE_UP + at(3600)).contains(&now), "{now:?}");
}

#[test]
fn a_receiver_that_is_gone_is_left_alone() {
    let job: JobId = "j".parse().expect("valid");
    let mut desk = Desk::new(node(NODE));
    desk.take(note("j", 1, &[hook(1), hook(2)]), at(0));
    desk.seen(&job, &submitted(), at(0));
    assert_eq!(tells(&desk.next(at(0))), [(hook(1), 0), (hook(2), 0)]);
    desk.gone(&hook(1));
    desk.take(note("k", 1, &[hook(1), hook(2)]), at(0));
    assert_eq!(desk.note(&"k".parse().expect("valid")).expect("there").told.len(), 1);
}

#[test]
fn a_filter_passes_over_what_is_not_wanted() {
    let job: JobId = "j".parse().expect("valid");
    let mut wanted = hook(1);
    if let Receiver::Webhook(hook) = &mut wanted {
        hook.events = vec!["job.ended".parse().expect("known")];
    }
    let mut desk = Desk::new(node(NODE));
    desk.take(note("j", 1, &[wanted.clone()]), at(0));
    assert_eq!(run(&mut desk, &job, &life(), at(0), &[]), [(wanted, 3)]);
    assert_eq!(desk.len(), 0);
}

#[derive(Debug, Clone)]
enum Op {
    Append { watched: bool },
    Step,
    Listen(usize),
    Refuse(usize),
    Flush,
    Crash,
    Time(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        any::<bool>().prop_map(|watched| Op::Append { watched }),
        Just(Op::Step),
        Just(Op::Step),
        (0..8usize).prop_map(Op::Listen),
        (0..8usize).prop_map(Op::Listen),
        (0..8usize).prop_map(Op::Refuse),
        Just(Op::Flush),
        Just(Op::Crash),
        (0..1000u64).prop_map(Op::Time),
    ]
}

/// A desk with a disk, a log that grows, and receivers that note what they hear.
struct World {
    desk: Desk,
    disk: Option<Note>,
    written: usize,
    pending: Vec<Action>,
    heard: BTreeMap<Receiver, Vec<u64>>,
    now: Duration,
}

impl World {
    fn job() -> JobId {
        "j".parse().expect("valid")
    }

    fn step(&mut self) {
        for action in self.desk.next(self.now) {
            match action {
                Action::Remove { .. } => self.disk = None,
                other => self.pending.push(other),
            }
        }
    }

    fn finish(&mut self, which: usize, listens: bool) {
        if self.pending.is_empty() {
            return;
        }
        let action = self.pending.remove(which % self.pending.len());
        match action {
            Action::Read { job, seq } => match life()[..self.written].iter().find(|entry| entry.seq == seq) {
                Some(entry) => self.desk.seen(&job, entry, self.now),
                None => self.desk.absent(&job),
            },
            Action::Tell { to, job, event } => {
                let seq = seq_of(&event);
                // One that fails may have heard all the same.
                let heard = self.heard.entry(to.clone()).or_default();
                let known = heard.iter().max().map_or(0, |max| max + 1);
                assert!(seq.0 <= known, "{seq} was told before {known}");
                heard.push(seq.0);
                match listens {
                    true => self.desk.told(&to, &job, seq, self.now),
                    false => drop(self.desk.failed(&to, &job, self.now, 7)),
                }
            }
            Action::Remove { .. } => unreachable!("removed at once"),
        }
    }

    fn crash(&mut self) {
        self.desk = Desk::new(node(NODE));
        self.pending.clear();
        if let Some(note) = self.disk.clone() {
            self.desk.take(note, self.now);
        }
    }
}

proptest! {
    #[test]
    fn whatever_fails_everybody_hears_everything_in_order(ops in proptest::collection::vec(op(), 0..80)) {
        let first = note("j", 1, &[Receiver::Status, hook(1), hook(2)]);
        let mut world = World {
            desk: Desk::new(node(NODE)),
            disk: Some(first.clone()),
            written: 1,
            pending: Vec::new(),
            heard: BTreeMap::new(),
            now: at(0),
        };
        world.desk.take(first, at(0));
        for op in ops {
            match op {
                Op::Append { watched } if world.written < 4 => {
                    world.written += 1;
                    if watched {
                        world.desk.seen(&World::job(), &life()[world.written - 1], world.now);
                    }
                }
                Op::Append { .. } => {}
                Op::Step => world.step(),
                Op::Listen(which) => world.finish(which, true),
                Op::Refuse(which) => world.finish(which, false),
                Op::Flush => {
                    if let Some(note) = world.desk.changed().pop() {
                        world.disk = Some(note);
                    }
                }
                Op::Crash => world.crash(),
                Op::Time(seconds) => world.now += at(seconds),
            }
        }
        world.written = 4;
        for _ in 0..100 {
            world.now += LOOK + at(900);
            world.step();
            while !world.pending.is_empty() {
                world.finish(0, true);
                world.step();
            }
        }
        prop_assert_eq!(world.desk.len(), 0);
        prop_assert_eq!(&world.disk, &None);
        for to in [Receiver::Status, hook(1), hook(2)] {
            let mut heard = world.heard.get(&to).cloned().unwrap_or_default();
            heard.sort_unstable();
            heard.dedup();
            prop_assert_eq!(heard, vec![0, 1, 2, 3]);
        }
    }
}
