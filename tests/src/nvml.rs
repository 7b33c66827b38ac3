//! GPUs of a test's own: what the stand-in for NVIDIA's library reads from a file.

use std::{path::PathBuf, process::Command};

use crate::{Agent, World};

/// Two GPUs' names.
pub const FIRST: &str = "GPU-5ecf1a1e-0000-0000-0000-000000000001";
/// The second's.
pub const SECOND: &str = "GPU-5ecf1a1e-0000-0000-0000-000000000002";

/// An engine's hook for GPUs that does nothing: what the engine passes on is in the container's own
/// environment.
pub const HOOK: (&str, &str) = ("nvidia-container-runtime-hook", "#!/bin/sh\ncat >/dev/null\n");

/// The built library.
///
/// # Panics
/// When it has not been built.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let library = test.ancestors().nth(2).expect("target/debug").join("libfake_nvml.so");
    assert!(library.is_file(), "{} is not built; run: cargo build --workspace", library.display());
    library
}

/// One P100 of 16 GiB, with these fields besides.
pub fn p100(uuid: &str, minor: u32, more: &str) -> String {
    format!(
        "[[gpus]]\nuuid = \"{uuid}\"\nname = \"Tesla P100-PCIE-16GB\"\nmemory_mib = 16384\ncc = [6, 0]\nminor = {minor}\n\
         utilization = 7\npower_mw = 30500\ntemperature = 40\n{more}\n"
    )
}

/// A host of two of them, the first of which has these fields besides.
pub fn two_p100(first: &str, host: &str) -> String {
    format!("{host}\n{}{}", p100(FIRST, 0, first), p100(SECOND, 1, ""))
}

/// Makes the host so; no reader sees half of it.
///
/// # Panics
/// When it cannot be written.
pub fn set(world: &World, text: &str) {
    let new = world.file("gpus.new", text);
    std::fs::rename(new, world.path("gpus.toml")).expect("renamed");
}

/// A command that finds that host.
pub fn on_host(world: &World, mut command: Command) -> Command {
    command.env("HAUL_NVML_LIBRARY", library()).env("FAKE_NVML_FILE", world.path("gpus.toml"));
    command
}

/// An agent on that host.
pub fn agent<'w>(world: &'w World, flags: &[&str]) -> Agent<'w> {
    let (library, file) = (library(), world.path("gpus.toml"));
    let env = [
        ("HAUL_NVML_LIBRARY", library.to_str().expect("text")),
        ("FAKE_NVML_FILE", file.to_str().expect("text")),
    ];
    Agent::start_with(world, "a", flags, &env)
}
