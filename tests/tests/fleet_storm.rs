//! A fleet in a storm: the load of a calm one, while an agent dies for good, another is suspended past
//! its lease, a third is cut off from the store for twice the lease, the queues are purged twice, the
//! store refuses everybody for a minute, and a tenth of all answers are lost. Every job ends once, no
//! operator acts, and no two containers of a job run at once by the engine's own word.

use std::time::Duration;

use tests::{
    Bucket, Cloud, Histories, Host, Load, Recorder,
    emulator::Kind,
    last,
    load::{OF_A_TEAM, OF_THE_INBOX, TEAMS},
    now,
    proxy::{Door, Faults, Service},
    queues::Queues,
    timeline::Change,
    within,
    world::BUSYBOX,
};

/// Short enough to wait for, and long enough for a loaded machine to keep.
const LEASE: Duration = Duration::from_secs(6);

const SETTINGS: [&str; 4] = ["beat=1s", "lease=6s", "sweep=2s", "lane_refresh=2s"];

/// How long the store refuses everybody.
const OUTAGE: Duration = Duration::from_secs(60);

/// Runs on for long on one node, `WHERE`, and on any other ends soon: it is there to be lost with that
/// node, and keeps no other busy.
const JOB: &str = "n=1; [ $HAUL_NODE = WHERE ] && n=60; \
    i=0; while [ $i -lt $n ]; do i=$((i + 1)); echo $i; sleep 1; done";

/// How many jobs the load has at least.
const KNOWN: usize = TEAMS.len() * OF_A_TEAM + OF_THE_INBOX;

const LONG: Duration = Duration::from_secs(200);

/// Throughout, a tenth of all answers are lost after the request was done.
const ROUGH: Faults =
    Faults { cut: false, black_hole: false, delay: Duration::ZERO, answer: None, behind: None, lose: 0.1 };

fn set(door: &Door, faults: Faults) {
    for service in [Service::S3, Service::Sqs] {
        door.set(service, faults);
    }
}

/// Purges what has messages, once something has.
fn purge(queues: &Queues) {
    let purged = within(LONG, "there is something to purge", || {
        let full: Vec<String> = queues.lanes().into_iter().filter(|lane| queues.depth(lane) > 0).collect();
        full.iter().for_each(|lane| queues.purge(lane));
        (!full.is_empty()).then_some(full.len())
    });
    eprintln!("purged {purged} queues");
}

/// What the storm has to do with.
struct Storm<'s> {
    cloud: &'s Cloud,
    recorder: &'s Recorder,
    bucket: Bucket,
    queues: Queues,
}

impl Storm<'_> {
    /// Waits until a node has begun a job that outlives its lease by far. Such jobs go before all others,
    /// so that whoever takes one over starts it while the lost node's container would still run. Where
    /// another node was faster, or the message is hidden since its answer was lost, there is a next one.
    fn until_busy(&self, host: &Host) {
        let (mut ids, mut asked): (Vec<String>, _) = (Vec::new(), now());
        within(LONG, "the node has begun an urgent job", || {
            let timeline = self.recorder.so_far();
            if ids.last().is_none_or(|last| timeline.has_started(last)) || asked.elapsed() > LEASE {
                asked = now();
                ids.push(format!("urgent-{}{}", host.name, ids.len()));
                self.submit_urgent(ids.last().expect("pushed"), &host.name);
            }
            let running = timeline.running_on(&host.name);
            ids.iter().any(|id| running.contains(id)).then_some(())
        });
    }

    fn submit_urgent(&self, id: &str, node: &str) {
        let job = JOB.replace("WHERE", node);
        let flags =
            ["submit", "--id", id, "--priority", "high", "--gpus", "1", "--", BUSYBOX, "sh", "-c", &job];
        within(LONG, "an urgent job is submitted", || {
            (self.cloud.world().run(flags).code == 0).then_some(())
        });
    }

    /// Waits until a node's jobs were given to others.
    fn until_replaced(&self, host: &Host) {
        within(LONG, "its jobs are taken over", || {
            Histories::read(&self.bucket).nodes_of("node_lost").contains(&host.name.as_str()).then_some(())
        });
    }

    fn until_more(&self, jobs: usize) {
        let before = self.bucket.done();
        within(LONG, "more jobs are done", || (self.bucket.done() >= before + jobs).then_some(()));
    }

    /// Each node in turn is lost while it runs a long job: killed for good, suspended, cut off.
    fn lose_nodes(&self, [a, b, c]: &mut [Host<'_>; 3]) {
        self.until_busy(a);
        a.agent.kill();
        self.until_replaced(a);

        self.until_busy(b);
        b.suspend();
        self.until_replaced(b);
        b.resume();

        self.until_busy(c);
        c.door.set(Service::S3, Faults { cut: true, ..ROUGH });
        last(LEASE * 2);
        self.until_replaced(c);
        c.door.set(Service::S3, ROUGH);
    }
}

#[test]
fn every_job_ends_once_in_a_storm_and_never_runs_twice_at_a_time() {
    let cloud = Cloud::start(Kind::Ministack);
    cloud.world().run(["fleet", "set"].iter().chain(&SETTINGS)).ok();
    let recorder = Recorder::start(cloud.world());
    let mut hosts = ["a", "b", "c"].map(|name| Host::start(&cloud, name));
    hosts.iter().map(|host| &host.door).chain([cloud.door()]).for_each(|door| set(door, ROUGH));
    let storm = Storm { cloud: &cloud, recorder: &recorder, bucket: cloud.bucket(), queues: cloud.queues() };
    std::thread::scope(|scope| {
        scope.spawn(|| Load::submit(&cloud, |producer| set(producer, ROUGH)));
        storm.until_more(20);
        storm.lose_nodes(&mut hosts);
        purge(&storm.queues);
        storm.until_more(20);
    });
    let doors = || hosts.iter().map(|host| &host.door).chain([cloud.door()]);
    doors().for_each(|door| door.set(Service::S3, Faults { answer: Some(503), ..ROUGH }));
    purge(&storm.queues);
    last(OUTAGE);
    doors().for_each(|door| set(door, ROUGH));
    let Storm { bucket, queues, .. } = &storm;
    // A lost answer to a receive hides its messages for half a minute: the last few are spared that.
    within(LONG, "nearly all jobs are done", || (bucket.done() + 80 >= KNOWN).then_some(()));
    doors().for_each(|door| set(door, Faults::default()));
    // Lost answers make two of one of the producer's messages now and then, and each is a job.
    within(LONG, "all jobs have ended", || {
        let ended = || Histories::read(bucket).all_ended();
        (bucket.done() >= KNOWN && queues.are_empty() && ended()).then_some(())
    });
    let histories = Histories::read(bucket);
    assert_eq!(histories.broken(), Vec::<String>::new());
    assert_eq!(Load::missing(&histories), Vec::<String>::new());
    for id in Load::long() {
        assert_eq!(cloud.world().run(["logs", &id]).ok(), Load::output(), "{id}");
    }
    let timeline = recorder.finish();
    assert_eq!(timeline.broken(), Vec::<String>::new());
    for host in &hosts {
        assert!(timeline.count(&host.name, Change::Pause) > 0, "nothing was frozen on {}", host.name);
    }
    let (jobs, attempts, lost) = (histories.jobs().len(), histories.attempts(), histories.ended("node_lost"));
    let closest = timeline.closest();
    eprintln!("{jobs} jobs, {attempts} attempts, {lost} lost with their node; closest {closest:?} s");
}
