//! Reading files for nobody but the cache in front of them.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use glob::{MatchOptions, Pattern};
use rustix::io::Errno;
use shared::{node::Prefetching, units::Size};
use walkdir::WalkDir;

use crate::volume::beneath;

/// How many files are read at once. A gateway fetches each from an object store, at some tens of megabytes a second.
const READERS: usize = 8;

/// How many files are listed ahead of the readers.
const AHEAD: usize = 4096;

/// `*` ends at a slash, and `**` does not.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Files that are being read.
#[derive(Debug, Default)]
pub struct Reading {
    files: AtomicU64,
    bytes: AtomicU64,
    files_done: AtomicU64,
    bytes_done: AtomicU64,
    /// What was listed, whether it fits or not.
    listed: AtomicU64,
    /// Threads that have not ended.
    threads: AtomicUsize,
    /// Since when nobody wants any more of it, by the clock that never goes back.
    stopped: OnceLock<Duration>,
    /// The first failure.
    failed: Mutex<Option<String>>,
}

impl Reading {
    /// Begins to read the files below a directory whose path below it fits one of the patterns. Where there is no
    /// thread for all of that, [`Self::failed`] says so in the end: those that have begun are still to be counted.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn start(root: PathBuf, patterns: &[String]) -> Result<Arc<Self>, String> {
        let patterns: Vec<Pattern> = patterns
            .iter()
            .map(|pattern| Pattern::new(pattern).map_err(|error| format!("{pattern:?}: {error}")))
            .collect::<Result<_, _>>()?;
        let reading = Arc::new(Self::default());
        let (found, queue) = mpsc::sync_channel(AHEAD);
        let queue = Arc::new(Mutex::new(queue));
        reading.spawn(move |reading| reading.list(&root, &patterns, &found));
        for _ in 0..READERS {
            let queue = queue.clone();
            reading.spawn(move |reading| reading.drain(&queue));
        }
        Ok(reading)
    }

    pub(super) fn spawn(self: &Arc<Self>, work: impl FnOnce(&Self) + Send + 'static) {
        let reading = self.clone();
        self.threads.fetch_add(1, Ordering::AcqRel);
        let thread = std::thread::Builder::new().name("prefetch".into()).spawn(move || {
            work(&reading);
            reading.threads.fetch_sub(1, Ordering::AcqRel);
        });
        if let Err(error) = thread {
            self.threads.fetch_sub(1, Ordering::AcqRel);
            self.fail(format!("no thread to read with: {error}"));
        }
    }

    fn list(&self, root: &Path, patterns: &[Pattern], found: &mpsc::SyncSender<PathBuf>) {
        let (mut begun, mut fitted) = (Vec::new(), vec![false; patterns.len()]);
        for pattern in patterns {
            let base = base(pattern.as_str());
            // What is below one that has been listed has been as well.
            if !begun.iter().any(|other| base.starts_with(other)) {
                self.list_below(root, &base, patterns, &mut fitted, found);
                begun.push(base);
            }
        }
        let unfitted = patterns.iter().zip(fitted).find(|(_, fitted)| !fitted);
        if let Some((pattern, _)) = unfitted.filter(|_| !self.is_stopped()) {
            self.fail(format!("no file fits {:?}", pattern.as_str()));
        }
    }

    /// Links are followed as a mount of the volume would: to a file, and on the way to what is listed, where nothing
    /// leads out.
    fn list_below(
        &self,
        root: &Path,
        base: &Path,
        patterns: &[Pattern],
        fitted: &mut [bool],
        found: &mpsc::SyncSender<PathBuf>,
    ) {
        let top = match real(root, base) {
            Ok(top) => top,
            Err(why) => return self.fail(why),
        };
        for entry in WalkDir::new(&top) {
            if self.is_stopped() {
                return;
            }
            self.listed.fetch_add(1, Ordering::Relaxed);
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.fail(error.to_string());
                    continue;
                }
            };
            let Ok(below) = entry.path().strip_prefix(&top).map(|rest| base.join(rest)) else { continue };
            if entry.file_type().is_dir() {
                continue;
            }
            let mut fits = false;
            for (pattern, fitted) in patterns.iter().zip(&mut *fitted) {
                let this = pattern.matches_path_with(&below, OPTIONS);
                *fitted |= this;
                fits |= this;
            }
            if !fits {
                continue;
            }
            let path = if entry.path_is_symlink() { real(root, &below) } else { Ok(entry.into_path()) };
            let (path, length) = match path.map(|path| (path.metadata(), path)) {
                Ok((Ok(known), path)) if known.is_file() => (path, known.len()),
                Ok((Ok(_), _)) => continue,
                Ok((Err(error), path)) => {
                    self.fail(format!("{}: {error}", path.display()));
                    continue;
                }
                Err(why) => {
                    self.fail(why);
                    continue;
                }
            };
            self.files.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(length, Ordering::Relaxed);
            if found.send(path).is_err() {
                return;
            }
        }
    }

    fn drain(&self, queue: &Mutex<mpsc::Receiver<PathBuf>>) {
        let mut buffer = vec![0; 1 << 20];
        while !self.is_stopped() {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(path) = next else { return };
            if let Err(error) = self.read(&path, &mut buffer) {
                self.fail(format!("{}: {error}", path.display()));
            }
            self.files_done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self, path: &Path, buffer: &mut [u8]) -> io::Result<()> {
        let mut file = File::open(path)?;
        while !self.is_stopped() {
            match file.read(buffer)? {
                0 => return Ok(()),
                count => self.bytes_done.fetch_add(count as u64, Ordering::Relaxed),
            };
        }
        Ok(())
    }

    fn fail(&self, why: String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Why not all could be read.
    pub fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_stopped(&self) -> bool {
        self.stopped().is_some()
    }

    /// Ends it; threads that hang end when the server is back. The first time given is the one that counts.
    pub fn stop(&self, since: Duration) {
        self.stopped.get_or_init(|| since);
    }

    /// Since when it is to end.
    pub fn stopped(&self) -> Option<Duration> {
        self.stopped.get().copied()
    }

    /// How many threads have not ended.
    pub fn threads(&self) -> usize {
        self.threads.load(Ordering::Acquire)
    }

    /// Whether all threads have ended.
    pub fn is_over(&self) -> bool {
        self.threads() == 0
    }

    /// Grows while anything is listed or read.
    pub fn steps(&self) -> u64 {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        of(&self.listed) + of(&self.files_done) + of(&self.bytes_done)
    }

    /// How far it is.
    pub fn progress(&self) -> Prefetching {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Prefetching {
            files: of(&self.files),
            files_done: of(&self.files_done),
            bytes: Size(of(&self.bytes)),
            bytes_done: Size(of(&self.bytes_done)),
        }
    }
}

/// A path below a directory with all links followed.
fn real(root: &Path, below: &Path) -> Result<PathBuf, String> {
    beneath(root, &below.to_string_lossy()).map_err(|errno| match errno {
        Errno::XDEV | Errno::LOOP => format!("{} leads outside the volume", below.display()),
        other => format!("{}: {}", root.join(below).display(), io::Error::from(other)),
    })
}

/// The directory that all paths which fit a pattern are below: its parts before the first with a wildcard, and not the
/// last, which may be a file.
fn base(pattern: &str) -> PathBuf {
    let parts: Vec<&str> = pattern.split('/').collect();
    let literal = parts.iter().take_while(|part| !part.contains(['*', '?', '[']));
    literal.take(parts.len() - 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(dir: &Path, patterns: &[&str]) -> (Prefetching, Option<String>) {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let reading = Reading::start(dir.to_owned(), &patterns).expect("begins");
        while !reading.is_over() {
            std::thread::yield_now();
        }
        (reading.progress(), reading.failed())
    }

    #[test]
    fn only_what_is_below_a_pattern_is_listed() {
        let bases = [("a/b/**", "a/b"), ("a/*.tar", "a"), ("**/x", ""), ("a/b.tar", "a"), ("b.tar", "")];
        for (pattern, expected) in bases {
            assert_eq!(base(pattern), PathBuf::from(expected), "{pattern}");
        }
    }

    #[test]
    fn the_files_that_fit_are_read_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, length: usize| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(path, vec![1; length]).expect("written");
        };
        file("train/a/1.tar", 3 << 20);
        file("train/2.tar", 5);
        file("train/notes.txt", 7);
        file("test/3.tar", 11);
        let read = |patterns: &[&str]| {
            let (progress, failed) = all(dir.path(), patterns);
            assert_eq!(
                (progress.files, progress.bytes, failed),
                (progress.files_done, progress.bytes_done, None)
            );
            (progress.files, progress.bytes.bytes())
        };
        assert_eq!(read(&["train/**"]), (3, (3 << 20) + 12));
        assert_eq!(read(&["train/*.tar"]), (1, 5));
        assert_eq!(read(&["**/*.tar"]), (3, (3 << 20) + 16));
        assert_eq!(read(&["**/*.tar", "train/*", "train/a/1.tar"]), (4, (3 << 20) + 23), "each once");
        // As a cache of a hub has them: names that are links to contents.
        for (target, link) in [("../train/2.tar", "names/first.tar"), ("train", "sets")] {
            let link = dir.path().join(link);
            std::fs::create_dir_all(link.parent().expect("below")).expect("made");
            std::os::unix::fs::symlink(target, link).expect("made");
        }
        assert_eq!(read(&["names/*"]), (1, 5));
        assert_eq!(read(&["sets/*.tar"]), (1, 5));
        for (target, link) in [("/etc/passwd", "out/passwd"), ("/etc", "out/etc"), ("../..", "out/up")] {
            let link = dir.path().join(link);
            std::fs::create_dir_all(link.parent().expect("below")).expect("made");
            std::os::unix::fs::symlink(target, link).expect("made");
        }
        for pattern in ["out/pass*", "out/etc/pass*", "out/etc/**", "out/up/**"] {
            let (nothing, why) = all(dir.path(), &[pattern]);
            assert_eq!((nothing.files, nothing.bytes_done), (0, Size(0)), "{pattern}");
            assert!(why.is_some_and(|why| why.ends_with("leads outside the volume")), "{pattern}");
        }
        let (some, why) = all(dir.path(), &["train/*.tar", "train/*.tra"]);
        assert_eq!((some.files_done, why.as_deref()), (1, Some("no file fits \"train/*.tra\"")));
        let (nothing, why) = all(dir.path(), &["none/**"]);
        assert!(nothing.files == 0 && why.is_some_and(|why| why.contains("none")));
        assert!(all(&dir.path().join("gone"), &["**"]).1.is_some_and(|why| why.contains("gone")));
    }
}
