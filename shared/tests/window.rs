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
    id::{Attempt, LaneId, Seq, Team},
    index::{Index, Marker, Summary, Waits},
    job::JobSpec,
    log::{Author, Claimed, Event, Job, Log, Put},
    message::Message,
    queue::{Counted, Queue, QueueName, SqliteQueue},
    store::{Kind, Store},
    window::Window,
};

struct Site {
    fleet: Fleet,
    log: Log,
    lane: LaneId,
    team: Team,
}

/// A fleet with one lane, in which so many jobs are parked behind a window of one.
async fn site(parked: usize) -> Site {
    site_with(1, parked).await
}

async fn site_with(width: u32, parked: usize) -> Site {
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
    let settings = Settings { window: width, ..Settings::embedded(None) };
    let fleet = Fleet::assemble(store, queue, Seq::FIRST, settings);
    let (author, chance) = (Author::Client("ann@desk".into()), Chance::from_seed(1));
    let client = Client::new(fleet.clone(), author.clone(), clock.clone(), chance.clone());
    let first: Job = client.submit(JobSpec::new("i"), None).await.expect("submitted").job;
    let lane = first.lane.clone();
    for _ in 1..width as usize + parked {
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

#[tokio::test(start_paused = true)]
async fn who_went_on_too_far_comes_back() {
    for seed in 0..8 {
        let site = site_with(8, 3).await;
        assert_eq!(site.on(Waits::Parked).await.len(), 3);
        // Both see three; of the two that take the oldest, one goes on, and most often beyond the last.
        let (one, other) = (site.window(2 * seed), site.window(2 * seed + 1));
        let (one, other) =
            futures::join!(one.release(&site.lane, &site.team, 1), other.release(&site.lane, &site.team, 1));
        assert_eq!((one.expect("released"), other.expect("released")), (1, 1), "seed {seed}");
        assert_eq!(site.on(Waits::Parked).await.len(), 1);
    }
}

/// Receives one message and claims its job, as an agent does: the marker leaves the sent shelf.
async fn claim(site: &Site) {
    let queue = QueueName::from(&site.lane);
    let hour = Duration::from_secs(3600);
    let received = site.fleet.queue.receive(&queue, 1, Duration::ZERO, hour).await.expect("received");
    let Some(received) = received.first() else { return };
    let job = Message::read(&received.body).expect("valid").into_job(&site.lane).expect("inline");
    let claimed = Claimed {
        attempt: Attempt::FIRST,
        node: "gpu01".parse().expect("valid"),
        incarnation: Chance::from_seed(7).incarnation(),
        gpus: Vec::new(),
    };
    let entry = site.log.draft(job.next, Event::Claimed(claimed));
    // Now and then one is sent that had been claimed already.
    let (Put::Won | Put::Lost) = site.log.create(&job.id, &entry).await.expect("written");
    Index::new(site.fleet.store.clone()).remove(&Marker::of(&job)).await.expect("removed");
    site.fleet.queue.delete(&queue, &received.receipt).await.expect("deleted");
}

#[tokio::test(start_paused = true)]
async fn who_comes_late_everywhere_finds_a_job_soon_all_the_same() {
    const PARKED: usize = 400;
    const AGENTS: u64 = 24;
    let site = site(PARKED).await;
    let counts = site.fleet.store.counts();
    let (gets, puts) = (counts.get(Kind::Get), counts.get(Kind::Put));
    let agents = (0..AGENTS).map(|seed| {
        let (site, window) = (&site, site.window(seed));
        async move {
            // What others have listed is claimed before they get to it.
            while window.release(&site.lane, &site.team, 1).await.expect("released") > 0 {
                claim(site).await;
            }
        }
    });
    futures::future::join_all(agents).await;
    assert!(site.on(Waits::Parked).await.is_empty(), "none is left behind");
    let (gets, puts) = (counts.get(Kind::Get) - gets, counts.get(Kind::Put) - puts);
    assert!(gets < PARKED as u64 * 24, "{gets} reads for {PARKED} jobs");
    assert!(puts < PARKED as u64 * 8, "{puts} writes for {PARKED} jobs");
}
