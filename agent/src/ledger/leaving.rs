//! Whether this host takes jobs, and whether it keeps those that it has.

use shared::node::Mode;

use super::Ledger;

impl Ledger {
    /// The agent ends: no new jobs are taken, whatever else is said.
    pub fn set_mode(&self, mode: Mode) {
        let mut state = self.state();
        let changed = state.mode != mode;
        state.mode = mode;
        self.tell_if(changed);
    }

    /// Whether the agent ends.
    pub fn is_leaving(&self) -> bool {
        self.state().mode != Mode::Ready
    }

    /// Somebody has drained the host, or no longer does.
    pub fn set_drained(&self, drained: bool) {
        let mut state = self.state();
        let changed = state.drained != drained;
        state.drained = drained;
        self.tell_if(changed);
    }

    /// Whether somebody has drained it.
    pub fn is_drained(&self) -> bool {
        self.state().drained
    }

    /// Whether new jobs are taken.
    pub fn mode(&self) -> Mode {
        self.state().mode()
    }

    /// All jobs are to be stopped with notice and queued again, or no longer are.
    pub fn hand_back(&self, all: bool) {
        self.state().handing_back = all;
        self.evictions.tell();
    }

    /// Whether all jobs are to be stopped with notice and queued again.
    pub fn is_handing_back(&self) -> bool {
        self.state().handing_back
    }
}
