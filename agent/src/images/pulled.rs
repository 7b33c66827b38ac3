//! The images that haul has pulled here, and when jobs last used them. On disk, so that a new run of the agent knows
//! which are its own to remove: what people have made or pulled themselves is theirs.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use shared::{id::Timestamp, units::Size};

use crate::engine::ImageInfo;

/// An image that haul has pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// As the job named it that it was pulled for.
    pub name: String,
    /// On disk, layers that others share included.
    pub size: Size,
    /// When a job last used it.
    pub used_at: Timestamp,
}

/// All of them, by the engine's id.
pub type Entries = BTreeMap<String, Entry>;

/// The images that haul has pulled.
#[derive(Debug)]
pub struct Pulled {
    path: PathBuf,
    entries: Mutex<Entries>,
}

impl Pulled {
    /// What an earlier run of the agent has left in this file; nothing where it cannot be read, so that nothing is
    /// removed that may not be its own.
    pub fn open(path: PathBuf) -> Self {
        let entries = match read(&path) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "which images are haul's own is not known");
                Entries::new()
            }
        };
        Self { path, entries: Mutex::new(entries) }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Entries) -> bool) {
        let mut entries = self.lock();
        if change(&mut entries)
            && let Err(error) = write(&self.path, &entries)
        {
            tracing::debug!(%error, path = %self.path.display(), "which images are haul's own is not noted");
        }
    }

    /// This one was pulled just now.
    pub fn add(&self, name: &str, image: &ImageInfo, now: Timestamp) {
        let entry = Entry { name: name.to_owned(), size: image.size, used_at: now };
        self.change(|entries| entries.insert(image.id.clone(), entry.clone()) != Some(entry));
    }

    /// A job uses it, if it is one of these.
    pub fn used(&self, id: &str, now: Timestamp) {
        self.change(|entries| match entries.get_mut(id) {
            Some(entry) => {
                entry.used_at = now;
                true
            }
            None => false,
        });
    }

    /// It is gone.
    pub fn remove(&self, id: &str) {
        self.change(|entries| entries.remove(id).is_some());
    }

    /// All of them.
    pub fn entries(&self) -> Entries {
        self.lock().clone()
    }
}

fn read(path: &Path) -> io::Result<Entries> {
    match std::fs::read(path) {
        Ok(body) => Ok(serde_json::from_slice(&body)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Entries::new()),
        Err(error) => Err(error),
    }
}

/// Whoever reads after a crash sees the old one or the new one.
fn write(path: &Path, entries: &Entries) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(entries)?)?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str) -> ImageInfo {
        ImageInfo { id: id.into(), digest: None, env: Vec::new(), size: Size(7) }
    }

    #[test]
    fn the_next_run_knows_which_images_are_hauls_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("images.json");
        let at = |second| Timestamp::from_timestamp(second, 0).expect("a time");
        let pulled = Pulled::open(path.clone());
        pulled.add("a:1", &image("sha256:a"), at(1));
        pulled.add("b:1", &image("sha256:b"), at(1));
        pulled.used("sha256:a", at(2));
        pulled.used("sha256:theirs", at(2));
        pulled.remove("sha256:b");
        let entry = Entry { name: "a:1".into(), size: Size(7), used_at: at(2) };
        let expected = Entries::from([("sha256:a".into(), entry)]);
        assert_eq!((pulled.entries(), Pulled::open(path.clone()).entries()), (expected.clone(), expected));
        std::fs::write(&path, "{").expect("written");
        assert_eq!(Pulled::open(path).entries(), Entries::new());
    }
}
