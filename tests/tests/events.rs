//! Status events: every entry of every job reaches every receiver, in order, whatever fails.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::json;
use shared::{
    clock::SystemClock,
    queue::{Queue, QueueName, SqliteQueue},
};
use tests::{Agent, Mood, Receiver, World, eventually, receiver::SECRET};

const OK: Mood = Mood::Answer(204);

/// A fleet that tells its status queue and these webhooks, and the flags of its agents.
fn world(receivers: &[&Receiver]) -> (World, Vec<String>) {
    let world = World::new();
    let secrets = world.path("secrets");
    std::fs::create_dir(&secrets).expect("made");
    std::fs::write(secrets.join("HOOK"), format!("{SECRET}\n")).expect("written");
    let hooks: Vec<_> =
        receivers.iter().map(|receiver| json!({ "url": receiver.url(), "secret": "HOOK" })).collect();
    world.run(["fleet", "set", "status=true", &format!("webhooks={}", json!(hooks))]).ok();
    (world, vec!["--secrets-dir".into(), secrets.display().to_string()])
}

fn agent<'w>(world: &'w World, flags: &[String]) -> Agent<'w> {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Agent::start(world, "a", &flags)
}

/// How many entries each job's log has.
fn logs(world: &World, ids: &[String]) -> BTreeMap<String, u64> {
    ids.iter().map(|id| (id.clone(), world.history(id).len() as u64)).collect()
}

/// Each position of each job came, and none before all below it had come.
fn assert_whole(who: &str, heard: &BTreeMap<String, Vec<u64>>, logs: &BTreeMap<String, u64>) {
    for (job, entries) in logs {
        let heard = heard.get(job).unwrap_or_else(|| panic!("{who} heard nothing of {job}"));
        let mut next = 0;
        for seq in heard {
            assert!(*seq <= next, "{who} heard {seq} of {job} before {next}: {heard:?}");
            next = next.max(seq + 1);
        }
        assert_eq!(next, *entries, "{who} heard {heard:?} of {job}");
    }
}

fn is_whole(receiver: &Receiver, logs: &BTreeMap<String, u64>) -> Option<()> {
    let heard = receiver.by_job();
    let knows =
        |(job, entries): (&String, &u64)| heard.get(job).is_some_and(|seqs| seqs.contains(&(entries - 1)));
    logs.iter().all(knows).then_some(())
}

/// What lies in the status queue, by job, in the order in which it was sent.
fn status_queue(world: &World) -> BTreeMap<String, Vec<u64>> {
    let path = world.path("fleet/queue/queue.sqlite");
    let queue = SqliteQueue::open(&path, Arc::new(SystemClock)).expect("opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut jobs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let hour = Duration::from_secs(3600);
        loop {
            let messages =
                queue.receive(&QueueName::Status, 10, Duration::ZERO, hour).await.expect("receives");
            if messages.is_empty() {
                return jobs;
            }
            for message in messages {
                let event: serde_json::Value = serde_json::from_str(&message.body).expect("JSON");
                let data = &event["data"];
                let job = data["job"].as_str().expect("a job").to_owned();
                jobs.entry(job).or_default().push(data["seq"].as_u64().expect("a position"));
            }
        }
    })
}

#[test]
fn every_entry_reaches_everybody_in_order_although_receivers_and_the_agent_fail() {
    let (refusing, mut down) = (Receiver::start(Mood::Answer(500)), Receiver::down(OK));
    let own = Receiver::start(OK);
    let (world, flags) = world(&[&refusing, &down]);
    let mut agent = agent(&world, &flags);
    let mut ids: Vec<String> = (0..6)
        .map(|i| {
            world.submit(&["--retries", "1"], &format!("sleep 0.{i}; test {i} != 3 -o $HAUL_ATTEMPT = 2"))
        })
        .collect();
    let job = world.file(
        "job.toml",
        &format!(
            "image = \"haul/busybox:1\"\ncommand = [\"true\"]\n[[webhooks]]\nurl = \"{}\"\nsecret = \"HOOK\"\n",
            own.url()
        ),
    );
    let with_own = world.run(["submit".as_ref(), job.as_os_str()]).ok().trim().to_owned();
    ids.push(with_own.clone());
    let waiting = world.submit(&["--gpus", "8"], "true");
    let running = world.submit(&[], "sleep 600");
    for _ in 0..4 {
        let heard = refusing.heard().len();
        eventually("a receiver is asked", || (refusing.heard().len() > heard).then_some(()));
        agent.kill();
        agent.launch();
    }
    world.until(&running, "running");
    world.run(["cancel", &running]).ok();
    // Nobody holds it: the status queue hears of it from the client.
    world.run(["cancel", &waiting]).ok();
    ids.push(running);
    for id in &ids {
        // A receiver that is down holds up no job.
        eventually("it ends", || {
            ["succeeded", "cancelled"].contains(&world.state(id).as_str()).then_some(())
        });
    }
    world.run(["retry", &ids[0]]).ok();
    world.until(&ids[0], "succeeded");
    agent.kill();
    refusing.set(OK);
    down.up();
    agent.launch();
    let all = logs(&world, &ids);
    for (who, receiver) in [("the refusing one", &refusing), ("the one that was down", &down)] {
        eventually("it hears everything", || is_whole(receiver, &all));
        assert_whole(who, &receiver.by_job(), &all);
    }
    let with_own = logs(&world, &[with_own]);
    eventually("the job's own receiver hears everything", || is_whole(&own, &with_own));
    assert_whole("the job's own", &own.by_job(), &with_own);
    assert_eq!(own.by_job().len(), 1, "and of nothing else");
    let queue = status_queue(&world);
    assert_whole("the status queue", &queue, &all);
    assert_eq!(queue[&waiting], [0, 1], "told by clients alone");
    eventually("nothing is left in the spool", || {
        let spool = std::fs::read_dir(agent.state_dir().join("events")).expect("a spool");
        (spool.count() == 0).then_some(())
    });
}

#[test]
fn a_mute_receiver_holds_up_nobody_and_one_that_is_gone_is_not_asked_again() {
    let (mute, gone, well) =
        (Receiver::start(Mood::Mute), Receiver::start(Mood::Answer(410)), Receiver::start(OK));
    let (world, flags) = world(&[&mute, &gone, &well]);
    let agent = agent(&world, &flags);
    let ids: Vec<String> = (0..3).map(|_| world.submit(&[], "true")).collect();
    for id in &ids {
        world.until(id, "succeeded");
    }
    let all = logs(&world, &ids);
    eventually("the one that is well hears everything", || is_whole(&well, &all));
    assert_whole("the one that is well", &well.by_job(), &all);
    assert!(agent.said().contains("410 Gone"), "{}", agent.said());
    // Those that were on their way when the first answer came, and no more.
    assert!(gone.heard().len() <= 8, "{:?}", gone.heard());
}

#[test]
fn a_job_cancelled_while_it_waits_reaches_the_webhooks_through_a_node() {
    let well = Receiver::start(OK);
    let (world, flags) = world(&[&well]);
    let id = world.submit(&[], "true");
    world.run(["cancel", &id]).ok();
    assert!(well.heard().is_empty(), "clients have no secrets");
    let _agent = agent(&world, &flags);
    let all = logs(&world, std::slice::from_ref(&id));
    eventually("it hears of the cancel", || is_whole(&well, &all));
    assert_whole("the webhook", &well.by_job(), &all);
    assert_eq!(world.state(&id), "cancelled");
    assert!(world.events(&id, "claimed").is_empty());
}

#[test]
fn events_of_a_run_reach_the_fleets_receivers() {
    let well = Receiver::start(OK);
    let (world, flags) = world(&[&well]);
    let args: Vec<&str> = ["run"]
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .chain(["--", "haul/busybox:1", "true"])
        .collect();
    world.run(args).ok();
    let jobs = world.json(["ps", "--all", "--json"]);
    let id = jobs[0]["id"].as_str().expect("a job").to_owned();
    let all = logs(&world, &[id]);
    assert_whole("the webhook", &well.by_job(), &all);
    assert_whole("the status queue", &status_queue(&world), &all);
}
