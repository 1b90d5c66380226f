//! Follows the ledger, and gives jobs to the publishers as far as there is room for them.

use std::io::Write as _;
use std::path::Path;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ledger::{Book, Tail};
use crate::load::Mix;
use crate::scenarios::Figures;

/// How often it looks.
const TICK: Duration = Duration::from_millis(5);

/// How fast jobs come, and which.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Jobs in a second at most.
    pub(crate) pace: u32,
    /// Asked for and not complete, at most.
    pub(crate) backlog: u32,
    /// Without an answer at one publisher, at most.
    pub(crate) open: usize,
    pub(crate) mix: Mix,
    /// The last job, if there is one.
    pub(crate) until: u32,
}

impl Load {
    pub(crate) fn of(figures: &Figures) -> Self {
        let Figures { pace, backlog, open, mix, .. } = *figures;
        Self { pace, backlog, open, mix, until: u32::MAX }
    }
}

/// The thread that does it.
#[derive(Debug)]
pub(crate) struct Feed {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    publishers: Mutex<Vec<Fed>>,
    load: Mutex<Load>,
    is_over: AtomicBool,
    problem: Mutex<Option<String>>,
    seed: u64,
}

/// A publisher, and how many jobs it was given.
#[derive(Debug)]
struct Fed {
    number: u32,
    input: ChildStdin,
    given: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    pub(crate) fn start(dir: &Path, seed: u64, load: Load) -> anyhow::Result<Self> {
        let mut tail = Tail::open(dir)?;
        let shared = Arc::new(Shared {
            book: Mutex::default(),
            publishers: Mutex::default(),
            load: Mutex::new(load),
            is_over: AtomicBool::new(false),
            problem: Mutex::default(),
            seed,
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut next = Next { job: 0, credit: 0.0, at: Instant::now() };
            while !of_thread.is_over.load(Ordering::Relaxed) {
                if let Err(error) = of_thread.read(&mut tail) {
                    *lock(&of_thread.problem) = Some(format!("{error:#}"));
                    return;
                }
                of_thread.give(&mut next);
                std::thread::sleep(TICK);
            }
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.shared.book)
    }

    /// Why the ledger is not followed any more.
    pub(crate) fn problem(&self) -> Option<String> {
        lock(&self.shared.problem).clone()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Load)) {
        change(&mut lock(&self.shared.load));
    }

    pub(crate) fn add(&self, (number, input): (u32, ChildStdin)) {
        lock(&self.shared.publishers).push(Fed { number, input, given: 0 });
    }

    pub(crate) fn remove(&self, number: u32) {
        lock(&self.shared.publishers).retain(|fed| fed.number != number);
    }

    /// No job is given any more; publishers end when they have all their answers.
    pub(crate) fn close(&self) {
        self.set(|load| load.until = 0);
        lock(&self.shared.publishers).clear();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The next job, and how many of the pace's are due.
#[derive(Debug)]
struct Next {
    job: u32,
    credit: f64,
    at: Instant,
}

impl Shared {
    fn read(&self, tail: &mut Tail) -> anyhow::Result<()> {
        let records = tail.read()?;
        let mut book = lock(&self.book);
        records.into_iter().for_each(|record| book.add(record));
        Ok(())
    }

    fn give(&self, next: &mut Next) {
        let load = *lock(&self.load);
        let passed = next.at.elapsed();
        next.at = Instant::now();
        // What was not used up within a tenth of a second is not caught up on.
        let pace = f64::from(load.pace);
        next.credit = (next.credit + pace * passed.as_secs_f64()).min(pace / 10.0 + 1.0);
        let mut publishers = lock(&self.publishers);
        let mut room = {
            let book = lock(&self.book);
            let open: u32 = publishers.iter().map(|fed| fed.open(&book)).sum();
            load.backlog.saturating_sub(book.unfinished + open)
        };
        let count = u32::try_from(publishers.len()).unwrap_or(1).max(1);
        for fed in publishers.iter_mut() {
            let open = fed.open(&lock(&self.book));
            // Little enough for a pipe, also when the publisher stands still.
            let places = u32::try_from(load.open.min(2_000)).unwrap_or(2_000).saturating_sub(open);
            let share =
                (next.credit as u32 / count).min(places).min(room).min(load.until.saturating_sub(next.job));
            if share == 0 {
                continue;
            }
            let jobs = next.job..next.job + share;
            let words: Vec<String> =
                jobs.map(|job| format!("{job}:{}", load.mix.kind(self.seed, job))).collect();
            next.job += share;
            next.credit -= f64::from(share);
            room -= share;
            // A publisher that was just killed takes nothing; its jobs are then asked for by nobody.
            if fed.input.write_all((words.join(" ") + "\n").as_bytes()).is_ok() {
                fed.given += share;
            }
        }
    }
}

impl Fed {
    /// What it was given and has no answer for.
    fn open(&self, book: &Book) -> u32 {
        let answered = book.publishers.get(&self.number).map_or(0, |(_, answered)| *answered);
        self.given.saturating_sub(answered)
    }
}
