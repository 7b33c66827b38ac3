//! What registries said lately, in the user's cache directory: who submits in a loop asks once, and Docker Hub
//! counts each reading of a manifest against its limit of pulls.

use std::{
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

use chrono::TimeDelta;
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::{id::Timestamp, job::Arch};

use super::Stated;

/// For how long what a registry said holds: a tag may be pushed anew.
const SAID: TimeDelta = TimeDelta::hours(1);

/// And for how long that it said nothing: who has logged in since, or mended the network, does not wait long.
const NOTHING: TimeDelta = TimeDelta::minutes(1);

#[derive(Serialize, Deserialize)]
struct Entry {
    at: Timestamp,
    said: Result<Stated, String>,
}

/// What the registry said of this image, if that is known and lately was so.
pub fn said(image: &str, arch: Arch, now: Timestamp) -> Option<Result<Stated, String>> {
    let entry: Entry = serde_json::from_slice(&fs::read(file(image, arch)?).ok()?).ok()?;
    let holds = if entry.said.is_ok() { SAID } else { NOTHING };
    (entry.at <= now && now - entry.at < holds).then_some(entry.said)
}

/// Keeps what it said. That it cannot be kept costs time alone.
pub fn keep(image: &str, arch: Arch, now: Timestamp, said: &Result<Stated, String>) {
    let written = file(image, arch).ok_or(io::ErrorKind::NotFound.into()).and_then(|file| {
        let dir = file.parent().ok_or(io::ErrorKind::NotFound)?;
        fs::create_dir_all(dir)?;
        forget(dir);
        // Whoever reads meanwhile sees the old one or the new one.
        let new = file.with_extension(std::process::id().to_string());
        fs::write(&new, serde_json::to_vec(&Entry { at: now, said: said.clone() })?)?;
        fs::rename(new, file)
    });
    if let Err(error) = written {
        tracing::debug!(%error, "what the registry said is not kept");
    }
}

/// Removes what holds no more: who builds an image for each commit has thousands.
fn forget(dir: &Path) {
    let is_old = |entry: &DirEntry| {
        let modified = entry.metadata().and_then(|known| known.modified()).ok();
        modified
            .and_then(|at| at.elapsed().ok())
            .is_some_and(|age| age.as_secs() > SAID.num_seconds().unsigned_abs())
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(is_old) {
        // Another that submits may have been faster.
        let _ = fs::remove_file(entry.path());
    }
}

fn file(image: &str, arch: Arch) -> Option<PathBuf> {
    let dir = etcetera::choose_base_strategy().ok()?.cache_dir().join("haul").join("images");
    let hash = Sha256::digest(format!("{arch} {image}"));
    Some(dir.join(hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use super::*;

    #[test]
    fn what_holds_no_more_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = |name: &str| File::create(dir.path().join(name)).expect("made");
        let (old, _new) = (made("old"), made("new"));
        let hours_ago =
            old.metadata().and_then(|known| known.modified()).expect("known") - Duration::from_secs(3700);
        old.set_modified(hours_ago).expect("set");
        forget(dir.path());
        let left: Vec<_> =
            fs::read_dir(dir.path()).expect("read").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["new"]);
    }
}
