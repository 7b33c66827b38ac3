use std::collections::BTreeSet;

use proptest::prelude::*;
use shared::{
    clock::Chance,
    id::{NodeId, Seq},
    job::{Format, parse},
    lane::{GpuState, When},
    log::{Author, Entry, Event, Job, Submitted},
    units::Span,
};

use super::{cards::LAST_SEEN, *};
use crate::gpu::{Gpus, Simulated};

fn ledger(gpus: &str) -> Ledger {
    let capacity = Capacity { cpus: 4.0, memory: Size(1 << 30), slots: 4, ..Capacity::default() };
    let ledger = Ledger::new(capacity, BTreeMap::new());
    let inventory = Simulated::new(&gpus.parse().expect("valid"), &NodeId::new("n").expect("valid")).read();
    ledger.set_gpus(ledger.begin_look(), inventory.expect("reads"), Some(BTreeMap::new()));
    ledger
}

fn spec(text: &str) -> JobSpec {
    parse(&format!("image = \"i\"\n[resources]\n{text}"), Format::Toml).expect("valid")
}

fn take(ledger: &Ledger, job: &str, text: &str) -> Take {
    let spec = spec(text);
    ledger.take(&JobId::new(job).expect("valid"), Attempt::FIRST, &spec, spec.resources.memory, at(0))
}

fn why(take: &Take) -> String {
    match take {
        Take::Refused(why) => why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        other => format!("{other:?}"),
    }
}

fn at(second: i64) -> Timestamp {
    chrono::DateTime::from_timestamp(second, 0).expect("valid")
}

/// A job that waits, which needs this and may say more of itself.
fn waiting(job: &str, text: &str) -> Job {
    let spec = parse(&format!("image = \"i\"\n{text}"), Format::Toml).expect("valid");
    let submitted = Submitted { lane: Needs::of(&spec).lane_id(), spec, local: false };
    let author = Author::Client("ann@desk".into());
    let nonce = Chance::from_seed(1).nonce();
    let event = Event::Submitted(Box::new(submitted));
    let entry = Entry { v: Entry::VERSION, seq: Seq::FIRST, at: at(0), author, nonce, event };
    Job::begin(JobId::new(job).expect("valid"), &entry).expect("begins")
}

/// Takes a job at this time.
fn start(ledger: &Ledger, job: &Job, second: i64) -> Take {
    let taken = ledger.take(&job.id, Attempt::FIRST, &job.spec, job.memory(), at(second));
    ledger.settled(&job.id);
    taken
}

#[test]
fn room_is_kept_for_a_large_job_and_used_meanwhile_by_what_ends_in_time() {
    let ledger = ledger("2xP100:16GiB");
    let one = "grace = \"0s\"\n[resources]\ngpus = 1";
    let timed = |job: &str, seconds: u32| waiting(job, &format!("timeout = \"{seconds}s\"\n{one}"));
    let given = |take: &Take| matches!(take, Take::Given(_));
    assert!(given(&start(&ledger, &timed("a", 100), 0)));
    let large = waiting("large", "[resources]\ngpus = 2");
    assert!(matches!(start(&ledger, &large, 0), Take::Refused(_)));
    assert!(ledger.reserve(&large, at(0), Span::secs(1000), false));
    assert!(
        !ledger.reserve(&waiting("larger", "[resources]\ngpus = 2"), at(0), Span::secs(1), false),
        "one at a time"
    );
    let plan = |ledger: &Ledger| ledger.reservation().and_then(|(_, plan)| plan).expect("there is one");
    assert_eq!(plan(&ledger).start, When::At(at(100)));
    let needs = Needs::of(&timed("b", 1).spec);
    assert_eq!((ledger.room(&needs), ledger.view().room_for_a_while(&needs)), (0, 1));
    // Who may run for ever, or too long, has to wait.
    let forever = waiting("b", one);
    assert_eq!(why(&start(&ledger, &forever, 20)), "needs 1 GPU, 0 free now, 1 kept for a larger job");
    assert!(!given(&start(&ledger, &timed("b", 81), 20)));
    assert!(given(&start(&ledger, &timed("b", 80), 20)));
    assert_eq!(plan(&ledger).start, When::At(at(100)), "it delays nobody");
    ledger.give_back(&JobId::new("b").expect("valid"));
    // Who goes before it, does.
    let high = waiting("c", &format!("priority = \"high\"\n{one}"));
    assert!(given(&start(&ledger, &high, 30)));
    assert_eq!((plan(&ledger).start, ledger.view().room_for_a_while(&needs)), (When::Unknown, 0));
    ledger.give_back(&high.id);
    ledger.give_back(&JobId::new("a").expect("valid"));
    assert!(!given(&start(&ledger, &timed("b", 1), 40)), "it is about to start");
    assert!(given(&start(&ledger, &large, 40)));
    assert!(ledger.reservation().is_none());
}

#[test]
fn cpu_and_memory_are_kept_too() {
    let ledger = ledger("2xP100:16GiB");
    let job = |name: &str, cpus: u32| waiting(name, &format!("[resources]\ncpus = {cpus}"));
    assert!(matches!(start(&ledger, &job("a", 2), 0), Take::Given(_)));
    let large = job("large", 4);
    assert!(matches!(start(&ledger, &large, 0), Take::Refused(_)));
    assert!(ledger.reserve(&large, at(0), Span::secs(10), false));
    assert_eq!(why(&start(&ledger, &job("b", 1), 0)), "needs 1 CPU cores, 0 of 4 free now");
    ledger.give_back(&JobId::new("a").expect("valid"));
    assert!(matches!(start(&ledger, &large, 0), Take::Given(_)));
}

#[test]
fn room_that_was_kept_in_vain_is_not_kept_again_at_once() {
    let ledger = ledger("2xP100:16GiB");
    assert!(matches!(take(&ledger, "a", "gpus = 1"), Take::Given(_)));
    let large = waiting("large", "[resources]\ngpus = 2");
    assert!(ledger.reserve(&large, at(0), Span::secs(10), false));
    ledger.unreserve(&large.id, Some(at(20)));
    assert!(ledger.reservation().is_none() && !ledger.reserve(&large, at(19), Span::secs(10), false));
    assert!(ledger.reserve(&large, at(20), Span::secs(10), false));
    // Nor where it never fits, or is no larger than what runs.
    ledger.unreserve(&large.id, None);
    assert!(!ledger.reserve(&waiting("y", "[resources]\ngpus = 1"), at(20), Span::secs(10), false));
    assert!(!ledger.reserve(
        &waiting("z", "[resources]\ngpu_share = \"1GiB\""),
        at(20),
        Span::secs(10),
        false
    ));
    assert!(!ledger.reserve(&waiting("x", "[resources]\ngpus = 3"), at(20), Span::secs(10), false));
}

fn python() -> Foreign {
    Foreign { by: "python (pid 7)".into(), is_outside: false }
}

#[test]
fn what_is_free_is_given_and_no_more() {
    let ledger = ledger("2xP100:16GiB");
    assert!(matches!(take(&ledger, "a", "gpus = 1"), Take::Given(_)));
    assert!(matches!(take(&ledger, "b", "gpus = 1"), Take::Given(_)));
    assert_eq!(why(&take(&ledger, "c", "gpus = 1")), "needs 1 GPU, 0 free now");
    assert_eq!(take(&ledger, "a", "gpus = 1"), Take::Settling, "its claim is not written yet");
    ledger.settled(&JobId::new("a").expect("valid"));
    assert_eq!(take(&ledger, "a", "gpus = 1"), Take::Already);
    let (a, spec) = (JobId::new("a").expect("valid"), spec("gpus = 1"));
    let next = ledger.take(&a, Attempt(2), &spec, None, at(0));
    assert_eq!(next, Take::Settling, "taken over elsewhere, queued again, and not known here yet");
    ledger.give_back(&JobId::new("a").expect("valid"));
    assert!(matches!(take(&ledger, "c", "gpus = 1"), Take::Given(_)));
}

#[test]
fn cpu_memory_and_slots_are_counted() {
    let ledger = ledger("2xP100:16GiB");
    assert!(matches!(take(&ledger, "a", "cpus = 3\nmemory = \"600MiB\""), Take::Given(_)));
    assert_eq!(why(&take(&ledger, "b", "cpus = 2")), "needs 2 CPU cores, 1 of 4 free now");
    assert!(why(&take(&ledger, "b", "memory = \"600MiB\"")).starts_with("needs 600MiB of memory, 424"));
    for job in ["b", "c", "d"] {
        assert!(matches!(take(&ledger, job, "cpus = 0.1"), Take::Given(_)));
    }
    assert_eq!(why(&take(&ledger, "e", "cpus = 0.1")), "the host runs 4 jobs already, as many as it may");
}

#[test]
fn a_closed_host_has_no_room() {
    let ledger = ledger("2xP100:16GiB");
    let needs = Needs::of(&spec("gpus = 1"));
    assert_eq!(ledger.room(&needs), 2);
    ledger.set_mode(shared::node::Mode::Draining);
    assert_eq!(ledger.room(&needs), 0);
    assert_eq!(why(&take(&ledger, "a", "gpus = 1")), "the host takes no jobs: it is draining");
    ledger.set_mode(shared::node::Mode::Ready);
    ledger.set_problems(vec!["the disk is full".into()]);
    assert_eq!(ledger.room(&needs), 0);
}

#[test]
fn a_gpu_that_others_use_is_not_given() {
    let ledger = ledger("2xP100:16GiB");
    let inventory = ledger.inventory();
    let foreign = BTreeMap::from([(inventory.gpus[0].uuid.clone(), python())]);
    ledger.set_gpus(ledger.begin_look(), inventory.clone(), Some(foreign));
    let Take::Given(holding) = take(&ledger, "a", "gpus = 1") else { panic!("the other one is free") };
    assert_eq!(holding.gpus, [inventory.gpus[1].uuid.clone()]);
    assert_eq!(
        why(&take(&ledger, "b", "gpus = 1")),
        "needs 1 GPU, 0 free now, 1 used by programs outside haul"
    );
}

#[test]
fn a_gpu_is_shared_by_memory_and_whole_again_when_all_have_gone() {
    let ledger = ledger("1xP100:16GiB");
    let (six, whole) = (Needs::of(&spec("gpu_share = \"6GiB\"")), Needs::of(&spec("gpus = 1")));
    assert_eq!((ledger.room(&six), ledger.room(&whole)), (2, 1));
    assert!(matches!(take(&ledger, "a", "gpu_share = \"6GiB\""), Take::Given(_)));
    assert!(matches!(take(&ledger, "b", "gpu_share = \"6GiB\""), Take::Given(_)));
    assert_eq!(
        why(&take(&ledger, "c", "gpu_share = \"6GiB\"")),
        "needs 6GiB of a GPU, 4.0 GiB free now on the emptiest"
    );
    assert_eq!(why(&take(&ledger, "c", "gpus = 1")), "needs 1 GPU, 0 free now");
    assert!(matches!(take(&ledger, "d", "gpu_share = \"4GiB\""), Take::Given(_)));
    for job in ["a", "b", "d"] {
        assert_eq!(ledger.room(&whole), 0);
        ledger.give_back(&JobId::new(job).expect("valid"));
    }
    assert!(matches!(take(&ledger, "c", "gpus = 1"), Take::Given(_)));
    assert_eq!(ledger.room(&six), 0, "a whole GPU is not shared");
}

#[test]
fn a_job_over_its_share_is_told_of_once_and_has_exceeded_it_at_the_second_look_in_a_row() {
    let ledger = ledger("1xP100:16GiB");
    let a = JobId::new("a").expect("valid");
    assert!(matches!(take(&ledger, "a", "gpu_share = \"4GiB\""), Take::Given(_)));
    let look = |mib: u64| ledger.set_memory(&BTreeMap::from([(a.clone(), Size(mib << 20))]));
    let excess = Excess { share: Size(4 << 30), held: Size(5 << 30) };
    assert_eq!((look(4096), ledger.has_exceeded(&a)), (vec![], None));
    assert_eq!((look(5120), ledger.has_exceeded(&a)), (vec![(a.clone(), excess)], None));
    assert_eq!(ledger.exceeding(), BTreeMap::from([(a.clone(), excess)]));
    assert_eq!((look(4096), ledger.has_exceeded(&a)), (vec![], None));
    assert_eq!((look(5120), ledger.has_exceeded(&a)), (vec![(a.clone(), excess)], None));
    assert_eq!((look(5120), ledger.has_exceeded(&a)), (vec![], Some(excess)));
    ledger.give_back(&a);
    assert_eq!(ledger.has_exceeded(&a), None);
}

#[test]
fn a_gpu_is_free_again_when_a_look_after_its_jobs_end_shows_nobody_on_it() {
    let ledger = ledger("1xP100:16GiB");
    let inventory = Inventory { simulated: false, ..ledger.inventory() };
    let (a, gpu) = (JobId::new("a").expect("valid"), inventory.gpus[0].uuid.clone());
    let nobody = BTreeMap::new;
    let somebody = || BTreeMap::from([(gpu.clone(), python())]);
    let look = |foreign| ledger.set_gpus(ledger.begin_look(), inventory.clone(), Some(foreign));
    let state = || ledger.offer().gpus[0].state.clone();
    look(nobody());
    let end = || {
        assert!(matches!(take(&ledger, "a", "gpus = 1"), Take::Given(_)));
        ledger.settled(&a);
        ledger.give_back(&a);
    };
    let before = ledger.begin_look();
    end();
    assert_eq!((state(), ledger.is_clearing()), (GpuState::Held, true));
    ledger.set_gpus(before, inventory.clone(), Some(nobody()));
    assert_eq!(state(), GpuState::Held, "a look that began before the end says nothing");
    look(somebody());
    assert_eq!(state(), GpuState::Held, "it may be about to go");
    ledger.set_gpus(ledger.begin_look(), inventory.clone(), None);
    assert_eq!(state(), GpuState::Held, "a look that could not tell who is there says nothing");
    look(nobody());
    assert_eq!((state(), ledger.is_clearing()), (GpuState::Free, false));
    // A stranger is shown at once, also beside a job, and is nothing that the job left.
    assert!(matches!(take(&ledger, "a", "gpus = 1"), Take::Given(_)));
    let stranger = || BTreeMap::from([(gpu.clone(), Foreign { is_outside: true, ..python() })]);
    let foreign = GpuState::Foreign { by: "python (pid 7)".into() };
    look(stranger());
    assert_eq!(state(), foreign);
    ledger.settled(&a);
    ledger.give_back(&a);
    look(stranger());
    assert_eq!((state(), ledger.is_clearing()), (foreign, false));
    look(nobody());
    assert_eq!(state(), GpuState::Free);
    end();
    (0..LAST_SEEN).for_each(|_| look(somebody()));
    assert_eq!((state(), ledger.is_clearing()), (GpuState::Foreign { by: "python (pid 7)".into() }, false));
}

#[test]
fn what_a_job_left_behind_is_killed_once() {
    let ledger = ledger("1xP100:16GiB");
    let (mut inventory, a) = (ledger.inventory(), JobId::new("a").expect("valid"));
    (inventory.simulated, inventory.gpus[0].processes) = (false, Some(vec![]));
    let look = |foreign| ledger.set_gpus(ledger.begin_look(), inventory.clone(), Some(foreign));
    look(BTreeMap::new());
    assert!(matches!(take(&ledger, "a", "gpus = 1"), Take::Given(_)));
    ledger.runs_in(&a, &ContainerId::new("c1"));
    let left = Leftover { pid: 7, name: None, container: "c1".into(), job: a.clone() };
    assert!(ledger.ended_in().is_empty() && !ledger.is_to_kill(&left), "it runs");
    ledger.settled(&a);
    ledger.give_back(&a);
    assert!(ledger.is_to_kill(&left) && !ledger.is_to_kill(&left));
    let somebody = BTreeMap::from([(inventory.gpus[0].uuid.clone(), python())]);
    (0..LAST_SEEN).for_each(|_| look(somebody.clone()));
    assert_eq!(ledger.ended_in(), BTreeMap::from([("c1".into(), a)]), "it outlives the kill and is named");
    look(BTreeMap::new());
    assert!(ledger.ended_in().is_empty() && !ledger.is_to_kill(&left));
}

#[test]
fn nobody_joins_those_who_share_a_gpu_with_a_stranger() {
    let ledger = ledger("1xP100:16GiB");
    assert!(matches!(take(&ledger, "a", "gpu_share = \"4GiB\""), Take::Given(_)));
    let inventory = ledger.inventory();
    let foreign = BTreeMap::from([(inventory.gpus[0].uuid.clone(), python())]);
    ledger.set_gpus(ledger.begin_look(), inventory, Some(foreign));
    assert_eq!(
        why(&take(&ledger, "b", "gpu_share = \"4GiB\"")),
        "needs 4GiB of a GPU, 0 B free now on the emptiest, 1 used by programs outside haul"
    );
}

#[test]
fn instances_are_offered_in_place_of_their_gpu() {
    let ledger = ledger("1xA100:80GiB:mig2x1g.10gb:mig1x3g.40gb,1xA100:80GiB");
    let kinds: Vec<Option<String>> =
        ledger.offer().gpus.iter().map(|gpu| gpu.mig.map(|kind| kind.to_string())).collect();
    let kind = |name: &str| Some(name.to_owned());
    assert_eq!(kinds, [kind("1g.10gb"), kind("1g.10gb"), kind("3g.40gb"), None]);
    assert_eq!(ledger.room(&Needs::of(&spec("gpus = 1"))), 1);
    assert_eq!(ledger.room(&Needs::of(&spec("mig = \"1g.10gb\"\ngpu_model = \"A100\""))), 2);
    let Take::Given(holding) = take(&ledger, "a", "mig = \"3g.40gb\"") else { panic!("there is one") };
    assert!(holding.gpus[0].as_str().starts_with("MIG-"), "{holding:?}");
}

/// What a step asks for.
fn asks(amount: u32) -> String {
    match amount {
        0..=3 => format!("gpus = {amount}"),
        share => format!("gpu_share = \"{}GiB\"", share - 3),
    }
}

proptest! {
    /// Whatever is taken and given back, no GPU is ever with two jobs.
    #[test]
    fn no_gpu_is_given_out_twice(steps in prop::collection::vec((0..8usize, 0..40u32, any::<bool>()), 1..80)) {
        let ledger = ledger("3xP100:16GiB,1xA100:80GiB");
        for (job, amount, give_back) in steps {
            let name = format!("job-{job}");
            if give_back {
                ledger.give_back(&JobId::new(name).expect("valid"));
            } else {
                take(&ledger, &name, &format!("{}\ncpus = 0.1", asks(amount)));
            }
            let holdings = ledger.holdings();
            for gpu in &ledger.inventory().gpus {
                let users = holdings.values().filter(|holding| holding.gpus.contains(&gpu.uuid));
                let (shares, whole): (Vec<&Holding>, Vec<&Holding>) = users.partition(|user| user.share.gpu.is_some());
                prop_assert!(whole.is_empty() || (whole.len() == 1 && shares.is_empty()));
                let sum: u64 = shares.iter().filter_map(|user| user.share.gpu).map(Size::bytes).sum();
                prop_assert!(sum <= gpu.memory.bytes());
            }
            let given: BTreeSet<&GpuUuid> = holdings.values().flat_map(|holding| &holding.gpus).collect();
            prop_assert_eq!(ledger.capacity().slots_used as usize, holdings.len());
            let free = ledger.offer().gpus.iter().filter(|gpu| gpu.state == GpuState::Free).count();
            prop_assert_eq!(free + given.len(), 4);
        }
    }
}

#[test]
fn jobs_give_way_to_one_that_goes_before_them_and_its_room_is_kept() {
    let ledger = ledger("2xP100:16GiB");
    let spec = |text: &str, gpus: u32| waiting("spec", &format!("{text}\n[resources]\ngpus = {gpus}")).spec;
    let starts = |job: &str, text: &str| {
        let id = JobId::new(job).expect("valid");
        matches!(ledger.take(&id, Attempt::FIRST, &spec(text, 1), None, at(0)), Take::Given(_))
    };
    assert!(starts("fixed", "") && starts("soft", "preemptible = true"));
    let equal = waiting("equal", "[resources]\ngpus = 1");
    assert!(!ledger.would_give_way(&Needs::of(&equal.spec)));
    assert!(!ledger.evict(&equal, at(1), Span::secs(9)), "of the same priority");
    let high = |name, gpus: u32| waiting(name, &format!("priority = \"high\"\n[resources]\ngpus = {gpus}"));
    assert!(!ledger.evict(&high("both", 2), at(1), Span::secs(9)), "it would not help");
    let first = high("first", 1);
    assert!(ledger.would_give_way(&Needs::of(&first.spec)));
    assert!(ledger.evict(&first, at(1), Span::secs(9)));
    let soft = JobId::new("soft").expect("valid");
    assert_eq!(ledger.gives_way_to(&soft), Some(first.id.clone()));
    assert_eq!(ledger.gives_way_to(&JobId::new("fixed").expect("valid")), None);
    assert!(!ledger.evict(&high("second", 1), at(2), Span::secs(9)), "nobody else gives way");
    ledger.give_back(&soft);
    assert!(!starts("next", ""), "the room is kept");
    assert!(matches!(start(&ledger, &first, 3), Take::Given(_)));
    assert_eq!((ledger.gives_way_to(&soft), ledger.reservation()), (None, None));
}

#[test]
fn what_gives_way_is_not_let_back_in_before_the_job_that_it_gave_way_to() {
    let ledger = ledger("2xP100:16GiB");
    let soft = |name: &str, timeout: &str| {
        waiting(name, &format!("preemptible = true\ntimeout = \"{timeout}\"\n[resources]\ngpus = 1"))
    };
    let (short, long) = (soft("short", "2h"), soft("long", "24h"));
    assert!(
        matches!(start(&ledger, &short, 0), Take::Given(_))
            && matches!(start(&ledger, &long, 0), Take::Given(_))
    );
    let high = waiting("high", "priority = \"high\"\n[resources]\ngpus = 2");
    assert!(ledger.evict(&high, at(1), Span::secs(9)));
    ledger.give_back(&short.id);
    assert_eq!(ledger.view().room_for_a_while(&Needs::of(&short.spec)), 0);
    assert!(
        matches!(start(&ledger, &short, 2), Take::Refused(_)),
        "though it would end before the other may"
    );
}

#[test]
fn room_is_kept_for_a_job_that_others_always_go_before() {
    let ledger = ledger("1xP100:16GiB");
    assert!(matches!(start(&ledger, &waiting("first", "[resources]\ngpus = 1"), 0), Take::Given(_)));
    let other = waiting("other", "[resources]\ngpus = 1\ngpu_model = \"P100\"");
    assert!(!ledger.reserve(&other, at(60), Span::secs(9), false), "the end of the first makes room");
    assert!(ledger.reserve(&other, at(120), Span::secs(9), true), "which another has taken each time");
}

/// A ledger whose breaker lets one job in on trial.
fn on_trial() -> Ledger {
    let ledger = ledger("1xP100:16GiB");
    for name in ["a", "b", "c"] {
        let job = waiting(name, "[resources]\ngpus = 1");
        assert!(matches!(start(&ledger, &job, 0), Take::Given(_)));
        let strike = Strike { job: job.id.clone(), attempt: Attempt::FIRST, image: "i".into() };
        ledger.found(&job.id, &job.spec, Finding::Soon(strike), at(1));
        ledger.give_back(&job.id);
        ledger.settled(&job.id);
    }
    assert!(ledger.problems()[0].starts_with("takes no jobs until"));
    ledger.tick(at(31));
    assert_eq!(ledger.problems(), Vec::<String>::new());
    ledger
}

#[test]
fn a_trial_whose_job_is_somebody_elses_is_none() {
    let ledger = on_trial();
    let stale = waiting("stale", "[resources]\ngpus = 1");
    assert!(matches!(start(&ledger, &stale, 32), Take::Given(_)) && ledger.problems().len() == 1);
    ledger.give_back(&stale.id);
    assert_eq!(ledger.problems(), Vec::<String>::new(), "the next one is let in");
}

#[test]
fn a_trial_is_not_passed_by_fetching_an_image() {
    let ledger = on_trial();
    let job = waiting("trial", "[resources]\ngpus = 1");
    assert!(matches!(start(&ledger, &job, 32), Take::Given(_)));
    ledger.tick(at(600));
    assert!(ledger.is_in_doubt("i", at(600)));
    ledger.began(&job.id, Terms::running(&job.spec, at(600)));
    ledger.tick(at(629));
    assert!(ledger.is_in_doubt("i", at(629)));
    ledger.tick(at(630));
    assert!(!ledger.is_in_doubt("i", at(630)) && ledger.problems().is_empty());
}
