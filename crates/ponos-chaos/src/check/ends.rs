//! What became of each job, and what is left: I1, I2, I4, I5, I6, I8, I9.

use std::collections::HashMap;

use super::Verdict;
use crate::ledger::{Answer, Book, Call, Ending, Fault, Job, Micros, Run, Scope, Step};
use crate::load::MAX_RETRIES;

pub(super) fn check(book: &Book, verdict: &mut Verdict) {
    let mut failed: HashMap<u32, Vec<(bool, Step)>> = HashMap::new();
    for job in &book.failed {
        failed.entry(job.job).or_default().push((job.recovered, job.step));
    }
    for (&number, job) in &book.jobs {
        let of_job = OfJob::new(book, number, job);
        of_job.answer(book, verdict);
        of_job.end(book, failed.remove(&number).unwrap_or_default(), verdict);
        of_job.ids(verdict);
        of_job.attempts(book, verdict);
    }
    for (job, entries) in failed {
        verdict
            .violations
            .push(format!("I2: job {job} failed {} times and was never asked for", entries.len()));
    }
    for call in book.runs.keys().filter(|call| !book.jobs.contains_key(&call.job)) {
        verdict.violations.push(format!("I2: {call:?} ran and was never asked for"));
    }
    for left in book.left.iter().filter(|left| left.messages > 0) {
        verdict.violations.push(format!("I9: {} messages are left in `{}`", left.messages, left.queue));
    }
    if book.left.is_empty() && !book.jobs.is_empty() {
        verdict.violations.push("I9: nobody has looked into the queues".to_owned());
    }
}

/// A job with its runs.
struct OfJob<'a> {
    number: u32,
    job: &'a Job,
    /// By attempt, from 1.
    make: Vec<&'a [Run]>,
    write_off: Vec<&'a Run>,
    shelve: Vec<&'a Run>,
}

impl<'a> OfJob<'a> {
    fn new(book: &'a Book, number: u32, job: &'a Job) -> Self {
        let runs = |step, attempt| {
            book.runs.get(&Call { job: number, step, attempt }).map_or(&[][..], Vec::as_slice)
        };
        // One more than there may be, so that it is found.
        let attempts = 1..=MAX_RETRIES + 2;
        let all = |step| attempts.clone().flat_map(move |attempt| runs(step, attempt)).collect();
        let mut make: Vec<_> = attempts.clone().map(|attempt| runs(Step::Make, attempt)).collect();
        while make.last().is_some_and(|runs| runs.is_empty()) {
            make.pop();
        }
        Self { number, job, make, write_off: all(Step::WriteOff), shelve: all(Step::Shelve) }
    }

    fn answer(&self, book: &Book, verdict: &mut Verdict) {
        let number = self.number;
        match self.job.answered {
            Some((_, Answer::Refused)) if !self.make.is_empty() => {
                verdict.violations.push(format!("I2: job {number} ran, although its publish was refused"));
            }
            Some(_) => {}
            None => {
                let killed =
                    |fault: &&Fault| fault.kind == "kill" && fault.scope == Scope::Process(self.job.by);
                if !book.faults.values().any(|fault| killed(&fault)) {
                    verdict.violations.push(format!(
                        "I1: the publish of job {number} was never answered, although its publisher lives"
                    ));
                }
            }
        }
    }

    /// Whether its entry among the failed jobs may be there so often. Without transactions it is put there before the
    /// job is acknowledged, so that whoever dies between the two leaves an entry, and the job, which is recovered again and
    /// put there again: once for each recovery that came to its end. Whoever lives on and does not know whether the broker
    /// took it puts it there once more for each time that its connection was lost.
    fn may_have_failed(&self, book: &Book, times: usize) -> bool {
        let recovered = self.write_off.iter().filter_map(|run| run.ended.map(|(at, _)| (run.by, at)));
        let unsure = book.faults.values().filter(|fault| {
            let touches = |by: u32| fault.scope == Scope::All || fault.scope == Scope::Process(by);
            !fault.is_death() && recovered.clone().any(|(by, at)| touches(by) && fault.is_felt_after(at))
        });
        times == 1 || book.broker != "sqlite" && times <= recovered.clone().count() + unsure.count()
    }

    fn end(&self, book: &Book, failed: Vec<(bool, Step)>, verdict: &mut Verdict) {
        let (number, job) = (self.number, self.job);
        let succeeded = |run: &Run| matches!(run.ended, Some((_, Ending::Succeeded)));
        let made = self.make.iter().any(|runs| runs.iter().any(succeeded));
        let mut wrong = |text: String| verdict.violations.push(text);
        if made && job.kind.is_to_fail() {
            wrong(format!("I1: job {number} succeeded, which it never does"));
        }
        if !job.kind.is_to_fail() && !self.write_off.is_empty() {
            wrong(format!("I1: job {number} was recovered, although it can succeed"));
        }
        if !job.kind.must_be_shelved() && !self.shelve.is_empty() {
            wrong(format!("I4: an event of job {number} arrived, which it never emits or not with success"));
        }
        let ran = !self.make.is_empty();
        let ends = match (job.kind.is_to_fail(), &failed[..]) {
            (false, []) => true,
            (true, [_, ..]) => {
                failed.iter().all(|entry| *entry == (true, Step::Make))
                    && self.may_have_failed(book, failed.len())
            }
            // Perhaps it was never published.
            (true, []) => !job.is_confirmed() && !ran,
            _ => false,
        };
        if !ends {
            wrong(format!(
                "I1: job {number} (to fail: {}) is {} times among the failed ones: {failed:?}",
                job.kind.is_to_fail(),
                failed.len()
            ));
        }
        if job.is_complete() || !job.is_confirmed() && !ran {
            return;
        }
        if !job.is_confirmed() && job.is_complete() == ran {
            return;
        }
        let what = if job.over { "I4: the event of" } else { "I1:" };
        let state = format!(
            "confirmed: {}, runs: {}",
            job.is_confirmed(),
            self.make.iter().map(|r| r.len()).sum::<usize>()
        );
        wrong(format!("{what} job {number} is lost ({state}, kind {:?})", job.kind));
        verdict.lost += 1;
    }

    fn ids(&self, verdict: &mut Verdict) {
        let number = self.number;
        let all = self.make.iter().copied().flatten().chain(self.write_off.iter().copied());
        let tids = || all.clone().chain(self.shelve.iter().copied()).map(|run| run.tid.as_str());
        let first = if self.job.tid.is_empty() { tids().next().unwrap_or_default() } else { &self.job.tid };
        if tids().any(|tid| tid != first || tid.is_empty()) {
            let tids: Vec<&str> = tids().collect();
            verdict
                .violations
                .push(format!("I6: job {number} has the transaction {first}, and ran as {tids:?}"));
        }
        let one_id = |mut runs: Box<dyn Iterator<Item = &Run> + '_>| {
            let first = runs.next().map(|run| run.id.as_str());
            runs.all(|run| Some(run.id.as_str()) == first)
        };
        if !one_id(Box::new(all.clone())) || !one_id(Box::new(self.shelve.iter().copied())) {
            verdict.violations.push(format!("I6: job {number} came as two messages with different ids"));
        }
    }

    fn attempts(&self, book: &Book, verdict: &mut Verdict) {
        let (number, kind) = (self.number, self.job.kind);
        let most = match () {
            () if kind.calls() => MAX_RETRIES + 1,
            () if kind.fails_once() => 2,
            () => 1,
        };
        let spent = u32::try_from(self.make.len()).unwrap_or(u32::MAX);
        if spent > most {
            verdict
                .violations
                .push(format!("I5: job {number} had attempt {spent}, of {most} that it may have"));
        }
        for (n, pair) in (1..).zip(self.make.windows(2)) {
            let begun = |runs: &[Run]| runs.iter().map(|run| run.started).min();
            let Some(again) = begun(pair[1]) else { continue };
            if begun(pair[0]).is_none_or(|first| first > again) {
                verdict.violations.push(format!("I5: job {number} had attempt {} before attempt {n}", n + 1));
            }
            let due = |run: &Run| match run.ended {
                Some((at, Ending::Again(delay))) => {
                    Some(if is_hastened(book, at, again) { at } else { at + delay })
                }
                _ => None,
            };
            match pair[0].iter().filter_map(due).min() {
                None => verdict.violations.push(format!(
                    "I5: job {number} had attempt {}, although attempt {n} did not ask for it",
                    n + 1
                )),
                // On the wire and in the file a time is in whole milliseconds.
                Some(due) if again + ROUNDING < due => verdict.violations.push(format!(
                    "I8: job {number} had attempt {} too early by {} µs",
                    n + 1,
                    due - again
                )),
                Some(_) => {}
            }
        }
    }
}

/// Whether a delay from one time to another may have been cut short: on SQLite by a wall clock that was set ahead meanwhile,
/// which nobody can tell from time that passed.
fn is_hastened(book: &Book, from: Micros, to: Micros) -> bool {
    let is_between = |fault: &Fault| fault.from <= to && fault.to.is_none_or(|end| end >= from);
    book.broker == "sqlite"
        && book.faults.values().any(|fault| fault.kind == "clock-ahead" && is_between(fault))
}

/// By how much the clocks' units may differ.
const ROUNDING: Micros = 1_000;
