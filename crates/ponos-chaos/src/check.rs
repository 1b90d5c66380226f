//! The checker: from the ledger, and from nothing else.
//!
//! The broker decides how strict I7 is. On SQLite a settlement is one transaction, so that only a run whose process was
//! hit may come again. On RabbitMQ a copy can be sent twice too, when a connection is lost before it is confirmed.

mod ends;
mod reruns;
mod times;

use std::collections::BTreeMap;

pub(crate) use reruns::Why;
pub(crate) use times::Times;

use crate::ledger::{Answer, Book};

/// What must hold, with the name by which a violation begins.
pub(crate) const INVARIANTS: [(&str, &str); 9] = [
    ("I1", "a confirmed job comes to exactly one end: it succeeds, or it fails and is recovered"),
    ("I2", "nothing runs that nobody asked for, or whose publish was refused"),
    ("I3", "a recovery function runs once; again only as I7 allows"),
    ("I4", "an event that was confirmed, or that a settled job emitted, is heard"),
    ("I5", "attempts are counted up one by one, and no more are spent than handler and policy ask for"),
    ("I6", "what follows from a job has its transaction id, and all runs of a message its id"),
    ("I7", "what runs again does so because a fault hit the process or the connection that had it"),
    ("I8", "nothing runs before its delay is over"),
    ("I9", "at the end the queues are empty"),
];

/// What the checker counted and found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) confirmed: usize,
    pub(crate) unknown: usize,
    pub(crate) refused: usize,
    /// Publishes whose publisher was killed.
    pub(crate) unanswered: usize,
    pub(crate) done: usize,
    pub(crate) recovered: usize,
    pub(crate) shelved: usize,
    /// Confirmed, and not at their end.
    pub(crate) lost: usize,
    pub(crate) runs: usize,
    /// Runs beyond the first of a call, by why.
    pub(crate) extra: BTreeMap<Why, usize>,
    pub(crate) times: Times,
    /// What must not be, in words that begin with the invariant.
    pub(crate) violations: Vec<String>,
}

/// Judges a run.
pub(crate) fn check(book: &Book) -> Verdict {
    let mut verdict = Verdict {
        runs: book.runs.values().map(Vec::len).sum(),
        violations: book.torn.iter().map(|what| format!("the ledger: {what}")).collect(),
        ..Verdict::default()
    };
    for job in book.jobs.values() {
        match job.answered {
            Some((_, Answer::Confirmed)) => verdict.confirmed += 1,
            Some((_, Answer::Unknown)) => verdict.unknown += 1,
            Some((_, Answer::Refused)) => verdict.refused += 1,
            None => verdict.unanswered += 1,
        }
        verdict.done += usize::from(job.over && !job.kind.is_to_fail());
        verdict.recovered += usize::from(job.over && job.kind.is_to_fail());
        verdict.shelved += usize::from(job.shelved);
    }
    ends::check(book, &mut verdict);
    reruns::check(book, &mut verdict);
    verdict.times = Times::of(book);
    for note in book.notes.iter().filter(|note| note.starts_with("problem: ")) {
        verdict.violations.push(format!("the end: {}", &note["problem: ".len()..]));
    }
    verdict
}

#[cfg(test)]
mod tests;
