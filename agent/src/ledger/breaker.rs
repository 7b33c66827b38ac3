//! Whether this host fails what others do not: a circuit breaker (Nygard, "Release It!", 2007) on its claims.
//! Pure.
//!
//! A host that fails whatever it is given empties the queue fastest. So jobs in a row that fail here within
//! seconds open the breaker, and it stays open for longer each time; then one job is let in on trial, and what
//! becomes of that decides. What fails elsewhere as well is the job's own doing, and closes it at once.

use std::{collections::BTreeMap, time::Duration};

use shared::id::{Attempt, JobId, Timestamp};

/// An attempt that ran for less has failed within seconds.
pub const SOON: Duration = Duration::from_secs(30);

/// So many jobs in a row open it.
const STRIKES: usize = 3;

/// The first pause, in which it is seen how the jobs do elsewhere; each is twice the one before it.
const PAUSE: Duration = Duration::from_secs(30);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(3600);

/// How many pauses are passed over where jobs run elsewhere that have failed here.
const CONVICTED: u32 = 4;

/// For how long failures of an image say nothing of the host, after they were seen elsewhere as well.
const EXCUSED: Duration = Duration::from_secs(600);

/// A job that failed here within seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// The job.
    pub job: JobId,
    /// Its attempt here.
    pub attempt: Attempt,
    /// Its image.
    pub image: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// All are let in.
    Closed,
    /// None is, until then.
    Open(Timestamp),
    /// One is.
    Trial(Option<JobId>),
}

/// The breaker of a host.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Those that failed since one did not, and whether it may yet be seen how each does elsewhere.
    strikes: Vec<(Strike, bool)>,
    /// How many of them ran elsewhere.
    convictions: usize,
    pauses: u32,
    /// Images whose failures say nothing of the host, and until when.
    excused: BTreeMap<String, Timestamp>,
    /// Whether the last attempt here went well.
    trusted: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            strikes: Vec::new(),
            convictions: 0,
            pauses: 0,
            excused: BTreeMap::new(),
            trusted: false,
        }
    }
}

impl Breaker {
    /// Why no job is let in, for people.
    pub(super) fn why_closed(&self) -> Option<String> {
        let held = match &self.state {
            State::Closed | State::Trial(None) => return None,
            State::Open(until) => format!("takes no jobs until {}", until.format("%H:%M:%SZ")),
            State::Trial(Some(job)) => format!("is on trial with job {job}"),
        };
        let jobs: Vec<&str> =
            self.strikes.iter().rev().take(3).map(|(strike, _)| strike.job.as_str()).collect();
        let elsewhere = match self.convictions {
            0 => String::new(),
            n => format!(", {n} of which run elsewhere"),
        };
        let n = self.strikes.len();
        Some(format!(
            "{held}: {n} jobs in a row failed here within seconds{elsewhere} (last {})",
            jobs.join(", ")
        ))
    }

    /// Whether a failure here may be this host's doing, so that another's opinion of the job is wanted.
    pub(super) fn is_in_doubt(&self, image: &str, now: Timestamp) -> bool {
        !self.trusted && !self.is_excused(image, now)
    }

    fn is_excused(&self, image: &str, now: Timestamp) -> bool {
        self.excused.get(image).is_some_and(|until| *until > now)
    }

    /// A job was let in.
    pub(super) fn let_in(&mut self, job: &JobId) {
        if let State::Trial(trial @ None) = &mut self.state {
            *trial = Some(job.clone());
        }
    }

    /// Time has passed, and these jobs have run for longer than what fails within seconds.
    pub(super) fn tick(&mut self, now: Timestamp, ran_long: impl Fn(&JobId) -> bool) {
        match &self.state {
            State::Open(until) if *until <= now => self.state = State::Trial(None),
            State::Trial(Some(job)) if ran_long(job) => self.close(),
            State::Closed | State::Open(_) | State::Trial(_) => {}
        }
        self.excused.retain(|_, until| *until > now);
    }

    /// A job's attempt went well here.
    pub(super) fn well(&mut self, job: &JobId) {
        match &self.state {
            State::Closed => self.close(),
            State::Trial(Some(trial)) if trial == job => self.close(),
            // It began before what makes the others fail.
            State::Open(_) | State::Trial(_) => {}
        }
    }

    fn close(&mut self) {
        let excused = std::mem::take(&mut self.excused);
        *self = Self { excused, trusted: true, ..Self::default() };
    }

    /// A job's attempt ended in a way that says nothing of the host.
    pub(super) fn over(&mut self, job: &JobId) {
        if let State::Trial(trial) = &mut self.state
            && trial.as_ref() == Some(job)
        {
            *trial = None;
        }
    }

    /// A job failed here within seconds.
    pub(super) fn strike(&mut self, strike: Strike, now: Timestamp) {
        if self.is_excused(&strike.image, now) {
            return self.over(&strike.job);
        }
        self.trusted = false;
        let on_trial = matches!(&self.state, State::Trial(Some(job)) if *job == strike.job);
        self.strikes.retain(|(other, _)| other.job != strike.job);
        self.strikes.push((strike, true));
        if on_trial || (self.state == State::Closed && self.strikes.len() >= STRIKES) {
            let pause = PAUSE.saturating_mul(1u32.checked_shl(self.pauses).unwrap_or(u32::MAX));
            self.pauses += 1;
            self.state = State::Open(now + pause.min(LONGEST));
        }
    }

    /// Whether this job has failed here within seconds before.
    pub(super) fn knows(&self, job: &JobId) -> bool {
        self.strikes.iter().any(|(strike, _)| strike.job == *job)
    }

    /// Those of which it may yet be seen how they do elsewhere: some of the last.
    pub(super) fn undecided(&self) -> Vec<Strike> {
        let open = self.strikes.iter().rev().filter(|(_, open)| *open);
        open.take(2 * STRIKES).map(|(strike, _)| strike.clone()).collect()
    }

    /// Nobody else will run it.
    pub(super) fn decided(&mut self, job: &JobId) {
        self.strikes.iter_mut().filter(|(strike, _)| strike.job == *job).for_each(|(_, open)| *open = false);
    }

    /// A job that failed here fails elsewhere too.
    pub(super) fn acquit(&mut self, image: &str, now: Timestamp) {
        self.excused.insert(image.to_owned(), now + EXCUSED);
        self.strikes.retain(|(strike, _)| strike.image != image);
        if self.strikes.len() < STRIKES {
            let excused = std::mem::take(&mut self.excused);
            *self = Self { excused, strikes: std::mem::take(&mut self.strikes), ..Self::default() };
        }
    }

    /// A job that failed here runs elsewhere.
    pub(super) fn convict(&mut self, job: &JobId) {
        if self.knows(job) {
            self.decided(job);
            self.convictions += 1;
            self.pauses = self.pauses.max(CONVICTED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn job(name: &str) -> JobId {
        JobId::new(name).expect("valid")
    }

    fn strike(breaker: &mut Breaker, name: &str, image: &str, second: u64) {
        breaker.let_in(&job(name));
        let strike = Strike { job: job(name), attempt: Attempt::FIRST, image: image.into() };
        breaker.strike(strike, at(second));
    }

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        for name in ["a", "b", "c"] {
            assert_eq!(breaker.why_closed(), None);
            strike(&mut breaker, name, "i", 0);
        }
        assert!(breaker.why_closed().is_some());
        breaker
    }

    fn never(_: &JobId) -> bool {
        false
    }

    #[test]
    fn three_in_a_row_open_it_and_one_that_goes_well_between_them_does_not() {
        let mut breaker = Breaker::default();
        for name in ["a", "b", "c", "d"] {
            strike(&mut breaker, name, "i", 0);
            strike(&mut breaker, &format!("{name}2"), "i", 0);
            breaker.well(&job("other"));
        }
        assert_eq!((breaker.why_closed(), breaker.is_in_doubt("i", at(0))), (None, false));
        strike(&mut breaker, "a", "i", 0);
        strike(&mut breaker, "a", "i", 0);
        strike(&mut breaker, "a", "i", 0);
        assert_eq!(breaker.why_closed(), None, "one job is no series");
        let why = open().why_closed().expect("open");
        let expected =
            "takes no jobs until 00:00:30Z: 3 jobs in a row failed here within seconds (last c, b, a)";
        assert_eq!(why, expected);
    }

    #[test]
    fn one_job_is_let_in_on_trial_and_decides() {
        let mut breaker = open();
        breaker.well(&job("old"));
        breaker.tick(at(29), never);
        assert!(breaker.why_closed().is_some(), "what began before it says nothing");
        breaker.tick(at(30), never);
        assert_eq!(breaker.why_closed(), None);
        strike(&mut breaker, "d", "i", 32);
        breaker.tick(at(91), never);
        assert!(breaker.why_closed().expect("open").contains("00:01:32Z"), "twice as long");
        breaker.tick(at(92), never);
        breaker.let_in(&job("e"));
        assert!(breaker.why_closed().expect("one is enough").starts_with("is on trial with job e: 4 jobs"));
        breaker.over(&job("e"));
        assert_eq!(breaker.why_closed(), None, "it was cancelled");
        breaker.let_in(&job("f"));
        breaker.tick(at(300), |long| *long == job("f"));
        assert_eq!((breaker.why_closed(), breaker.undecided()), (None, Vec::new()));
        strike(&mut breaker, "g", "i", 400);
        assert_eq!(breaker.why_closed(), None, "it begins anew");
    }

    #[test]
    fn what_fails_elsewhere_too_is_not_the_hosts_doing() {
        let mut breaker = open();
        breaker.acquit("i", at(10));
        assert_eq!((breaker.why_closed(), breaker.is_in_doubt("i", at(10))), (None, false));
        for name in ["d", "e", "f"] {
            strike(&mut breaker, name, "i", 20);
        }
        assert_eq!(breaker.why_closed(), None);
        assert!(breaker.is_in_doubt("i", at(700)), "not for ever");
    }

    #[test]
    fn what_runs_elsewhere_makes_the_pauses_long() {
        let mut breaker = open();
        assert_eq!(breaker.undecided().len(), 3);
        breaker.convict(&job("a"));
        breaker.convict(&job("b"));
        breaker.decided(&job("c"));
        assert!(breaker.why_closed().expect("open").contains(", 2 of which run elsewhere"));
        assert_eq!(breaker.undecided(), Vec::new());
        breaker.tick(at(30), never);
        strike(&mut breaker, "d", "i", 30);
        assert!(breaker.why_closed().expect("open").contains("00:08:30Z"));
    }
}
