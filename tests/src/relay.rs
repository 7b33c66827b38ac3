//! A way to a server, on which one connection breaks or hangs.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both ends are told that it is closed.
    Breaks,
    /// It stays open, and nothing more comes.
    Hangs,
}

/// Where the fault comes: after so many bytes more from the server, on whatever connection brings them.
type Due = Arc<Mutex<Option<(Fault, usize)>>>;

/// The way. Its threads end with its connections, at the latest with the test.
pub struct Relay {
    address: SocketAddr,
}

impl Relay {
    /// Leads to a server, with a fault after so many bytes from there.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(to: &str, fault: Fault, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        let (to, due) = (to.to_owned(), Due::new(Mutex::new(Some((fault, after)))));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                let ends = [&client, &server].map(|end| end.try_clone().expect("another handle"));
                let due = due.clone();
                thread::spawn(move || carry(&server, &client, |bytes| faulty(&due, bytes)));
                thread::spawn(move || carry(&ends[0], &ends[1], |_| None));
            }
        });
        Self { address }
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The fault, once, if these bytes are too many.
fn faulty(due: &Due, bytes: usize) -> Option<Fault> {
    let mut due = due.lock().unwrap_or_else(PoisonError::into_inner);
    let (fault, left) = (*due)?;
    *due = left.checked_sub(bytes).map(|left| (fault, left));
    due.is_none().then_some(fault)
}

/// Carries what comes, until it ends or a fault does.
fn carry(mut from: &TcpStream, mut to: &TcpStream, fault: impl Fn(usize) -> Option<Fault>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        match fault(count) {
            None if to.write_all(&buffer[..count]).is_ok() => {}
            None | Some(Fault::Breaks) => break,
            Some(Fault::Hangs) => loop {
                thread::park();
            },
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}
