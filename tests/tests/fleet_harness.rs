//! The harness itself: the proxy makes the faults that it is told to make, and what the engine's events
//! are checked for is found.

use std::time::Duration;

use http::{Method, StatusCode};
use tests::{
    Emulator, Proxy, Timeline,
    emulator::{BUCKET, Kind},
    http::{Http, Unanswered, put, request},
    now,
    proxy::{Door, Faults, Service},
    timeline::{Change, Event},
    within,
};

/// Shorter than any wait that is a fault.
const SOON: Duration = Duration::from_secs(5);

/// An emulator, one way through the proxy, and the way past it.
struct Bench {
    emulator: Emulator,
    door: Door,
    other: Door,
    http: Http,
    _proxy: Proxy,
}

impl Bench {
    fn new() -> Self {
        let emulator = Emulator::start(Kind::Ministack);
        let proxy = Proxy::new(&emulator, 1);
        let (door, other) = (proxy.door(), proxy.door());
        Self { emulator, door, other, http: Http::default(), _proxy: proxy }
    }

    fn with(faults: Faults) -> Self {
        let bench = Self::new();
        bench.door.set(Service::S3, faults);
        bench
    }

    /// Writes through the door.
    fn write(&self, key: &str, patience: Duration) -> Result<StatusCode, Unanswered> {
        let url = format!("{}/{BUCKET}/{key}", self.door.url());
        self.http.send(put(&url, "\"text\""), patience).map(|answer| answer.status())
    }

    /// Whether the emulator has it.
    fn has(&self, key: &str) -> bool {
        let url = format!("{}/{BUCKET}/{key}", self.emulator.url());
        self.http.ask(request(Method::GET, &url)).is_some()
    }
}

#[test]
fn a_cut_breaks_connections_and_passes_nothing_on_until_it_heals() {
    let bench = Bench::with(Faults { cut: true, ..Faults::default() });
    assert_eq!(bench.write("a", SOON), Err(Unanswered::Broken));
    assert!(!bench.has("a"));
    bench.door.set(Service::S3, Faults::default());
    assert_eq!(bench.write("a", SOON), Ok(StatusCode::OK));
    assert!(bench.has("a"));
}

#[test]
fn a_cut_breaks_requests_that_are_under_way() {
    let bench = Bench::with(Faults { delay: Duration::from_secs(600), ..Faults::default() });
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| bench.write("a", Duration::from_secs(60)));
        within(SOON, "it is under way", || (bench.door.count(Service::S3) == 1).then_some(()));
        bench.door.set(Service::S3, Faults { cut: true, ..Faults::default() });
        assert_eq!(waits.join().expect("no panic"), Err(Unanswered::Broken));
    });
    assert!(!bench.has("a"));
}

#[test]
fn a_black_hole_takes_requests_and_never_answers() {
    let bench = Bench::with(Faults { black_hole: true, ..Faults::default() });
    assert_eq!(bench.write("a", Duration::from_secs(1)), Err(Unanswered::Silent));
    assert_eq!(bench.door.count(Service::S3), 1, "it was taken");
    assert!(!bench.has("a"), "and not passed on");
    bench.door.set(Service::S3, Faults::default());
    assert_eq!(bench.write("b", SOON), Ok(StatusCode::OK));
    assert!(!bench.has("a"), "what it has swallowed does not come out of it");
}

#[test]
fn a_request_is_passed_on_after_its_delay() {
    let delay = Duration::from_secs(1);
    let bench = Bench::with(Faults { delay, ..Faults::default() });
    let began = now();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| bench.write("a", Duration::from_secs(60)));
        within(SOON, "it is under way", || (bench.door.count(Service::S3) == 1).then_some(()));
        let early = bench.has("a");
        assert!(!early || began.elapsed() >= delay, "passed on at once");
        assert_eq!(waits.join().expect("no panic"), Ok(StatusCode::OK));
    });
    assert!(began.elapsed() >= delay);
    assert!(bench.has("a"));
}

#[test]
fn an_answer_is_given_without_asking_the_service() {
    for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE] {
        let bench = Bench::with(Faults { answer: Some(status.as_u16()), ..Faults::default() });
        assert_eq!(bench.write("a", SOON), Ok(status));
        assert!(!bench.has("a"));
    }
}

#[test]
fn an_answer_is_lost_after_the_request_was_done() {
    let bench = Bench::with(Faults { lose: 1.0, ..Faults::default() });
    assert_eq!(bench.write("a", SOON), Err(Unanswered::Broken));
    assert!(bench.has("a"), "it was done");
    bench.door.set(Service::S3, Faults { lose: 0.1, ..Faults::default() });
    let lost = (0..200).filter(|n| bench.write(&format!("b{n}"), SOON).is_err()).count();
    assert!((5..60).contains(&lost), "{lost} of 200 answers were lost, at one in ten");
    assert!((0..200).all(|n| bench.has(&format!("b{n}"))));
}

#[test]
fn a_doors_faults_are_its_own_and_those_of_one_service() {
    let bench = Bench::new();
    bench.door.set(Service::Sqs, Faults { cut: true, ..Faults::default() });
    assert_eq!(bench.write("a", SOON), Ok(StatusCode::OK));
    bench.door.set(Service::S3, Faults { cut: true, ..Faults::default() });
    let url = format!("{}/{BUCKET}/a", bench.other.url());
    assert!(bench.http.ask(request(Method::GET, &url)).is_some());
    assert_eq!((bench.door.count(Service::S3), bench.other.count(Service::S3)), (1, 1));
}

/// What happened to the containers of one job, each by a letter, one event after the other.
fn timeline(events: &[(&str, Change)]) -> Timeline {
    let event = |(at, (container, change)): (u64, &(&str, Change))| Event {
        at,
        container: (*container).to_owned(),
        job: "j".to_owned(),
        attempt: (*container).to_owned(),
        node: format!("node of {container}"),
        gpus: vec![format!("gpu of {container}")],
        change: *change,
    };
    Timeline::new((0..).zip(events).map(event).collect())
}

fn only(events: &[(&str, Change)], fault: &str) {
    let broken = timeline(events).broken();
    assert!(broken.len() == 1 && broken[0].starts_with(fault), "{broken:?}");
}

#[test]
fn a_frozen_container_beside_a_running_one_is_as_it_should_be() {
    use Change::{Create, Destroy, Die, Kill, Pause, Start, Unpause};
    let taken_over = [
        ("a", Create),
        ("a", Start),
        ("a", Pause),
        ("b", Create),
        ("b", Start),
        // Its node is back and removes it: it is thawed to die.
        ("a", Kill),
        ("a", Unpause),
        ("a", Die),
        ("a", Destroy),
        ("b", Pause),
        ("b", Unpause),
        ("b", Die),
        ("b", Destroy),
    ];
    assert_eq!(timeline(&taken_over).broken(), Vec::<String>::new());
}

#[test]
fn two_that_run_at_once_are_found() {
    use Change::{Create, Die, Pause, Start, Unpause};
    let begin = [("a", Create), ("a", Start), ("b", Create)];
    only(&[&begin[..], &[("b", Start)]].concat(), "two run at once");
    let late = [("b", Start), ("a", Pause), ("a", Die)];
    only(&[&begin[..], &late].concat(), "two run at once");
    let thawed = [("a", Pause), ("b", Start), ("a", Unpause)];
    only(&[&begin[..], &thawed].concat(), "two run at once");
}

#[test]
fn what_cannot_be_judged_is_said() {
    only(&[("a", Change::Start)], "not seen from its beginning");
}

#[test]
fn an_attempt_that_is_started_twice_and_a_gpu_that_is_given_twice_are_found() {
    use Change::{Create, Die, Pause, Start};
    let mut again = timeline(&[("a", Create), ("a", Start), ("a", Die), ("b", Create), ("b", Start)]);
    again = Timeline::new(
        again.events().iter().cloned().map(|event| Event { attempt: "1".into(), ..event }).collect(),
    );
    assert!(again.broken()[0].starts_with("an attempt was started twice"), "{:?}", again.broken());
    let mut shared = timeline(&[("a", Create), ("a", Start), ("a", Pause), ("b", Create), ("b", Start)]);
    shared = Timeline::new(
        shared.events().iter().cloned().map(|event| Event { gpus: vec!["g".into()], ..event }).collect(),
    );
    assert!(shared.broken()[0].starts_with("g twice"), "{:?}", shared.broken());
}

#[test]
fn events_are_read_as_the_engine_prints_them() {
    let line = r#"{"status":"start","id":"i","Type":"container","Action":"start","Actor":{"ID":"i","Attributes":{"haul.attempt":"2","haul.fleet":"f","haul.gpus":"g,h","haul.job":"j","haul.node":"n"}},"timeNano":7}"#;
    let text = format!("{line}\n{}", &line[..40]);
    let event = Event {
        at: 7,
        container: "i".into(),
        job: "j".into(),
        attempt: "2".into(),
        node: "n".into(),
        gpus: vec!["g".into(), "h".into()],
        change: Change::Start,
    };
    assert_eq!(Timeline::parse(&text).events(), [event]);
}
