//! The load of the tests that kill nodes: two services, who gives them work, and the ledger of what became of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ponos::prelude::*;
use ponos::{PublishError, TaskPolicy};
use tokio::task::JoinSet;

#[app("forge", state = Ledger, emits(PieceWanted))]
pub struct Forge;

/// An eighth of the jobs begin as an event.
#[event("piece.wanted")]
pub struct PieceWanted {
    pub job: u32,
}

/// What a quarter of the jobs emit, for the second service.
#[event("piece.made")]
pub struct PieceMade {
    pub job: u32,
}

#[task("forge.piece.make", app = Forge, emits(PieceMade))]
pub struct PieceMake {
    pub job: u32,
}

#[app("shop", state = Ledger)]
pub struct Shop;

#[task("shop.piece.shelve", app = Shop)]
pub struct PieceShelve {
    pub job: u32,
}

/// A job that is none: what goes through the ladder before the load.
pub const NONE: u32 = u32::MAX;

pub fn begins_as_event(job: u32) -> bool {
    job % 8 == 5
}

/// On its first attempt, so that its copy waits in the delay ladder.
pub fn fails_once(job: u32) -> bool {
    job % 8 == 3
}

/// It is given up at once, and recovered.
pub fn is_doomed(job: u32) -> bool {
    job % 64 == 10
}

pub fn emits(job: u32) -> bool {
    job % 4 == 1
}

fn take_order(e: PieceWanted) -> PieceMake {
    PieceMake { job: e.job }
}

async fn make(t: PieceMake, cx: TaskCx<PieceMake>) -> Outcome {
    if t.job == NONE {
        return Ok(());
    }
    let run = cx.state().started(Call { job: t.job, step: Step::Make, attempt: cx.attempt() });
    cx.sleep(millis(u64::from(t.job % 10))).await;
    if emits(t.job) {
        cx.emit(PieceMade { job: t.job })?;
    }
    let fails = fails_once(t.job) && cx.attempt() == 1;
    cx.state().ended(run, !fails && !is_doomed(t.job));
    if fails {
        Err("not at the first try")?;
    }
    if is_doomed(t.job) { Err("never").stop() } else { Ok(()) }
}

async fn write_off(t: PieceMake, cx: TaskCx<PieceMake>, _: GaveUp) -> Outcome {
    let run = cx.state().started(Call { job: t.job, step: Step::WriteOff, attempt: cx.attempt() });
    cx.state().ended(run, true);
    Ok(())
}

fn unpack(e: PieceMade) -> PieceShelve {
    PieceShelve { job: e.job }
}

async fn shelve(t: PieceShelve, cx: TaskCx<PieceShelve>) -> Outcome {
    let run = cx.state().started(Call { job: t.job, step: Step::Shelve, attempt: cx.attempt() });
    cx.state().ended(run, true);
    Ok(())
}

pub fn forge() -> Service<Forge> {
    let backoff = Backoff::exponential(millis(200)).max(secs(1));
    Service::new()
        .on(take_order)
        .task(make, move |p| p.retry(backoff).recover(write_off).concurrency(32).prefetch(128).no_breaker())
}

pub fn shop() -> Service<Shop> {
    Service::new().on(unpack).task(shelve, TaskPolicy::no_breaker)
}

/// Which function ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    Make,
    WriteOff,
    Shelve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    pub job: u32,
    pub step: Step,
    pub attempt: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub started: Instant,
    pub ended: Option<Instant>,
}

/// What the publisher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Confirmed,
    /// It may be there.
    Unknown,
    /// It is not there.
    Refused,
}

/// One job as its publisher and the services saw it.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub asked: Instant,
    pub answered: Option<(Instant, Answer)>,
    /// It succeeded, or its recovery function did.
    pub over: bool,
    pub shelved: bool,
}

impl Piece {
    /// Whether everything that was to follow has followed.
    pub fn is_complete(&self, job: u32) -> bool {
        self.over && (self.shelved || is_doomed(job) || !emits(job))
    }

    pub fn is_confirmed(&self) -> bool {
        matches!(self.answered, Some((_, Answer::Confirmed)))
    }
}

/// What was asked for and what ran, in this process and beside the broker.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
pub struct Book {
    /// By number.
    pub pieces: Vec<Piece>,
    pub runs: HashMap<Call, Vec<Run>>,
    /// Confirmed and not complete.
    pub left: u32,
    pub confirmed: u32,
    pub running: u32,
    /// Jobs whose first attempt failed and whose second has not begun.
    pub waiting: i64,
    /// Why publishes were not confirmed, and how often.
    pub problems: HashMap<String, u32>,
}

impl Ledger {
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }

    fn asked(&self) -> u32 {
        let mut book = self.book();
        book.pieces.push(Piece { asked: Instant::now(), answered: None, over: false, shelved: false });
        u32::try_from(book.pieces.len() - 1).unwrap()
    }

    fn answered(&self, job: u32, answer: Answer) {
        let mut book = self.book();
        let piece = &mut book.pieces[job as usize];
        piece.answered = Some((Instant::now(), answer));
        let open = !piece.is_complete(job);
        if answer == Answer::Confirmed {
            book.confirmed += 1;
            book.left += u32::from(open);
        }
    }

    fn started(&self, call: Call) -> (Call, usize) {
        let mut book = self.book();
        book.running += 1;
        let runs = book.runs.entry(call).or_default();
        runs.push(Run { started: Instant::now(), ended: None });
        let place = runs.len() - 1;
        if place == 0 && call.attempt == 2 {
            book.waiting -= 1;
        }
        (call, place)
    }

    fn ended(&self, (call, place): (Call, usize), succeeded: bool) {
        let mut book = self.book();
        book.running -= 1;
        book.runs.get_mut(&call).unwrap()[place].ended = Some(Instant::now());
        if place == 0 && call.attempt == 1 && call.step == Step::Make && fails_once(call.job) {
            book.waiting += 1;
        }
        let piece = &mut book.pieces[call.job as usize];
        let before = piece.is_complete(call.job);
        match call.step {
            Step::Shelve => piece.shelved |= succeeded,
            Step::Make | Step::WriteOff => piece.over |= succeeded,
        }
        let closes = !before && piece.is_complete(call.job) && piece.is_confirmed();
        book.left -= u32::from(closes);
    }
}

/// How fast jobs come.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// In all, at most.
    pub jobs: u32,
    /// In each ten milliseconds, at most.
    pub pace: u32,
    /// Confirmed and not complete, at most.
    pub backlog: u32,
    /// Without an answer, at most.
    pub open: usize,
}

/// Publishes until there are enough jobs, or somebody says so, and every publish has its answer.
pub async fn publish(publisher: Publisher<Forge>, ledger: Ledger, load: Load, enough: Arc<AtomicBool>) {
    let mut open = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asked = 0;
    while asked < load.jobs && !enough.load(Ordering::Relaxed) {
        tick.tick().await;
        while open.try_join_next().is_some() {}
        let room = load.backlog.saturating_sub(ledger.book().left).min(load.pace);
        for _ in 0..room.min(load.jobs - asked) {
            if open.len() >= load.open {
                break;
            }
            asked += 1;
            let (publisher, ledger) = (publisher.clone(), ledger.clone());
            open.spawn(async move {
                let job = ledger.asked();
                let sent = if begins_as_event(job) {
                    publisher.emit(PieceWanted { job }).await
                } else {
                    publisher.create(PieceMake { job }).await
                };
                let answer = match &sent {
                    Ok(_) => Answer::Confirmed,
                    Err(PublishError::Unknown { .. }) => Answer::Unknown,
                    Err(_) => Answer::Refused,
                };
                if let Err(error) = sent {
                    *ledger.book().problems.entry(error.to_string()).or_default() += 1;
                }
                ledger.answered(job, answer);
            });
        }
    }
    open.join_all().await;
}
