//! Writing to the ledger: what every process but the ledger itself holds.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::record::{Call, Ending, Entry, Record, now};

/// How long the ledger's process may take until it listens.
const START: Duration = Duration::from_secs(20);

/// One process's way to the ledger. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Held for one write, so that lines do not mix.
    socket: Mutex<UnixStream>,
    by: u32,
    runs: AtomicU32,
}

/// A call that has begun.
#[derive(Debug)]
#[must_use = "a call that nobody ends counts as cut"]
pub(crate) struct Handle(u32);

impl Ledger {
    /// Connects, and waits for the ledger's process if it is about to start.
    pub(crate) fn connect(dir: &Path, by: u32) -> anyhow::Result<Self> {
        let path = super::socket(dir);
        let deadline = Instant::now() + START;
        let socket = loop {
            match UnixStream::connect(&path) {
                Ok(socket) => break socket,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("the ledger at {}", path.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        Ok(Self(Arc::new(Inner { socket: Mutex::new(socket), by, runs: AtomicU32::new(0) })))
    }

    /// Writes a line. What is written when this returns will be in the ledger, whatever happens to this process.
    pub(crate) fn write(&self, entry: Entry) {
        self.write_at(now(), entry);
    }

    /// The same for something that was at another time.
    pub(crate) fn write_at(&self, at: super::Micros, entry: Entry) {
        let line = format!("{}\n", Record { at, by: self.0.by, entry });
        let mut socket = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = socket.write_all(line.as_bytes()) {
            // Nothing that this process does from here on could be proven.
            crate::output::problem(&format!("the ledger is gone: {error}"));
            std::process::abort();
        }
    }

    pub(crate) fn started(&self, call: Call, id: String, tid: String) -> Handle {
        let run = self.0.runs.fetch_add(1, Ordering::Relaxed);
        self.write(Entry::Started { run, call, id, tid });
        Handle(run)
    }

    pub(crate) fn ended(&self, Handle(run): Handle, ending: Ending) {
        self.write(Entry::Ended { run, ending });
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        self.write(Entry::Note { text: text.into() });
    }
}
