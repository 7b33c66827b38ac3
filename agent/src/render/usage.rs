//! What an attempt used, for people.

use shared::log::{GpuUsage, Usage};

/// How busy, from nothing to all, in one character.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Below this, in percent, GPUs were held and not used.
const UNUSED: f64 = 5.0;

/// What programs need to begin, in GPU seconds; a shorter run says nothing of its GPUs' use.
const BEGINNING: f64 = 60.0;

/// One line for each thing that was measured.
pub fn lines(usage: &Usage) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(gpu) = &usage.gpu {
        lines.push(of_gpus(usage.gpu_seconds, gpu));
        if usage.gpu_seconds >= BEGINNING && gpu.utilization.is_some_and(|mean| mean < UNUSED) {
            lines.push("its GPUs were held and hardly used: does the program find them?".into());
        }
    }
    let cpu = usage.cpu.map(|cpu| format!("CPU {:.1} cores (most {:.1})", cpu.mean, cpu.peak));
    let memory = usage.memory_peak.map(|most| format!("memory {}", most.human()));
    let host: Vec<String> = cpu.into_iter().chain(memory).collect();
    if !host.is_empty() {
        lines.push(host.join(", "));
    }
    lines.extend(usage.cost.as_ref().map(|cost| format!("cost {cost}")));
    lines
}

fn of_gpus(seconds: f64, gpu: &GpuUsage) -> String {
    let mut parts = Vec::new();
    if let (Some(mean), Some(peak)) = (gpu.utilization, gpu.utilization_peak) {
        parts.push(format!("{mean:.0}% busy (most {peak:.0}%) {}", sparkline(&gpu.trend)));
    }
    parts.push(format!("memory {}", gpu.memory_peak.human()));
    if let Some(joules) = gpu.energy {
        parts.push(format!("{:.2} Wh", joules / 3600.0));
    }
    format!("GPU {:.2} h: {}", seconds / 3600.0, parts.join(", "))
}

/// Percents as bars.
fn sparkline(percents: &[u8]) -> String {
    let bar = |percent: &u8| BARS[usize::from(*percent) * (BARS.len() - 1) / 100];
    percents.iter().map(|percent| bar(&(*percent).min(100))).collect()
}

#[cfg(test)]
mod tests {
    use shared::{log::CpuUsage, price::Cost, units::Size};

    use super::*;

    #[test]
    fn what_was_measured_is_shown_and_nothing_else() {
        assert_eq!(lines(&Usage { gpu_seconds: 7.0, ..Usage::default() }), Vec::<String>::new());
        let gpu = GpuUsage {
            utilization: Some(62.5),
            utilization_peak: Some(100.0),
            memory_peak: Size(15 << 30),
            energy: Some(900_000.0),
            trend: vec![0, 50, 100],
        };
        let cpu = Some(CpuUsage { mean: 3.25, peak: 7.96 });
        let used = Usage {
            gpu_seconds: 5400.0,
            gpu: Some(gpu.clone()),
            cpu,
            memory_peak: Some(Size(3 << 30)),
            cost: Some(Cost { amount: 2.345, currency: "EUR".into() }),
            ..Usage::default()
        };
        insta::assert_snapshot!(lines(&used).join("\n"), @r"
        GPU 1.50 h: 62% busy (most 100%) ▁▄█, memory 15.0 GiB, 250.00 Wh
        CPU 3.2 cores (most 8.0), memory 3.0 GiB
        cost 2.35 EUR
        ");
        let idle = GpuUsage { utilization: Some(1.0), utilization_peak: Some(4.0), energy: None, ..gpu };
        let idle = Usage { gpu_seconds: 72.0, gpu: Some(idle), ..Usage::default() };
        insta::assert_snapshot!(lines(&idle).join("\n"), @r"
        GPU 0.02 h: 1% busy (most 4%) ▁▄█, memory 15.0 GiB
        its GPUs were held and hardly used: does the program find them?
        ");
        assert_eq!(lines(&Usage { gpu_seconds: 59.0, ..idle }).len(), 1, "too short to tell");
    }
}
