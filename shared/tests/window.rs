//! What a release costs, however many jobs are parked and however many agents release.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use object_store::{
    memory::InMemory,
    throttle::{ThrottleConfig, ThrottledStore},
};
use shared::{
    client::Client,
    clock::{Chance, SystemClock},
    fleet::{Fleet, Settings},
    id::{LaneId, Seq, Team},
    index::{Index, Marker, Summary, Waits},
    job::JobSpec,
    log::{Author, Job, Log},
    queue::{Counted, SqliteQueue},
    store::{Kind, Store},
    window::Window,
};

struct Site {
    fleet: Fleet,
    log: Log,
    lane: LaneId,
    team: Team,
}

/// A fleet with one lane, in which so many jobs are parked.
async fn site(parked: usize) -> Site {
    let clock = Arc::new(SystemClock);
    // Each request takes a while, so that those of several tasks mix.
    let pause = Duration::from_millis(5);
    let pauses = ThrottleConfig {
        wait_get_per_call: pause,
        wait_put_per_call: pause,
        wait_list_per_call: pause,
        wait_delete_per_call: pause,
        ..ThrottleConfig::default()
    };
    let inner = Arc::new(ThrottledStore::new(InMemory::new(), pauses));
    let store = Store::with(inner, "memory:///".parse().expect("url"));
    let queue = Arc::new(Counted::new(Arc::new(SqliteQueue::in_memory(clock.clone()).expect("opens"))));
    let settings = Settings { window: 1, ..Settings::embedded(None) };
    let fleet = Fleet::assemble(store, queue, Seq::FIRST, settings);
    let (author, chance) = (Author::Client("ann@desk".into()), Chance::from_seed(1));
    let client = Client::new(fleet.clone(), author.clone(), clock.clone(), chance.clone());
    let first: Job = client.submit(JobSpec::new("i"), None).await.expect("submitted").job;
    let lane = first.lane.clone();
    for _ in 0..parked {
        let job = client.submit(JobSpec::new("i"), None).await.expect("submitted").job;
        assert_eq!(job.lane, lane);
    }
    let log = Log::new(fleet.store.clone(), clock, chance, author);
    Site { fleet, log, lane, team: first.spec.team }
}

impl Site {
    fn window(&self, seed: u64) -> Window {
        Window::new(self.fleet.clone(), self.log.clone(), Chance::from_seed(seed))
    }

    async fn on(&self, shelf: Waits) -> Vec<Marker> {
        let index = Index::new(self.fleet.store.clone());
        let found = index.shelf(shelf, &self.lane, Some(&self.team)).await.expect("listed");
        found.into_iter().map(|aged| aged.marker).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_costs_the_same_whatever_the_backlog() {
    let site = site(2).await;
    let parked = site.on(Waits::Parked).await;
    let counts = site.fleet.store.counts();
    assert_eq!(site.window(1).release(&site.lane, &site.team, 1).await.expect("released"), 1);
    assert_eq!(site.on(Waits::Parked).await, parked[1..], "the oldest first");
    // As many markers as a long backlog has; who has no log is passed over.
    let job = site.log.read(&parked[1].job).await.expect("read").expect("there");
    let index = Index::new(site.fleet.store.clone());
    for number in 0..5000 {
        let id = format!("{}{number:04}", char::from(b"abcdefghijklmnopqrstuvwxyz234567"[number % 32]));
        let marker = Marker { job: id.parse().expect("valid"), ..parked[1].clone() };
        index.put(&marker, &Summary::of(&job)).await.expect("put");
    }
    let before = counts.get(Kind::List);
    let mut places = BTreeSet::new();
    for seed in 0..32 {
        let chance = Chance::from_seed(seed);
        let seen = index.sample(Waits::Parked, &site.lane, &site.team, &chance).await.expect("listed");
        assert!((1000..2000).contains(&seen.len()), "{}", seen.len());
        places.extend(seen.into_iter().map(|aged| aged.marker.job));
    }
    assert_eq!(counts.get(Kind::List) - before, 64, "two pages each");
    assert_eq!(places.len(), 5001, "none is out of sight for ever");
}

#[tokio::test(start_paused = true)]
async fn many_that_release_at_once_keep_out_of_each_others_way() {
    const MANY: usize = 64;
    let site = site(300).await;
    let before = site.fleet.store.counts().get(Kind::Put);
    let windows: Vec<Window> = (0..MANY as u64).map(|seed| site.window(seed)).collect();
    let releases = windows.iter().map(|window| window.release(&site.lane, &site.team, 1));
    let released: usize = futures::future::try_join_all(releases).await.expect("released").iter().sum();
    assert_eq!(released, MANY);
    let sent: BTreeSet<Marker> = site.on(Waits::Sent).await.into_iter().collect();
    assert_eq!(sent.len(), MANY + 1, "each another job");
    let tries = site.fleet.store.counts().get(Kind::Put) - before;
    assert!(
        tries < MANY as u64 * 8,
        "{tries} tries for {MANY}; one after the other it would be {}",
        MANY * MANY / 2
    );
}
