//! haul: an agent's process, and a client in this one.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::{
    client::Client,
    clock::{Chance, SystemClock},
    fleet::Fleet,
    id::JobId,
    job::JobSpec,
    log::{Author, Event, Job},
    store::Kind,
};
use tests::{Agent, World, world::BUSYBOX};

/// How often a log is looked at: far below what is measured, and times come from the log anyway.
const LOOK: Duration = Duration::from_millis(2);

/// An agent and a client.
pub struct Haul<'w> {
    world: &'w World,
    agent: Agent<'w>,
    client: Client,
    /// Looks on; its requests are not counted.
    watcher: Client,
}

/// What an idle agent uses.
#[derive(Debug, Serialize)]
pub struct Idle {
    /// Proportional set size.
    pub pss_mib: f64,
    /// User and system time.
    pub cpu_percent: f64,
    /// Of the queue, by lanes that fit.
    pub queue_per_lane_minute: f64,
    /// Of the store, of all kinds.
    pub store_per_minute: f64,
    /// Of those, writes and lists.
    pub writes_per_minute: f64,
}

/// Requests so far, of the agent and of this client.
pub struct Requests {
    /// Writes and lists of the store.
    pub writes: f64,
    /// Deletes of the store, which cost nothing on S3.
    pub deletes: f64,
    /// Of the queue.
    pub queue: f64,
}

fn job(command: &str) -> JobSpec {
    JobSpec { command: Some(vec![command.into()]), ..JobSpec::new(BUSYBOX) }
}

async fn client(world: &World) -> Result<Client> {
    let clock = Arc::new(SystemClock);
    let fleet = Fleet::open(&world.fleet().parse()?, clock.clone()).await?;
    Ok(Client::new(fleet, Author::Client("bench".into()), clock, Chance::from_os()))
}

/// Seconds from the start of an agent's process to the claim of a job that waited for it.
pub async fn first_claim(world: &World) -> Result<f64> {
    let client = client(world).await?;
    let id = client.submit(job("true"), None).await?.job.id;
    let began = tests::wall_clock();
    let agent = Agent::start(world, "first", &[]);
    client.wait(&id, |_| ()).await?;
    drop(agent);
    let claimed = time_of(&client, &id, |event| matches!(event, Event::Claimed(_))).await?;
    Ok((claimed - began).as_seconds_f64())
}

async fn time_of(client: &Client, id: &JobId, is: fn(&Event) -> bool) -> Result<DateTime<Utc>> {
    let entries = client.log().entries(id).await?;
    let found = entries.into_iter().find(|entry| is(&entry.event));
    Ok(found.with_context(|| format!("job {id} never came that far"))?.at)
}

impl<'w> Haul<'w> {
    /// An agent with so many slots.
    pub async fn start(world: &'w World, slots: usize) -> Result<Self> {
        let slots = slots.to_string();
        let agent = Agent::start(
            world,
            "bench",
            &["--cpus", &slots, "--max-jobs", &slots, "--simulate-gpus", "2xP100:16GiB"],
        );
        Ok(Self { world, agent, client: client(world).await?, watcher: client(world).await? })
    }

    /// Seconds from before the submit, and from the claim, to the container's start.
    pub async fn start_one(&self) -> Result<(f64, f64)> {
        let began = tests::wall_clock();
        let mut job = self.client.submit(job("true"), None).await?.job;
        self.until_over(&mut job).await?;
        let entries = self.watcher.log().entries(&job.id).await?;
        let (mut claimed, mut started) = (None, None);
        for entry in entries {
            match entry.event {
                Event::Claimed(_) => claimed = Some(entry.at),
                Event::Started(event) => started = Some(event.started_at),
                _ => {}
            }
        }
        let (claimed, started) = (claimed.context("not claimed")?, started.context("not started")?);
        // The next one is not to meet this one's removal.
        while !self.world.containers().is_empty() {
            tokio::time::sleep(LOOK).await;
        }
        Ok(((started - began).as_seconds_f64(), (started - claimed).as_seconds_f64()))
    }

    async fn until_over(&self, job: &mut Job) -> Result<()> {
        while !job.phase().is_final() {
            if self.watcher.log().refresh(job).await?.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        }
        anyhow::ensure!(job.exit_status() == Some(0), "job {} did not succeed", job.id);
        Ok(())
    }

    fn drain(&self, flags: &[&str]) {
        let dir = self.agent.state_dir().display().to_string();
        let args = ["drain", "--state-dir", &dir].into_iter().chain(flags.iter().copied());
        self.world.run(args).ok();
    }

    /// Jobs a second, from the moment when the agent may claim to the last job's end.
    pub async fn rate(&self, jobs: usize) -> Result<f64> {
        self.drain(&[]);
        let mut submitted = Vec::new();
        for _ in 0..jobs {
            submitted.push(self.client.submit(job("true"), None).await?.job);
        }
        let began = tests::wall_clock();
        self.drain(&["--resume"]);
        let mut last = began;
        for job in &mut submitted {
            self.watcher.wait(&job.id, |_| ()).await?;
            last = last.max(time_of(&self.watcher, &job.id, |event| matches!(event, Event::Ended(_))).await?);
        }
        Ok(jobs as f64 / (last - began).as_seconds_f64())
    }

    fn status(&self) -> Result<Value> {
        let dir = self.agent.state_dir().display().to_string();
        Ok(self.world.json(["agent", "status", "--json", "--state-dir", &dir]))
    }

    /// Requests of the agent, and those of a submit.
    pub fn requests(&self) -> Result<Requests> {
        let status = self.status()?;
        let number = |value: &Value| value.as_f64().unwrap_or_default();
        let of_agent = &status["store_requests"];
        let own = self.client.fleet();
        let count = |kind| own.store.counts().get(kind) as f64;
        Ok(Requests {
            // Reads, writes, deletes, lists.
            writes: number(&of_agent[1]) + number(&of_agent[3]) + count(Kind::Put) + count(Kind::List),
            deletes: number(&of_agent[2]) + count(Kind::Delete),
            queue: number(&status["queue_requests"]) + own.queue.requests() as f64,
        })
    }

    /// Watches the agent while it has nothing to do.
    pub async fn idle(&self, time: Duration) -> Result<Idle> {
        let pid = self.agent.pid();
        let (cpu, before, requests) = (cpu_seconds(pid)?, self.status()?, self.requests()?);
        tokio::time::sleep(time).await;
        let (cpu, after, requests_after) = (cpu_seconds(pid)? - cpu, self.status()?, self.requests()?);
        let store = |status: &Value| -> f64 {
            status["store_requests"].as_array().into_iter().flatten().filter_map(Value::as_f64).sum()
        };
        let queue = |status: &Value| status["queue_requests"].as_f64().unwrap_or_default();
        let minutes = time.as_secs_f64() / 60.0;
        let lanes = self.watcher.lanes().await?.iter().filter(|lane| !lane.now.is_empty()).count().max(1);
        Ok(Idle {
            pss_mib: pss_mib(pid)?,
            cpu_percent: cpu / time.as_secs_f64() * 100.0,
            queue_per_lane_minute: (queue(&after) - queue(&before)) / minutes / lanes as f64,
            store_per_minute: (store(&after) - store(&before)) / minutes,
            writes_per_minute: (requests_after.writes - requests.writes) / minutes,
        })
    }
}

/// The proportional set size of a process (`proc(5)`).
fn pss_mib(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// User and system time of a process (`proc(5)`), in seconds.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields are counted behind the name, which may hold anything.
    let rest = text.rsplit_once(')').context("no stat")?.1;
    let ticks: f64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}
