//! Whether this host takes jobs, and whether it keeps those that it has.

use std::time::Duration;

use chrono::TimeDelta;
use shared::{id::Timestamp, node::Mode};

use super::Ledger;

/// What is yet to be done after a job's end, before its machine is gone: its last output, its log, its message.
const LAST_STEPS: TimeDelta = TimeDelta::seconds(10);

/// What a job has in any case: the machine is there yet.
const LEAST: Duration = Duration::from_secs(5);

/// All jobs are handed back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HandBack {
    /// When the machine will be gone, if it is about to go.
    gone_at: Option<Timestamp>,
}

impl Ledger {
    /// The agent ends: no new jobs are taken, whatever else is said.
    pub fn set_mode(&self, mode: Mode) {
        let mut state = self.state();
        let changed = state.mode != mode;
        state.mode = mode;
        self.tell_if(changed);
    }

    /// Somebody has drained the host, or no longer does, and wants its jobs handed back, or no longer does. Nothing
    /// changes once the agent ends: what becomes of its jobs is decided there. True where they are to be handed back
    /// from now on.
    pub fn drain(&self, drained: bool, hand_back: bool) -> bool {
        let mut state = self.state();
        if state.mode != Mode::Ready {
            return false;
        }
        let changed = std::mem::replace(&mut state.drained, drained) != drained;
        let begins = hand_back && state.handing_back.is_none();
        state.handing_back = hand_back.then_some(HandBack::default());
        self.tell_if(changed);
        self.evictions.tell();
        begins
    }

    /// Whether somebody has drained it.
    pub fn is_drained(&self) -> bool {
        self.state().drained
    }

    /// Whether new jobs are taken.
    pub fn mode(&self) -> Mode {
        self.state().mode()
    }

    /// All jobs are to be stopped with notice and queued again: with their whole grace, or in time before the
    /// machine is gone.
    pub fn hand_back(&self, gone_at: Option<Timestamp>) {
        self.state().handing_back = Some(HandBack { gone_at });
        self.evictions.tell();
    }

    /// Whether all jobs are to be stopped with notice and queued again.
    pub fn is_handing_back(&self) -> bool {
        self.state().handing_back.is_some()
    }

    /// How long a job has after SIGTERM that wants so much: less where the machine is gone before that.
    pub fn grace(&self, wanted: Duration, now: Timestamp) -> Duration {
        match self.state().handing_back {
            Some(HandBack { gone_at: Some(gone_at) }) => {
                wanted.min((gone_at - LAST_STEPS - now).to_std().unwrap_or_default().max(LEAST))
            }
            Some(HandBack { gone_at: None }) | None => wanted,
        }
    }

    /// Whether no job is taken, for whatever reason.
    pub fn is_closed(&self) -> bool {
        self.state().is_closed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shared::node::Capacity;

    use super::*;

    #[test]
    fn a_job_has_what_time_there_is_before_its_machine_is_gone() {
        let ledger = Ledger::new(Capacity::default(), BTreeMap::new());
        let (at, seconds) =
            (|second| Timestamp::from_timestamp(second, 0).expect("a time"), Duration::from_secs);
        assert_eq!(ledger.grace(seconds(30), at(0)), seconds(30));
        ledger.hand_back(None);
        assert_eq!(ledger.grace(seconds(30), at(0)), seconds(30));
        ledger.hand_back(Some(at(120)));
        assert_eq!(ledger.grace(seconds(30), at(0)), seconds(30));
        ledger.hand_back(Some(at(30)));
        assert_eq!(ledger.grace(seconds(30), at(0)), seconds(20));
        assert_eq!(ledger.grace(seconds(30), at(29)), LEAST);
    }

    #[test]
    fn an_agent_that_ends_is_not_drained_by_others() {
        let ledger = Ledger::new(Capacity::default(), BTreeMap::new());
        assert!(!ledger.drain(true, false) && ledger.mode() == Mode::Draining);
        assert!(ledger.drain(true, true) && !ledger.drain(true, true), "it begins once");
        assert!(!ledger.drain(false, false) && !ledger.is_handing_back() && ledger.mode() == Mode::Ready);
        ledger.set_mode(Mode::Draining);
        ledger.hand_back(None);
        assert!(!ledger.drain(false, false) && ledger.is_handing_back());
    }
}
