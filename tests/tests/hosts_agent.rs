//! An agent as a service: hung, crash-looping, told that its machine goes, and a systemd that sets devices anew.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tests::{Histories, Machine, Metadata, Site, eventually, site::counted, wall_clock};

const STEPS: u32 = 100;

/// Whether a job was run once, in one container, in one attempt.
fn undisturbed(site: &Site, id: &str) {
    site.world().until(id, "succeeded");
    assert_eq!(site.world().run(["logs", id]).ok(), counted(STEPS), "each line once, in order");
    assert_eq!((site.broken(id), site.ticks(id).len()), (Vec::new(), STEPS as usize));
    assert_eq!(Histories::read(&site.cloud().bucket()).events(id, "claimed").len(), 1, "another attempt");
}

fn pid(host: &impl Machine) -> String {
    host.property("haul-agent", "MainPID")
}

/// When a unit said something for the first time.
fn said_at(host: &impl Machine, unit: &str, words: &str) -> DateTime<Utc> {
    let journal = host.ok(&format!("journalctl -q --no-pager -o short-unix -u {unit}"));
    let line = journal.lines().find(|line| line.contains(&format!("]: {words}")));
    let micros = line.and_then(|line| line.split(' ').next()?.replace('.', "").parse().ok());
    micros
        .and_then(DateTime::from_timestamp_micros)
        .unwrap_or_else(|| panic!("'{words}' is not in {journal}"))
}

#[test]
fn an_agent_that_hangs_is_replaced_and_its_jobs_go_on() {
    let site = Site::new(60);
    let host = site.host("a", "");
    eventually("a third of the lease is what systemd is asked for", || {
        (host.property("haul-agent", "WatchdogUSec") == "20s").then_some(())
    });
    host.drop_in("haul-agent.service", "[Service]\nWatchdogSec=3s\n");
    host.ok("systemctl restart haul-agent");
    host.until_ready();
    let id = site.count(STEPS, &json!({}));
    site.until_counted(&id, 1, 5);
    let (hung, before) = (pid(&host), host.containers("running"));
    host.ok(&format!("kill -STOP {hung}"));
    eventually("the watchdog replaces it", || {
        let now = pid(&host);
        (now != "0" && now != hung).then_some(())
    });
    host.until_ready();
    assert_eq!(host.containers("running"), before, "the container goes on");
    undisturbed(&site, &id);
    let journal = host.journal("haul-agent");
    assert!(
        journal.contains("Watchdog timeout") && journal.contains("taken up from an earlier run"),
        "{journal}"
    );
}

#[test]
fn what_a_crash_looping_agent_leaves_is_frozen_before_its_lease_is_over() {
    let site = Site::new(10);
    let host = site.host("a", "");
    let id = site.count(STEPS, &json!({}));
    site.until_counted(&id, 1, 5);
    host.drop_in("haul-agent.service", "[Service]\nExecStart=\nExecStart=/bin/false\n");
    let began = wall_clock();
    host.ok(&format!("kill -KILL {}", pid(&host)));
    eventually("the guard freezes its container", || (host.containers("paused").len() == 1).then_some(()));
    let took = said_at(&host, "haul-guard", "frozen container=") - began;
    assert!(took < TimeDelta::seconds(10), "only after {took}");
    eventually("systemd tries again and again", || {
        host.property("haul-agent", "NRestarts").parse::<u32>().is_ok_and(|count| count > 3).then_some(())
    });
    assert!(site.world().state(&id) != "succeeded" && host.containers("running").is_empty());
    host.drop_in("haul-agent.service", "");
    undisturbed(&site, &id);
    let journal = host.journal("haul-guard");
    assert!(
        journal.contains("the agent's lease is over") && journal.contains("holds its lease again"),
        "{journal}"
    );
}

#[test]
fn a_spot_host_hands_its_job_over_with_its_checkpoint_and_stays_away() {
    let site = Site::new(60);
    let metadata = Metadata::aws_at(site.bridge());
    let env = format!("HAUL_CLOUD=aws\nHAUL_METADATA_URL={}\n", metadata.url());
    let spot = site.host("spot", &env);
    assert_eq!(spot.node(), "i-0123456789abcdef0");
    // It takes a second over its checkpoint.
    let script = "n=0; c=$HAUL_CHECKPOINT_DIR/n; [ ! -e $c ] || { echo from $(cat $c); exit 0; }; \
                  trap 'sleep 1; echo $n >$c; exit 1' TERM; while true; do n=$((n + 1)); echo $n; sleep 0.2; done";
    let id = site.submit(&json!({}), script);
    eventually("it counts", || site.world().run(["logs", &id]).stdout.contains("3\n").then_some(()));
    let notice = r#"{"action": "terminate", "time": "2026-01-01T00:00:00Z"}"#;
    metadata.set("/latest/meta-data/spot/instance-action", notice);
    eventually("the service has ended", || {
        (spot.property("haul-agent", "ActiveState") == "inactive").then_some(())
    });
    let ended = site.world().events(&id, "ended");
    assert_eq!(ended[0]["outcome"], "preempted", "{ended:?}");
    let _other = site.host("other", "");
    site.world().until(&id, "succeeded");
    assert!(site.world().run(["logs", &id]).ok().starts_with("from "), "it goes on from its checkpoint");
    let state = ["ActiveState", "Result", "NRestarts"].map(|name| spot.property("haul-agent", name));
    assert_eq!(state, ["inactive", "success", "0"], "it is not started again");
    let journal = spot.journal("haul-agent");
    assert!(journal.contains("the machine is about to go"), "{journal}");
}

#[test]
fn a_daemon_reload_takes_no_device_from_a_running_job() {
    let site = Site::new(60);
    let host = site.host("a", "");
    assert_eq!(
        host.ok("docker info -f '{{.CgroupDriver}}'"),
        "systemd\n",
        "which makes systemd the one that sets them"
    );
    // Behind the nodes there is no driver: to open them fails, but not for want of permission.
    let script =
        "while true; do for d in nvidia0 nvidia1 nvidiactl; do cat /dev/$d 2>&1; done; sleep 0.2; done";
    let id = site.submit(&json!({ "resources": { "gpus": 2 } }), script);
    let lines = || site.world().run(["logs", &id]).stdout.lines().map(str::to_owned).collect::<Vec<_>>();
    eventually("it tries", || (lines().len() > 5).then_some(()));
    host.ok("systemctl daemon-reload");
    let seen = lines().len();
    eventually("it tries on", || (lines().len() > seen + 20).then_some(()));
    let refused: Vec<String> =
        lines().into_iter().filter(|line| !line.contains("No such device or address")).collect();
    assert_eq!(refused, Vec::<String>::new());
    site.world().run(["cancel", &id]).ok();
    site.world().until(&id, "cancelled");
}

#[test]
fn a_guard_that_cannot_reach_an_engine_over_tcp_says_so_until_it_is_let_out() {
    let site = Site::new(60);
    let host = site.host("a", "");
    host.put("/etc/systemd/system/door.socket", b"[Socket]\nListenStream=127.0.0.1:2375\n");
    let proxy = "[Service]\nExecStart=/usr/lib/systemd/systemd-socket-proxyd /run/docker.sock\n";
    host.put("/etc/systemd/system/door.service", proxy.as_bytes());
    host.ok("systemctl daemon-reload && systemctl start door.socket");
    host.ok("echo DOCKER_HOST=tcp://127.0.0.1:2375 >>/etc/haul/agent.env && systemctl restart haul-agent");
    host.until_ready();
    let says = |words: &str| host.journal("haul-guard").contains(words).then_some(());
    eventually("the guard warns", || says("does not answer the guard"));
    host.drop_in(
        "haul-guard.service",
        "[Service]\nPrivateNetwork=no\nIPAddressDeny=\nRestrictAddressFamilies=AF_INET AF_INET6\n",
    );
    host.ok("systemctl restart haul-guard");
    eventually("it is let out", || says("the engine answers the guard engine=tcp://127.0.0.1:2375"));
}
