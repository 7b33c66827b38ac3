//! Who uses the GPUs: this node's jobs, told by the containers that their processes are in, and
//! whoever else. Pure.

use std::collections::{BTreeMap, BTreeSet};

use shared::{
    id::{GpuUuid, JobId},
    units::Size,
};

use super::{Gpu, Mig, Place};

/// Memory in use that no program accounts for is somebody's when it is more than this: the driver's own
/// is less.
const UNACCOUNTED: Size = Size(512 << 20);

/// Somebody other than a job of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Who, for people.
    pub by: String,
    /// Whether it can be nothing that a job of this node has left behind.
    pub is_outside: bool,
}

/// The containers of a host, by the engine's id.
#[derive(Debug, Default)]
pub struct Containers {
    /// Those of jobs that run on this node.
    pub own: BTreeMap<String, JobId>,
    /// Those of jobs that have lately ended here, and whose GPUs are not clear yet.
    pub ended: BTreeMap<String, JobId>,
    /// Those that are not this node's.
    pub others: BTreeSet<String>,
}

/// A process of a job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Which.
    pub pid: u32,
    /// What it calls itself, if the driver says so.
    pub name: Option<String>,
    /// The container that it is in.
    pub container: String,
    /// The job.
    pub job: JobId,
}

/// Who uses the GPUs of a host.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// GPUs that others use, and who does.
    pub foreign: BTreeMap<GpuUuid, Foreign>,
    /// What the programs of each of this node's jobs hold of GPUs' memory.
    pub memory: BTreeMap<JobId, Size>,
    /// What jobs have left behind.
    pub left: Vec<Leftover>,
}

/// Who uses these GPUs.
pub fn users(gpus: &[Gpu], containers: &Containers, place_of: impl Fn(u32) -> Place) -> Users {
    let mut users = Users::default();
    // One that is cut lists what runs on its instances once more.
    for gpu in gpus.iter().filter(|gpu| gpu.mig != Mig::Cut) {
        // Where they are not told of, nobody is foreign and no share is watched.
        let Some(processes) = &gpu.processes else { continue };
        for process in processes {
            let place = place_of(process.pid);
            if let Place::Container(id) = &place
                && let Some(job) = containers.own.get(id)
            {
                let sum: &mut Size = users.memory.entry(job.clone()).or_default();
                sum.0 = sum.bytes().saturating_add(process.memory.unwrap_or_default().bytes());
                continue;
            }
            let name = process.name.as_deref().unwrap_or("a process");
            let mut by = format!("{name} (pid {})", process.pid);
            let is_outside = match place {
                Place::Host => true,
                Place::Gone => false,
                Place::Container(container) => {
                    if let Some(job) = containers.ended.get(&container).cloned() {
                        by = format!("{by}, left behind by job {job}");
                        let (pid, name) = (process.pid, process.name.clone());
                        let left = Leftover { pid, name, container: container.clone(), job };
                        // On several GPUs it is one.
                        if !users.left.contains(&left) {
                            users.left.push(left);
                        }
                    }
                    containers.others.contains(&container)
                }
            };
            let new = Foreign { by, is_outside };
            let known = users.foreign.entry(gpu.uuid.clone()).or_insert_with(|| new.clone());
            if new.is_outside && !known.is_outside {
                *known = new;
            }
        }
        if processes.is_empty() && gpu.memory_used > UNACCOUNTED {
            let by =
                format!("no program that the driver names, with {} of its memory", gpu.memory_used.human());
            users.foreign.insert(gpu.uuid.clone(), Foreign { by, is_outside: false });
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use shared::id::NodeId;

    use super::*;
    use crate::gpu::{GpuProcess, Gpus, Simulated};

    fn process(pid: u32, mib: u64) -> GpuProcess {
        GpuProcess { pid, name: Some(format!("p{pid}")), memory: Some(Size(mib << 20)) }
    }

    #[test]
    fn memory_is_counted_by_job_and_the_rest_is_foreign() {
        let spec = "1xA100:80GiB:mig1x1g.10gb,4xP100:16GiB".parse().expect("valid");
        let read = Simulated::new(&spec, &NodeId::new("n").expect("valid")).read().expect("reads");
        let mut gpus = read.gpus;
        // The cut one, its instance, and four whole ones, of the last of which the driver does not tell.
        gpus[0].processes = Some(vec![process(1, 100)]);
        gpus[1].processes = Some(vec![process(1, 100)]);
        gpus[2].processes = Some(vec![process(1, 50), process(2, 300), process(3, 1), process(9, 1)]);
        gpus[3].memory_used = Size(600 << 20);
        gpus[4].memory_used = Size(400 << 20);
        (gpus[5].processes, gpus[5].memory_used) = (None, Size(9 << 30));
        let job = |name: &str| JobId::new(name).expect("valid");
        let own = BTreeMap::from([("c1".into(), job("a")), ("c2".into(), job("b"))]);
        let mut containers = Containers { own, ..Containers::default() };
        let place = |pid| if pid == 9 { Place::Host } else { Place::Container(format!("c{pid}")) };
        let found = users(&gpus, &containers, place);
        assert_eq!(found.memory, BTreeMap::from([(job("a"), Size(150 << 20)), (job("b"), Size(300 << 20))]));
        let unnamed = "no program that the driver names, with 600.0 MiB of its memory";
        let somebody = |by: &str, is_outside| Foreign { by: by.into(), is_outside };
        let foreign = [
            // What is in a container may be a job's that has ended; this one is not.
            (gpus[2].uuid.clone(), somebody("p9 (pid 9)", true)),
            (gpus[3].uuid.clone(), somebody(unnamed, false)),
        ];
        assert_eq!(found.foreign, BTreeMap::from(foreign));
        gpus[2].processes = Some(vec![process(3, 1)]);
        let on_third =
            |containers: &Containers| users(&gpus, containers, place).foreign[&gpus[2].uuid].clone();
        assert!(!on_third(&containers).is_outside);
        containers.others.insert("c3".into());
        assert!(on_third(&containers).is_outside);
    }

    #[test]
    fn what_a_job_has_left_behind_is_told_by_its_container() {
        let spec = "3xP100:16GiB".parse().expect("valid");
        let mut gpus = Simulated::new(&spec, &NodeId::new("n").expect("valid")).read().expect("reads").gpus;
        let processes = [vec![process(3, 1), process(4, 1)], vec![process(3, 1)], vec![process(9, 1)]];
        for (gpu, processes) in gpus.iter_mut().zip(processes) {
            gpu.processes = Some(processes);
        }
        let job = JobId::new("a").expect("valid");
        let ended = BTreeMap::from([("c3".to_owned(), job.clone())]);
        let place = |pid| if pid == 9 { Place::Host } else { Place::Container(format!("c{pid}")) };
        let found = users(&gpus, &Containers { ended, ..Containers::default() }, place);
        let left = Leftover { pid: 3, name: Some("p3".into()), container: "c3".into(), job };
        assert_eq!(found.left, [left]);
        let by = "p3 (pid 3), left behind by job a";
        assert_eq!(found.foreign[&gpus[0].uuid], Foreign { by: by.into(), is_outside: false });
        assert_eq!((found.foreign.len(), found.memory.len()), (3, 0));
    }
}
