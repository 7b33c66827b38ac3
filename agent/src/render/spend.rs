//! What jobs used and cost, and how kinds of hosts compare.

use std::collections::BTreeMap;

use clap::ValueEnum;
use plotters::prelude::*;
use shared::{
    client::{Bill, Kind},
    price::Cost,
    units::Span,
};

use super::{Out, table::Table};
use crate::cli::CostBy;

/// A table of bills, and their total.
pub fn bills(out: Out, by: CostBy, bills: &[Bill], all: &Bill) {
    let by = by.to_possible_value().map_or_else(String::new, |value| value.get_name().to_uppercase());
    let mut table = Table::new(out, &[&by, ">ATTEMPTS", ">GPU HOURS", ">BUSY", ">ENERGY", ">COST"]);
    for bill in bills.iter().chain([all]) {
        table.row([
            bill.of.clone(),
            bill.attempts.to_string(),
            format!("{:.2}", bill.gpu_hours),
            percent(bill.busy),
            bill.energy.map_or_else(|| "-".into(), |watt_hours| format!("{:.3} kWh", watt_hours / 1000.0)),
            money(&bill.cost),
        ]);
    }
    table.print();
    if all.unpriced > 0 {
        out.line(format!(
            "{} of {} attempts ran where no price is known (haul agent --price), or their node was lost",
            all.unpriced, all.attempts
        ));
    }
}

/// A table of kinds, the best first.
pub fn kinds(out: Out, kinds: &[Kind]) {
    let heads = ["GPU", ">RUNS", ">TIME", ">SHORTEST", ">LONGEST", ">BUSY", ">A RUN COSTS", ">RUNS FOR 1"];
    let mut table = Table::new(out, &heads);
    for kind in kinds {
        let for_one: Vec<String> = kind
            .cost
            .iter()
            .filter(|(_, cost)| **cost > 0.0)
            .map(|(of, cost)| format!("{:.2} ({of})", 1.0 / cost))
            .collect();
        table.row([
            kind.model.clone(),
            kind.runs.to_string(),
            time(kind.seconds.mean),
            time(kind.seconds.min),
            time(kind.seconds.max),
            percent(kind.busy),
            money(&kind.cost),
            if for_one.is_empty() { "-".into() } else { for_one.join(", ") },
        ]);
    }
    table.print();
}

fn money(cost: &BTreeMap<String, f64>) -> String {
    let sums = cost.iter().map(|(of, amount)| Cost { amount: *amount, currency: of.clone() }.to_string());
    let sums: Vec<String> = sums.collect();
    if sums.is_empty() { "-".into() } else { sums.join(" + ") }
}

fn percent(busy: Option<f64>) -> String {
    busy.map_or_else(|| "-".into(), |busy| format!("{busy:.0}%"))
}

fn time(seconds: f64) -> String {
    let span = std::time::Duration::from_secs_f64(seconds);
    // To the second where seconds are no matter.
    let span = if span.as_secs() >= 60 { std::time::Duration::from_secs(span.as_secs()) } else { span };
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Span(std::time::Duration::from_millis(millis)).to_string()
}

/// A picture as SVG, bars side by side: how long a run takes on each kind, and what it costs.
///
/// # Errors
/// What the drawing library says.
pub fn plot(title: &str, kinds: &[Kind]) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (900, 480)).into_drawing_area();
        area.fill(&WHITE)?;
        let area = area.titled(title, ("sans-serif", 20))?;
        let currency = kinds.iter().flat_map(|kind| kind.cost.keys()).next();
        let panels = area.split_evenly((1, if currency.is_some() { 2 } else { 1 }));
        bars(&panels[0], "seconds a run takes", kinds, |kind| kind.seconds.mean)?;
        if let (Some(panel), Some(currency)) = (panels.get(1), currency) {
            let cost = |kind: &Kind| kind.cost.get(currency).copied().unwrap_or_default();
            bars(panel, &format!("{currency} a run costs"), kinds, cost)?;
        }
        area.present()?;
    }
    Ok(svg)
}

fn bars(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    kinds: &[Kind],
    value: impl Fn(&Kind) -> f64,
) -> anyhow::Result<()> {
    let most = kinds.iter().map(&value).fold(0.0, f64::max);
    let count = u32::try_from(kinds.len()).unwrap_or(u32::MAX);
    let name = |at: &SegmentValue<u32>| match at {
        SegmentValue::CenterOf(at) => {
            kinds.get(*at as usize).map(|kind| kind.model.clone()).unwrap_or_default()
        }
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(15)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((0..count).into_segmented(), 0.0..(most * 1.1).max(f64::MIN_POSITIVE))?;
    chart.configure_mesh().disable_x_mesh().x_label_formatter(&name).draw()?;
    chart.draw_series((0..count).zip(kinds).map(|(at, kind)| {
        let corners = [(SegmentValue::Exact(at), 0.0), (SegmentValue::Exact(at + 1), value(kind))];
        let mut bar = Rectangle::new(corners, RGBColor(48, 98, 165).filled());
        bar.set_margin(0, 0, 20, 20);
        bar
    }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use shared::client::Spread;

    use super::*;

    #[test]
    fn a_picture_names_each_kind_and_scales_its_bars() {
        let kind = |model: &str, mean: f64, cost: f64| Kind {
            model: model.into(),
            runs: 3,
            seconds: Spread { mean, min: mean, max: mean },
            cost: BTreeMap::from([("USD".into(), cost)]),
            busy: None,
        };
        let kinds = [kind("P100", 200.0, 0.5), kind("A100", 50.0, 1.0)];
        let svg = plot("resnet", &kinds).expect("drawn");
        let heights: Vec<f64> = svg
            .match_indices("fill=\"#3062A5\"")
            .map(|(at, _)| {
                let rect = &svg[svg[..at].rfind("<rect").expect("a bar")..at];
                let height = rect.split("height=\"").nth(1).and_then(|rest| rest.split('"').next());
                height.expect("its height").parse().expect("a number")
            })
            .collect();
        let [p_time, a_time, p_cost, a_cost] = heights[..] else { panic!("{heights:?} {svg}") };
        assert!((p_time / a_time - 4.0).abs() < 0.1 && (a_cost / p_cost - 2.0).abs() < 0.1, "{heights:?}");
        assert!(["resnet", "P100", "A100", "USD a run costs"].iter().all(|text| svg.contains(text)), "{svg}");
    }
}
