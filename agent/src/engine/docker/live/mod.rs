//! The engine that is really there: `DOCKER_HOST`, or Docker's usual socket. Without one these
//! tests fail; `tests/run unit` leaves them out by their path.

mod connection;
mod containers;
mod output;
pub mod registry;

use std::{
    collections::BTreeMap,
    fs::File,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::StreamExt;
use shared::units::Size;

use super::Docker;
use crate::engine::{ContainerId, Engine, EngineError, Frame, GpuAccess, Plan};

/// An image of busybox alone, with no command of its own.
const IMAGE: &str = "haul-test/busybox:1";

/// A file system with busybox under the names that the tests use.
const TREE: &str = r#"
set -e
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/bin" "$tree/tmp"
cp "$(command -v busybox)" "$tree/bin/"
for name in sh cat echo env grep head printf sleep tail tr true yes; do ln -s busybox "$tree/bin/$name"; done
"#;

fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output().expect("sh starts");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The engine, with the image that the tests use.
async fn engine() -> Docker {
    let engine = Docker::connect(None).expect("DOCKER_HOST is an address, if set");
    engine.info().await.expect("these tests need a container engine");
    // One makes it, and the others wait.
    let lock = File::create(std::env::temp_dir().join("haul-live.lock")).expect("made");
    lock.lock().expect("locked");
    if engine.image(IMAGE).await.expect("the engine answers").is_none() {
        shell(&format!("{TREE} tar -C \"$tree\" -c . | docker import - {IMAGE}"));
    }
    engine
}

/// A name that nobody else uses.
fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("haul-live-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn plan(command: &[&str]) -> Plan {
    Plan {
        name: name(),
        image: IMAGE.into(),
        command: Some(command.iter().map(ToString::to_string).collect()),
        entrypoint: None,
        workdir: None,
        user: None,
        env: Vec::new(),
        labels: BTreeMap::from([("haul.test".into(), "live".into())]),
        binds: Vec::new(),
        gpus: GpuAccess::None,
        cpus: None,
        memory: None,
        shm: Size::MIB,
        grace: Duration::from_secs(10),
        log_limit: Size(8 << 20),
    }
}

fn script(text: &str) -> Plan {
    plan(&["sh", "-c", text])
}

/// A container that is removed at the end, whatever the end is.
struct Made {
    id: ContainerId,
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", "-v", self.id.as_str()]).output();
    }
}

async fn create(engine: &Docker, plan: &Plan) -> Made {
    Made { id: engine.create(plan).await.expect("made") }
}

/// A started container. Where the engine may not raise limits it says so once, and knows then.
async fn start(engine: &Docker, plan: &Plan) -> Made {
    let made = create(engine, plan).await;
    match engine.start(&made.id).await {
        Ok(()) => return made,
        Err(EngineError::AskedTooMuch { .. }) => drop(made),
        Err(error) => panic!("{error}"),
    }
    let made = create(engine, plan).await;
    engine.start(&made.id).await.expect("started without raised limits");
    made
}

/// All that a container has written so far.
async fn written(engine: &Docker, made: &Made) -> Vec<Frame> {
    let frames = engine.output(&made.id, None, false).await.expect("output");
    frames.map(|frame| frame.expect("a frame")).collect().await
}

/// The output of a container that ends by itself, as text.
async fn printed(engine: &Docker, plan: &Plan) -> String {
    let made = start(engine, plan).await;
    engine.wait(&made.id).await.expect("it ends");
    let frames = written(engine, &made).await;
    frames.iter().map(|frame| String::from_utf8_lossy(&frame.bytes).into_owned() + "\n").collect()
}

/// Until the container has written this line.
async fn until_written(engine: &Docker, made: &Made, line: &str) {
    let read = async {
        let mut frames = engine.output(&made.id, None, true).await.expect("output");
        while let Some(frame) = frames.next().await {
            if frame.expect("a frame").bytes == line {
                return;
            }
        }
        panic!("it ended without writing {line:?}");
    };
    tokio::time::timeout(Duration::from_secs(30), read).await.expect("written in time");
}
