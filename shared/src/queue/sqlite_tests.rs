use std::process::{Child, Command, Stdio};

use super::*;
use crate::{clock::SystemClock, id::Team, queue::conformance};

fn open(path: &Path) -> SqliteQueue {
    SqliteQueue::open(path, Arc::new(SystemClock)).expect("opens")
}

fn lane() -> QueueName {
    "lane".parse().expect("a valid name")
}

async fn send(queue: &SqliteQueue, body: &str) {
    queue.ensure(&lane()).await.expect("made");
    let message = Outgoing::new(Team::default(), body);
    queue.send(&lane(), &message, Duration::ZERO).await.expect("sent");
}

#[tokio::test]
async fn a_file_conforms() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("queue.sqlite");
    let (a, b) = (open(&path), open(&path));
    conformance::suite(&a, &b).await;
    conformance::exactly_one_receiver(&a, &b).await;
}

#[tokio::test]
async fn memory_conforms() {
    let queue = SqliteQueue::in_memory(Arc::new(SystemClock)).expect("opens");
    conformance::suite(&queue, &queue).await;
}

#[tokio::test]
async fn an_outdated_receipt_has_no_effect() {
    let queue = SqliteQueue::in_memory(Arc::new(SystemClock)).expect("opens");
    let name = lane();
    send(&queue, "x").await;
    let receive = || queue.receive(&name, 1, Duration::ZERO, Duration::ZERO);
    let first = receive().await.expect("answered").pop().expect("sent");
    let second = receive().await.expect("answered").pop().expect("not hidden");
    queue.delete(&lane(), &first.receipt).await.expect("no error");
    assert_eq!(receive().await.expect("answered").len(), 1, "still there after {second:?}");
}

#[tokio::test]
async fn a_queue_of_a_newer_haul_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("queue.sqlite");
    drop(open(&path));
    let connection = Connection::open(&path).expect("opens");
    connection.pragma_update(None, "user_version", 7).expect("written");
    let error = SqliteQueue::open(&path, Arc::new(SystemClock)).err().expect("newer");
    assert!(error.to_string().contains("newer haul (version 7, this one reads 2)"), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("queue.sqlite");
    std::fs::write(&path, "just some text, long enough to be looked at as a header of a database")
        .expect("written");
    let error = SqliteQueue::open(&path, Arc::new(SystemClock)).err().expect("no database");
    assert!(error.to_string().contains("queue.sqlite cannot be used: file is not a database"), "{error}");
}

#[tokio::test]
async fn receivers_that_wait_write_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("queue.sqlite");
    let (a, b) = (open(&path), open(&path));
    send(&a, "x").await;
    assert_eq!(
        a.receive(&lane(), 1, Duration::ZERO, Duration::from_secs(60)).await.expect("answered").len(),
        1
    );
    let version = |queue: &SqliteQueue| {
        let connection = queue.inner.connection.lock().expect("no panic");
        connection.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).expect("answered")
    };
    let watcher = open(&path);
    let before = version(&watcher);
    let (name, wait) = (lane(), Duration::from_secs(1));
    let (one, two) =
        futures::join!(a.receive(&name, 1, wait, Duration::ZERO), b.receive(&name, 1, wait, Duration::ZERO));
    assert!(one.expect("answered").is_empty() && two.expect("answered").is_empty());
    assert_eq!(version(&watcher), before, "another connection's writes change the version");
}

/// The test runs itself as other processes: two that send, two that receive, one of which is
/// killed in the midst of it.
#[tokio::test]
async fn a_killed_process_loses_no_message() {
    const MESSAGES: usize = 500;
    if let Ok(role) = std::env::var("HAUL_TEST_QUEUE_ROLE") {
        return role_of_another_process(&role, MESSAGES).await;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("queue.sqlite");
    let queue = open(&path);
    queue.ensure(&lane()).await.expect("made");
    let start = |role: &str| -> Child {
        Command::new(std::env::current_exe().expect("path"))
            .args(["queue::sqlite::tests::a_killed_process_loses_no_message", "--exact", "--nocapture"])
            .env("HAUL_TEST_QUEUE_ROLE", role)
            .env("HAUL_TEST_QUEUE", &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts")
    };
    let mut victim = start("receive");
    let senders = [start("send"), start("send")];
    let heir = start("receive");
    let mut first = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(victim.stdout.as_mut().expect("piped")),
        &mut first,
    )
    .expect("reads");
    victim.kill().expect("killed");
    victim.wait().expect("ends");
    for sender in senders {
        assert!(sender.wait_with_output().expect("ends").status.success());
    }
    assert!(heir.wait_with_output().expect("ends").status.success());
    assert_eq!(queue.depth(&lane()).await.expect("answered"), Depth::default(), "every message was received");
}

/// Sends half of the messages, or receives until there are none for a while.
async fn role_of_another_process(role: &str, messages: usize) {
    let queue = open(Path::new(&std::env::var_os("HAUL_TEST_QUEUE").expect("given")));
    if role == "send" {
        for n in 0..messages / 2 {
            send(&queue, &n.to_string()).await;
        }
        return;
    }
    // Longer than the visibility, so that what the killed one had comes back.
    while let Ok(received) = queue.receive(&lane(), 10, Duration::from_secs(4), Duration::from_secs(2)).await
    {
        if received.is_empty() {
            return;
        }
        for message in received {
            println!("{}", message.body);
            queue.delete(&lane(), &message.receipt).await.expect("deleted");
        }
    }
}
