//! Reaching an engine: away, back, hanging, and of another version.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use super::{Docker, engine};
use crate::engine::{Engine, EngineError};

fn at(socket: &Path) -> Docker {
    Docker::connect(Some(&socket.display().to_string())).expect("an address")
}

fn socket_of(engine: &Docker) -> PathBuf {
    PathBuf::from(engine.address.strip_prefix("unix://").expect("a socket"))
}

#[tokio::test]
async fn the_engine_says_what_it_is() {
    let info = engine().await.info().await.expect("answers");
    assert!(["Docker", "Podman"].contains(&info.name), "{}", info.name);
    assert!(info.api.starts_with("1.") && !info.version.is_empty() && info.root.is_absolute());
}

#[tokio::test]
async fn an_engine_that_comes_back_is_reached_again() {
    let real = socket_of(&engine().await);
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("engine.sock");
    let engine = at(&socket);
    for _ in 0..2 {
        let error = engine.list(&[]).await.expect_err("nobody is there");
        assert!(matches!(&error, EngineError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains(&socket.display().to_string()), "{error}");
        assert!(!engine.is_up().await);
        symlink(&real, &socket).expect("linked");
        engine.list(&[]).await.expect("the same object reaches it");
        assert!(engine.is_up().await);
        std::fs::remove_file(&socket).expect("removed");
    }
}

#[tokio::test]
async fn a_socket_that_nobody_listens_at_is_no_engine() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("engine.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let error = at(&socket).info().await.expect_err("refused");
    assert!(
        matches!(&error, EngineError::Unreachable { detail, .. } if detail.contains("refused")),
        "{error}"
    );
}

/// An engine can hang on a dead mount. Time is the runtime's own, which leaps when all wait.
#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_given_up() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("engine.sock");
    let _listener = UnixListener::bind(&socket).expect("bound");
    let error = at(&socket).list(&[]).await.expect_err("no answer");
    assert!(matches!(error, EngineError::Timeout { seconds: 20, .. }), "{error}");
}

/// Byte for byte what goes over the socket, answered as dockerd 20.10 does.
#[tokio::test]
async fn requests_name_the_version_that_was_agreed_upon() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("engine.sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    let serve = async {
        let mut asked = Vec::new();
        for body in [r#"{"ApiVersion":"1.41","MinAPIVersion":"1.12"}"#, "{}", "[]"] {
            let (mut connection, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 4096];
            let read = connection.read(&mut request).await.expect("a request");
            let line =
                String::from_utf8_lossy(&request[..read]).lines().next().unwrap_or_default().to_owned();
            asked.push(line);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            connection.write_all(answer.as_bytes()).await.expect("answered");
        }
        asked
    };
    let engine = at(&socket);
    let both = async { futures::join!(serve, engine.list(&[])) };
    let (asked, listed) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("in time");
    assert!(listed.expect("listed").is_empty());
    let paths: Vec<&str> = asked.iter().map(|line| line.split(['?', ' ']).nth(1).expect("a path")).collect();
    assert_eq!(paths, ["/version", "/v1.41/info", "/v1.41/containers/json"]);
}
