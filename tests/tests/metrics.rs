//! What Prometheus reads of an agent, held to Prometheus' own tools, and the alerts on it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Stdio},
};

use tests::{Agent, World, eventually, world::root};

/// Debian's, taken apart by `tests/run`.
fn promtool() -> Command {
    let program = root().join(".cache/prometheus/promtool");
    assert!(program.is_file(), "promtool is missing; tests/run brings it");
    let mut command = Command::new(program);
    command.current_dir(root().join("packaging/prometheus"));
    command
}

fn get(mut stream: impl Read + Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: haul\r\nConnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn page(address: &str) -> String {
    let answer = get(TcpStream::connect(address).expect("it listens"), "/metrics");
    let (head, page) = answer.split_once("\r\n\r\n").expect("a page");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    page.to_owned()
}

fn number(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing: {page}")).parse().expect("a number")
}

#[test]
fn an_agent_tells_prometheus_how_it_is() {
    let world = World::new();
    let address =
        TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").to_string();
    let data = world.path("data");
    std::fs::create_dir(&data).expect("made");
    let gone = format!("gone={}:ro", world.path("gone").display());
    let volume = format!("data={}", data.display());
    let flags =
        ["--simulate-gpus", "2xP100:16GiB", "--metrics", &address, "--volume", &volume, "--volume", &gone];
    let _agent = Agent::start(&world, "a", &flags);
    let id = world.submit(&[], "true");
    world.until(&id, "succeeded");
    let failed = world.submit(&[], "exit 3");
    world.until(&failed, "failed");
    let running = world.submit(&["--gpus", "1", "--cpus", "0.5"], "sleep 1000");
    world.until(&running, "running");
    let page = eventually("all is counted", || {
        Some(page(&address)).filter(|page| page.contains("outcome=\"exited\"} 1\n"))
    });
    for (name, value) in [
        ("haul_attempts_ended_total{outcome=\"succeeded\"}", 1.0),
        ("haul_attempts_ended_total{outcome=\"exited\"}", 1.0),
        ("haul_attempts_ended_total{outcome=\"engine_fault\"}", 0.0),
        ("haul_claim_wait_seconds_count", 3.0),
        ("haul_gpus{state=\"free\"}", 1.0),
        ("haul_gpus{state=\"held\"}", 1.0),
        ("haul_gpus{state=\"out\"}", 0.0),
        ("haul_guard_watches", 0.0),
        ("haul_volume_usable{volume=\"data\"}", 1.0),
        ("haul_volume_usable{volume=\"gone\"}", 0.0),
        ("haul_takes_jobs", 1.0),
        ("haul_drained", 0.0),
        ("haul_jobs", 1.0),
        ("haul_cpus_promised", 0.5),
    ] {
        assert!((number(&page, name) - value).abs() < 1e-9, "{name}: {page}");
    }
    let left = number(&page, "haul_lease_left_seconds");
    assert!((100.0..=180.0).contains(&left), "{left}");
    assert!(number(&page, "haul_requests_total{service=\"store\",kind=\"put\"}") > 3.0, "{page}");
    // Three jobs were claimed, and each claim deletes its message.
    assert!(number(&page, "haul_requests_total{service=\"queue\",kind=\"delete\"}") >= 3.0, "{page}");
    assert!(number(&page, "haul_requests_total{service=\"queue\",kind=\"receive\"}") >= 3.0, "{page}");
    assert!(number(&page, "haul_beats_total{result=\"written\"}") >= 1.0, "{page}");
    assert!(
        number(&page, "haul_disk_free_bytes{disk=\"images\"}")
            <= number(&page, "haul_disk_bytes{disk=\"images\"}"),
        "{page}"
    );
    // Names, types and units as Prometheus wants them.
    let mut check = promtool();
    let mut check = check
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    check.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("written");
    let checked = check.wait_with_output().expect("ends");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(get(TcpStream::connect(&address).expect("it listens"), "/").starts_with("HTTP/1.1 404"));
    world.run(["cancel", &running]).ok();
}

#[test]
fn metrics_may_be_on_a_socket_and_a_place_that_cannot_be_had_yet_stops_nothing() {
    let world = World::new();
    let socket: PathBuf = world.path("metrics.sock");
    let agent = Agent::start(&world, "a", &["--metrics", &format!("unix:{}", socket.display())]);
    let answer = get(UnixStream::connect(&socket).expect("it listens"), "/metrics");
    assert!(answer.contains("haul_node_info{node=\"a\""), "{answer}");
    drop(agent);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let agent = Agent::start(&world, "a", &["--metrics", &address]);
    let id = world.submit(&[], "true");
    world.until(&id, "succeeded");
    assert!(agent.said().contains("metrics cannot be served there"), "{}", agent.said());
    drop(taken);
    eventually("it is served once the port is free", || TcpStream::connect(&address).ok());
    assert!(page(&address).contains("haul_node_info{node=\"a\""));
}

#[test]
fn the_alerts_fire_when_they_must() {
    for args in [["check", "rules", "haul.rules.yml"], ["test", "rules", "haul.rules.test.yml"]] {
        let done = promtool().args(args).output().expect("starts");
        assert!(
            done.status.success(),
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

#[test]
fn each_alert_has_its_page_in_the_runbook_and_the_dashboard_asks_for_what_there_is() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect(path);
    let (rules, runbook) = (read("packaging/prometheus/haul.rules.yml"), read("docs/runbook.md"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(!alerts.is_empty());
    for alert in &alerts {
        assert!(runbook.contains(&format!("## {alert}\n")), "docs/runbook.md has nothing on {alert}");
        assert!(rules.contains(&format!("docs/runbook.md#{}", alert.to_lowercase())), "{alert}");
    }
    let page = read("agent/src/metrics/page.rs");
    let names = |text: &str| -> Vec<String> {
        let parts = text.split("haul_").skip(1);
        let name = |part: &str| {
            part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().map(str::to_owned)
        };
        parts.filter_map(name).collect()
    };
    for name in names(&rules).into_iter().chain(names(&read("packaging/grafana/haul.json"))) {
        let suffixes = ["_total", "_seconds", "_bytes", "_bucket", "_count", "_sum"];
        let mut bare = name.as_str();
        while let Some(rest) = suffixes.iter().find_map(|suffix| bare.strip_suffix(suffix)) {
            bare = rest;
        }
        assert!(page.contains(&format!("\"{bare}\"")), "nobody tells haul_{name}");
    }
}
