//! How many machines are wanted, as people see it.

use shared::{demand::Demands, id::Timestamp};

use super::{Out, table::Table, time::ago};

/// A table of pools.
pub fn demands(out: Out, demands: &Demands, now: Timestamp) {
    if demands.pools.is_empty() {
        out.line("the fleet has no pools; define some with: haul fleet set pools='{\"NAME\": {...}}'");
    } else {
        let mut table = Table::new(out, &["POOL", ">WANTED", ">PRESENT", ">JOBS", ">SINCE", "WHY"]);
        for pool in &demands.pools {
            table.row([
                pool.pool.clone(),
                pool.wanted.to_string(),
                pool.present.to_string(),
                pool.jobs.to_string(),
                pool.since.map_or_else(|| "-".into(), |since| ago(since, now)),
                pool.why.join("; "),
            ]);
        }
        table.print();
    }
    for pool in demands.pools.iter().filter(|pool| !pool.idle.is_empty()) {
        let idle: Vec<&str> = pool.idle.iter().map(shared::id::NodeId::as_str).collect();
        out.line(format!("{}: may be ended: {}", pool.pool, idle.join(", ")));
    }
    if !demands.unserved.is_empty() {
        let first: Vec<&str> = demands.unserved.iter().take(5).map(shared::id::JobId::as_str).collect();
        out.line(format!(
            "{} jobs fit neither a node nor a machine of any pool, such as {}; haul status ID says why",
            demands.unserved.len(),
            first.join(", ")
        ));
    }
}
