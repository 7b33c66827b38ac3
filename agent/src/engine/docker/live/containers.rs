//! What a container does from its making to its removal, and how it is told.

use std::{path::PathBuf, time::Duration};

use futures::future::join_all;
use rstest::rstest;
use shared::{id::GpuUuid, units::Size};

use super::{create, engine, name, plan, printed, script, shell, start, until_written, written};
use crate::engine::{Bind, ContainerId, ContainerState, Engine, EngineError, GpuAccess};

#[tokio::test]
async fn a_container_ends_with_its_code_and_its_times() {
    let engine = engine().await;
    let made = create(&engine, &script("exit 7")).await;
    let before = engine.inspect(&made.id).await.expect("answers").expect("there");
    assert_eq!((before.state, before.exit), (ContainerState::Created, None));
    drop(made);

    let made = start(&engine, &script("exit 7")).await;
    let exit = engine.wait(&made.id).await.expect("it ends");
    assert_eq!((exit.code, exit.oom, exit.error.as_deref()), (7, false, None));
    assert!(exit.started_at.expect("started") <= exit.finished_at.expect("finished"));
    let after = engine.inspect(&made.id).await.expect("answers").expect("there");
    assert_eq!((after.state, after.exit), (ContainerState::Exited, Some(exit)));
}

#[tokio::test]
async fn a_container_that_was_never_started_cannot_be_waited_for() {
    let engine = engine().await;
    let made = create(&engine, &plan(&["true"])).await;
    let error = engine.wait(&made.id).await.expect_err("nothing to wait for");
    assert!(error.to_string().contains("it has not ended: Created"), "{error}");
}

#[tokio::test]
async fn a_program_that_is_not_there_ends_with_127_and_says_which() {
    // The init process is what runs it, so the engine's start succeeds.
    let engine = engine().await;
    let made = start(&engine, &plan(&["no-such-program"])).await;
    assert_eq!(engine.wait(&made.id).await.expect("it ends").code, 127);
    let text: Vec<u8> = written(&engine, &made).await.iter().flat_map(|frame| frame.bytes.to_vec()).collect();
    assert!(String::from_utf8_lossy(&text).contains("no-such-program"));
}

#[tokio::test]
async fn what_the_image_lacks_is_the_jobs_own_fault() {
    let engine = engine().await;
    let mut nothing = plan(&[]);
    nothing.command = None;
    let error = engine.create(&nothing).await.expect_err("no command anywhere");
    assert!(matches!(error, EngineError::BadCommand { code: 127, .. }), "{error}");

    let mut nobody = plan(&["true"]);
    nobody.user = Some("nobodyhere".into());
    let made = create(&engine, &nobody).await;
    let error = engine.start(&made.id).await.expect_err("no such user");
    assert!(matches!(error, EngineError::BadCommand { code: 126, .. }), "{error}");
}

#[tokio::test]
async fn running_out_of_memory_is_told() {
    let engine = engine().await;
    let mut greedy = plan(&["tail", "/dev/zero"]);
    greedy.memory = Some(Size(16 << 20));
    let made = start(&engine, &greedy).await;
    let exit = engine.wait(&made.id).await.expect("it ends");
    assert_eq!((exit.code, exit.oom), (137, true));
}

#[tokio::test]
async fn a_container_has_time_to_end_and_no_more() {
    let engine = engine().await;
    let polite = script("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done");
    let made = start(&engine, &polite).await;
    until_written(&engine, &made, "ready").await;
    engine.stop(&made.id, Duration::from_secs(30)).await.expect("stopped");
    assert_eq!(engine.wait(&made.id).await.expect("it ended").code, 3);
    assert!(written(&engine, &made).await.iter().any(|frame| frame.bytes == "bye"));
    engine.stop(&made.id, Duration::ZERO).await.expect("stopping twice is no error");

    let deaf = script("trap '' TERM; echo ready; while :; do sleep 0.1; done");
    let made = start(&engine, &deaf).await;
    until_written(&engine, &made, "ready").await;
    engine.stop(&made.id, Duration::from_millis(200)).await.expect("stopped");
    let exit = engine.wait(&made.id).await.expect("it ended");
    assert_eq!((exit.code, exit.oom), (137, false));
}

#[tokio::test]
async fn signals_arrive_and_are_no_error_after_the_end() {
    let engine = engine().await;
    let plan = script("trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done");
    let made = start(&engine, &plan).await;
    until_written(&engine, &made, "ready").await;
    engine.signal(&made.id, "SIGUSR1").await.expect("sent");
    assert_eq!(engine.wait(&made.id).await.expect("it ends").code, 5);
    engine.signal(&made.id, "SIGUSR1").await.expect("nobody is left to get it");
    engine.pause(&made.id).await.expect("nobody is left to freeze");
}

#[tokio::test]
async fn a_frozen_container_thaws_stops_and_goes() {
    let engine = engine().await;
    let state = async |id: &ContainerId| engine.inspect(id).await.expect("answers").expect("there").state;
    let made = start(&engine, &plan(&["sleep", "1000"])).await;
    for _ in 0..2 {
        engine.pause(&made.id).await.expect("frozen");
        assert_eq!(state(&made.id).await, ContainerState::Paused);
    }
    for _ in 0..2 {
        engine.unpause(&made.id).await.expect("thawed");
        assert_eq!(state(&made.id).await, ContainerState::Running);
    }
    engine.pause(&made.id).await.expect("frozen");
    engine.stop(&made.id, Duration::from_secs(1)).await.expect("stopped");
    assert_eq!(state(&made.id).await, ContainerState::Exited);

    let made = start(&engine, &plan(&["sleep", "1000"])).await;
    engine.pause(&made.id).await.expect("frozen");
    engine.remove(&made.id).await.expect("removed");
    assert!(engine.inspect(&made.id).await.expect("answers").is_none());
}

#[tokio::test]
async fn what_is_frozen_does_nothing_more_when_it_is_removed() {
    let engine = engine().await;
    let dir = tempfile::tempdir().expect("temporary directory");
    for round in 0..10 {
        let mut plan = script("sleep 1000 & while true; do echo >>/out/steps; done");
        plan.binds = vec![Bind { source: dir.path().into(), target: "/out".into(), read_only: false }];
        let made = start(&engine, &plan).await;
        let steps = || std::fs::metadata(dir.path().join("steps")).map_or(0, |found| found.len());
        let before = steps();
        while steps() == before {
            tokio::task::yield_now().await;
        }
        engine.pause(&made.id).await.expect("frozen");
        let frozen = steps();
        // By its name, as whoever ran it does.
        engine.remove(&ContainerId::new(&plan.name)).await.expect("removed");
        assert_eq!(steps(), frozen, "round {round}");
    }
}

#[tokio::test]
async fn long_calls_do_not_stand_before_others() {
    let engine = engine().await;
    let sleeper = start(&engine, &plan(&["sleep", "1000"])).await;
    let waits = join_all((0..64).map(|_| engine.wait(&sleeper.id)));
    let others = async {
        // One connection for all would stand behind the waits.
        for _ in 0..5 {
            engine.inspect(&sleeper.id).await.expect("answers");
        }
        engine.stop(&sleeper.id, Duration::ZERO).await.expect("stopped");
    };
    let both = async { futures::join!(waits, others).0 };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await.expect("nothing blocks");
    assert!(ended.into_iter().all(|exit| exit.is_ok()));
}

#[tokio::test]
async fn gpus_that_the_engine_cannot_give_are_missing() {
    let engine = engine().await;
    let uuids = vec![GpuUuid::new("GPU-00000000-0000-0000-0000-00000000dead").expect("valid")];
    let gpus = GpuAccess::Nvidia { uuids, nodes: Vec::new() };
    let mut wanted = plan(&["true"]);
    wanted.gpus = gpus.clone();
    let refused = async || {
        let made = create(&engine, &wanted).await;
        engine.start(&made.id).await.expect_err("there is no such GPU")
    };
    let mut error = refused().await;
    // Without NVIDIA's hook, where it may be asked by CDI names.
    if matches!(error, EngineError::AskedTooMuch { .. }) {
        error = refused().await;
    }
    assert!(matches!(error, EngineError::GpusMissing { .. }), "{error}");

    // As an engine does that passes over the request.
    let made = start(&engine, &plan(&["sleep", "1000"])).await;
    let error = engine.verify_gpus(&made.id, &gpus).await.expect_err("no GPU was asked for");
    assert!(matches!(error, EngineError::GpusMissing { .. }), "{error}");
    engine.verify_gpus(&made.id, &GpuAccess::None).await.expect("none is what it has");
}

#[tokio::test]
async fn containers_are_found_by_all_their_labels() {
    let engine = engine().await;
    let mine = name();
    let mut labelled = plan(&["true"]);
    labelled.labels.insert("haul.test.fleet".into(), mine.clone());
    labelled.labels.insert("haul.test.job".into(), "a".into());
    let made = create(&engine, &labelled).await;
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let fleet = label("haul.test.fleet", &mine);
    let found = engine.list(&[fleet.clone(), label("haul.test.job", "a")]).await.expect("listed");
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].id, &found[0].name), (&made.id, &labelled.name));
    assert_eq!(
        (found[0].state, &found[0].labels["haul.test.job"]),
        (ContainerState::Created, &"a".to_owned())
    );
    assert!(engine.list(&[fleet, label("haul.test.job", "b")]).await.expect("listed").is_empty());
}

#[tokio::test]
async fn a_name_is_taken_once_and_a_removal_is_no_error_twice() {
    let engine = engine().await;
    let sleeper = plan(&["sleep", "1000"]);
    let made = start(&engine, &sleeper).await;
    let error = engine.create(&sleeper).await.expect_err("one of that name is there");
    assert!(matches!(error, EngineError::NameTaken { .. }), "{error}");
    // Also at once: whoever comes second waits until it is gone.
    let both = futures::join!(engine.remove(&made.id), engine.remove(&made.id));
    assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    assert!(engine.inspect(&made.id).await.expect("answers").is_none());
    engine.remove(&made.id).await.expect("not there any more");
    for result in [engine.start(&made.id).await, engine.stop(&made.id, Duration::ZERO).await] {
        assert!(matches!(result, Err(EngineError::NoSuchContainer { .. })), "{result:?}");
    }
    let waited = engine.wait(&made.id).await;
    assert!(matches!(waited, Err(EngineError::NoSuchContainer { .. })), "{waited:?}");
}

#[tokio::test]
async fn only_what_was_never_started_is_removed_as_unstarted() {
    let engine = engine().await;
    let made = create(&engine, &plan(&["true"])).await;
    assert!(engine.remove_unstarted(&made.id).await.expect("removed"));
    assert!(engine.remove_unstarted(&made.id).await.expect("not there any more"));
    let made = start(&engine, &plan(&["sleep", "1000"])).await;
    assert!(!engine.remove_unstarted(&made.id).await.expect("left alone"));
    assert!(engine.inspect(&made.id).await.expect("answers").is_some());
}

#[tokio::test]
async fn a_directory_is_mounted_and_never_made() {
    let engine = engine().await;
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join("data"), "from the host").expect("written");
    let bind = |source: PathBuf| vec![Bind { source, target: "/in".into(), read_only: true }];
    let mut mounted = script("cat /in/data; echo; echo x > /in/data || echo refused");
    mounted.binds = bind(dir.path().to_owned());
    let text = printed(&engine, &mounted).await;
    assert!(text.contains("from the host") && text.contains("refused"), "{text}");

    let absent = dir.path().join("absent");
    mounted.binds = bind(absent.clone());
    let error = engine.create(&mounted).await.expect_err("no such directory");
    assert!(matches!(error, EngineError::MountFailed { .. }), "{error}");
    assert!(!absent.exists());
}

#[tokio::test]
async fn the_defaults_reach_the_container() {
    let engine = engine().await;
    let mut seen = script(
        "grep NoNewPrivs /proc/self/status; cat /proc/1/cmdline | tr '\\0' ' '; echo; \
         grep ' /dev/shm ' /proc/mounts; grep 'Max stack size' /proc/self/limits; env",
    );
    seen.env = vec![("NVIDIA_VISIBLE_DEVICES".into(), "all".into())];
    seen.shm = Size(3 << 20);
    let text = printed(&engine, &seen).await;
    for part in ["NoNewPrivs:\t1", "docker-init", "size=3072k", "NVIDIA_VISIBLE_DEVICES=void"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

/// Under `haul.slice` or `/haul`, whichever the engine's driver wants.
#[tokio::test]
async fn containers_are_in_hauls_own_cgroup() {
    let engine = engine().await;
    let made = start(&engine, &plan(&["sleep", "1000"])).await;
    let record = engine.record(&made.id).await.expect("described");
    let pid = record.state.and_then(|state| state.pid).expect("runs");
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("same host");
    assert!(cgroups.lines().any(|line| line.contains("haul")), "{cgroups}");
}

#[rstest]
#[case("../containers/json")]
#[case("a?b")]
#[tokio::test]
async fn what_is_no_image_name_is_not_asked_for(#[case] image: &str) {
    let engine = engine().await;
    let error = engine.image(image).await.expect_err("no name");
    assert!(matches!(error, EngineError::NoSuchImage { .. }), "{error}");
}

#[tokio::test]
async fn images_are_described() {
    let engine = engine().await;
    let image = engine.image(super::IMAGE).await.expect("answers").expect("there");
    assert!(image.id.starts_with("sha256:") && image.size > Size::MIB);
    // It came from no registry. Where images are in containerd, that cannot be told.
    let in_containerd =
        shell("docker info --format '{{json .DriverStatus}}'").contains("io.containerd.snapshotter");
    assert_eq!(engine.info().await.expect("answers").images_in_containerd, in_containerd);
    assert_eq!(image.digest.is_some(), in_containerd, "{:?}", image.digest);
    assert_eq!(engine.image("haul-test/none:1").await.expect("answers"), None);
}
