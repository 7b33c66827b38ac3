//! Notes on disk: one small file for each job whose events are not all told.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use shared::{id::JobId, record};

use super::note::Note;

/// Where notes outlive the agent. What was written is there after a crash, whole; what was removed
/// may come back.
#[async_trait]
pub trait Disk: Send + Sync {
    /// All names.
    async fn names(&self) -> io::Result<Vec<String>>;
    /// What is written under a name.
    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Writes all of it, or leaves what was there.
    async fn write(&self, name: &str, body: Vec<u8>) -> io::Result<()>;
    /// Removes it; that it is not there is no error.
    async fn remove(&self, name: &str) -> io::Result<()>;
}

/// A directory of the host.
#[derive(Debug, Clone)]
pub struct Directory(pub PathBuf);

/// Does it on a thread where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

fn write_synced(dir: &Path, name: &str, body: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let write = |_| {
        let mut file = File::create(&new)?;
        file.write_all(body)?;
        file.sync_all()
    };
    // The directory is made by the first note.
    write(()).or_else(|_| fs::create_dir_all(dir).and_then(write))?;
    fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[async_trait]
impl Disk for Directory {
    async fn names(&self) -> io::Result<Vec<String>> {
        // Most agents have none: no thread for that.
        if !self.0.is_dir() {
            return Ok(Vec::new());
        }
        let dir = self.0.clone();
        blocking(move || {
            let entries = match fs::read_dir(dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.0.join(name);
        blocking(move || match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        })
        .await
    }

    async fn write(&self, name: &str, body: Vec<u8>) -> io::Result<()> {
        let (dir, name) = (self.0.clone(), name.to_owned());
        blocking(move || write_synced(&dir, &name, &body)).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.0.join(name);
        blocking(move || match fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
        .await
    }
}

/// Memory that outlives an agent for as long as a clone of it is kept: the simulation's disk.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Disk for Memory {
    async fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|files| files.keys().cloned().collect()))
    }

    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.with(|files| files.get(name).cloned()))
    }

    async fn write(&self, name: &str, body: Vec<u8>) -> io::Result<()> {
        self.with(|files| files.insert(name.into(), body));
        Ok(())
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|files| files.remove(name));
        Ok(())
    }
}

/// The notes of an agent.
#[derive(Clone)]
pub struct Spool(pub Arc<dyn Disk>);

fn name_of(job: &JobId) -> String {
    format!("{job}.json")
}

impl Spool {
    /// The jobs that have a note.
    pub async fn jobs(&self) -> io::Result<Vec<JobId>> {
        let names = self.0.names().await?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// A job's note. One that cannot be read is as good as none, and said.
    pub async fn read(&self, job: &JobId) -> io::Result<Option<Note>> {
        let Some(body) = self.0.read(&name_of(job)).await? else { return Ok(None) };
        match record::read::<Note>(&body, Note::VERSION) {
            Ok(note) => Ok(Some(note)),
            Err(error) => {
                tracing::warn!(%job, %error, "the note of what is to be told cannot be read");
                Ok(None)
            }
        }
    }

    /// Writes a note, over an older one.
    pub async fn write(&self, note: &Note) -> io::Result<()> {
        self.0.write(&name_of(&note.subject.job), record::write(note).into()).await
    }

    /// Takes a note away.
    pub async fn remove(&self, job: &JobId) -> io::Result<()> {
        self.0.remove(&name_of(job)).await
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use shared::{event::Subject, id::Seq};

    use super::{
        super::note::{Position, Receiver},
        *,
    };

    fn note(job: &str) -> Note {
        let subject = Subject {
            job: job.parse().expect("valid"),
            name: "n".into(),
            team: shared::id::Team::default(),
            lane: "normal-cpu-391fe9af".parse().expect("valid"),
        };
        let told = vec![Position { to: Receiver::Status, next: Seq(3) }];
        Note { v: Note::VERSION, subject, mark: Seq(1), over: None, told }
    }

    #[rstest]
    #[case(true)]
    #[case(false)]
    #[tokio::test]
    async fn a_note_outlives_the_agent(#[case] on_disk: bool) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let disk: Arc<dyn Disk> = if on_disk {
            Arc::new(Directory(dir.path().join("events")))
        } else {
            Arc::new(Memory::default())
        };
        let spool = Spool(disk.clone());
        assert_eq!(spool.jobs().await.expect("none yet"), []);
        spool.write(&note("a")).await.expect("written");
        spool.write(&note("b")).await.expect("written");
        disk.write("b.json", b"torn".to_vec()).await.expect("written");
        let again = Spool(disk);
        let jobs = again.jobs().await.expect("listed");
        assert_eq!(jobs.iter().map(JobId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(again.read(&jobs[0]).await.expect("read"), Some(note("a")));
        assert_eq!(again.read(&jobs[1]).await.expect("read"), None);
        again.remove(&jobs[0]).await.expect("removed");
        again.remove(&jobs[0]).await.expect("is gone");
        assert_eq!(again.read(&jobs[0]).await.expect("read"), None);
    }
}
