//! What a guard lets others see of itself: a file beside the lease that it keeps locked (`flock(2)`), which its end
//! frees, however it comes.

use std::{
    fs::{File, TryLockError},
    io::{Seek, Write},
    path::{Path, PathBuf},
};

/// What is known of a state directory's guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// None runs.
    Absent,
    /// One runs, and the engine does not answer it: it could freeze nothing.
    Blind,
    /// One runs.
    Watches,
}

const BLIND: &str = "blind";
const WATCHES: &str = "watches";

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("guard")
}

/// Whether a guard runs for this state directory.
///
/// # Errors
/// When the directory may not be read.
pub fn presence(state_dir: &Path) -> std::io::Result<Presence> {
    let file = match File::open(path(state_dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Presence::Absent),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Presence::Absent),
        Err(TryLockError::WouldBlock) => {
            let text = std::io::read_to_string(file)?;
            Ok(if text.starts_with(BLIND) { Presence::Blind } else { Presence::Watches })
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The file, while this guard has it.
#[derive(Debug, Default)]
pub struct Sign {
    file: Option<File>,
    blind: Option<bool>,
}

impl Sign {
    /// Shows whether the engine answers. A directory that is not there yet, and another guard in it, are tried again
    /// at the next call.
    pub fn show(&mut self, state_dir: &Path, blind: bool) {
        if self.file.is_none() {
            let file = File::options().create(true).truncate(false).write(true).open(path(state_dir));
            self.file = file.ok().filter(|file| file.try_lock().is_ok());
        }
        if let Some(file) = &mut self.file
            && self.blind != Some(blind)
        {
            let text = if blind { BLIND } else { WATCHES };
            // Whoever reads in between takes what is not whole for one that watches, for a second.
            let written =
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
            self.blind = written.is_ok().then_some(blind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_there_for_as_long_as_it_lives() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let seen = || presence(dir.path()).expect("readable");
        assert_eq!(seen(), Presence::Absent);
        let (mut first, mut second) = (Sign::default(), Sign::default());
        first.show(&dir.path().join("later"), false);
        assert_eq!(seen(), Presence::Absent, "its directory was not there");
        first.show(dir.path(), true);
        second.show(dir.path(), false);
        assert_eq!(seen(), Presence::Blind, "another changes nothing");
        first.show(dir.path(), false);
        assert_eq!(seen(), Presence::Watches);
        drop(first);
        assert_eq!(seen(), Presence::Absent);
        second.show(dir.path(), true);
        assert_eq!(seen(), Presence::Blind);
    }
}
