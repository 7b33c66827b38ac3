//! Figures and how they are shown.

use serde::Serialize;

/// Some measurements of one thing.
#[derive(Debug, Clone, Serialize)]
pub struct Spread {
    /// How many.
    pub n: usize,
    /// The middle one.
    pub p50: f64,
    /// That which one in twenty exceeds.
    pub p95: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of these.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let at = |share: f64| values[((n - 1) as f64 * share).round() as usize];
        Self { n, p50: at(0.5), p95: at(0.95), least: at(0.0), most: at(1.0) }
    }

    /// `median (p95; least to most)`, in a unit.
    pub fn show(&self, factor: f64, unit: &str) -> String {
        let show = |value: f64| {
            let value = value * factor;
            if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
        };
        let Self { n, p50, p95, least, most } = self;
        format!("{} {unit} (p95 {}; {} to {}; n {n})", show(*p50), show(*p95), show(*least), show(*most))
    }
}

/// What, how much, and the target.
pub struct Table(comfy_table::Table);

impl Table {
    /// An empty one.
    pub fn new() -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["what", "measured", "target"]);
        Self(table)
    }

    /// One more line.
    pub fn row(&mut self, what: &str, measured: &str, target: &str) {
        self.0.add_row([what, measured, target]);
    }

    /// On standard output.
    pub fn print(&self) {
        println!("{}", self.0);
    }
}
