//! Many jobs from several producers at once: three teams by haul's command line, and a program in
//! another language by the inbox.

use std::{process::Child, process::Stdio, time::Duration};

use crate::{Cloud, Histories, emulator, eventually, proxy::Door, within, world::BUSYBOX};

/// The teams that submit.
pub const TEAMS: [&str; 3] = ["vision", "speech", "robots"];

/// How many jobs each team submits.
pub const OF_A_TEAM: usize = 100;

/// How many jobs come through the inbox.
pub const OF_THE_INBOX: usize = 50;

/// Of each team's jobs, every tenth says so many numbers, one a second.
pub const STEPS: usize = 3;

/// What a team's job does; `STEPS` is replaced.
const JOB: &str = "n=0; case $HAUL_ARRAY_INDEX in *5) n=STEPS;; esac; \
    i=0; while [ $i -lt $n ]; do i=$((i + 1)); echo $i; sleep 1; done; \
    echo done";

/// Knows of haul nothing but the name of the inbox.
const PRODUCER: &str = "
import boto3, json
sqs = boto3.client('sqs')
inbox = sqs.get_queue_url(QueueName='haul-inbox')['QueueUrl']
for number in range(COUNT):
    spec = {'name': f'inbox-{number}', 'image': 'haul/busybox:1', 'command': ['echo', 'done'],
            'resources': {'gpus': 1}}
    sqs.send_message(QueueUrl=inbox, MessageBody=json.dumps(spec))
";

/// A load that was given to a fleet.
pub struct Load {
    /// The inbox's producer's own way, which may do nothing but send.
    pub producer: Door,
}

impl Load {
    /// Has all producers submit at once, and returns when everything is acknowledged. A producer whose
    /// command fails repeats it under the same ids, as scripts do.
    ///
    /// # Panics
    /// When a producer does not get through.
    pub fn submit(cloud: &Cloud, prepare: impl FnOnce(&Door)) -> Self {
        let (producer, env) = cloud.other_door();
        producer.allow_only(cloud.policy("inbox-producer"));
        prepare(&producer);
        let queues = cloud.queues();
        eventually("an agent has made the inbox", || queues.inbox());
        let mut python = emulator::python(&PRODUCER.replace("COUNT", &OF_THE_INBOX.to_string()));
        python.env("AWS_DEFAULT_REGION", emulator::REGION).envs(env).stdin(Stdio::null());
        let mut python = python.spawn().expect("python starts");
        std::thread::scope(|scope| {
            for team in TEAMS {
                scope.spawn(move || submit_team(cloud, team));
            }
        });
        assert!(until_ended(&mut python), "the inbox's producer failed");
        Self { producer }
    }

    /// The ids of the teams' jobs.
    pub fn ids() -> Vec<String> {
        TEAMS.iter().flat_map(|team| (0..OF_A_TEAM).map(move |index| format!("{team}-{index}"))).collect()
    }

    /// The ids of those that run for some seconds.
    pub fn long() -> Vec<String> {
        Self::ids().into_iter().filter(|id| id.ends_with('5')).collect()
    }

    /// What a job that runs for some seconds prints.
    pub fn output() -> String {
        (1..=STEPS).map(|step| format!("{step}\n")).collect::<String>() + "done\n"
    }

    /// The jobs that are missing, of all that were acknowledged.
    pub fn missing(histories: &Histories) -> Vec<String> {
        let jobs = histories.jobs();
        let names: Vec<&str> = jobs.iter().filter_map(|job| histories.name(job)).collect();
        let inbox = (0..OF_THE_INBOX).map(|number| format!("inbox-{number}"));
        let missing = Self::ids().into_iter().filter(|id| !jobs.contains(&id.as_str()));
        missing.chain(inbox.filter(|name| !names.contains(&name.as_str()))).collect()
    }
}

fn submit_team(cloud: &Cloud, team: &str) {
    let script = JOB.replace("STEPS", &STEPS.to_string());
    // Most want one GPU, some the whole host.
    for (range, gpus) in [("0-39", "1"), ("40-44", "2"), ("45-99", "1")] {
        let args = ["submit", "--id", team, "--team", team, "--array", range, "--gpus", gpus];
        let args: Vec<&str> = args.into_iter().chain(["--", BUSYBOX, "sh", "-c", &script]).collect();
        within(Duration::from_secs(180), &format!("{team} has submitted its jobs"), || {
            let done = cloud.world().run(&args);
            if done.code != 0 {
                eprintln!("{team} submits again: {}", done.stderr.trim());
            }
            (done.code == 0).then_some(())
        });
    }
}

fn until_ended(process: &mut Child) -> bool {
    let ended = || process.try_wait().expect("asked");
    within(Duration::from_secs(180), "the inbox's producer is done", ended).success()
}
