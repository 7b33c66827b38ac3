//! The suites that every queue and every store must pass, against both emulators. Where they
//! differ, the documentation of AWS decides: docs/contributing.md says where they do.

use std::sync::Arc;

use shared::{
    clock::SystemClock,
    queue::{self, SqsQueue},
    store::{self, Store},
};
use tests::{
    Emulator, Proxy,
    emulator::{self, BUCKET, Kind, REGION},
};

/// A conformance run in a process of its own, which has the emulator in its environment: a process
/// that runs several tests cannot change it.
fn conforms(kind: Kind, test: &str) {
    const AT: &str = "HAUL_TEST_CLOUD";
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    if std::env::var_os(AT).is_some() {
        runtime.block_on(async {
            if test.contains("queue") { queue_suite().await } else { store_suite().await }
        });
        return;
    }
    let emulator = Emulator::start(kind);
    let proxy = Proxy::new(&emulator, 1);
    let door = proxy.door();
    let itself = std::env::current_exe().expect("path");
    let run = std::process::Command::new(itself)
        .args([test, "--exact", "--nocapture"])
        .env(AT, "1")
        .envs(emulator::environment(&door.url()))
        .status();
    assert!(run.expect("starts").success(), "see above");
}

async fn queue_suite() {
    let open = || async {
        let prefix = "suite".parse().expect("a valid prefix");
        SqsQueue::open(REGION, prefix, None, Arc::new(SystemClock)).await
    };
    queue::conformance::suite(&open().await, &open().await).await;
}

async fn store_suite() {
    let url = format!("s3://{BUCKET}/suite").parse().expect("url");
    store::conformance::suite(&Store::open(&url).expect("opens")).await;
}

#[test]
fn the_queue_conforms_at_moto() {
    conforms(Kind::Moto, "the_queue_conforms_at_moto");
}

#[test]
fn the_queue_conforms_at_ministack() {
    conforms(Kind::Ministack, "the_queue_conforms_at_ministack");
}

#[test]
fn the_store_conforms_at_moto() {
    conforms(Kind::Moto, "the_store_conforms_at_moto");
}

#[test]
fn the_store_conforms_at_ministack() {
    conforms(Kind::Ministack, "the_store_conforms_at_ministack");
}
