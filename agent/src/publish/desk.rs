//! What is told next, to whom. Pure.
//!
//! For each job a [`Track`] holds how far each receiver has been told, and for each receiver a
//! [`Line`] holds which jobs have something for it. A receiver that fails is tried again with
//! growing pauses, by one delivery at a time, and keeps nobody else waiting; a job whose event it
//! refuses goes behind the others. Of one job, a receiver is told one event at a time, in order.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use shared::{
    event::{Data, StatusEvent, Told},
    id::{JobId, NodeId, Seq},
    log::{Author, Entry},
};

use super::{
    note::{Note, Position, Receiver, pause},
    track::{Line, Progress, Step, Track, leaves},
};

/// Jobs that are held in memory; the notes of others wait on disk.
pub const MOST: usize = 5_000;

/// Events of a job that are held in memory; others are read from its log again.
const EVENTS: usize = 8;

/// Jobs that are over, and known to have been told of.
const REMEMBERED: usize = 64;

/// How long a receiver may fail before its events are given up.
const GIVE_UP: Duration = Duration::from_secs(5 * 86_400);

/// How often a log is looked at in which nothing has been seen.
const LOOK: Duration = Duration::from_secs(300);

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Read this entry, then say [`Desk::seen`] or [`Desk::absent`].
    Read {
        /// Of this job.
        job: JobId,
        /// At this position.
        seq: Seq,
    },
    /// Tell this, then say [`Desk::told`], [`Desk::failed`] or [`Desk::gone`].
    Tell {
        /// To whom.
        to: Receiver,
        /// Of which job.
        job: JobId,
        /// What.
        event: Box<StatusEvent>,
    },
    /// Everybody knows everything: take the note away.
    Remove {
        /// Of this job.
        job: JobId,
    },
}

/// All that is to be told.
#[derive(Debug)]
pub struct Desk {
    node: NodeId,
    tracks: BTreeMap<JobId, Track>,
    lines: BTreeMap<Receiver, Line>,
    removed: BTreeSet<JobId>,
    /// Of jobs of which everybody knows all that was this node's to tell, where that ended.
    complete: VecDeque<(JobId, Seq)>,
    looked: Duration,
}

impl Desk {
    /// Of this node; nothing is to be told.
    pub fn new(node: NodeId) -> Self {
        let (tracks, lines, removed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { node, tracks, lines, removed, complete: VecDeque::new(), looked: Duration::ZERO }
    }

    /// Jobs in memory.
    pub fn len(&self) -> usize {
        self.tracks.len()
    }

    /// Whether the job is in memory.
    pub fn has(&self, job: &JobId) -> bool {
        self.tracks.contains_key(job)
    }

    /// Takes a note up. One that is there already knows better how far its receivers are.
    pub fn take(&mut self, note: Note, now: Duration) {
        let Note { subject, mark, over, told, .. } = note;
        let job = subject.job.clone();
        self.removed.remove(&job);
        let before = self.tracks.remove(&job);
        let mut track =
            Track { subject, mark, over, progress: BTreeMap::new(), events: BTreeMap::new(), dirty: true };
        let mut before = before.map_or_else(BTreeMap::new, |before| {
            track.events = before.events;
            before.progress
        });
        for Position { to, next } in told {
            if self.lines.get(&to).is_some_and(|line| line.gone) {
                continue;
            }
            let known = before.remove(&to);
            let progress = match known {
                Some(known) if known.next >= next || known.step == Step::Flying => known,
                _ => Progress::at(next, Step::Absent),
            };
            track.progress.insert(to, progress);
        }
        for to in before.keys() {
            if let Some(line) = self.lines.get_mut(to) {
                line.due.retain(|(_, due)| *due != job);
            }
        }
        self.tracks.insert(job.clone(), track);
        self.finish(&job);
        self.wake(&job, now);
    }

    /// Makes every receiver of the job that waits for nothing but news look at its log.
    pub fn wake(&mut self, job: &JobId, now: Duration) {
        let Some(track) = self.tracks.get_mut(job) else { return };
        for (to, progress) in &mut track.progress {
            if progress.step == Step::Absent {
                progress.step = Step::Due(now);
                self.lines.entry(to.clone()).or_default().due.insert((now, job.clone()));
            }
        }
    }

    /// An entry stands in the job's log.
    pub fn seen(&mut self, job: &JobId, entry: &Entry, now: Duration) {
        let Some(track) = self.tracks.get_mut(job) else { return };
        if entry.seq >= track.mark && track.over.is_none_or(|over| entry.seq < over) {
            let ours = matches!(&entry.author, Author::Node { name, .. } if *name == self.node);
            let others = matches!(&entry.author, Author::Node { .. }) && !ours;
            if others && entry.seq == track.mark {
                // Whoever wrote there tells of it, and of what comes after.
                track.over = Some(entry.seq);
            } else if leaves(&entry.event) {
                track.over = Some(entry.seq.next());
            }
        }
        let wanted = track.progress.values().any(|progress| progress.next <= entry.seq);
        if wanted && track.over.is_none_or(|over| entry.seq < over) {
            track.events.insert(entry.seq, StatusEvent::of(&track.subject, entry));
            if track.events.len() > EVENTS {
                // The newest can be read again; the oldest is what is needed next.
                track.events.pop_last();
            }
        }
        for progress in track.progress.values_mut() {
            if progress.step == Step::Reading {
                progress.step = Step::Absent;
            }
        }
        self.finish(job);
        self.wake(job, now);
    }

    /// The entry that was to be read is not there yet.
    pub fn absent(&mut self, job: &JobId) {
        let Some(track) = self.tracks.get_mut(job) else { return };
        for progress in track.progress.values_mut() {
            if progress.step == Step::Reading {
                progress.step = Step::Absent;
            }
        }
    }

    /// The receiver has been told.
    pub fn told(&mut self, to: &Receiver, job: &JobId, seq: Seq, now: Duration) {
        let line = self.lines.entry(to.clone()).or_default();
        line.flying -= 1;
        (line.failures, line.gate) = (0, now);
        let Some(track) = self.tracks.get_mut(job) else { return };
        let Some(progress) = track.progress.get_mut(to) else { return };
        *progress = Progress::at(seq.next(), Step::Due(now));
        line.due.insert((now, job.clone()));
        track.dirty = true;
        self.finish(job);
    }

    /// The receiver could not be told. `chance` is a random number. `true` when its events of this
    /// job are given up, after days.
    pub fn failed(&mut self, to: &Receiver, job: &JobId, now: Duration, chance: u64) -> bool {
        let line = self.lines.entry(to.clone()).or_default();
        line.flying -= 1;
        line.failures += 1;
        line.gate = now + pause(line.failures, chance);
        let Some(track) = self.tracks.get_mut(job) else { return false };
        let Some(progress) = track.progress.get_mut(to) else { return false };
        progress.failures += 1;
        let since = *progress.failing_since.get_or_insert(now);
        let give_up = now.saturating_sub(since) > GIVE_UP;
        if give_up {
            track.progress.remove(to);
            track.dirty = true;
        } else {
            let due = now + pause(progress.failures, chance);
            progress.step = Step::Due(due);
            line.due.insert((due, job.clone()));
        }
        self.finish(job);
        give_up
    }

    /// The receiver wants to hear nothing any more. It is left alone until it is
    /// [called back](Self::back).
    pub fn gone(&mut self, to: &Receiver) {
        let line = self.lines.entry(to.clone()).or_default();
        line.flying -= 1;
        line.gone = true;
        self.forget(to);
    }

    /// Receivers that had gone are told again, since the settings have changed.
    pub fn back(&mut self) {
        self.lines.values_mut().for_each(|line| line.gone = false);
    }

    /// Drops a receiver's events.
    pub fn forget(&mut self, to: &Receiver) {
        if let Some(line) = self.lines.get_mut(to) {
            line.due.clear();
        }
        let jobs: Vec<JobId> = self.tracks.keys().cloned().collect();
        for job in jobs {
            if let Some(track) = self.tracks.get_mut(&job)
                && track.progress.remove(to).is_some()
            {
                track.dirty = true;
                self.finish(&job);
            }
        }
    }

    /// Lets go of receivers that have been told everything, and of a job that has none left.
    fn finish(&mut self, job: &JobId) {
        let Some(track) = self.tracks.get_mut(job) else { return };
        let (lines, over) = (&mut self.lines, track.over);
        track.progress.retain(|to, progress| {
            let done = over.is_some_and(|over| progress.next >= over) && progress.step != Step::Flying;
            if let (true, Some(line), Step::Due(due)) = (done, lines.get_mut(to), progress.step) {
                line.due.remove(&(due, job.clone()));
            }
            !done
        });
        let lowest = track.progress.values().map(|progress| progress.next).min();
        track.events.retain(|seq, _| lowest.is_some_and(|lowest| *seq >= lowest));
        if track.progress.is_empty() {
            self.complete.extend(over.map(|over| (job.clone(), over)));
            if self.complete.len() > REMEMBERED {
                self.complete.pop_front();
            }
            self.tracks.remove(job);
            self.removed.insert(job.clone());
        }
    }

    /// What can be done now.
    pub fn next(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if now.saturating_sub(self.looked) >= LOOK {
            self.looked = now;
            let jobs: Vec<JobId> = self.tracks.keys().cloned().collect();
            jobs.iter().for_each(|job| self.wake(job, now));
        }
        let receivers: Vec<Receiver> = self.lines.keys().cloned().collect();
        for to in receivers {
            while let Some(job) = self.pop(&to, now) {
                actions.extend(self.step(&to, &job, now));
            }
        }
        actions.extend(std::mem::take(&mut self.removed).into_iter().map(|job| Action::Remove { job }));
        actions
    }

    /// The job whose turn it is at a receiver, if it can be told anything now.
    fn pop(&mut self, to: &Receiver, now: Duration) -> Option<JobId> {
        let line = self.lines.get_mut(to)?;
        if line.gate > now || !line.has_room() {
            return None;
        }
        let first = line.due.first().filter(|(due, _)| *due <= now)?.clone();
        line.due.remove(&first);
        Some(first.1)
    }

    fn step(&mut self, to: &Receiver, job: &JobId, now: Duration) -> Option<Action> {
        let track = self.tracks.get_mut(job)?;
        let reading = track.progress.values().any(|progress| progress.step == Step::Reading);
        let progress = track.progress.get_mut(to).filter(|progress| matches!(progress.step, Step::Due(_)))?;
        let Some(event) = track.events.get(&progress.next) else {
            progress.step = Step::Reading;
            let seq = progress.next;
            return (!reading).then(|| Action::Read { job: job.clone(), seq });
        };
        if let Receiver::Webhook(hook) = to
            && !hook.takes(&event.event)
        {
            let next = progress.next.next();
            *progress = Progress::at(next, Step::Due(now));
            track.dirty = true;
            self.lines.entry(to.clone()).or_default().due.insert((now, job.clone()));
            self.finish(job);
            return None;
        }
        progress.step = Step::Flying;
        let event = Box::new(event.clone());
        self.lines.entry(to.clone()).or_default().flying += 1;
        Some(Action::Tell { to: to.clone(), job: job.clone(), event })
    }

    /// When there may be something to do next.
    pub fn wake_at(&self) -> Option<Duration> {
        let lines = self.lines.values().filter(|line| line.has_room());
        let due = lines.filter_map(|line| Some(line.due.first()?.0.max(line.gate)));
        let look = (!self.tracks.is_empty()).then(|| self.looked + LOOK);
        due.chain(look).min()
    }

    /// Whether everything that could be told now has been.
    pub fn is_quiet(&self) -> bool {
        self.lines.values().all(|line| line.failures > 0 || (line.due.is_empty() && line.flying == 0))
            && self
                .tracks
                .values()
                .all(|track| track.progress.values().all(|progress| progress.step != Step::Reading))
    }

    /// How far the job's events have been told, as far as this node knows, where its next entry
    /// goes to `next`.
    pub fn told_of(&self, job: &JobId, next: Seq) -> Told {
        let Some(track) = self.tracks.get(job) else {
            let complete = self.complete.iter().any(|(told, over)| told == job && *over == next);
            return if complete { Told::all_before(next) } else { Told::default() };
        };
        let lowest = |which: fn(&Receiver) -> bool| {
            let of = track.progress.iter().filter(|(to, _)| which(to));
            of.map(|(_, progress)| progress.next).min().unwrap_or(next)
        };
        Told {
            status: lowest(|to| *to == Receiver::Status),
            webhooks: lowest(|to| matches!(to, Receiver::Webhook(_))),
        }
    }

    /// The notes that have changed since this was last asked.
    pub fn changed(&mut self) -> Vec<Note> {
        let dirty = self.tracks.values_mut().filter(|track| track.dirty);
        dirty
            .map(|track| {
                track.dirty = false;
                track.note()
            })
            .collect()
    }

    /// The job's note.
    pub fn note(&self, job: &JobId) -> Option<Note> {
        self.tracks.get(job).map(Track::note)
    }
}

/// The position that an event is about.
pub fn seq_of(event: &StatusEvent) -> Seq {
    match &event.data {
        Data::Job(data) => data.seq,
        Data::Refused { .. } => Seq::FIRST,
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
