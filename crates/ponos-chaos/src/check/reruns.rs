//! Why something ran again: I3 and I7.

use std::collections::HashSet;

use serde::Serialize;

use super::Verdict;
use crate::ledger::{Book, Call, Fault, Micros, Run, Scope, Step};

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// A fault hit it in the middle of the run.
    Cut,
    /// The run had ended, and a fault hit it before its settlement was over.
    NotSettled,
    /// A fault hit who sent it before the broker had confirmed it, so that it was sent again; both arrived.
    SentTwice,
    /// What sent it ran twice itself.
    Follows,
}

/// How long after its end a run may still be without its settlement: as long as a broker is given to answer.
const SETTLEMENT: Micros = 60_000_000;

/// How long after a fault that did not end the process its connection may still turn out to be lost.
const AFTERMATH: Micros = 10_000_000;

pub(super) fn check(book: &Book, verdict: &mut Verdict) {
    let reruns = Reruns::of(book);
    for (call, runs) in &book.runs {
        // A process dies once: it explains one further run of a call.
        let mut used = HashSet::new();
        for pair in runs.windows(2) {
            match reruns.why(*call, &pair[0], &pair[1], &mut used) {
                Some(why) => *verdict.extra.entry(why).or_default() += 1,
                None => {
                    let which = if call.step == Step::WriteOff { "I3" } else { "I7" };
                    verdict.violations.push(format!(
                        "{which}: {call:?} ran again without a reason: in process {} from {} to {:?}, in process {} from {}",
                        pair[0].by, pair[0].started, pair[0].ended, pair[1].by, pair[1].started
                    ));
                }
            }
        }
    }
}

struct Reruns<'a> {
    book: &'a Book,
    /// Sorted by their beginning.
    faults: Vec<(u32, &'a Fault)>,
    /// Whether a settlement is one transaction, so that nothing is sent twice.
    is_exact: bool,
}

impl<'a> Reruns<'a> {
    fn of(book: &'a Book) -> Self {
        let mut faults: Vec<_> = book.faults.iter().map(|(number, fault)| (*number, fault)).collect();
        faults.sort_by_key(|(_, fault)| fault.from);
        Self { book, faults, is_exact: book.broker == "sqlite" }
    }

    /// Faults that can have touched this process, with a moment in the time given.
    fn hit(&self, process: Option<u32>, from: Micros, to: Micros) -> impl Iterator<Item = (u32, &'a Fault)> {
        self.faults.iter().copied().filter(move |(_, fault)| {
            let touches = match (fault.scope, process) {
                (Scope::Nobody, _) => false,
                (Scope::All, _) | (_, None) => true,
                (Scope::Process(touched), Some(process)) => touched == process,
            };
            // Nothing happens in a process that is dead.
            let until = match (fault.kind.as_str(), fault.to) {
                ("kill" | "abort", Some(to)) => to,
                (_, Some(to)) => to + AFTERMATH,
                (_, None) => Micros::MAX,
            };
            touches && fault.from <= to && until >= from
        })
    }

    fn why(&self, call: Call, run: &Run, again: &Run, used: &mut HashSet<u32>) -> Option<Why> {
        let late = |fault: &Fault| run.ended.is_some_and(|(end, _)| end + SETTLEMENT < fault.from);
        let hit = self
            .hit(Some(run.by), run.started, again.started)
            .filter(|(_, fault)| !late(fault))
            .find(|(number, fault)| fault.scope == Scope::All || !used.contains(number));
        if let Some((number, fault)) = hit {
            used.insert(number);
            let cut = run.ended.is_none_or(|(end, _)| end >= fault.from);
            return Some(if cut { Why::Cut } else { Why::NotSettled });
        }
        if self.is_exact {
            return None;
        }
        self.sent_twice(call, again)
    }

    /// On a broker without transactions, what sends is hit between the copy and the acknowledgement.
    fn sent_twice(&self, call: Call, again: &Run) -> Option<Why> {
        let begun = self.book.runs.get(&call)?.first()?.started;
        // What came first may have been there long before its sender was hit, which then had no acknowledgement yet.
        let until = again.started.min(begun + SETTLEMENT);
        let job = self.book.jobs.get(&call.job)?;
        let of = |step, attempt| self.book.runs.get(&Call { job: call.job, step, attempt });
        if call.step == Step::Make && call.attempt == 1 {
            // Sent by the publisher, or by the reaction to the publisher's event, which may be in any process.
            let (by, until) = match job.kind.begins_as_event() {
                true => (None, until),
                false => (Some(job.by), job.answered.map_or(until, |(at, _)| at)),
            };
            return self.hit(by, job.asked, until).next().map(|_| Why::SentTwice);
        }
        let before = || {
            (1..=call.attempt.max(16))
                .filter_map(|n| of(Step::Make, n))
                .filter(|runs| runs[0].started < begun)
        };
        if before().any(|runs| runs.len() > 1) {
            return Some(Why::Follows);
        }
        let sender = before()
            .filter_map(|runs| runs.last())
            .filter(|run| run.started <= begun)
            .max_by_key(|run| run.started)?;
        // An event goes through a reaction, which may be in any process.
        let by = (call.step != Step::Shelve).then_some(sender.by);
        let from = sender.ended.map_or(sender.started, |(end, _)| end);
        self.hit(by, from, until).next().map(|_| Why::SentTwice)
    }
}
