//! What one attempt uses, from one sample to the next. Pure.

use std::{collections::BTreeMap, time::Duration};

use shared::{
    id::GpuUuid,
    log::{CpuUsage, GpuUsage, Usage},
    units::Size,
};

use super::trend::Trend;
use crate::{engine::Stats, gpu::Gpu};

/// What one attempt has used so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    busy: Trend,
    busy_peak: f64,
    gpu_memory_peak: Option<Size>,
    /// Each GPU's counter of energy, in joules, when it was first and last read.
    energy: BTreeMap<GpuUuid, (f64, f64)>,
    /// The container's processor time when it was first and last read, and by this host's clock when.
    cpu: Option<[(Duration, Duration); 2]>,
    cpu_peak: f64,
    memory_peak: Option<Size>,
}

impl Meter {
    /// A look at the GPUs of which an attempt has these, for itself.
    pub(super) fn own(&mut self, gpus: &[&Gpu]) {
        let busy: Vec<f64> = gpus.iter().filter_map(|gpu| gpu.utilization).map(f64::from).collect();
        if !busy.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "no host has 2^52 GPUs")]
            let mean = busy.iter().sum::<f64>() / busy.len() as f64;
            self.busy.push(mean);
            self.busy_peak = self.busy_peak.max(mean);
        }
        self.holds(Size(gpus.iter().map(|gpu| gpu.memory_used.bytes()).sum()));
        for gpu in gpus {
            if let Some(now) = gpu.energy {
                self.energy.entry(gpu.uuid.clone()).or_insert((now, now)).1 = now;
            }
        }
    }

    /// A look at what an attempt holds of GPUs' memory.
    pub(super) fn holds(&mut self, memory: Size) {
        self.gpu_memory_peak = self.gpu_memory_peak.max(Some(memory));
    }

    /// A look at the container, at this time by this host's clock.
    pub(super) fn container(&mut self, now: Duration, stats: Stats) {
        self.memory_peak = self.memory_peak.max(Some(stats.memory));
        let seen = (now, stats.cpu);
        match &mut self.cpu {
            None => self.cpu = Some([seen, seen]),
            // Of one that has just ended the engine tells zeros.
            Some([_, last]) if stats.cpu < last.1 => {}
            Some([_, last]) => {
                self.cpu_peak = self.cpu_peak.max(cores(*last, seen).unwrap_or_default());
                *last = seen;
            }
        }
    }

    /// What it used, if it had so many GPUs for so long.
    pub(super) fn total(&self, gpus: f64, ran: Duration) -> Usage {
        // A counter that went back was reset with its GPU.
        let joules: f64 = self.energy.values().map(|(first, last)| (last - first).max(0.0)).sum();
        let gpu = self.gpu_memory_peak.map(|memory_peak| GpuUsage {
            utilization: self.busy.mean(),
            utilization_peak: self.busy.mean().map(|_| self.busy_peak),
            memory_peak,
            energy: (!self.energy.is_empty()).then_some(joules),
            trend: self.busy.percents(),
        });
        let mean = self.cpu.and_then(|[first, last]| cores(first, last));
        Usage {
            gpu_seconds: gpus * ran.as_secs_f64(),
            gpu,
            cpu: mean.map(|mean| CpuUsage { mean, peak: self.cpu_peak }),
            memory_peak: self.memory_peak,
            ..Usage::default()
        }
    }
}

/// Cores that were busy between two looks.
fn cores(before: (Duration, Duration), after: (Duration, Duration)) -> Option<f64> {
    let time = after.0.checked_sub(before.0).filter(|time| !time.is_zero())?;
    Some(after.1.saturating_sub(before.1).as_secs_f64() / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use shared::id::NodeId;

    use super::*;
    use crate::gpu::{Gpus, Simulated};

    #[test]
    fn what_was_sampled_adds_up() {
        let spec = "2xP100:16GiB".parse().expect("valid");
        let mut gpus = Simulated::new(&spec, &NodeId::new("n").expect("valid")).read().expect("reads").gpus;
        let mut meter = Meter::default();
        for (look, busy) in [(0_u32, 0), (1, 40), (2, 80)] {
            gpus[0].utilization = Some(busy);
            gpus[1].utilization = Some(100);
            gpus[0].memory_used = Size(u64::from(look) << 30);
            gpus[0].energy = Some(1000.0 + 50.0 * f64::from(look));
            gpus[1].energy = Some(10.0 + 20.0 * f64::from(look));
            meter.own(&gpus.iter().collect::<Vec<_>>());
        }
        let second = Duration::from_secs;
        for (at, cpu, memory) in [(0, 5, 100), (10, 15, 300), (20, 45, 200), (30, 0, 0)] {
            meter.container(second(at), Stats { cpu: second(cpu), memory: Size(memory) });
        }
        let used = meter.total(2.0, second(30));
        assert!((used.gpu_seconds - 60.0).abs() < 1e-9);
        assert_eq!(used.cpu, Some(CpuUsage { mean: 2.0, peak: 3.0 }));
        assert_eq!(used.memory_peak, Some(Size(300)));
        let gpu = used.gpu.expect("sampled");
        assert_eq!((gpu.utilization, gpu.utilization_peak), (Some(70.0), Some(90.0)));
        assert_eq!((gpu.memory_peak, gpu.energy), (Size(2 << 30), Some(140.0)));
        assert_eq!(gpu.trend, [50, 70, 90]);
    }

    #[test]
    fn what_was_not_sampled_is_not_made_up() {
        let used = Meter::default().total(1.0, Duration::from_secs(2));
        assert_eq!(used, Usage { gpu_seconds: 2.0, ..Usage::default() });
    }
}
