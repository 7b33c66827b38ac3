//! What every store must do, one case a function: run against every kind of store and every
//! emulator of one.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::join_all;

use super::{Created, Key, Store, probe};
use crate::clock::Chance;

/// Runs all cases on a store that holds nothing under `conformance/`.
///
/// # Panics
/// Where the store fails one of them.
pub async fn suite(store: &Store) {
    one_of_many_creators_wins(store).await;
    an_object_is_there_for_every_later_read(store).await;
    keys_are_listed_by_whole_segments(store).await;
    a_write_shows_in_the_listing(store).await;
    deleting_what_is_not_there_is_no_error(store).await;
    probe(store, &Chance::from_os()).await.expect("fit for a fleet");
}

fn key(name: &str) -> Key {
    Key::new(format!("conformance/{name}"))
}

async fn one_of_many_creators_wins(store: &Store) {
    for round in 0..8 {
        let key = key(&format!("race/{round}"));
        let bodies: Vec<Bytes> = (0..16).map(|i| Bytes::from(format!("{i}"))).collect();
        let created = join_all(bodies.iter().map(|body| store.create(&key, body.clone()))).await;
        let read = store.get(&key).await.expect("read").expect("there");
        let winners: Vec<&Bytes> = created
            .iter()
            .zip(&bodies)
            .filter(|(created, body)| match created.as_ref().expect("answered") {
                Created::New => true,
                Created::Exists(found) => found == *body,
            })
            .map(|(_, body)| body)
            .collect();
        assert_eq!(winners, [&read]);
    }
}

async fn an_object_is_there_for_every_later_read(store: &Store) {
    let key = key("later");
    assert_eq!(store.get(&key).await.expect("read"), None);
    assert_eq!(store.create(&key, "a".into()).await.expect("create"), Created::New);
    assert_eq!(store.get(&key).await.expect("read"), Some("a".into()));
    assert_eq!(store.create(&key, "b".into()).await.expect("create"), Created::Exists("a".into()));
    store.put(&key, "c".into()).await.expect("put");
    assert_eq!(store.get(&key).await.expect("read"), Some("c".into()));
    let empty = Key::new("conformance/empty");
    store.put(&empty, Bytes::new()).await.expect("put");
    assert_eq!(store.get(&empty).await.expect("read"), Some(Bytes::new()));
}

async fn keys_are_listed_by_whole_segments(store: &Store) {
    for name in ["list/a/1", "list/a/2", "list/ab/1", "list/b"] {
        store.put(&key(name), "x".into()).await.expect("put");
    }
    let listed = store.list("conformance/list/a").await.expect("list");
    assert_eq!(listed, [key("list/a/1"), key("list/a/2")]);
    let names = store.list_names("conformance/list").await.expect("list");
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), ["a", "ab", "b"].map(String::from).into());
    let page = store.list_page("conformance/list", Some(&key("list/a/2"))).await.expect("list");
    let page: Vec<Key> = page.into_iter().map(|object| object.key).collect();
    assert_eq!(page, [key("list/ab/1"), key("list/b")]);
    assert_eq!(store.list("conformance/nothing").await.expect("list"), []);
    assert!(store.list_names("conformance/nothing").await.expect("list").is_empty());
}

async fn a_write_shows_in_the_listing(store: &Store) {
    let key = key("tags/a");
    store.put(&key, "a".into()).await.expect("put");
    let seen = || async { store.list_objects("conformance/tags").await.expect("list").pop().expect("there") };
    let before = seen().await;
    assert_eq!(seen().await, before, "nothing was written");
    // A header says the time to the second (RFC 9110), and some listings more exactly.
    let head = store.head(&key).await.expect("read").expect("there");
    assert_eq!((&head.key, &head.tag), (&before.key, &before.tag));
    assert_eq!(head.modified.timestamp(), before.modified.timestamp());
    store.put(&key, "b".into()).await.expect("put");
    let after = seen().await;
    assert!(after.tag != before.tag && after.modified >= before.modified);
    assert_eq!(store.head(&Key::new("conformance/never")).await.expect("read"), None);
}

async fn deleting_what_is_not_there_is_no_error(store: &Store) {
    let key = key("gone");
    store.delete(&key).await.expect("delete");
    store.put(&key, "x".into()).await.expect("put");
    store.delete(&key).await.expect("delete");
    store.delete(&key).await.expect("delete");
    assert_eq!(store.get(&key).await.expect("read"), None);
    assert_eq!(store.create(&key, "y".into()).await.expect("create"), Created::New);
}
