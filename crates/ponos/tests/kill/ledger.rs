//! The ledger: what ran where and when, written by the workers themselves, beside the broker.
//!
//! Each line is one write to a file that was opened for appending, so lines of many processes do not mix, and what was
//! written before a SIGKILL stays written.

#![allow(unreachable_pub, reason = "a module of a test binary")]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ponos::Phase;

/// Where one worker process writes.
#[derive(Debug, Clone)]
pub struct Ledger {
    file: Arc<File>,
    worker: u32,
}

/// One function call that a worker made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    pub job: u32,
    pub recovery: bool,
    pub attempt: u32,
}

/// A call as the ledger has it.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub call: Call,
    /// The number of the process: one that was started again has another.
    pub worker: u32,
    pub started: Micros,
    pub finished: Option<Micros>,
}

/// Microseconds since the epoch, on the clock that all processes of a machine share.
pub type Micros = u64;

pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_micros()).expect("before the year 586,524")
}

impl Ledger {
    /// The ledger beside a broker's file, for the worker of this number.
    pub fn open(broker: &Path, worker: u32) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path(broker)).unwrap();
        Self { file: Arc::new(file), worker }
    }

    pub fn worker(&self) -> u32 {
        self.worker
    }

    pub fn started(&self, job: u32, phase: Phase, attempt: u32) {
        self.write('S', job, phase, attempt);
    }

    pub fn finished(&self, job: u32, phase: Phase, attempt: u32) {
        self.write('F', job, phase, attempt);
    }

    fn write(&self, what: char, job: u32, phase: Phase, attempt: u32) {
        let line = format!("{what} {} {job} {} {attempt} {}\n", self.worker, phase.as_str(), now());
        let written = (&*self.file).write(line.as_bytes()).unwrap();
        assert_eq!(written, line.len(), "a line is one write");
    }
}

fn path(broker: &Path) -> PathBuf {
    broker.with_extension("ledger")
}

/// All runs so far, in the order in which they started.
pub fn read(broker: &Path) -> Vec<Run> {
    let text = std::fs::read_to_string(path(broker)).unwrap_or_default();
    let mut runs: Vec<Run> = Vec::new();
    let mut open = std::collections::HashMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [what, worker, job, phase, attempt, at] = fields[..] else { panic!("a torn line: {line}") };
        let (worker, at) = (worker.parse().unwrap(), at.parse().unwrap());
        let call = Call {
            job: job.parse().unwrap(),
            recovery: phase == Phase::Recover.as_str(),
            attempt: attempt.parse().unwrap(),
        };
        if what == "S" {
            let run = Run { call, worker, started: at, finished: None };
            assert_eq!(
                open.insert((worker, call), runs.len()),
                None,
                "one process ran a call twice: {run:?}"
            );
            runs.push(run);
        } else {
            runs[open[&(worker, call)]].finished = Some(at);
        }
    }
    runs
}
