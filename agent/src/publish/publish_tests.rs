use shared::{clock::SystemClock, fleet::Settings, job::JobSpec};

use super::*;

#[test]
fn who_is_told_is_the_fleets_and_the_jobs_receivers_each_once() {
    let hook = |name: &str| Webhook {
        url: format!("https://hooks.example/{name}").parse().expect("url"),
        secret: "HOOK".parse().expect("valid"),
        events: Vec::new(),
    };
    let mut settings = Settings { webhooks: vec![hook("a")], ..Settings::embedded(None) };
    assert_eq!(receivers(&settings, &[hook("a"), hook("b")]).len(), 2);
    settings.status = true;
    settings.webhooks.clear();
    assert_eq!(receivers(&settings, &[]), [Receiver::Status].into());
}

#[tokio::test]
async fn without_receivers_nothing_is_noted() {
    let store = shared::store::Store::open(&"memory:///".parse().expect("url")).expect("opens");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let queue = shared::queue::SqliteQueue::in_memory(clock.clone()).expect("opens");
    let queue = Arc::new(shared::queue::Counted::new(Arc::new(queue)));
    let fleet = Fleet::assemble(store, queue, Seq::FIRST, Settings::embedded(None));
    let disk = Memory::default();
    let client = shared::client::Client::new(
        fleet.clone(),
        shared::log::Author::Client("ann@desk".into()),
        clock.clone(),
        Chance::from_seed(1),
    );
    let job = client.submit(JobSpec::new("i"), None).await.expect("submitted").job;
    let node = "here".parse().expect("valid");
    let events =
        Publisher::new(node, fleet, Secrets::default(), Arc::new(disk.clone()), clock, Chance::from_seed(1));
    events.note(&job, job.next, Told::default()).await;
    assert_eq!(disk.names().await.expect("lists"), [""; 0]);
    events.load().await;
    assert_eq!(events.told(&job), Told::default());
}
