//! What is free on a host, and where a task goes when one place sees all hosts.

use super::workload::{Host, Milli, Need, WHOLE};

/// A host and what is free on it.
#[derive(Debug, Clone)]
pub struct Free {
    host: Host,
    gpus: Vec<Milli>,
    cpus: Milli,
    memory: u32,
}

/// Where a task goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub host: usize,
    /// Its GPUs.
    pub gpus: Vec<usize>,
}

/// Which of several places is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The first.
    FirstFit,
    /// The one that leaves the least over: of the GPU for a share, of the host otherwise.
    BestFit,
    /// The one that spoils the least for the tasks that come: fragmentation gradient descent (Weng et al.,
    /// USENIX ATC 2023).
    Gradient,
}

/// Kinds of tasks and how common each is, as fragmentation is measured by.
pub type Mix = Vec<(Need, f64)>;

impl Free {
    /// All of it.
    pub fn of(host: &Host) -> Self {
        let gpus = vec![WHOLE; host.gpus];
        Self { host: host.clone(), gpus, cpus: host.cpus, memory: host.memory }
    }

    /// Whether a task could start.
    pub fn fits(&self, need: &Need) -> bool {
        self.has_the_rest(need) && self.serving(need).count() >= need.gpus
    }

    /// Whether a task could start on these GPUs.
    pub fn fits_on(&self, need: &Need, gpus: &[usize]) -> bool {
        self.has_the_rest(need) && gpus.iter().all(|at| self.gpus[*at] >= need.milli)
    }

    fn has_the_rest(&self, need: &Need) -> bool {
        need.fits_empty(&self.host) && need.cpus <= self.cpus && need.memory <= self.memory
    }

    fn serving(&self, need: &Need) -> impl Iterator<Item = usize> {
        let milli = need.milli;
        (0..self.gpus.len()).filter(move |at| self.gpus[*at] >= milli)
    }

    /// A task takes its part.
    pub fn take(&mut self, need: &Need, gpus: &[usize]) {
        gpus.iter().for_each(|at| self.gpus[*at] -= need.milli);
        self.cpus -= need.cpus;
        self.memory -= need.memory;
    }

    /// A task gives its part back.
    pub fn give_back(&mut self, need: &Need, gpus: &[usize]) {
        gpus.iter().for_each(|at| self.gpus[*at] += need.milli);
        self.cpus += need.cpus;
        self.memory += need.memory;
    }

    /// What is free of all GPUs.
    pub fn left(&self) -> Milli {
        self.gpus.iter().sum()
    }

    /// How many GPUs are in use at all, and how much of all.
    pub fn used(&self) -> (usize, Milli) {
        let used = self.gpus.iter().filter(|left| **left < WHOLE).count();
        (used, self.gpus.len() as Milli * WHOLE - self.left())
    }

    /// What is free of GPUs that such a task could use.
    pub fn of_use(&self, need: &Need) -> Vec<usize> {
        if need.gpus > 0 && self.fits(need) { self.serving(need).collect() } else { Vec::new() }
    }

    /// What is free of these GPUs.
    pub fn left_of(&self, gpus: impl Iterator<Item = usize>) -> Milli {
        gpus.map(|at| self.gpus[at]).sum()
    }

    /// What is free of GPUs and of no use to the tasks of this mix, each kind counted as often as it comes
    /// (the paper's F_n(M)). Tasks without a GPU are not in the mix.
    fn fragments(&self, mix: &Mix) -> f64 {
        let of = |need: &Need| self.left() - self.left_of(self.of_use(need).into_iter());
        mix.iter().map(|(need, weight)| f64::from(of(need)) * weight).sum()
    }

    /// Which GPUs a task would get, and how good that is: the least is the best.
    fn best(&self, need: &Need, choice: Choice, mix: &Mix) -> Option<(f64, Vec<usize>)> {
        if !self.fits(need) {
            return None;
        }
        let gpus: Vec<usize> = self.serving(need).collect();
        if need.gpus != 1 || need.milli == WHOLE {
            let gpus: Vec<usize> = gpus.into_iter().take(need.gpus).collect();
            let cost = match choice {
                Choice::FirstFit => 0.0,
                Choice::BestFit => f64::from(self.left() - need.milli * need.gpus as Milli),
                Choice::Gradient => self.spoiled(need, &gpus, mix),
            };
            return Some((cost, gpus));
        }
        let cost = |at: usize| match choice {
            Choice::FirstFit => at as f64,
            Choice::BestFit => f64::from(self.gpus[at] - need.milli),
            Choice::Gradient => self.spoiled(need, &[at], mix),
        };
        let costs = gpus.into_iter().map(|at| (cost(at), vec![at]));
        costs.min_by(|one, two| one.0.total_cmp(&two.0))
    }

    fn spoiled(&self, need: &Need, gpus: &[usize], mix: &Mix) -> f64 {
        let mut after = self.clone();
        after.take(need, gpus);
        after.fragments(mix) - self.fragments(mix)
    }
}

/// Where a task goes, among the places that are allowed.
pub fn place(
    hosts: &[Free],
    need: &Need,
    choice: Choice,
    mix: &Mix,
    allowed: impl Fn(&Place) -> bool,
) -> Option<Place> {
    let places = hosts.iter().enumerate().filter_map(|(host, free)| {
        let (cost, gpus) = free.best(need, choice, mix)?;
        Some((cost, Place { host, gpus })).filter(|(_, place)| allowed(place))
    });
    match choice {
        Choice::FirstFit => places.map(|(_, place)| place).next(),
        _ => places.min_by(|one, two| one.0.total_cmp(&two.0)).map(|(_, place)| place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(gpus: usize, milli: Milli) -> Need {
        Need { gpus, milli, models: Vec::new(), cpus: 1000, memory: 1 }
    }

    fn hosts() -> Vec<Free> {
        let host = Host { model: "G2".into(), gpus: 2, cpus: 64_000, memory: 1000 };
        vec![Free::of(&host), Free::of(&host)]
    }

    #[test]
    fn best_fit_fills_what_is_open() {
        let mut hosts = hosts();
        hosts[1].take(&need(1, 600), &[1]);
        let at = |choice, need| place(&hosts, &need, choice, &Mix::new(), |_| true);
        let found = |host, gpus| Some(Place { host, gpus });
        assert_eq!(at(Choice::FirstFit, need(1, 400)), found(0, vec![0]));
        assert_eq!(at(Choice::BestFit, need(1, 400)), found(1, vec![1]));
        assert_eq!(at(Choice::BestFit, need(1, 500)), found(0, vec![0]), "alike, so the first");
        assert_eq!(at(Choice::BestFit, need(2, 1000)), found(0, vec![0, 1]));
        assert_eq!(at(Choice::BestFit, need(1, 1000)), found(1, vec![0]));
    }

    #[test]
    fn the_gradient_keeps_what_others_need() {
        let mut hosts = hosts();
        hosts[0].take(&need(1, 300), &[0]);
        // Tasks that come need 700: half a GPU beside the 300 would leave 200 of no use to anybody, and on a fresh GPU 500;
        // a task of 700 fits exactly.
        let mix = vec![(need(1, 700), 1.0)];
        assert_eq!(
            place(&hosts, &need(1, 700), Choice::Gradient, &mix, |_| true),
            Some(Place { host: 0, gpus: vec![0] })
        );
        // What is left of no use: 200 of the 700 that were of use, or 500 of 1000.
        assert_eq!(hosts[0].spoiled(&need(1, 500), &[0], &mix), 200.0);
        assert_eq!(hosts[0].spoiled(&need(1, 500), &[1], &mix), 500.0);
    }
}
