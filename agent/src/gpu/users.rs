//! Who uses the GPUs: this node's jobs, told by the containers that their processes are in, and
//! whoever else. Pure.

use std::collections::BTreeMap;

use shared::{
    id::{GpuUuid, JobId},
    units::Size,
};

use super::{Gpu, Mig};

/// Memory in use that no program accounts for is somebody's when it is more than this: the driver's own
/// is less.
const UNACCOUNTED: Size = Size(512 << 20);

/// Who uses the GPUs of a host.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// GPUs that others use, and who does.
    pub foreign: BTreeMap<GpuUuid, String>,
    /// What the programs of each of this node's jobs hold of GPUs' memory.
    pub memory: BTreeMap<JobId, Size>,
}

/// Who uses these GPUs. `own` has this node's containers by the engine's id.
pub fn users(
    gpus: &[Gpu],
    own: &BTreeMap<String, JobId>,
    container_of: impl Fn(u32) -> Option<String>,
) -> Users {
    let mut users = Users::default();
    // One that is cut lists what runs on its instances once more.
    for gpu in gpus.iter().filter(|gpu| gpu.mig != Mig::Cut) {
        // Where they are not told of, nobody is foreign and no share is watched.
        let Some(processes) = &gpu.processes else { continue };
        for process in processes {
            match container_of(process.pid).and_then(|id| own.get(&id)) {
                Some(job) => {
                    let sum: &mut Size = users.memory.entry(job.clone()).or_default();
                    sum.0 = sum.bytes().saturating_add(process.memory.unwrap_or_default().bytes());
                }
                None => {
                    let name = process.name.as_deref().unwrap_or("a process");
                    let by = format!("{name} (pid {})", process.pid);
                    users.foreign.entry(gpu.uuid.clone()).or_insert(by);
                }
            }
        }
        if processes.is_empty() && gpu.memory_used > UNACCOUNTED {
            let by =
                format!("no program that the driver names, with {} of its memory", gpu.memory_used.human());
            users.foreign.insert(gpu.uuid.clone(), by);
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
        gpus[2].processes = Some(vec![process(1, 50), process(2, 300), process(3, 1)]);
        gpus[3].memory_used = Size(600 << 20);
        gpus[4].memory_used = Size(400 << 20);
        (gpus[5].processes, gpus[5].memory_used) = (None, Size(9 << 30));
        let job = |name: &str| JobId::new(name).expect("valid");
        let own = BTreeMap::from([("c1".into(), job("a")), ("c2".into(), job("b"))]);
        let users = users(&gpus, &own, |pid| Some(format!("c{pid}")));
        assert_eq!(users.memory, BTreeMap::from([(job("a"), Size(150 << 20)), (job("b"), Size(300 << 20))]));
        let unnamed = "no program that the driver names, with 600.0 MiB of its memory";
        let foreign = [(gpus[2].uuid.clone(), "p3 (pid 3)".into()), (gpus[3].uuid.clone(), unnamed.into())];
        assert_eq!(users.foreign, BTreeMap::from(foreign));
    }
}
