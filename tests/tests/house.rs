//! What the house rules ask of every file and a machine can check.

use std::path::{Path, PathBuf};

use tests::world::root;

/// Lines, beyond which a file is a folder that has not been made yet.
const LONGEST: usize = 450;

/// Modules that decide: functions of state and time, without input and output.
const PURE: &[&str] = &[
    "shared/src/demand.rs",
    "shared/src/fleet/pool.rs",
    "shared/src/lane/amount.rs",
    "shared/src/lane/choose.rs",
    "shared/src/lane/fit.rs",
    "shared/src/lane/misfit.rs",
    "shared/src/lane/model.rs",
    "shared/src/lane/needs.rs",
    "shared/src/lane/plan.rs",
    "shared/src/lease/fence.rs",
    "shared/src/lease/watch.rs",
    "shared/src/log/event.rs",
    "shared/src/log/fold.rs",
    "shared/src/log/policy.rs",
    "shared/src/log/usage.rs",
    "agent/src/claim/order.rs",
    "agent/src/execute/outcome.rs",
    "agent/src/inspect/require.rs",
    "agent/src/gpu/fault.rs",
    "agent/src/gpu/users.rs",
    "agent/src/ledger/breaker.rs",
    "agent/src/ledger/cards.rs",
    "agent/src/ledger/evict.rs",
    "agent/src/ledger/excess.rs",
    "agent/src/ledger/reserve.rs",
    "agent/src/ledger/state.rs",
    "agent/src/ledger/view.rs",
    "agent/src/publish/desk.rs",
    "agent/src/publish/note.rs",
    "agent/src/publish/track.rs",
    "agent/src/recover/plan.rs",
    "agent/src/usage/meter.rs",
    "agent/src/usage/trend.rs",
    "shared/src/event/signature.rs",
    "shared/src/event/status.rs",
    "agent/src/sweep/decide.rs",
];

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

/// All files of these directories with their text, by their path below the root.
fn sources(dirs: &[&str]) -> Vec<(String, String)> {
    let files = dirs.iter().flat_map(|dir| rust_files(&root().join(dir)));
    let named = files.map(|path| {
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        (name, std::fs::read_to_string(&path).expect("text"))
    });
    let sources: Vec<(String, String)> = named.collect();
    assert!(!sources.is_empty());
    sources
}

/// The part of a file that is shipped.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

fn none(what: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{what}:\n  {}", broken.join("\n  "));
}

#[test]
fn no_file_is_a_crowd() {
    let long = sources(&["shared/src", "agent/src", "tests"])
        .into_iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(name, lines)| format!("{name}: {lines} lines"));
    none("make a folder of it", &long.collect::<Vec<_>>());
}

#[test]
fn decisions_do_no_input_or_output() {
    let forbidden =
        ["tokio", "std::fs", "std::net", "std::process", "reqwest", "bollard", "object_store", "async "];
    let broken = PURE.iter().flat_map(|name| {
        let text = std::fs::read_to_string(root().join(name)).expect("the module is there");
        let shipped = shipped(&text).to_owned();
        let found = forbidden.into_iter().filter(move |word| shipped.contains(word));
        found.map(move |word| format!("{name} uses {word}"))
    });
    none("a decision is a pure function", &broken.collect::<Vec<_>>());
}

#[test]
fn every_module_opens_with_why_it_is_there() {
    let broken = sources(&["shared/src", "agent/src", "tests"])
        .into_iter()
        .filter(|(name, text)| !text.starts_with("//!") && !name.ends_with("tests.rs"))
        .map(|(name, _)| name);
    none("begin with //!", &broken.collect::<Vec<_>>());
}

#[test]
fn tests_wait_for_conditions() {
    let broken = sources(&["tests/tests", "shared/src", "agent/src"])
        .into_iter()
        .filter(|(name, text)| text.contains(concat!("thread", "::sleep")) && !name.ends_with("house.rs"))
        .map(|(name, _)| name);
    none("wait with tests::eventually", &broken.collect::<Vec<_>>());
}

#[test]
fn shipped_code_does_not_unwrap() {
    let broken = sources(&["shared/src", "agent/src"])
        .into_iter()
        .filter(|(name, text)| !name.ends_with("tests.rs") && shipped(text).contains(".unwrap()"))
        .map(|(name, _)| name);
    none("use expect, which says why it cannot fail", &broken.collect::<Vec<_>>());
}
