//! Storage of whole hosts: a mount that hangs, a disk that fills, a registry whose password changes.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tests::{
    Machine, Site, engine, eventually,
    world::{BUSYBOX, World},
};

/// In place of an NFS server that can be made to hang: it is listed as `fuse.nfs4`.
const SERVER: &str = "mkdir -p /srv/data /mnt/data && echo content >/srv/data/file && systemd-run -q --unit=server \
    bindfs -f -o allow_other,subtype=nfs4,fsname=10.0.0.1:/data /srv/data /mnt/data && \
    until mountpoint -q /mnt/data; do sleep 0.1; done";

const VOLUME: &str = "\n[volumes.data]\npath = \"/mnt/data\"\nread_only = true\nmount = \"fuse\"\n";

fn reads_data(script: &str) -> Value {
    let mounts = json!([
        { "volume": "data", "target": "/data", "read_only": true },
        { "volume": "shared", "target": "/shared" },
    ]);
    json!({ "mounts": mounts, "command": ["sh", "-c", script] })
}

/// What is wrong with the volume, by the fleet's word.
fn problem(site: &Site) -> Option<String> {
    let nodes = site.world().json(["nodes", "--json"]);
    nodes[0]["offer"]["volumes"]["data"]["problem"].as_str().map(str::to_owned)
}

#[test]
fn a_mount_that_hangs_takes_only_the_jobs_that_need_it() {
    let site = Site::new(60);
    let host = site.host("a", "");
    host.ok(SERVER);
    host.ok(&format!(
        "printf '{}' >>/etc/haul/agent.toml && systemctl restart haul-agent",
        VOLUME.replace('\n', "\\n")
    ));
    host.until_ready();
    let reads = "i=0; while [ $i -lt 20 ]; do i=$((i + 1)); cat /data/file >/dev/null || exit 1; echo $i; sleep 0.3; done";
    let runs = site.submit(&reads_data(reads), "");
    eventually("it reads", || site.world().run(["logs", &runs]).stdout.contains("2\n").then_some(()));

    let server = host.property("server", "MainPID");
    host.ok(&format!("kill -STOP {server}"));
    let told = eventually("the volume is said to be down", || problem(&site));
    assert!(told.contains("did not answer"), "{told}");
    let waits = site.submit(&reads_data("cat /data/file"), "");
    let other = site.submit(&json!({}), "echo done");
    site.world().until(&other, "succeeded");
    eventually("why it waits is said", || {
        let status = site.world().run(["status", &waits]).ok();
        (status.contains("data") && status.contains("did not answer")).then_some(())
    });
    assert_eq!(site.world().state(&waits), "queued");
    let slowest = host.slowest_answer(20);
    println!("agent status beside a volume that hangs: {slowest} ms at most");
    assert!(slowest < 100, "{slowest} ms");
    let stuck = host.stuck_threads();
    assert!(stuck.iter().all(|thread| thread == "volume"), "{stuck:?}");

    host.ok(&format!("kill -CONT {server}"));
    for id in [&runs, &waits] {
        site.world().until(id, "succeeded");
    }
    assert_eq!(site.world().run(["logs", &waits]).ok(), "content\n");
    assert_eq!(site.world().run(["logs", &runs]).ok().lines().count(), 20);
    assert_eq!(site.world().events(&runs, "claimed").len(), 1);
    eventually("the volume is well again", || problem(&site).is_none().then_some(()));

    host.ok(&format!("kill -KILL {server}"));
    let told = eventually("the volume is said to be gone", || problem(&site));
    assert!(told.contains("the file system's own process has ended"), "{told}");
    host.ok(&format!("umount -l /mnt/data && systemctl reset-failed server && {SERVER}"));
    eventually("the volume is well for good", || problem(&site).is_none().then_some(()));
}

#[test]
fn results_never_land_below_a_mount_that_is_not_there() {
    const WHY: &str = "jobs cannot leave results in /mnt/results/outputs: /mnt/results must be mounted: ";
    let site = Site::new(60);
    let host = site.host("a", "HAUL_OUTPUTS_DIR=/mnt/results/outputs\nHAUL_OUTPUTS_MOUNT=/mnt/results\nHAUL_METRICS=unix:/run/haul/metrics.sock\n");
    let says_so = || site.world().run(["nodes"]).ok().contains(WHY).then_some(());
    eventually("the fleet is told", says_so);
    let asked = host.run("haul doctor");
    let (_, doctor) = asked.stdout.split_once("run: ").expect("how the packaged agent is asked about");
    let found = host.run(doctor);
    assert!(asked.code != 0 && found.code != 0 && found.stdout.contains(WHY), "{found:?}");
    assert!(found.stdout.contains("ok    guard: one watches"), "{found:?}");
    let id = site.submit(&json!({}), "echo kept >$HAUL_OUTPUT_DIR/result");
    eventually("why it waits is said", || site.world().run(["status", &id]).ok().contains(WHY).then_some(()));
    assert_ne!(host.run("test -e /mnt/results").code, 0, "nothing is made");

    host.ok("mkdir /mnt/results && mount -t tmpfs results /mnt/results");
    site.world().until(&id, "succeeded");
    assert_eq!(host.ok(&format!("cat /mnt/results/outputs/{id}/latest/result")), "kept\n");
    let metrics = host.ok("curl -fsS --unix-socket /run/haul/metrics.sock http://haul/metrics");
    assert!(metrics.contains("haul_jobs"), "{metrics}");
    host.ok("umount -l /mnt/results");
    eventually("the fleet is told again", says_so);
    assert_eq!(host.ok("ls -A /mnt/results"), "");
}

/// A private registry on all of the machine's addresses, with users.
struct Registry {
    process: Child,
    port: u16,
    users: PathBuf,
    login: PathBuf,
}

impl Registry {
    fn start(world: &World, password: &str) -> Self {
        let free = TcpListener::bind("0.0.0.0:0").expect("bound");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let users = world.path("users");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '0.0.0.0:{port}'}}\n\
             auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            world.path("registry").display(),
            users.display()
        );
        let config = world.file("registry.yml", &config);
        set_password(&users, password);
        let process = serve(&config);
        let login = world.path("login");
        let registry = Self { process, port, users, login };
        registry.until_up();
        registry
    }

    fn until_up(&self) {
        eventually("the registry listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// An image of so many megabytes that do not compress, as hosts know it.
    fn push(&self, name: &str, megabytes: u32, bridge: Ipv4Addr, password: &str) -> String {
        let local = format!("127.0.0.1:{}/team/{name}:1", self.port);
        let fill = format!("dd if=/dev/urandom of=/fill bs=1M count={megabytes} 2>/dev/null");
        let made = engine::ask(None, &["run", "-d", BUSYBOX, "sh", "-c", &fill]);
        engine::ask(None, &["wait", made.trim()]);
        engine::ask(None, &["commit", made.trim(), &local]);
        engine::ask(None, &["rm", made.trim()]);
        std::fs::create_dir_all(&self.login).expect("made");
        std::fs::write(self.login.join("config.json"), config(&format!("127.0.0.1:{}", self.port), password))
            .expect("written");
        engine::ask(None, &["--config", self.login.to_str().expect("text"), "push", "-q", &local]);
        engine::ask(None, &["rmi", &local]);
        format!("{bridge}:{}/team/{name}:1", self.port)
    }

    /// What root's `config.json` has after a `docker login` on a host.
    fn log_in(&self, host: &impl Machine, bridge: Ipv4Addr, password: &str) {
        host.put(
            "/root/.docker/config.json",
            config(&format!("{bridge}:{}", self.port), password).as_bytes(),
        );
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(config: &PathBuf) -> Child {
    let mut serve = Command::new("docker-registry");
    serve.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    serve.spawn().expect("docker-registry is installed")
}

fn set_password(users: &PathBuf, password: &str) {
    let made = Command::new("htpasswd").args(["-Bbc"]).arg(users).args(["ann", password]).output();
    assert!(made.expect("htpasswd is installed").status.success());
}

fn config(registry: &str, password: &str) -> String {
    let made = Command::new("sh")
        .args(["-c", &format!("printf ann:{password} | base64")])
        .output()
        .expect("sh starts");
    let auth = String::from_utf8(made.stdout).expect("text");
    json!({ "auths": { registry: { "auth": auth.trim() } } }).to_string()
}

#[test]
fn a_password_that_changes_is_noticed_and_a_full_disk_is_cleaned() {
    let site = Site::new(60);
    let registry = Registry::start(site.world(), "first");
    let images = ["old", "new"].map(|name| registry.push(name, 60, site.bridge(), "first"));
    let host = site.host_on_small_disk("a", "300m");
    registry.log_in(&host, site.bridge(), "first");
    let run = |image: &str| site.submit(&json!({ "image": image, "pull": "always" }), "echo ran");
    let id = run(&images[0]);
    site.world().until(&id, "succeeded");

    // Nothing is restarted.
    set_password(&registry.users, "second");
    let refused = host.run(&format!("docker pull -q {}", images[0]));
    assert!(refused.code != 0 && refused.stderr.contains("unauthorized"), "{refused:?}");
    registry.log_in(&host, site.bridge(), "second");
    let id = run(&images[0]);
    site.world().until(&id, "succeeded");
    assert_eq!(site.world().events(&id, "claimed").len(), 1);

    // The image is as old as one that may go.
    host.ok(
        "systemctl stop haul-agent && sed -i 's/\"used_at\":\"[^\"]*\"/\"used_at\":\"2026-01-01T00:00:00Z\"/g' \
         /var/lib/haul/images.json && grep -q 2026-01-01 /var/lib/haul/images.json",
    );
    let (total, free) = disk(&host);
    let fill = free - total / 25;
    host.ok(&format!(
        "dd if=/dev/zero of=/var/lib/docker/fill bs=1M count={fill} 2>/dev/null; systemctl start haul-agent"
    ));
    let journal = || host.journal("haul-agent");
    eventually("the image goes", || {
        journal().contains("removed an image, since the disk fills").then_some(())
    });
    eventually("there is room again", || {
        let (total, free) = disk(&host);
        (free * 100 / total >= 15).then_some(())
    });
    let id = site.submit(&json!({}), "echo ran");
    site.world().until(&id, "succeeded");

    // What is not haul's is not its to clean.
    let problems = || site.world().json(["nodes", "--json"])[0]["problems"].clone();
    eventually("the node has no problem", || problems()[0].is_null().then_some(()));
    let (total, free) = disk(&host);
    let more = free - total / 25;
    host.ok(&format!("dd if=/dev/zero of=/var/lib/docker/more bs=1M count={more} 2>/dev/null"));
    let told = eventually("the disk is said to be full", || problems()[0].as_str().map(str::to_owned));
    assert!(told.contains("free, less than 5%"), "{told}");
    let id = site.submit(&json!({}), "echo ran");
    eventually("why it waits is said", || {
        site.world().run(["status", &id]).ok().contains("less than 5%").then_some(())
    });
    assert_eq!(site.world().state(&id), "queued");
    host.ok("rm /var/lib/docker/more");
    site.world().until(&id, "succeeded");

    // Nor is a job taken where the agent could not note its lease.
    host.ok(
        "systemctl stop haul-agent && mount -t tmpfs -o size=64m tmpfs /var/lib/haul && systemctl start haul-agent",
    );
    host.ok("dd if=/dev/zero of=/var/lib/haul/fill bs=1M count=62 2>/dev/null");
    let told = eventually("the disk is said to be full", || problems()[0].as_str().map(str::to_owned));
    assert!(told.contains("the disk of the agent's state at /var/lib/haul"), "{told}");
    let id = site.submit(&json!({}), "echo ran");
    eventually("why it waits is said", || {
        site.world().run(["status", &id]).ok().contains("agent's state").then_some(())
    });
    host.ok("rm /var/lib/haul/fill");
    site.world().until(&id, "succeeded");
}

/// Megabytes of the engine's disk, and those that are free.
fn disk(host: &impl Machine) -> (u64, u64) {
    let said = host.ok("df -B1M --output=size,avail /var/lib/docker | tail -n 1");
    let numbers: Vec<u64> = said.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    (numbers[0], numbers[1])
}
