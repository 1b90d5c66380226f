//! One client's connection through a relay.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::Faults;

/// What may be under way in one direction; then the sender is read no more and notices it, as with a real network.
const WINDOW: usize = 4 << 20;
const CHUNK: usize = 64 << 10;
/// How long a thread may stand in a write before it looks around again.
const PATIENCE: Duration = Duration::from_millis(50);

/// The client's end, the server's end, and two lanes between them with two threads each.
#[derive(Debug)]
pub(super) struct Connection {
    client: TcpStream,
    /// Set when the server has taken the connection.
    server: OnceLock<TcpStream>,
    /// Cut or reset: the threads end.
    over: AtomicBool,
    to_server: Lane,
    to_client: Lane,
}

/// What is under way in one direction.
#[derive(Debug, Default)]
struct Lane {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Each with the time of its arrival; an empty one is the sender's end.
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Connection {
    pub(super) fn new(client: TcpStream) -> io::Result<Self> {
        prepare(&client)?;
        Ok(Self {
            client,
            server: OnceLock::new(),
            over: AtomicBool::new(false),
            to_server: Lane::default(),
            to_client: Lane::default(),
        })
    }

    /// Until both ends have closed, or it is cut.
    pub(super) fn run(&self, target: SocketAddr, faults: &Faults) -> io::Result<()> {
        // A connection that was made while nothing passes has not reached the server.
        drop(self.to_server.wait(|_| self.is_over() || !held(&faults.client_is_held)));
        if self.is_over() {
            return Ok(());
        }
        let server = TcpStream::connect_timeout(&target, Duration::from_secs(10))?;
        prepare(&server)?;
        let server = self.server.get_or_init(|| server);
        if self.is_over() {
            return Ok(());
        }
        std::thread::scope(|scope| {
            scope.spawn(|| self.receive(&self.client, &self.to_server, &faults.client_is_held, faults));
            scope.spawn(|| self.receive(server, &self.to_client, &faults.server_is_held, faults));
            scope.spawn(|| self.deliver(server, &self.to_server, &faults.client_is_held));
            self.deliver(&self.client, &self.to_client, &faults.server_is_held);
        });
        Ok(())
    }

    /// From a sender into its lane.
    fn receive(&self, mut from: &TcpStream, lane: &Lane, is_held: &AtomicBool, faults: &Faults) {
        let mut buffer = vec![0; CHUNK];
        loop {
            drop(lane.wait(|queue| self.is_over() || (queue.bytes < WINDOW && !held(is_held))));
            if self.is_over() {
                return;
            }
            match from.read(&mut buffer) {
                Ok(count) => {
                    lane.push(Instant::now() + faults.delay(), buffer[..count].to_vec());
                    if count == 0 {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.cut(),
            }
        }
    }

    /// From a lane to its receiver.
    fn deliver(&self, mut to: &TcpStream, lane: &Lane, is_held: &AtomicBool) {
        loop {
            let mut queue = lane.wait(|queue| self.is_over() || (!queue.chunks.is_empty() && !held(is_held)));
            if self.is_over() {
                return;
            }
            let Some((arrival, _)) = queue.chunks.front() else { continue };
            let left = arrival.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                let until = |_: &mut Queue| !self.is_over();
                drop(lane.changed.wait_timeout_while(queue, left, until));
                continue;
            }
            let Some((_, chunk)) = queue.chunks.pop_front() else { continue };
            queue.bytes -= chunk.len();
            drop(queue);
            lane.changed.notify_all();
            if chunk.is_empty() {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                match to.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    // The receiver does not read.
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return self.cut(),
                }
                if self.is_over() {
                    return;
                }
                drop(lane.wait(|_| self.is_over() || !held(is_held)));
            }
        }
    }

    /// FIN to both ends, and the threads end.
    pub(super) fn cut(&self) {
        self.end(Shutdown::Both);
    }

    /// RST to both ends as soon as the last handle is gone, and the threads end.
    pub(super) fn reset(&self) {
        let ends = [Some(&self.client), self.server.get()];
        let is_set = ends.into_iter().flatten().map(linger_not).all(|result| result.is_ok());
        // Sends nothing, and ends the reads.
        self.end(if is_set { Shutdown::Read } else { Shutdown::Both });
    }

    fn end(&self, how: Shutdown) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.client.shutdown(how);
        if let Some(server) = self.server.get() {
            let _ = server.shutdown(how);
        }
        self.wake();
    }

    /// The threads look at the faults again.
    pub(super) fn wake(&self) {
        for lane in [&self.to_server, &self.to_client] {
            // With the lock, or a thread that is about to wait would miss it.
            let _queue = lane.lock();
            lane.changed.notify_all();
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, arrival: Instant, chunk: Vec<u8>) {
        let mut queue = self.lock();
        queue.bytes += chunk.len();
        queue.chunks.push_back((arrival, chunk));
        self.changed.notify_all();
    }

    fn wait(&self, ready: impl Fn(&Queue) -> bool) -> MutexGuard<'_, Queue> {
        self.changed.wait_while(self.lock(), |queue| !ready(queue)).unwrap_or_else(PoisonError::into_inner)
    }
}

fn held(is_held: &AtomicBool) -> bool {
    is_held.load(Ordering::SeqCst)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Makes the kernel answer the last close by RST: `SO_LINGER` with no time. The option belongs to the socket and not
/// to the process, so another process can set it.
fn linger_not(stream: &TcpStream) -> io::Result<()> {
    // SOL_SOCKET and SO_LINGER of Linux.
    const SET: &str = "setsockopt(STDIN, 1, 13, pack('ii', 1, 0)) or exit 1";
    let handle = OwnedFd::from(stream.try_clone()?);
    let status = Command::new("perl")
        .args(["-e", SET])
        .stdin(handle)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("perl")) }
}
