use proptest::prelude::*;
use shared::{
    id::NodeId,
    job::{Format, parse},
};

use super::*;
use crate::gpu::{Gpus, Simulated};

fn ledger(gpus: &str) -> Ledger {
    let capacity = Capacity { cpus: 4.0, memory: Size(1 << 30), slots: 4, ..Capacity::default() };
    let ledger = Ledger::new(capacity, BTreeMap::new());
    let inventory = Simulated::new(&gpus.parse().expect("valid"), &NodeId::new("n").expect("valid")).read();
    ledger.set_gpus(inventory.expect("reads"), BTreeMap::new());
    ledger
}

fn spec(text: &str) -> JobSpec {
    parse(&format!("image = \"i\"\n[resources]\n{text}"), Format::Toml).expect("valid")
}

fn take(ledger: &Ledger, job: &str, text: &str) -> Take {
    let spec = spec(text);
    ledger.take(&JobId::new(job).expect("valid"), Attempt::FIRST, &spec, spec.resources.memory)
}

fn why(take: &Take) -> String {
    match take {
        Take::Refused(why) => why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        other => format!("{other:?}"),
    }
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
    let next = ledger.take(&a, Attempt(2), &spec, None);
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
    ledger.set_mode(Mode::Draining);
    assert_eq!(ledger.room(&needs), 0);
    assert_eq!(why(&take(&ledger, "a", "gpus = 1")), "the host takes no jobs: it is draining");
    ledger.set_mode(Mode::Ready);
    ledger.set_problems(vec!["the disk is full".into()]);
    assert_eq!(ledger.room(&needs), 0);
}

#[test]
fn a_gpu_that_others_use_is_not_given() {
    let ledger = ledger("2xP100:16GiB");
    let inventory = ledger.inventory();
    let foreign = BTreeMap::from([(inventory.gpus[0].uuid.clone(), "python (pid 7)".to_owned())]);
    ledger.set_gpus(inventory.clone(), foreign);
    let Take::Given(holding) = take(&ledger, "a", "gpus = 1") else { panic!("the other one is free") };
    assert_eq!(holding.gpus, [inventory.gpus[1].uuid.clone()]);
    assert_eq!(
        why(&take(&ledger, "b", "gpus = 1")),
        "needs 1 GPU, 0 free now, 1 used by programs outside haul"
    );
}

proptest! {
    /// Whatever is taken and given back, no GPU is ever with two jobs.
    #[test]
    fn no_gpu_is_given_out_twice(steps in prop::collection::vec((0..8usize, 0..4u32, any::<bool>()), 1..80)) {
        let ledger = ledger("3xP100:16GiB,1xA100:80GiB");
        for (job, gpus, give_back) in steps {
            let name = format!("job-{job}");
            if give_back {
                ledger.give_back(&JobId::new(name).expect("valid"));
            } else {
                take(&ledger, &name, &format!("gpus = {gpus}\ncpus = 0.1"));
            }
            let holdings = ledger.holdings();
            let given: Vec<&GpuUuid> = holdings.values().flat_map(|holding| &holding.gpus).collect();
            let distinct: BTreeSet<&GpuUuid> = given.iter().copied().collect();
            prop_assert_eq!(given.len(), distinct.len());
            prop_assert_eq!(ledger.capacity().slots_used as usize, holdings.len());
            let free = ledger.offer().gpus.iter().filter(|gpu| gpu.state == GpuState::Free).count();
            prop_assert_eq!(free + given.len(), 4);
        }
    }
}
