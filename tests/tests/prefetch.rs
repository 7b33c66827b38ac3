//! What a job will read is read ahead before it has a GPU.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use tests::{Agent, World, eventually};

/// A directory behind a file system of its own that is as slow as a cache that must fetch what it is asked for.
struct Gateway(Child);

impl Gateway {
    fn start(source: &Path, at: &Path, bytes_a_second: &str) -> Self {
        std::fs::create_dir(at).expect("made");
        let mut bindfs = Command::new("bindfs");
        let rate = format!("--read-rate={bytes_a_second}");
        bindfs.args(["-f", "-o", "allow_other", &rate]).arg(source).arg(at);
        let process = bindfs.stdout(Stdio::null()).spawn().expect("bindfs is installed");
        let mut gateway = Self(process);
        let mounted = |mounts: &str| mounts.lines().any(|line| line.split(' ').nth(4) == at.to_str());
        eventually("it is mounted", || {
            assert_eq!(gateway.0.try_wait().expect("a child"), None, "bindfs has ended");
            std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounted(&mounts)).then_some(())
        });
        gateway
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It unmounts as it ends.
        tests::engine::signal(self.0.id(), rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_job_gets_its_gpu_when_its_data_has_been_read() {
    let world = World::new();
    let source = world.path("bucket");
    std::fs::create_dir_all(source.join("train")).expect("made");
    for shard in 0..4 {
        std::fs::write(source.join(format!("train/{shard}.tar")), vec![7; 2 << 20]).expect("written");
    }
    std::fs::write(source.join("notes.txt"), "not wanted").expect("written");
    let mount = world.path("mount");
    let _gateway = Gateway::start(&source, &mount, "1M");
    let volume = format!("data={}:ro", mount.display());
    let agent = Agent::start(&world, "a", &["--simulate-gpus", "1xP100:16GiB", "--volume", &volume]);
    let job = |name: &str| {
        let text = "image = \"haul/busybox:1\"\ncommand = [\"ls\", \"/data\"]\n[resources]\ngpus = 1\n\
            [[mounts]]\nvolume = \"data\"\ntarget = \"/data\"\nread_only = true\nprefetch = [\"train/*.tar\"]";
        let file = world.file(&format!("{name}.toml"), text);
        world.run(["submit".as_ref(), file.as_os_str()]).ok().trim().to_owned()
    };
    let first = job("first");
    let said = eventually("status says how far it is", || {
        let waiting = world.json(["status", &first, "--json"])["waiting"].clone();
        (waiting["verdict"] == "prefetching").then_some(waiting)
    });
    assert_eq!(said["prefetching"]["node"], "a");
    let text = world.run(["status", &first]).ok();
    assert!(text.contains("a reads ahead what it will read"), "{text}");
    // The GPU is not kept waiting: another job has it meanwhile.
    let other = world.submit(&["--gpus", "1"], "true");
    world.until(&other, "succeeded");
    assert_eq!(world.state(&first), "queued");
    world.until(&first, "succeeded");
    assert!(agent.said().contains("\"files\":4,\"bytes\":\"8.0 MiB\""), "{}", agent.said());
    // The next one finds it in the gateway's cache.
    let second = job("second");
    world.until(&second, "succeeded");
    assert_eq!(agent.said().matches("reading ahead what the job will read").count(), 1);
}

#[test]
fn what_cannot_be_read_ahead_is_left_to_the_job() {
    let world = World::new();
    let data = world.path("data");
    std::fs::create_dir(&data).expect("made");
    let agent = Agent::start(&world, "a", &["--volume", &format!("data={}", data.display())]);
    let text = "image = \"haul/busybox:1\"\ncommand = [\"true\"]\n[[mounts]]\nvolume = \"data\"\n\
        target = \"/data\"\nprefetch = \"none/**\"";
    let file = world.file("job.toml", text);
    let id = world.run(["submit".as_ref(), file.as_os_str()]).ok().trim().to_owned();
    world.until(&id, "succeeded");
    assert!(agent.said().contains("not all could be read ahead; the job goes on"), "{}", agent.said());
    let bad = world.file("bad.toml", &text.replace("none/**", "../**"));
    let refused = world.run(["submit".as_ref(), bad.as_os_str()]);
    assert!(refused.code == 2 && refused.stderr.contains("mounts[0].prefetch"), "{refused:?}");
}
