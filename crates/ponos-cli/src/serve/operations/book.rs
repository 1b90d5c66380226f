//! The operations of this process, and the keys that make a request count once. They are gone with the process; what they
//! did is not, and says by whom and in which operation.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ponos::Operation;
use ponos::core::id::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::super::problem::{Kind, Problem};
use super::request::Task;
use crate::failed::asked::{Balance, Chosen, Outcome, Plan, Settled};
use crate::{json, steer};

/// How many operations are kept; the oldest that has ended goes first.
const KEPT: usize = 500;

/// How many run at once.
const RUNNING: usize = 8;

/// How many jobs one tells of.
const TOLD: usize = 1000;

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Planning,
    Running,
    /// All of it was done, or said where it was only asked.
    Finished,
    /// Not all of it was done.
    Failed,
    /// The server has ended before.
    Stopped,
}

impl Stage {
    pub(super) const fn is_end(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Stopped)
    }
}

/// One operation.
#[derive(Debug)]
pub(in super::super) struct Entry {
    mark: Operation,
    verb: &'static str,
    reason: String,
    dry_run: bool,
    stage: watch::Sender<Stage>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    plan: Option<Plan>,
    chosen: Option<Arc<Chosen>>,
    settled: Vec<Settled>,
    order: Option<Box<RawValue>>,
    problem: Option<String>,
    /// It was not even begun.
    refused: Option<Kind>,
    ended_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    id: &'a str,
    verb: &'static str,
    state: Stage,
    dry_run: bool,
    reason: &'a str,
    by: &'a str,
    at: Timestamp,
    ended_at: Option<Timestamp>,
    /// What would be or is done, for operations on failed jobs.
    plan: Option<&'a Plan>,
    progress: Option<Progress>,
    jobs: &'a [Settled],
    /// What has become of the jobs that were retried.
    balance: Option<Balance>,
    /// The order that was given, and the one that it replaced.
    order: Option<&'a RawValue>,
    problem: Option<&'a str>,
}

#[derive(Serialize)]
struct Progress {
    total: usize,
    done: usize,
    /// Done, and perhaps still where they were.
    twice: usize,
    not_there: usize,
    refused: usize,
    left: usize,
}

impl Entry {
    pub(super) fn id(&self) -> &str {
        &self.mark.id
    }

    pub(super) const fn mark(&self) -> &Operation {
        &self.mark
    }

    /// Waits until it is so far, but not for ever.
    pub(super) async fn reaches(&self, far: impl Fn(Stage) -> bool, deadline: Duration) {
        let mut stage = self.stage.subscribe();
        let _ = tokio::time::timeout(deadline, stage.wait_for(|stage| far(*stage))).await;
    }

    /// Why it was not even begun.
    pub(super) fn refused(&self) -> Option<Problem> {
        let known = self.known();
        known.refused.map(|kind| Problem::new(kind, known.problem.clone().unwrap_or_default()))
    }

    /// The jobs that were put back, once it has ended.
    pub(super) fn retried(&self) -> Option<(Arc<Chosen>, Vec<Settled>)> {
        let known = self.known();
        let over = self.stage.borrow().is_end() && !known.settled.is_empty();
        known.chosen.as_ref().filter(|_| over).map(|chosen| (Arc::clone(chosen), known.settled.clone()))
    }

    pub(super) fn planned(&self, chosen: &Arc<Chosen>) {
        let mut known = self.known();
        known.plan = Some(chosen.plan());
        known.chosen = Some(Arc::clone(chosen));
        drop(known);
        self.stage.send_replace(Stage::Running);
    }

    pub(super) fn settled(&self, settled: &Settled) {
        self.known().settled.push(settled.clone());
    }

    pub(super) fn ordered(&self, order: String) {
        self.known().order = RawValue::from_string(order).ok();
    }

    pub(super) fn end(&self, stage: Stage, problem: Option<String>) {
        let mut known = self.known();
        known.problem = problem;
        known.ended_at = Some(crate::text::now());
        drop(known);
        self.stage.send_replace(stage);
    }

    fn refuse(&self, kind: Kind, problem: String) {
        self.known().refused = Some(kind);
        self.end(Stage::Failed, Some(problem));
    }

    pub(super) fn document(&self, balance: Option<Balance>) -> String {
        let known = self.known();
        let count = |result| known.settled.iter().filter(|job| job.result == result).count();
        let progress = known.plan.as_ref().map(|plan| Progress {
            total: plan.jobs,
            done: count(Outcome::Done),
            twice: count(Outcome::Twice),
            not_there: count(Outcome::NotThere),
            refused: count(Outcome::Refused),
            left: plan.jobs.saturating_sub(known.settled.len()),
        });
        json::to_line(&Document {
            version: json::VERSION,
            id: &self.mark.id,
            verb: self.verb,
            state: *self.stage.borrow(),
            dry_run: self.dry_run,
            reason: &self.reason,
            by: &self.mark.by,
            at: self.mark.at,
            ended_at: known.ended_at,
            plan: known.plan.as_ref(),
            progress,
            jobs: &known.settled[..known.settled.len().min(TOLD)],
            balance,
            order: known.order.as_deref(),
            problem: known.problem.as_deref(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What opening an operation found.
#[derive(Debug)]
pub(super) enum Opened {
    New(Arc<Entry>),
    /// The key was used for the same request before.
    Known(Arc<Entry>),
}

/// All operations.
#[derive(Debug, Default)]
pub(in super::super) struct Book(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    /// Oldest first.
    order: VecDeque<Arc<Entry>>,
    keys: HashMap<String, ([u8; 32], Arc<Entry>)>,
}

impl Book {
    /// Opens an operation, or finds the one that a key belongs to.
    ///
    /// # Errors
    ///
    /// When the key belongs to another request, or too many run.
    pub(super) fn open(&self, key: Option<(&str, [u8; 32])>, task: &Task) -> Result<Opened, Problem> {
        let mut pages = self.pages();
        if let Some((key, hash)) = key
            && let Some((known, entry)) = pages.keys.get(key)
        {
            if *known == hash {
                return Ok(Opened::Known(Arc::clone(entry)));
            }
            let detail = "this Idempotency-Key was sent with another body: take a new key for each operation";
            return Err(Problem::new(Kind::KeyReused, detail));
        }
        if pages.order.iter().filter(|entry| !entry.stage.borrow().is_end()).count() >= RUNNING {
            return Err(Problem::new(Kind::Busy, "too many operations run: wait for one of them to end"));
        }
        let entry = Arc::new(Entry {
            mark: Operation::begun_by(steer::whoami()),
            verb: task.verb,
            reason: task.reason.clone(),
            dry_run: task.dry_run,
            stage: watch::Sender::new(Stage::Planning),
            known: Mutex::default(),
        });
        if let Some((key, hash)) = key {
            pages.keys.insert(key.to_owned(), (hash, Arc::clone(&entry)));
        }
        pages.order.push_back(Arc::clone(&entry));
        pages.shorten();
        Ok(Opened::New(entry))
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Entry>> {
        self.pages().order.iter().find(|entry| entry.id() == id).map(Arc::clone)
    }

    /// Forgets one that was not begun: its key may be used again.
    pub(super) fn refuse(&self, entry: &Arc<Entry>, kind: Kind, problem: String) {
        self.pages().remove(entry);
        entry.refuse(kind, problem);
    }

    /// Waits until nothing runs any more.
    pub(in super::super) async fn end(&self, deadline: Duration) {
        let all: Vec<Arc<Entry>> = self.pages().order.iter().cloned().collect();
        let ended = async {
            for entry in all {
                entry.reaches(Stage::is_end, deadline).await;
            }
        };
        let _ = tokio::time::timeout(deadline, ended).await;
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn shorten(&mut self) {
        while self.order.len() > KEPT {
            let ended = self.order.iter().find(|entry| entry.stage.borrow().is_end()).cloned();
            let Some(ended) = ended else { return };
            self.remove(&ended);
        }
    }

    fn remove(&mut self, entry: &Arc<Entry>) {
        self.order.retain(|known| !Arc::ptr_eq(known, entry));
        self.keys.retain(|_, (_, known)| !Arc::ptr_eq(known, entry));
    }
}

#[cfg(test)]
mod tests {
    use super::super::request;
    use super::*;

    fn task() -> Task {
        request::read(br#"{"verb":"retry","selector":{"all":true}}"#).unwrap()
    }

    #[test]
    fn a_key_counts_once_and_for_one_request() {
        let book = Book::default();
        let Opened::New(first) = book.open(Some(("k", [1; 32])), &task()).unwrap() else { panic!("new") };
        let Opened::Known(again) = book.open(Some(("k", [1; 32])), &task()).unwrap() else { panic!("known") };
        assert!(Arc::ptr_eq(&first, &again));
        assert!(book.open(Some(("k", [2; 32])), &task()).is_err());
        book.refuse(&first, Kind::NotFound, "gone".to_owned());
        assert!(matches!(book.open(Some(("k", [2; 32])), &task()).unwrap(), Opened::New(_)));
    }

    #[test]
    fn so_many_run_and_so_many_are_kept() {
        let book = Book::default();
        for _ in 0..RUNNING {
            book.open(None, &task()).unwrap();
        }
        assert_eq!(book.open(None, &task()).unwrap_err().kind(), Kind::Busy);
        let first = Arc::clone(&book.pages().order[0]);
        for n in 0..KEPT + 10 {
            let last = Arc::clone(book.pages().order.back().unwrap());
            last.end(Stage::Finished, None);
            book.open(Some((&n.to_string(), [0; 32])), &task()).unwrap();
        }
        assert_eq!(book.pages().order.len(), KEPT);
        assert!(book.pages().keys.len() <= KEPT);
        assert!(book.find(first.id()).is_some(), "what runs is kept");
    }
}
