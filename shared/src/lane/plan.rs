//! When a host could start a job that does not fit beside what runs there, and on which GPUs: the
//! reservation of EASY backfill (Lifka, "The ANL/IBM SP Scheduling System", 1995). Pure.

use serde::{Deserialize, Serialize};

use super::{
    amount::Amount,
    needs::{GpuNeeds, Needs},
    offer::{GpuState, Offer, OfferedGpu},
};
use crate::{
    id::{GpuUuid, Timestamp},
    units::Size,
};

/// When something is there, the soonest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// It is there.
    Now,
    /// At this time at the latest.
    At(Timestamp),
    /// When somebody ends who may run for ever.
    Unknown,
}

/// A job that runs on a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
    /// Its GPUs.
    pub gpus: Vec<GpuUuid>,
    /// What it has of a GPU that it shares.
    pub gpu_share: Option<Size>,
    /// When it ends.
    pub until: When,
}

/// Where a job would start, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// On these GPUs.
    pub gpus: Vec<GpuUuid>,
    /// When they are free.
    pub start: When,
}

/// Where and when a job of these needs could start on a host if nobody else came, or `None` where it
/// never could: GPUs that others use or that are out of service are not reckoned with. The soonest is
/// taken, on GPUs of one model where they are not later than mixed ones.
pub fn plan(needs: &Needs, offer: &Offer, running: &[Running]) -> Option<Plan> {
    let Some(gpu) = &needs.gpu else { return Some(Plan { gpus: Vec::new(), start: When::Now }) };
    if gpu.needs_newer_driver(offer) {
        return None;
    }
    let mut serving: Vec<(When, &OfferedGpu)> = offer
        .gpus
        .iter()
        .filter(|has| gpu.served_by(has) && is_ours(has))
        .map(|has| (gpu.free_at(has, running), has))
        .collect();
    serving.sort_by_key(|(when, _)| *when);
    let wanted = gpu.amount.devices() as usize;
    if serving.len() < wanted {
        return None;
    }
    let of = |chosen: Vec<&(When, &OfferedGpu)>| Plan {
        start: chosen.iter().map(|(when, _)| *when).max().unwrap_or(When::Now),
        gpus: chosen.iter().map(|(_, has)| has.uuid.clone()).collect(),
    };
    let alike = serving.iter().filter_map(|(_, first)| {
        let same = serving.iter().filter(|(_, has)| has.model == first.model && has.memory == first.memory);
        let chosen: Vec<_> = same.take(wanted).collect();
        (chosen.len() == wanted).then(|| of(chosen))
    });
    let mixed = of(serving.iter().take(wanted).collect());
    // Of equals the first is taken.
    alike.chain([mixed]).min_by_key(|plan| plan.start)
}

/// Whether its user is a job of the host's own, or nobody.
fn is_ours(gpu: &OfferedGpu) -> bool {
    match gpu.state {
        GpuState::Free | GpuState::Held | GpuState::Shared { .. } | GpuState::Reserved { .. } => true,
        GpuState::Foreign { .. } | GpuState::Out { .. } | GpuState::Unknown => false,
    }
}

impl GpuNeeds {
    /// When there is room on this GPU.
    fn free_at(&self, has: &OfferedGpu, running: &[Running]) -> When {
        let mut users: Vec<&Running> = running.iter().filter(|job| job.gpus.contains(&has.uuid)).collect();
        users.sort_by_key(|job| job.until);
        let Amount::Share(share) = self.amount else {
            return users.last().map_or(When::Now, |job| job.until);
        };
        let given: Option<u64> = users.iter().map(|job| job.gpu_share.map(Size::bytes)).sum();
        // One that has it all leaves all.
        let mut room = given.map_or(0, |given| has.usable().bytes().saturating_sub(given));
        let mut when = When::Now;
        for job in users {
            if room >= share.bytes() {
                break;
            }
            room = room.saturating_add(job.gpu_share.map_or(u64::MAX, Size::bytes));
            when = job.until;
        }
        when
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::{DateTime, Utc};
    use rstest::rstest;

    use super::*;
    use crate::job::{Arch, Format, Version2, parse};

    fn offer(gpus: &[(&str, &str, u64, GpuState)]) -> Offer {
        let gpu = |(uuid, model, gib, state): &(&str, &str, u64, GpuState)| OfferedGpu {
            uuid: GpuUuid::new(*uuid).expect("valid"),
            model: (*model).into(),
            memory: Size(gib << 30),
            reserved: Size(0),
            compute_capability: Version2 { major: 8, minor: 0 },
            mig: None,
            state: state.clone(),
        };
        let gpus = gpus.iter().map(gpu).collect();
        Offer { arch: Arch::HOST, cuda: None, gpus, volumes: BTreeMap::new(), labels: BTreeMap::new() }
    }

    fn at(second: i64) -> When {
        When::At(DateTime::<Utc>::from_timestamp(second, 0).expect("valid"))
    }

    fn running(gpu: &str, share: Option<u64>, until: When) -> Running {
        let gpus = vec![GpuUuid::new(gpu).expect("valid")];
        Running { gpus, gpu_share: share.map(|gib| Size(gib << 30)), until }
    }

    fn needs(text: &str) -> Needs {
        Needs::of(&parse(&format!("image = \"i\"\n[resources]\n{text}"), Format::Toml).expect("valid"))
    }

    #[rstest]
    // Those that are free soonest, and the last of them says when.
    #[case("gpus = 2", Some(("GPU-a GPU-c", at(10))))]
    #[case("gpus = 3", Some(("GPU-a GPU-c GPU-b", at(20))))]
    #[case("gpus = 4", Some(("GPU-a GPU-c GPU-b GPU-d", When::Unknown)))]
    // The fifth is out of service.
    #[case("gpus = 5", None)]
    #[case("gpus = 1\ngpu_model = \"T4\"", None)]
    fn a_job_starts_where_it_can_soonest(#[case] text: &str, #[case] expected: Option<(&str, When)>) {
        let held = || GpuState::Held;
        let offer = offer(&[
            ("GPU-a", "A100", 80, GpuState::Free),
            ("GPU-b", "A100", 80, held()),
            ("GPU-c", "A100", 80, held()),
            ("GPU-d", "A100", 80, held()),
            ("GPU-e", "A100", 80, GpuState::Out { why: "ECC".into() }),
        ]);
        let jobs = [
            running("GPU-b", None, at(20)),
            running("GPU-c", None, at(10)),
            running("GPU-d", None, When::Unknown),
        ];
        let found = plan(&needs(text), &offer, &jobs);
        let names =
            |plan: Plan| (plan.gpus.iter().map(GpuUuid::as_str).collect::<Vec<_>>().join(" "), plan.start);
        assert_eq!(found.map(names), expected.map(|(gpus, when)| (gpus.to_owned(), when)));
    }

    #[test]
    fn one_model_is_preferred_unless_it_is_later() {
        let held = || GpuState::Held;
        let offer = offer(&[
            ("GPU-a", "A100", 80, held()),
            ("GPU-b", "T4", 16, held()),
            ("GPU-c", "A100", 80, held()),
        ]);
        let until = |c: i64| {
            [running("GPU-a", None, at(1)), running("GPU-b", None, at(2)), running("GPU-c", None, at(c))]
        };
        let chosen = |c| plan(&needs("gpus = 2"), &offer, &until(c)).expect("fits").gpus[1].to_string();
        assert_eq!((chosen(2).as_str(), chosen(3).as_str()), ("GPU-c", "GPU-b"));
    }

    #[rstest]
    #[case(4, When::Now)]
    #[case(6, at(5))]
    #[case(13, at(9))]
    fn a_share_starts_when_enough_of_a_gpu_is_left(#[case] gib: u64, #[case] expected: When) {
        let offer = offer(&[("GPU-a", "T4", 16, GpuState::Shared { free: Size(4 << 30) })]);
        let jobs = [running("GPU-a", Some(8), at(9)), running("GPU-a", Some(4), at(5))];
        let found = plan(&needs(&format!("gpu_share = \"{gib}GiB\"")), &offer, &jobs);
        assert_eq!(found.expect("fits").start, expected);
    }
}
