//! A TCP relay that misbehaves on demand.

mod connection;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use connection::Connection;

use crate::port;

/// How long a fault may take until it is done.
const DEADLINE: Duration = Duration::from_secs(10);

/// Stands between clients and a server on this machine, passes on what they send, and puts faults between them.
///
/// A client whose server does not take the connection is connected for a moment and then cut.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    target: SocketAddr,
    faults: Faults,
    state: Mutex<State>,
    /// The state has changed.
    changed: Condvar,
}

/// What the connections' threads look at for every chunk.
#[derive(Debug, Default)]
struct Faults {
    /// Nothing passes from the client.
    client_is_held: AtomicBool,
    /// Nothing passes from the server.
    server_is_held: AtomicBool,
    /// Each way.
    delay_nanos: AtomicU64,
}

impl Faults {
    fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay_nanos.load(Ordering::SeqCst))
    }
}

#[derive(Debug, Default)]
struct State {
    /// Wished: there is no listener.
    refuse: bool,
    /// Done: there is one. Written by the acceptor.
    listening: bool,
    /// The relay is dropped.
    closed: bool,
    connections: Vec<Arc<Connection>>,
}

impl Relay {
    /// A relay to a port of 127.0.0.1, without faults.
    ///
    /// # Panics
    ///
    /// When no thread can be started.
    #[must_use]
    pub fn to(port: u16) -> Self {
        let (listener, own) = port::listener();
        let shared = Arc::new(Shared {
            port: own,
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            faults: Faults::default(),
            state: Mutex::new(State { listening: true, ..State::default() }),
            changed: Condvar::new(),
        });
        let acceptor = std::thread::Builder::new()
            .name("relay-acceptor".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || accept(&shared, listener)
            })
            .expect("a thread starts");
        Self { shared, acceptor: Some(acceptor) }
    }

    /// The port that clients connect to, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// A server's URL with this relay's port in it.
    ///
    /// # Panics
    ///
    /// When the URL has no port.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let host = url.find('@').or_else(|| url.find("://").map(|at| at + 2)).expect("a URL has a host") + 1;
        let end = url[host..].find(['/', '?']).map_or(url.len(), |at| host + at);
        let port = host + url[host..end].rfind(':').expect("the URL has a port") + 1;
        format!("{}{}{}", &url[..port], self.port(), &url[end..])
    }

    /// How many connections there are now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// Closes all connections (FIN to both ends) and waits until they are closed. New ones are taken, unless
    /// [`refuse`](Self::refuse) is on.
    pub fn cut(&self) {
        let connections = self.shared.lock().connections.clone();
        for connection in &connections {
            connection.cut();
        }
        self.shared.wait_gone(connections);
    }

    /// The same with RST: both ends see "connection reset by peer".
    ///
    /// The linger option that makes the kernel send one cannot be set by safe code of Rust's standard library, so
    /// `perl` does it, which is on every Debian. Without it the ends see FIN.
    pub fn reset(&self) {
        let connections = self.shared.lock().connections.clone();
        for connection in &connections {
            connection.reset();
        }
        self.shared.wait_gone(connections);
    }

    /// New connections are refused while this is on. Those that exist stay.
    pub fn refuse(&self, on: bool) {
        self.shared.lock().refuse = on;
        self.shared.changed.notify_all();
        if on {
            self.shared.wake_acceptor();
        }
        self.shared.wait("the listener", |state| state.listening != on);
    }

    /// While this is on no byte arrives, in either direction: as when a cable is out or a firewall drops what it
    /// knew. Connections stay open, and an end that closes is not noticed by the other. New connections are taken and
    /// not answered. What was sent meanwhile arrives when it is off again, as TCP would send it again; [`cut`](Self::cut)
    /// or [`reset`](Self::reset) first, and it is lost.
    pub fn half_open(&self, on: bool) {
        self.shared.faults.client_is_held.store(on, Ordering::SeqCst);
        self.hold_answers(on);
    }

    /// The same in one direction: what clients send arrives, what the server answers does not. With
    /// [`cut`](Self::cut), confirmations are lost.
    pub fn hold_answers(&self, on: bool) {
        self.shared.faults.server_is_held.store(on, Ordering::SeqCst);
        self.shared.faults_changed();
    }

    /// Latency, added each way to what is sent from now on. Each chunk arrives that much later; order and throughput
    /// stay.
    ///
    /// # Panics
    ///
    /// When it is longer than five centuries.
    pub fn delay(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).expect("a delay is short");
        self.shared.faults.delay_nanos.store(nanos, Ordering::SeqCst);
    }

    /// Ends every fault. What was cut stays cut.
    pub fn heal(&self) {
        self.delay(Duration::ZERO);
        self.half_open(false);
        self.refuse(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        self.shared.wake_acceptor();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for connection in self.shared.lock().connections.clone() {
            connection.cut();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The acceptor is in `accept`, which only a connection ends.
    fn wake_acceptor(&self) {
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }

    fn faults_changed(&self) {
        for connection in &self.lock().connections {
            connection.wake();
        }
    }

    /// The handles are given up here: the kernel closes a connection with its last handle.
    fn wait_gone(&self, connections: Vec<Arc<Connection>>) {
        // Weak handles keep the address from being used again.
        let gone: Vec<Weak<Connection>> = connections.iter().map(Arc::downgrade).collect();
        drop(connections);
        self.wait("the connections' end", |state| {
            let is_there = |one: &Weak<Connection>| {
                state.connections.iter().any(|other| std::ptr::eq(one.as_ptr(), Arc::as_ptr(other)))
            };
            !gone.iter().any(is_there)
        });
    }

    fn wait(&self, what: &str, done: impl Fn(&State) -> bool) {
        let started = Instant::now();
        let mut state = self.lock();
        while !done(&state) {
            let left = DEADLINE.checked_sub(started.elapsed());
            let left = left.unwrap_or_else(|| panic!("the relay still waits for {what}"));
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The acceptor's thread. While connections are refused there is no listener.
fn accept(shared: &Arc<Shared>, listener: TcpListener) {
    let mut listener = Some(listener);
    while let Some(current) = listener {
        accept_until_told(shared, &current);
        drop(current);
        let mut state = shared.lock();
        state.listening = false;
        shared.changed.notify_all();
        while state.refuse && !state.closed {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return;
        }
        listener = TcpListener::bind((Ipv4Addr::LOCALHOST, shared.port)).ok();
        state.listening = listener.is_some();
        shared.changed.notify_all();
    }
}

fn accept_until_told(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        let accepted = listener.accept();
        let mut state = shared.lock();
        if state.closed || state.refuse {
            return;
        }
        let Ok((client, _)) = accepted else { continue };
        if let Ok(connection) = Connection::new(client) {
            let connection = Arc::new(connection);
            state.connections.push(Arc::clone(&connection));
            drop(state);
            let shared = Arc::clone(shared);
            std::thread::spawn(move || {
                let _: io::Result<()> = connection.run(shared.target, &shared.faults);
                let mut state = shared.lock();
                state.connections.retain(|other| !Arc::ptr_eq(other, &connection));
                // Closed before anybody hears that it is gone.
                drop(connection);
                shared.changed.notify_all();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Relay;

    #[test]
    fn a_url_gets_the_port_of_the_relay() {
        let relay = Relay::to(1);
        let port = relay.port();
        assert_eq!(relay.url("amqp://a:b@127.0.0.1:5672/%2f"), format!("amqp://a:b@127.0.0.1:{port}/%2f"));
        assert_eq!(relay.url("amqp://127.0.0.1:5672"), format!("amqp://127.0.0.1:{port}"));
    }
}
