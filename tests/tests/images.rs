//! Images: what a registry says of them at submit, so that hosts that cannot run them never take the job; pulling them
//! once; removing them when the disk fills.

use std::{
    fs::File,
    io::Write,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tests::{
    Agent, Relay, World, engine, eventually,
    http::{Http, request},
    relay::Fault,
    within,
    world::BUSYBOX,
};

/// What a manifest of Docker's says that it is.
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// In bytes, the file of a large layer.
const LARGE: u64 = 512 << 20;

/// A registry without users, with an image made from the tests' own.
struct Registry {
    process: Child,
    image: String,
    /// By what else the engine was told to pull it.
    ways: Vec<String>,
    log: PathBuf,
}

impl Registry {
    fn start(world: &World, change: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("bound");
        let host = free.local_addr().expect("bound").to_string();
        drop(free);
        let root = world.path("registry");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
            root.display()
        );
        let config = world.file("registry.yml", &config);
        let mut serve = Command::new("docker-registry");
        let log = world.path("registry.log");
        serve.arg("serve").arg(config).stdout(File::create(&log).expect("made")).stderr(Stdio::null());
        let process = serve.spawn().expect("docker-registry is installed");
        let registry = Self { process, image: format!("{host}/team/app:1"), ways: Vec::new(), log };
        eventually("the registry listens", || TcpStream::connect(&host).ok());
        registry.push(change);
        registry
    }

    /// Pushes another image under the same tag.
    fn push(&self, change: &str) {
        let made = engine::ask(None, &["create", BUSYBOX, "true"]);
        engine::ask(None, &["commit", "--change", change, made.trim(), &self.image]);
        engine::ask(None, &["rm", made.trim()]);
        engine::ask(None, &["push", "-q", &self.image]);
    }

    /// Adds layers to the image, each with a file of 512 MiB, and gives their digests and sizes. They are not
    /// compressed, so that what they take on the way is what they hold.
    fn grow(&self, world: &World, layers: usize) -> Vec<(String, u64)> {
        let http = Http::default();
        let (host, name) = self.image.split_once('/').expect("a host");
        let (name, tag) = name.split_once(':').expect("a tag");
        let of = |path: &str| format!("http://{host}/v2/{name}/{path}");
        let uploads = of("blobs/uploads/");
        let read = |request: Request<Full<Bytes>>| -> Value {
            serde_json::from_slice(&http.ask(request).expect("it is there")).expect("JSON")
        };
        let asked = Request::get(of(&format!("manifests/{tag}"))).header(header::ACCEPT, MANIFEST);
        let mut manifest = read(asked.body(Full::default()).expect("valid"));
        let config = manifest["config"]["digest"].as_str().expect("a digest");
        let mut config = read(request(Method::GET, &of(&format!("blobs/{config}"))));
        let add = |list: &mut Value, more: Value| list.as_array_mut().expect("a list").push(more);
        let added = (0..layers).map(|number| {
            let content = large(world, number);
            let size = content.len() as u64;
            let digest = push_blob(&http, &uploads, content);
            let kind = "application/vnd.docker.image.rootfs.diff.tar";
            add(&mut manifest["layers"], json!({ "mediaType": kind, "size": size, "digest": digest }));
            add(&mut config["rootfs"]["diff_ids"], json!(digest));
            add(&mut config["history"], json!({ "created_by": "a large file" }));
            (digest, size)
        });
        let added = added.collect();
        let config = config.to_string().into_bytes();
        manifest["config"]["size"] = json!(config.len());
        manifest["config"]["digest"] = json!(push_blob(&http, &uploads, config));
        let put = Request::put(of(&format!("manifests/{tag}"))).header(header::CONTENT_TYPE, MANIFEST);
        http.ask(put.body(manifest.to_string().into()).expect("valid"));
        added
    }

    /// The image as it is called by a way on which a connection has a fault after so many bytes.
    fn by_way(&mut self, fault: Fault, after: usize) -> String {
        let (host, name) = self.image.split_once('/').expect("a host");
        let way = format!("{}/{name}", Relay::start(host, fault, after).address());
        self.ways.push(way.clone());
        way
    }

    /// Removes the image from the engine.
    fn forget(&self) {
        engine::ask(None, &["rmi", &self.image]);
    }

    fn is_here(&self) -> bool {
        engine::docker(None).args(["image", "inspect", &self.image]).output().expect("asked").status.success()
    }

    /// How often its manifest was asked for by name since the registry began.
    fn pulls(&self) -> usize {
        let log = std::fs::read_to_string(&self.log).expect("a log");
        log.lines().filter(|line| line.contains("\"HEAD /v2/team/app/manifests/1")).count()
    }

    /// How many bytes of a layer it has given away.
    fn given(&self, layer: &str) -> u64 {
        let log = std::fs::read_to_string(&self.log).expect("a log");
        let asked = format!("\"GET /v2/team/app/blobs/{layer} ");
        // As web servers log: the request, the status, the bytes of the answer.
        let bytes = |line: &str| line.split_once(&asked)?.1.split(' ').nth(2)?.parse::<u64>().ok();
        log.lines().filter_map(bytes).sum()
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        for image in self.ways.iter().chain([&self.image]) {
            let (repository, _) = image.rsplit_once(':').expect("a tag");
            let left = engine::docker(None).args(["images", "-q", repository]).output();
            let left =
                left.map(|left| String::from_utf8_lossy(&left.stdout).into_owned()).unwrap_or_default();
            let _ = engine::docker(None).args(["rmi", "--force"]).args(left.lines()).output();
        }
    }
}

/// An archive of one file of 512 MiB, like no other world's: an engine that is asked for the same layer by two
/// registries at once takes it from the first alone, with that one's faults.
fn large(world: &World, number: usize) -> Vec<u8> {
    let name = format!("large-{number}");
    let path = world.file(&name, world.path("").to_str().expect("UTF-8"));
    File::options().write(true).open(path).and_then(|file| file.set_len(LARGE)).expect("made");
    let mut tar = Command::new("tar");
    let archive = tar.arg("-C").arg(world.path("")).args(["-cf", "-", &name]).output().expect("tar starts");
    assert!(archive.status.success(), "{archive:?}");
    archive.stdout
}

/// Leaves content with a registry at once, as the OCI Distribution Specification says, and gives its digest.
fn push_blob(http: &Http, uploads: &str, content: Vec<u8>) -> String {
    let digest = digest_of(&content);
    let send = |request: Request<Full<Bytes>>| {
        let answer = http.send(request, Duration::from_secs(60)).expect("answered");
        assert!(answer.status().is_success(), "{answer:?}");
        answer.headers()[header::LOCATION].to_str().expect("text").to_owned()
    };
    let place = send(request(Method::POST, uploads));
    let put = Request::put(format!("{place}&digest={digest}"));
    send(put.header(header::CONTENT_TYPE, "application/octet-stream").body(content.into()).expect("valid"));
    digest
}

/// How registries call content.
fn digest_of(content: &[u8]) -> String {
    let mut sum =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    sum.stdin.take().expect("piped").write_all(content).expect("read");
    let printed = String::from_utf8(sum.wait_with_output().expect("ends").stdout).expect("text");
    format!("sha256:{}", printed.split(' ').next().expect("a sum"))
}

/// A submission that asks the registry.
fn submit(world: &World, args: &[&str]) -> tests::Done {
    let mut command = world.command(["submit"].iter().chain(args));
    command.env_remove("HAUL_NO_INSPECT").output().expect("starts").into()
}

#[test]
fn a_job_goes_only_to_hosts_that_its_image_can_run_on() {
    let world = World::new();
    let mut registry = Registry::start(&world, "ENV NVIDIA_REQUIRE_CUDA=cuda>=12.6");
    let image = registry.image.clone();
    let _old = Agent::start(&world, "old", &["--simulate-gpus", "1xA100:80GiB:cuda12.4"]);
    let dry = submit(&world, &["--dry-run", "--json", "--gpus", "1", "--", &image]).ok();
    let dry: Value = serde_json::from_str(&dry).expect("JSON");
    assert_eq!(
        (&dry["image"]["adds"]["cuda"], &dry["spec"]["resources"]["cuda"]),
        (&"12.6".into(), &"12.6".into())
    );

    let args = ["--id", "once", "--gpus", "1", "--", &image, "true"];
    let done = submit(&world, &args);
    assert!(done.stderr.contains("the image needs CUDA 12.6"), "{done:?}");
    let why = "needs CUDA 12.6";
    eventually(why, || world.run(["status", "once"]).ok().contains(why).then_some(()));
    assert_eq!(world.state("once"), "queued");

    // The same job again is the same, also where nobody can be asked; another one is not.
    registry.stop();
    std::fs::remove_dir_all(world.path("cache")).expect("it was kept there");
    assert_eq!(submit(&world, &args).ok().trim(), "once");
    let other = submit(&world, &["--id", "once", "--gpus", "2", "--", &image, "true"]);
    assert!(other.code == 2 && other.stderr.contains("taken by a different job"), "{other:?}");
    let dry = submit(&world, &["--dry-run", "--gpus", "1", "--", &image]).ok();
    assert!(dry.contains("image  nothing is known of it:"), "{dry}");

    // The engine has the image yet.
    let _new = Agent::start(&world, "new", &["--simulate-gpus", "1xA100:80GiB:cuda12.6"]);
    world.until("once", "succeeded");
    assert_eq!(world.events("once", "claimed")[0]["node"], "new");
}

#[test]
fn an_image_of_two_gigabytes_that_several_jobs_want_is_transferred_once() {
    let world = World::new();
    let registry = Registry::start(&world, "ENV A=1");
    let layers = registry.grow(&world, 4);
    registry.forget();
    let _agent = Agent::start(&world, "a", &["--max-jobs", "4", "--cpus", "4"]);
    let before = registry.pulls();
    let submit = ["submit", "--array", "0-3", "--", &registry.image, "stat", "-c", "%s", "/large-3"];
    let ids: Vec<String> = world.run(submit).ok().lines().map(str::to_owned).collect();
    for id in &ids {
        within(Duration::from_secs(200), "it has run", || (world.state(id) == "succeeded").then_some(()));
        assert_eq!(world.run(["logs", id]).ok(), format!("{LARGE}\n"));
    }
    assert_eq!(registry.pulls() - before, 1);
    for (digest, size) in layers {
        assert_eq!(registry.given(&digest), size, "{digest}");
    }
    let at = |kind: &str| {
        let history = ids.iter().flat_map(|id| world.history(id));
        history.filter(|entry| entry["event"]["kind"] == kind).map(|entry| entry["at"].to_string()).collect()
    };
    let (claimed, started): (Vec<String>, Vec<String>) = (at("claimed"), at("started"));
    assert!(claimed.len() == 4 && claimed.iter().max() < started.iter().min(), "all of them waited for it");
}

/// Lets a job run with an image of 512 MiB whose transfer has a fault after 200 MiB, and gives how much of it was
/// transferred, in sizes of the image, and what the agent said.
fn pulled_with(fault: Fault) -> (f64, String) {
    let world = World::new();
    let mut registry = Registry::start(&world, "ENV A=1");
    let layers = registry.grow(&world, 1);
    registry.forget();
    let image = registry.by_way(fault, 200 << 20);
    let agent = Agent::start(&world, "a", &[]);
    let id = world.run(["submit", "--", &image, "true"]).ok().trim().to_owned();
    within(Duration::from_secs(200), "it has run", || (world.state(&id) == "succeeded").then_some(()));
    assert_eq!(world.events(&id, "claimed").len(), 1);
    let given: u64 = layers.iter().map(|(digest, _)| registry.given(digest)).sum();
    #[expect(clippy::cast_precision_loss, reason = "a part is asked for")]
    let part = given as f64 / LARGE as f64;
    (part, agent.said())
}

#[test]
fn a_pull_whose_connection_breaks_goes_on_where_it_was() {
    let (transferred, said) = pulled_with(Fault::Breaks);
    // What was on its way is lost.
    assert!((1.0..1.2).contains(&transferred), "{transferred} times");
    assert!(!said.contains("made no progress"), "{said}");
}

#[test]
fn a_pull_that_hangs_is_begun_again() {
    let (_, said) = pulled_with(Fault::Hangs);
    assert!(said.contains("the pull made no progress for 60 s"), "{said}");
}

#[test]
fn a_job_is_tried_again_with_the_very_image_that_it_began_with() {
    let world = World::new();
    let registry = Registry::start(&world, "ENV A=first");
    registry.forget();
    let job = |pull: &str| {
        let text = format!(
            "image = \"{}\"\npull = \"{pull}\"\nretries = 1\ncommand = [\"sh\", \"-c\", \"echo $A; [ $HAUL_ATTEMPT = 2 ] || \
             {{ until [ -e $HAUL_CHECKPOINT_DIR/go ]; do sleep 0.1; done; exit 1; }}\"]",
            registry.image
        );
        let file = world.file(&format!("{pull}.toml"), &text);
        let id = world.run(["submit".as_ref(), file.as_os_str()]).ok().trim().to_owned();
        eventually("it prints", || (world.run(["logs", &id]).stdout == "first\n").then_some(()));
        id
    };
    let agent = Agent::start(&world, "a", &[]);
    let (same, newest) = (job("digest"), job("always"));
    registry.push("ENV A=second");
    registry.forget();
    for id in [&same, &newest] {
        agent.go(id);
        world.until(id, "succeeded");
    }
    assert_eq!(world.run(["logs", &same]).ok(), "first\n");
    assert_eq!(world.run(["logs", &newest]).ok(), "second\n");
}

#[test]
fn images_that_haul_has_pulled_go_when_the_disk_fills() {
    let world = World::new();
    let registry = Registry::start(&world, "ENV A=1");
    registry.forget();
    let mut agent = Agent::start(&world, "a", &[]);
    let run = |world: &World| {
        let id = world.run(["submit", "--", &registry.image, "true"]).ok().trim().to_owned();
        world.until(&id, "succeeded");
    };
    run(&world);
    agent.stop();
    // Longer ago than an image may be on its way into a container.
    let file = agent.state_dir().join("images.json");
    let mut pulled: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("read")).expect("JSON");
    let images = pulled.as_object_mut().expect("images");
    assert_eq!(images.len(), 1, "{images:?}");
    images.values_mut().for_each(|image| image["used_at"] = "2026-01-01T00:00:00Z".into());
    std::fs::write(&file, pulled.to_string()).expect("written");
    assert!(registry.is_here());
    // Every disk is fuller than that, and takes no jobs.
    let full = ["--disk-clean", "100%", "--disk-target", "100%", "--disk-floor", "100%"];
    let full = Agent::start(&world, "a", &full);
    eventually("it is removed", || (!registry.is_here()).then_some(()));
    let told = "removed an image, since the disk fills";
    eventually("it says so", || full.said().contains(told).then_some(()));
    let nodes = world.json(["nodes", "--json"]);
    let problem = nodes[0]["problems"][0].as_str().expect("a problem").to_owned();
    assert!(problem.contains("free, less than 100%"), "{problem}");
    drop(full);
    let _roomy = Agent::start(&world, "a", &[]);
    run(&world);
    // People's own stay.
    engine::ask(None, &["image", "inspect", BUSYBOX]);
}
