//! Jobs of a fleet on SQS and S3, as the emulators have them: agents and producers as processes,
//! each through a door of its own.

use std::time::Duration;

use serde_json::json;
use tests::{
    Agent, Cloud, Credentials, PATIENCE,
    emulator::{self, Kind},
    eventually,
    proxy::{Faults, Service},
    within,
};

const GPUS: &str = "2xP100:16GiB";

fn agent<'w>(cloud: &'w Cloud, name: &str, env: &[(String, String)]) -> Agent<'w> {
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Agent::start_with(cloud.world(), name, &["--simulate-gpus", GPUS], &env)
}

/// Submits a job that says something, and gives its id.
fn hello(cloud: &Cloud, flags: &[&str]) -> String {
    cloud.world().submit(flags, "echo hello from $HAUL_NODE")
}

fn succeeds(cloud: &Cloud, id: &str) {
    succeeds_within(PATIENCE, cloud, id);
}

fn succeeds_within(patience: Duration, cloud: &Cloud, id: &str) {
    within(patience, &format!("job {id} succeeds"), || {
        (cloud.world().state(id) == "succeeded").then_some(())
    });
    assert_eq!(cloud.world().run(["logs", id]).ok(), "hello from a\n");
}

fn a_job_runs_on(kind: Kind) {
    let cloud = Cloud::start(kind);
    let (door, env) = cloud.other_door();
    let _agent = agent(&cloud, "a", &env);
    let id = hello(&cloud, &["--gpus", "2"]);
    succeeds(&cloud, &id);
    let events: Vec<_> =
        cloud.world().history(&id).iter().map(|entry| entry["event"]["kind"].clone()).collect();
    assert_eq!(events, ["submitted", "claimed", "started", "ended"]);
    let sqs = |operation: &str| door.counts().get(&(Service::Sqs, operation.to_owned())).copied();
    eventually("the message is deleted", || sqs("DeleteMessageBatch"));
    let sent = cloud.door().counts().get(&(Service::Sqs, "SendMessageBatch".to_owned())).copied();
    assert_eq!(sent, Some(1), "{:?}", cloud.door().counts());
}

#[test]
fn a_job_runs_on_sqs_and_s3_by_moto() {
    a_job_runs_on(Kind::Moto);
}

#[test]
fn a_job_runs_on_sqs_and_s3_by_ministack() {
    a_job_runs_on(Kind::Ministack);
}

#[test]
fn what_init_prints_is_all_that_an_agent_and_a_producer_need() {
    let cloud = Cloud::start(Kind::Ministack);
    cloud.door().allow_only(cloud.policy("producer"));
    let (door, env) = cloud.other_door();
    door.allow_only(cloud.policy("agent"));
    let mut agent = agent(&cloud, "a", &env);
    let id = hello(&cloud, &[]);
    succeeds(&cloud, &id);
    let long = cloud.world().submit(&[], "sleep 1000");
    cloud.world().until(&long, "running");
    cloud.world().run(["cancel", &long]).ok();
    cloud.world().until(&long, "cancelled");
    cloud.world().run(["retry", &id]).ok();
    succeeds(&cloud, &id);
    let waiting = cloud.world().submit(&["--gpus", "9"], "true");
    cloud.world().run(["cancel", &waiting]).ok();
    for listing in ["ps", "nodes", "lanes"] {
        cloud.world().run([listing]).ok();
    }
    let doctor = cloud.world().command(["doctor"]).envs(env.iter().cloned()).output().expect("starts");
    let found = String::from_utf8_lossy(&doctor.stdout);
    assert!(found.contains("ok    queue: a message came back") && found.contains("ok    store:"), "{found}");
    assert_eq!(agent.stop(), 0);
    assert_eq!((door.denied(), cloud.door().denied()), (Vec::new(), Vec::new()));
}

#[test]
fn an_agent_that_stops_takes_no_message_with_it() {
    let cloud = Cloud::start(Kind::Ministack);
    let (_door, env) = cloud.other_door();
    let mut agent = agent(&cloud, "a", &env);
    succeeds(&cloud, &hello(&cloud, &[]));
    agent.ask_to_stop();
    eventually("it stops", || agent.said().contains("a second signal stops at once").then_some(()));
    // Its long poll is under way, and gets this one's message.
    cloud.world().submit(&[], "true");
    assert_eq!(agent.ended(), 0);
    let lanes = cloud.world().json(["lanes", "--json"]);
    assert_eq!(lanes[0]["depth"], json!({ "waiting": 1, "in_flight": 0, "delayed": 0 }), "{lanes}");
}

/// A client of another language, which knows nothing of haul but the inbox's name.
const PRODUCER: &str = "
import boto3, json
sqs = boto3.client('sqs')
inbox = sqs.get_queue_url(QueueName='haul-inbox')['QueueUrl']
spec = {'image': 'haul/busybox:1', 'command': ['sh', '-c', 'echo hello from $HAUL_NODE']}
sqs.send_message(QueueUrl=inbox, MessageBody=json.dumps(spec))
";

#[test]
fn a_producer_with_rights_to_the_inbox_alone_gets_a_job_run() {
    let cloud = Cloud::start(Kind::Ministack);
    let (agents, env) = cloud.other_door();
    agents.allow_only(cloud.policy("agent"));
    let _agent = agent(&cloud, "a", &env);
    let (door, env) = cloud.other_door();
    door.allow_only(cloud.policy("inbox-producer"));
    eventually("the inbox is there", || {
        let counts = agents.counts();
        counts.get(&(Service::Sqs, "ReceiveMessage".to_owned())).copied()
    });
    let sent = emulator::python(PRODUCER).env("AWS_DEFAULT_REGION", emulator::REGION).envs(env).output();
    let sent = sent.expect("python starts");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let id = eventually("the job is there", || {
        let jobs = cloud.world().json(["ps", "--all", "--json"]);
        jobs.as_array()?.first()?["id"].as_str().map(str::to_owned)
    });
    succeeds(&cloud, &id);
    assert_eq!((agents.denied(), door.denied()), (Vec::new(), Vec::new()));
}

#[test]
fn a_reader_can_look_and_nothing_else() {
    let cloud = Cloud::start(Kind::Ministack);
    let (door, env) = cloud.other_door();
    let _agent = agent(&cloud, "a", &env);
    let id = hello(&cloud, &[]);
    succeeds(&cloud, &id);
    assert_eq!(door.denied(), []);
    cloud.door().allow_only(cloud.policy("reader"));
    cloud.world().run(["ps"]).ok();
    cloud.world().run(["nodes"]).ok();
    cloud.world().run(["lanes"]).ok();
    succeeds(&cloud, &id);
    assert_eq!(cloud.door().denied(), []);
    let refused = cloud.world().run(["submit", "--", "haul/busybox:1", "true"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("refused to write index/sent/"), "{refused:?}");
}

#[test]
fn what_sqs_denies_is_told_with_the_action_and_the_policy() {
    let cloud = Cloud::start(Kind::Ministack);
    let mut policy = cloud.policy("producer");
    let statements = policy["Statement"].as_array_mut().expect("statements");
    statements.retain(|statement| statement["Sid"] != json!("Queues"));
    cloud.door().allow_only(policy);
    let refused = cloud.world().run(["submit", "--", "haul/busybox:1", "true"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("sqs:GetQueueUrl is not allowed"), "{refused:?}");
    assert!(refused.stderr.contains("--policies"), "{refused:?}");
}

#[test]
fn a_clock_that_is_wrong_is_told_plainly() {
    let cloud = Cloud::start(Kind::Ministack);
    let late = Faults { behind: Some(Duration::from_secs(20 * 60)), ..Faults::default() };
    let says = |service, what: &str| {
        cloud.door().set(service, late);
        let refused = cloud.world().run(["submit", "--", "haul/busybox:1", "true"]);
        cloud.door().set(service, Faults::default());
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains(what), "{refused:?}");
        assert!(refused.stderr.contains("clock"), "{refused:?}");
    };
    says(Service::S3, "this host's clock is wrong; set it (NTP)");
    says(Service::Sqs, "behind the service's");
}

#[test]
fn jobs_go_on_through_throttling_and_lost_answers() {
    let cloud = Cloud::start(Kind::Ministack);
    // Some messages get lost between two steps: that the sweep heals, once a minute by default.
    cloud.world().run(["fleet", "set", "beat=2s", "sweep=2s"]).ok();
    let (door, env) = cloud.other_door();
    let _agent = agent(&cloud, "a", &env);
    let rough = Faults { lose: 0.1, ..Faults::default() };
    for (door, service) in [(&door, Service::S3), (&door, Service::Sqs), (cloud.door(), Service::S3)] {
        door.set(service, rough);
    }
    let ids: Vec<String> = (0..10).map(|_| hello(&cloud, &[])).collect();
    door.set(Service::Sqs, Faults { answer: Some(503), ..rough });
    let more: Vec<String> = (0..5).map(|_| hello(&cloud, &[])).collect();
    door.set(Service::Sqs, rough);
    for id in ids.iter().chain(&more) {
        // A message whose receipt is lost stays hidden for 30 s, and so does one that the sweep would miss.
        succeeds_within(Duration::from_secs(200), &cloud, id);
        let ended = cloud.world().events(id, "ended");
        assert_eq!(ended.len(), 1, "{ended:?}");
    }
}

#[test]
fn credentials_that_expire_are_replaced_while_an_agent_runs() {
    let keys = Credentials::serve(Duration::from_secs(15));
    let cloud = Cloud::start_with(Kind::Ministack, |env| keys.instead(env));
    let (door, env) = cloud.other_door();
    // The fixed keys are left out of the command's environment, and must not come back by this.
    let _agent = agent(&cloud, "a", &keys.instead(env));
    succeeds(&cloud, &hello(&cloud, &[]));
    eventually("requests to SQS are signed with a third key", || {
        let signed = door.credentials().into_iter().filter(|(service, _)| *service == Service::Sqs).count();
        (signed >= 3).then_some(())
    });
    succeeds(&cloud, &hello(&cloud, &[]));
}
