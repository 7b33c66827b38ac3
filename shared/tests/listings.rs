//! Listings of large fleets, by the requests that they take. A store in a cloud answers a request
//! in some 30 ms and any number of them at once: what counts is how many come one after the other,
//! and that nobody reads a hundred thousand markers to show two hundred.

use std::sync::Arc;

use shared::{
    client::{Client, Filter},
    clock::{Chance, SystemClock},
    fleet::{Fleet, Settings},
    id::{Attempt, NodeId, Seq, Timestamp},
    index::{Index, Marker, Shelf, Summary},
    log::{Author, Phase},
    node::NodeRecord,
    queue::{Counted, SqliteQueue},
    record,
    store::{Kind, Store},
};

const JOBS: usize = 20_000;
const NODES: usize = 2_000;

fn client() -> Client {
    let clock = Arc::new(SystemClock);
    let store = Store::open(&"memory:///".parse().expect("url")).expect("opens");
    let queue = Arc::new(Counted::new(Arc::new(SqliteQueue::in_memory(clock.clone()).expect("opens"))));
    let fleet = Fleet::assemble(store, queue, Seq::FIRST, Settings::embedded(None));
    Client::new(fleet, Author::Client("ann@desk".into()), clock, Chance::from_seed(1))
}

fn marker() -> Summary {
    record::read(include_bytes!("samples/v1/marker.json"), Summary::VERSION).expect("loads")
}

/// Half of the jobs wait in one lane for one team, half ended today.
async fn jobs(client: &Client) {
    let index = Index::new(client.fleet().store.clone());
    let today = shared::clock::Clock::now(&SystemClock).date_naive();
    for i in 0..JOBS {
        let id = client.new_id();
        let (shelf, state) = if i % 2 == 0 {
            (Shelf::Sent { lane: marker().lane, team: marker().team }, Phase::Queued)
        } else {
            (Shelf::Done { day: today }, Phase::Succeeded)
        };
        let at = Marker { shelf, job: id.clone(), round: Attempt::FIRST };
        index.put(&at, &Summary { id, state, ..marker() }).await.expect("written");
    }
}

struct Requests {
    gets: u64,
    lists: u64,
}

fn requests(store: &Store) -> Requests {
    Requests { gets: store.counts().get(Kind::Get), lists: store.counts().get(Kind::List) }
}

fn since(store: &Store, before: &Requests) -> Requests {
    let now = requests(store);
    Requests { gets: now.gets - before.gets, lists: now.lists - before.lists }
}

#[tokio::test]
async fn jobs_are_listed_by_the_page_and_only_those_shown_are_read() {
    let client = client();
    jobs(&client).await;
    let store = client.fleet().store.clone();
    let before = requests(&store);
    let filter = Filter { done_days: Some(1), limit: Some(200), ..Filter::all() };
    let page = client.page(&filter).await.expect("lists");
    let took = since(&store, &before);
    assert_eq!((page.jobs.len(), page.more), (200, JOBS - 200));
    assert_eq!(took.gets, 200, "one read for each job that is shown");
    // 20 pages, a shorter one at the end of each range of names, and a look at each directory.
    assert!(took.lists <= 100, "{} lists", took.lists);
    println!("ps of {JOBS} jobs: {} lists, {} reads", took.lists, took.gets);

    let before = requests(&store);
    assert_eq!(client.ids(&Filter { done_days: Some(1), ..Filter::all() }).await.expect("lists").len(), JOBS);
    assert_eq!(since(&store, &before).gets, 0, "ids are in the keys");

    let before = requests(&store);
    let held = Filter { states: vec![Phase::Running], ..filter };
    assert_eq!(client.page(&held).await.expect("lists").jobs, []);
    assert_eq!(since(&store, &before).gets, 0, "finished jobs do not run");
}

#[tokio::test]
async fn nodes_take_one_read_each_and_lanes_no_more_for_each_job() {
    let client = client();
    let store = client.fleet().store.clone();
    let node: NodeRecord = record::read(include_bytes!("samples/v1/node.json"), 1).expect("loads");
    for i in 0..NODES {
        let name = NodeId::new(format!("node-{i}")).expect("valid");
        let at = shared::clock::Clock::now(&SystemClock);
        NodeRecord { node: name, at, ..node.clone() }.write(&store).await.expect("written");
    }
    let before = requests(&store);
    assert_eq!(client.nodes().await.expect("lists").len(), NODES);
    assert_eq!(since(&store, &before).gets, NODES as u64);

    let spec = shared::job::JobSpec::new("i");
    let lane = client.ensure_lane(&spec).await.expect("made").id;
    let index = Index::new(store.clone());
    for _ in 0..3_000 {
        let shelf = Shelf::Sent { lane: lane.clone(), team: spec.team.clone() };
        let since = Timestamp::UNIX_EPOCH;
        let summary = Summary { id: client.new_id(), lane: lane.clone(), since, ..marker() };
        let at = Marker { shelf, job: summary.id.clone(), round: Attempt::FIRST };
        index.put(&at, &summary).await.expect("written");
    }
    let before = requests(&store);
    let lanes = client.lanes().await.expect("lists");
    assert_eq!((lanes[0].jobs, lanes[0].parked, lanes[0].oldest), (3_000, 0, Some(Timestamp::UNIX_EPOCH)));
    let took = since(&store, &before);
    assert!(took.gets <= NODES as u64 + 2 && took.lists <= 60, "{} reads, {} lists", took.gets, took.lists);
}
