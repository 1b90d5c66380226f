//! Ports for servers.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

/// A random number; the standard library's only source of chance is the seed of its hash maps.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// A loopback port that nobody listens on.
///
/// It lies below the range from which Linux takes the ports of clients (32768 and up). A server that is down would
/// otherwise lose its port to the next client, or be answered by the client itself: a connection from a port to the
/// same port succeeds.
pub(crate) fn free() -> u16 {
    listener().1
}

/// A listener on such a port.
pub(crate) fn listener() -> (TcpListener, u16) {
    const FIRST: u64 = 10_240;
    const COUNT: u64 = 22_000;
    (0..1_000)
        .find_map(|_| {
            let port = u16::try_from(FIRST + random() % COUNT).expect("below 32768");
            Some((TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?, port))
        })
        .expect("one of a thousand loopback ports is free")
}
