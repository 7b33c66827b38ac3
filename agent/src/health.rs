//! What the host looks like: engine, disk, volumes, GPUs. Looked at each beat, and before GPUs
//! change hands; what fails keeps jobs away and shows in `haul nodes`, and clears by itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use shared::{id::JobId, units::Size};

use crate::{
    disk::Use,
    engine::{Container, EngineError, EngineInfo},
    execute::{self, Owner},
    gpu::{self, Containers, Foreign, GpuError, Inventory, Leftover, Users},
    node::Node,
    pace::Pace,
};

/// How long a look at the GPUs may take. NVML answers in milliseconds; one that is stuck in the
/// driver never does.
const GPU_DEADLINE: Duration = Duration::from_secs(5);

/// How long the engine may take to list its containers before the GPUs are looked at without.
const LIST_DEADLINE: Duration = Duration::from_secs(10);

/// How soon GPUs are looked at again on which something of a job that has ended was seen.
const CLEARING: Duration = Duration::from_millis(250);

/// Looks at everything once.
pub async fn check(node: &Node) {
    let (engine, volumes, outputs, gpus) = futures::join!(
        node.engine.info(),
        node.volumes.check(),
        node.outputs.check(node.config.outputs_min_free),
        look_at_gpus(node)
    );
    let mut problems: Vec<String> = outputs.err().into_iter().collect();
    match &engine {
        Ok(info) => {
            node.note_engine(info);
            problems.extend(disks(node, info).await);
        }
        Err(error) => problems.push(error.to_string()),
    }
    match gpus {
        Ok(Some(memory)) => watch_shares(node, &memory),
        Ok(None) => {}
        // What cannot be seen is not given out.
        Err(error) => problems.push(error.to_string()),
    }
    node.ledger.set_volumes(volumes);
    let before = node.ledger.set_problems(problems.clone());
    if before != problems {
        for problem in &problems {
            tracing::warn!(problem, "no jobs are taken until this is mended");
        }
        if problems.is_empty() {
            tracing::info!("the host is well again");
        }
    }
}

/// Looks at the GPUs and at who uses them; gives what each job's programs hold of their memory, if that
/// could be told.
///
/// # Errors
/// [`GpuError`]
pub async fn look_at_gpus(node: &Node) -> Result<Option<BTreeMap<JobId, Size>>, GpuError> {
    let look = node.ledger.begin_look();
    let inventory = node.gpus.read(GPU_DEADLINE).await?;
    let users = match users(node, &inventory).await {
        Ok(users) => Some(users),
        Err(error) => {
            tracing::debug!(%error, "whose processes are on the GPUs cannot be told");
            None
        }
    };
    for left in users.iter().flat_map(|users| &users.left) {
        kill(node, left);
    }
    let (foreign, memory) = users.map(|users| (users.foreign, users.memory)).unzip();
    node.ledger.set_gpus(look, inventory, foreign);
    Ok(memory)
}

/// Kills what a job has left on a GPU, which keeps it from the next one. One that hangs in the driver
/// outlives it, and is named.
fn kill(node: &Node, left: &Leftover) {
    if !node.ledger.is_to_kill(left) {
        return;
    }
    let Leftover { pid, name, container, job } = left;
    let name = name.as_deref().unwrap_or("a process");
    match gpu::kill_in(container, *pid) {
        Ok(true) => tracing::warn!(%job, pid, "{name} outlived the job on a GPU, and is killed"),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(%job, pid, %error, "{name} outlived the job on a GPU, and cannot be killed");
        }
    }
}

/// Notes what jobs hold of GPUs' memory. Not at each look, some of which come right after each other: a
/// job that starts a process anew may hold twice as much for a moment.
fn watch_shares(node: &Node, memory: &BTreeMap<JobId, Size>) {
    for (job, excess) in node.ledger.set_memory(memory) {
        tracing::warn!(%job, "{excess}; it is ended if it still does at the next beat");
    }
}

/// Which disks have too little room for another job.
async fn disks(node: &Node, engine: &EngineInfo) -> Vec<String> {
    let config = &node.config;
    let mut found = node.disks.look(engine, &config.state_dir, &config.outputs_dir).await;
    // What `haul run` keeps for its one job is next to nothing, and its results are before somebody's eyes.
    found.retain(|used| !matches!(used.by, Use::State | Use::Outputs) || !node.is_private());
    found.iter().filter_map(|used| used.lack(config.disk_floor, config.outputs_min_free)).collect()
}

/// Who uses the GPUs, and which are given to another agent's container.
async fn users(node: &Node, inventory: &Inventory) -> Result<Users, EngineError> {
    if inventory.simulated || inventory.gpus.is_empty() {
        return Ok(Users::default());
    }
    let late = |_| EngineError::Timeout { call: "list the containers", seconds: LIST_DEADLINE.as_secs() };
    let all = tokio::time::timeout(LIST_DEADLINE, node.engine.list(&[])).await.map_err(late)??;
    let labels = execute::labels_of(node.fleet.store.url().as_str(), &node.id);
    let is_own =
        |container: &Container| labels.iter().all(|(key, value)| container.labels.get(key) == Some(value));
    let (own, others): (Vec<&Container>, Vec<&Container>) = all.iter().partition(|one| is_own(one));
    // What an attempt that has ended left behind is as foreign as any other.
    let holdings = node.ledger.holdings();
    let runs = |owner: &Owner| holdings.get(&owner.job).is_some_and(|held| held.attempt == owner.attempt);
    let owners = own.iter().filter_map(|one| Some((one.id.to_string(), Owner::of(one).filter(runs)?.job)));
    let own = owners.collect();
    let strangers = others.iter().map(|one| one.id.to_string()).collect();
    let containers = Containers { own, ended: node.ledger.ended_in(), others: strangers };
    let mut users = gpu::users(&inventory.gpus, &containers, gpu::place_of);
    for container in others {
        for uuid in execute::gpus_of(container) {
            let by = format!("another agent's container {}", container.name);
            users.foreign.insert(uuid, Foreign { by, is_outside: true });
        }
    }
    Ok(users)
}

/// Looks again at every beat, and at the GPUs of a job that has ended until nothing of it is left on
/// them, until it is dropped.
pub async fn watch(node: Arc<Node>) {
    // At once: what runs on from before this start is known by now.
    let mut every = Pace::at_once(node.fleet.clone(), |settings| settings.beat);
    loop {
        tokio::select! {
            biased;
            () = every.tick() => check(&node).await,
            () = node.ledger.until_clearing() => {
                if let Err(error) = look_at_gpus(&node).await {
                    tracing::debug!(%error, "the GPUs cannot be read");
                }
                if node.ledger.is_clearing() {
                    tokio::time::sleep(CLEARING).await;
                }
            }
        }
    }
}
