//! Whole hosts come to life as packaging/cloud-init says, and are upgraded while jobs run.

use std::process::Command;

use serde_json::{Value, json};
use tests::{
    Done, Histories, Machine, Site, eventually,
    site::{VERSIONS, counted, package, rpm},
    user_data,
};

/// Does what cloud-init does of user-data at a machine's first boot.
fn first_boot(machine: &impl Machine, user_data: &str, env: &str) {
    let read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.argv[1])))";
    let read: Done =
        Command::new("/usr/bin/python3").args(["-c", read, user_data]).output().expect("starts").into();
    let told: Value = serde_json::from_str(&read.ok()).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    for file in told["write_files"].as_array().expect("files") {
        let (path, mode) = (text(&file["path"]), file["permissions"].as_str().unwrap_or("0644"));
        machine.ok(&format!("mkdir -p $(dirname {path})"));
        machine.put(&path, text(&file["content"]).as_bytes());
        machine.ok(&format!("chmod {mode} {path}"));
    }
    for command in told["runcmd"].as_array().expect("commands") {
        machine.put("/root/runcmd", format!("{env}{}", text(command)).as_bytes());
        machine.ok("sh /root/runcmd 2>&1");
    }
}

#[test]
fn two_hosts_join_by_what_the_cloud_is_told_and_run_what_is_submitted_outside() {
    let site = Site::new(60);
    let hosts = ["a", "b"].map(|name| site.bare(name));
    let lies = site
        .cloud()
        .bucket()
        .put("packages/haul_amd64.deb", std::fs::read(package(VERSIONS[0])).expect("read"));
    // In place of the instance's role.
    let (_, role) = site.cloud().other_door_at(site.bridge());
    let role: String = role.iter().map(|(name, value)| format!("export {name}={value}\n")).collect();
    for host in &hosts {
        // What a timer leaves there may be there first.
        host.ok("mkdir -p /run/haul && echo token >/run/haul/token");
        first_boot(host, &user_data::for_aws(&site.variables(), &lies, None), &role);
        host.until_ready();
        assert_eq!(host.ok("cat /run/haul/token"), "token\n");
        host.put("/etc/haul/secrets/KEY", b"of its own\n");
    }

    // Two GPUs each: one job for each host.
    let flags = json!({ "resources": { "gpus": 2 }, "secrets": ["KEY"] });
    let script = "echo $NVIDIA_VISIBLE_DEVICES; [ \"$KEY\" = 'of its own' ] && sleep 3";
    let ids = [(); 2].map(|()| site.submit(&flags, script));
    for id in &ids {
        site.world().until(id, "succeeded");
    }
    let mut seen: Vec<String> = ids.iter().map(|id| site.world().run(["logs", id]).ok()).collect();
    seen.sort();
    let mut expected: Vec<String> =
        hosts.iter().map(|host| format!("{},{}\n", host.gpu(0), host.gpu(1))).collect();
    expected.sort();
    assert_eq!(seen, expected, "one ran on each host, with the host's GPUs");
    let stored = site.cloud().bucket().list("jobs");
    assert!(
        ids.iter().all(|id| stored.iter().any(|key| key.starts_with(&format!("jobs/{id}/attempts/1/log/"))))
    );

    for host in &hosts {
        eventually("systemctl shows what the agent does", || {
            host.ok("systemctl status haul-agent")
                .contains("Status: \"0 jobs, 2 of 2 GPUs free\"")
                .then_some(())
        });
        assert_eq!(host.ok("systemctl is-active haul-agent haul-guard"), "active\nactive\n");
        assert_eq!(host.ok("stat -c %a /etc/haul/agent.env"), "600\n");
        let said = host.ok("haul agent status");
        assert!(said.contains(&site.world().fleet()) && said.contains("2 free"), "{said}");
        // Whoever is in the group may ask, nobody else.
        host.ok("useradd -G haul ann && useradd bob");
        host.ok("runuser -u ann -- haul agent status");
        assert_ne!(host.run("runuser -u bob -- haul agent status").code, 0);
    }
    assert_eq!(site.world().json(["nodes", "--json"]).as_array().map(Vec::len), Some(2));
}

#[test]
fn an_upgrade_interrupts_no_job() {
    let site = Site::new(60);
    let host = site.host("a", "");
    let ids = [(); 2].map(|()| site.count(u32::MAX, &json!({})));
    ids.iter().for_each(|id| site.until_counted(id, 1, 5));
    let before = host.containers("running");
    let was = host.property("haul-agent", "MainPID");
    host.upgrade(&package(VERSIONS[1]));
    assert_eq!(host.ok("dpkg-query -W -f '${Version}' haul"), VERSIONS[1]);
    host.until_ready();
    assert_ne!(host.property("haul-agent", "MainPID"), was, "the new program runs");
    assert_eq!(host.containers("running"), before);
    for id in &ids {
        site.enough(id);
        site.world().until(id, "succeeded");
        let steps = site.ticks(id).last().expect("it counts").count;
        assert_eq!(site.world().run(["logs", id]).ok(), counted(steps), "each line once, in order");
        assert_eq!(site.broken(id), Vec::<String>::new());
    }
    let histories = Histories::read(&site.cloud().bucket());
    assert_eq!(histories.broken(), Vec::<String>::new());
    assert!(ids.iter().all(|id| histories.events(id, "claimed").len() == 1), "one attempt");
    // A purge leaves nothing.
    host.ok("apt-get purge -qq -y haul 2>&1");
    let left = "find / -xdev -name '*haul*' -not -path '/usr/lib/systemd/system/haul-*.d' -not -path '/root/*' -not -path '/srv/apt/*' -not -path '/etc/apt/*' -not -path '/var/lib/apt/*' -not -path '/var/lib/docker/*'";
    assert_eq!(host.ok(left), "");
}

#[test]
fn an_rpm_that_is_upgraded_interrupts_no_job_and_one_that_is_removed_leaves_none() {
    let site = Site::new(60);
    let host = site.bare("a");
    host.put("/etc/haul/agent.env", site.variables().as_bytes());
    let manage = |how: &str, version: &str| {
        host.put("/root/haul.rpm", &std::fs::read(rpm(version)).expect("read"));
        // What it needs is there under Debian's names.
        host.ok(&format!("rpm {how} --nodeps /root/haul.rpm 2>&1"));
        assert_eq!(host.ok("rpm -q --queryformat '%{VERSION}' haul"), version);
    };
    manage("--install", VERSIONS[0]);
    // The agent brings its guard.
    host.ok("systemctl enable haul-guard haul-agent 2>&1 && systemctl start haul-agent && systemctl is-active haul-guard");
    host.until_ready();
    let id = site.count(u32::MAX, &json!({}));
    site.until_counted(&id, 1, 5);
    let (before, was) = (host.containers("running"), host.property("haul-agent", "MainPID"));
    manage("--upgrade", VERSIONS[1]);
    host.until_ready();
    assert_ne!(host.property("haul-agent", "MainPID"), was, "the new program runs");
    assert_eq!(host.containers("running"), before);
    let now = site.ticks(&id).last().expect("it counts").count;
    site.until_counted(&id, 1, now + 5);

    host.ok("rpm --erase haul 2>&1");
    assert_eq!(host.ok("docker ps -aq --filter label=haul.job"), "", "nobody would own them");
    assert_eq!(host.run("systemctl is-active haul-agent haul-guard").stdout, "inactive\ninactive\n");
    assert_eq!(host.ok("ls /etc/haul"), "agent.env\nsecrets\n", "the operator's own stays");
    assert_ne!(host.run("test -e /usr/bin/haul").code, 0);
    assert_eq!(site.broken(&id), Vec::<String>::new());
}
