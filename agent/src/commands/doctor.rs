//! `haul doctor`: one line a check, with the fix.

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Result;
use clap::ArgMatches;
use serde::Serialize;
use shared::{
    client::Client,
    clock::{Chance, SystemClock},
    fleet::Fleet,
    node::Mode,
    queue::{Outgoing, Queue, QueueError, QueueName},
    store,
};

use super::{Context, agent::source, author};
use crate::{
    cli::Doctor,
    cloud::Cloud,
    config::{self, AgentConfig, AgentFlags},
    daemon,
    engine::{Docker, Engine},
    gpu::Reader,
    guard::{self, Presence},
    outputs::Outputs,
    patience::Chain,
    volume::Volumes,
};

/// The configuration of the packaged service.
const PACKAGED: &str = "/etc/haul/agent.toml";

/// How long a message may take to come back, look by look.
const LOOK: Duration = Duration::from_secs(5);
const LOOKS: u32 = 4;

/// What one check found.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    found: String,
}

/// Checks this host and the fleet.
pub async fn run(context: &Context, args: Doctor, matches: &ArgMatches) -> Result<ExitCode> {
    let is_chosen = args.agent.host.config.is_some() || context.fleet.is_some();
    let checks = if !is_chosen && Path::new(PACKAGED).exists() {
        vec![unchosen()]
    } else {
        look(context, args.agent, matches).await?
    };
    if args.json {
        context.out.json(&checks);
    } else {
        for Check { name, ok, found } in &checks {
            context.out.line(format!("{:<4}  {name}: {found}", if *ok { "ok" } else { "FAIL" }));
        }
    }
    Ok(if checks.iter().all(|check| check.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// On a host with the packaged agent, whose variables only systemd reads as it does, what anybody's defaults come to
/// would say nothing of it.
fn unchosen() -> Check {
    let found = format!(
        "nothing says which; for that of haul-agent.service run: systemd-run --quiet --pipe --wait \
         -E STATE_DIRECTORY=/var/lib/haul -p EnvironmentFile=-/etc/haul/agent.env haul doctor --config {PACKAGED}"
    );
    Check { name: "configuration".into(), ok: false, found }
}

async fn look(context: &Context, args: AgentFlags, matches: &ArgMatches) -> Result<Vec<Check>> {
    let cloud = Cloud::find(config::cloud_of(&args)?).await;
    let instance = cloud.as_ref().ok().and_then(Option::as_ref).map(|cloud| &cloud.instance);
    let (config, _) = config::resolve(context.fleet.clone(), args, instance, &|name| source(matches, name))?;
    let mut checks = vec![engine(&config).await, gpus(&config).await, machine(cloud)];
    checks.extend(volumes(&config).await);
    checks.push(directory("state directory", &config.state_dir));
    checks.push(outputs(&config).await);
    checks.push(guard(&config));
    checks.extend(fleet(&config).await);
    Ok(checks)
}

fn check<T, E: std::fmt::Display>(name: &str, found: Result<T, E>, say: impl FnOnce(T) -> String) -> Check {
    match found {
        Ok(found) => Check { name: name.into(), ok: true, found: say(found) },
        Err(error) => Check { name: name.into(), ok: false, found: error.to_string() },
    }
}

fn chained<T, E: std::error::Error + Send + Sync>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| Chain(&error).to_string())
}

async fn engine(config: &AgentConfig) -> Check {
    let found = match Docker::connect(config.engine.as_deref()) {
        Ok(engine) => engine.info().await,
        Err(error) => Err(error),
    };
    check("container engine", found, |info| {
        let caveat = info.caveat().map(|caveat| format!("; {caveat}")).unwrap_or_default();
        format!("{} {}, API {}, data in {}{caveat}", info.name, info.version, info.api, info.root.display())
    })
}

fn machine(cloud: Result<Option<Cloud>>) -> Check {
    let found = cloud.map_err(|error| format!("{error:#}"));
    check("cloud", found, |cloud| {
        let Some(Cloud { instance, .. }) = cloud else { return "none that haul knows".into() };
        let kind = if instance.spot { ", spot" } else { "" };
        format!("{} {} in {}{kind}", instance.provider, instance.machine_type, instance.region)
    })
}

async fn gpus(config: &AgentConfig) -> Check {
    let found = match daemon::gpus(config) {
        Ok(gpus) => Reader::new(gpus).read(Duration::from_secs(10)).await.map_err(|error| error.to_string()),
        Err(error) => Err(format!("{error:#}")),
    };
    let found = found.and_then(|inventory| {
        let faults: Vec<String> = inventory
            .gpus
            .iter()
            .filter_map(|gpu| gpu.fault.as_ref().map(|fault| format!("{}: {fault}", gpu.uuid)))
            .collect();
        if faults.is_empty() { Ok(inventory) } else { Err(faults.join("; ")) }
    });
    check("GPUs", found, |inventory| match (inventory.gpus.len(), inventory.simulated) {
        (0, _) => "none (no NVIDIA driver library); jobs that use only the CPU run here".into(),
        (count, true) => format!("{count} simulated"),
        (count, false) => format!("{count}"),
    })
}

async fn volumes(config: &AgentConfig) -> Vec<Check> {
    let found = Volumes::new(config.volumes.clone()).check().await;
    let checks = found.into_iter().map(|(name, volume)| {
        let access = volume.access;
        check(&format!("volume {name}"), volume.problem.map_or(Ok(()), Err), |()| {
            format!("{access:?}").to_lowercase()
        })
    });
    checks.collect()
}

async fn outputs(config: &AgentConfig) -> Check {
    let outputs = Outputs::new(config.outputs_dir.clone(), config.outputs_mount.clone());
    match outputs.check(config.outputs_min_free).await {
        Ok(()) => directory("outputs", &config.outputs_dir),
        Err(found) => Check { name: "outputs".into(), ok: false, found },
    }
}

fn guard(config: &AgentConfig) -> Check {
    let dir = config.state_dir.display();
    let found = match guard::presence(&config.state_dir) {
        Ok(Presence::Absent) => Ok(format!(
            "none runs for {dir}: if the agent hangs, nobody freezes its jobs when its lease ends (haul guard)"
        )),
        Ok(Presence::Blind) => Err("the engine does not answer it: see `journalctl -u haul-guard`".into()),
        Ok(Presence::Watches) => Ok("one watches".into()),
        Err(error) => Err(format!("{dir} cannot be read: {error}")),
    };
    check("guard", found, std::convert::identity::<String>)
}

fn directory(name: &str, dir: &Path) -> Check {
    let probe = dir.join(".haul-doctor");
    let found = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&probe, ""))
        .and_then(|()| std::fs::remove_file(&probe));
    let found = found.map_err(|error| format!("{} cannot be written: {error}", dir.display()));
    check(name, found, |()| dir.display().to_string())
}

async fn fleet(config: &AgentConfig) -> Vec<Check> {
    let clock = Arc::new(SystemClock);
    let fleet = match Fleet::open(&config.fleet, clock.clone()).await {
        Ok(fleet) => fleet,
        Err(error) => {
            return vec![check("fleet", Err::<(), _>(Chain(&error).to_string()), |()| String::new())];
        }
    };
    let chance = Chance::from_os();
    let probe = chained(store::probe(&fleet.store, &chance).await);
    let url = fleet.store.url().to_string();
    let queue = try_queue(&fleet, &chance).await;
    let nodes = chained(Client::new(fleet, author(), clock, chance).nodes().await);
    vec![
        check("store", probe, |()| format!("{url}, conditional writes have one winner")),
        check("queue", queue, |()| "a message came back".into()),
        check("nodes", nodes, |nodes| {
            let alive = nodes.iter().filter(|node| !node.silent && node.record.mode != Mode::Stopped).count();
            format!("{alive} alive of {}", nodes.len())
        }),
    ]
}

/// Sends a message to a lane of its own and gets it back. What an earlier look left there goes too.
async fn try_queue(fleet: &Fleet, chance: &Chance) -> Result<(), String> {
    let said = |error: QueueError| Chain(&error).to_string();
    let lane: QueueName = "doctor".parse().expect("a valid name");
    let message = Outgoing::new(shared::id::Team::default(), chance.nonce().to_string());
    fleet.queue.ensure(&lane).await.map_err(said)?;
    fleet.queue.send(&lane, &message, Duration::ZERO).await.map_err(said)?;
    for _ in 0..LOOKS {
        let found = fleet.queue.receive(&lane, 10, LOOK, Duration::from_secs(30)).await.map_err(said)?;
        for received in &found {
            fleet.queue.delete(&lane, &received.receipt).await.map_err(said)?;
        }
        if found.iter().any(|received| received.body == message.body) {
            return Ok(());
        }
    }
    Err(format!("a message that was sent did not come back within {} s", (LOOK * LOOKS).as_secs()))
}
