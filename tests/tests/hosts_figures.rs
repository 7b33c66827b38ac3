//! What a host costs that does nothing, and how soon one that gets power claims its first job. Figures are said; they are
//! of the build that is tested, on a machine that does other things.

use std::time::Duration;

use serde_json::json;
use tests::{Machine, Site, last};

/// A time of systemd's, in milliseconds of the kernel's clock.
fn monotonic(host: &impl Machine, unit: &str, name: &str) -> i64 {
    host.property(unit, name).parse::<i64>().expect("microseconds") / 1000
}

/// Proportional memory in KiB, and CPU time in hundredths of a second.
fn footprint(host: &impl Machine, unit: &str) -> (u32, u32) {
    let pid = host.property(unit, "MainPID");
    let memory = host.ok(&format!("sed -n 's/^Pss: *//p' /proc/{pid}/smaps_rollup | cut -d' ' -f1"));
    let time = host.ok(&format!("sed 's/.*) //' /proc/{pid}/stat | awk '{{ print $12 + $13 }}'"));
    (memory.trim().parse().expect("a number"), time.trim().parse().expect("a number"))
}

#[test]
fn a_host_that_gets_power_claims_its_first_job_within_a_second_of_its_agents_start() {
    const IDLE: u32 = 10;
    let site = Site::new(60);
    let hosts = ["a", "b", "c"].map(|name| site.host(name, ""));
    let all = hosts.iter().flat_map(|host| ["haul-agent", "haul-guard"].map(|unit| (host, unit)));
    let before: Vec<_> = all.map(|(host, unit)| (host, unit, footprint(host, unit).1)).collect();
    last(Duration::from_secs(u64::from(IDLE)));
    for (host, unit, was) in before {
        let (memory, is) = footprint(host, unit);
        println!(
            "{unit} of {} idle, a beat every second: {memory} KiB, {:.1} % of a core",
            host.name(),
            f64::from(is - was) / f64::from(IDLE)
        );
    }

    let [host, others @ ..] = hosts;
    drop(others);
    host.power_off();
    let id = site.submit(&json!({ "resources": { "gpus": 1 } }), "true");
    let on = tests::wall_clock();
    host.power_on();
    site.world().until(&id, "succeeded");
    let history = site.world().history(&id);
    let claimed = history.iter().find(|entry| entry["event"]["kind"] == "claimed").expect("claimed");
    assert_eq!(claimed["event"]["node"], host.node());
    let claimed: chrono::DateTime<chrono::Utc> =
        claimed["at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    let all = (claimed - on).num_milliseconds();
    // The claim on the clock of systemd, by what both clocks say now.
    let up: f64 = host.ok("cut -d' ' -f1 /proc/uptime").trim().parse().expect("seconds");
    #[expect(clippy::cast_possible_truncation, reason = "seconds since a boot")]
    let claimed = (up * 1000.0) as i64 - (tests::wall_clock() - claimed).num_milliseconds();
    let manager = monotonic(&host, "", "UserspaceTimestampMonotonic");
    let started = monotonic(&host, "haul-agent", "ExecMainStartTimestampMonotonic");
    let active = monotonic(&host, "haul-agent", "ActiveEnterTimestampMonotonic");
    let (booted, ready, took) = (started - manager, active - started, claimed - started);
    println!(
        "power-on to the first claim: {all} ms, of which {} the container's start, {booted} systemd and the engine, \
         {took} the agent (ready after {ready})",
        all - booted - took
    );
    assert!(took < 1000, "the agent took {took} ms");
}
