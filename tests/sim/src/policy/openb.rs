//! The trace of a real cluster: `cluster-trace-gpu-v2023` of <https://github.com/alibaba/clusterdata>,
//! published with Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with
//! Fragmentation Gradient Descent", USENIX ATC 2023.
//!
//! Of its 149 days the first 115 have 29 tasks, which are left out, as are those that were never
//! scheduled, of which nobody knows how long they would have run.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, de::DeserializeOwned};
use shared::job::Priority;

use super::workload::{Host, Need, Task, WHOLE, Workload};

const NODES: &str = "openb_node_list_gpu_node.csv";
const TASKS: &str = "openb_pod_list_gpuspec33.csv";

/// Before this there is next to nothing.
const FIRST: f64 = 115.0 * 86_400.0;

#[derive(Deserialize)]
struct Node {
    cpu_milli: u32,
    memory_mib: u32,
    gpu: usize,
    model: String,
}

#[derive(Deserialize)]
struct Pod {
    cpu_milli: u32,
    memory_mib: u32,
    num_gpu: usize,
    gpu_milli: u32,
    gpu_spec: String,
    qos: String,
    creation_time: f64,
    deletion_time: Option<f64>,
    scheduled_time: Option<f64>,
}

/// Reads its two files.
pub fn read(folder: &Path) -> Result<Workload> {
    let hosts = rows(&folder.join(NODES))?
        .into_iter()
        .map(|node: Node| Host {
            model: node.model,
            gpus: node.gpu,
            cpus: node.cpu_milli,
            memory: node.memory_mib,
        })
        .collect();
    let mut tasks: Vec<Task> = rows(&folder.join(TASKS))?.iter().filter_map(task).collect();
    tasks.sort_by_key(|task| task.arrives);
    Ok(Workload { hosts, tasks })
}

fn rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let mut reader =
        csv::Reader::from_path(path).with_context(|| format!("cannot read {}", path.display()))?;
    let rows: Result<Vec<T>, csv::Error> = reader.deserialize().collect();
    rows.with_context(|| format!("{} is not as published", path.display()))
}

fn task(pod: &Pod) -> Option<Task> {
    let (began, ended) = (pod.scheduled_time?, pod.deletion_time?);
    if pod.creation_time < FIRST {
        return None;
    }
    let mut models: Vec<String> =
        pod.gpu_spec.split('|').filter(|model| !model.is_empty()).map(str::to_owned).collect();
    models.sort();
    models.dedup();
    let milli = if pod.num_gpu == 1 { pod.gpu_milli } else { WHOLE };
    let need = Need { gpus: pod.num_gpu, milli, models, cpus: pod.cpu_milli, memory: pod.memory_mib };
    // Services (LS), batch (BE), and what is between them.
    let priority = match pod.qos.as_str() {
        "LS" => Priority::High,
        "BE" => Priority::Low,
        _ => Priority::Normal,
    };
    let runs = Duration::from_secs_f64((ended - began).max(1.0));
    Some(Task { need, priority, arrives: Duration::from_secs_f64(pod.creation_time), runs, at_most: runs })
}
