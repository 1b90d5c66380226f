//! Why something ran again: I3 and I7.

use std::collections::HashSet;

use serde::Serialize;

use super::Verdict;
use crate::ledger::{Book, Call, Ending, Fault, Micros, Run, Scope, Step};
use crate::load::MAX_RETRIES;

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// A fault hit it in the middle of the run.
    Cut,
    /// The run had ended, and a fault hit it before its settlement was over.
    NotSettled,
    /// A fault hit who sent it between the sending and the acknowledgement of what it was sent for, so that it was sent
    /// again; both arrived.
    SentTwice,
    /// It was taken from a process that stood still, which ran what it had when it went on, after others had.
    Stale,
    /// What sent it came to its end twice itself.
    Follows,
}

/// How long after its end a run may still be without its settlement: as long as a broker is given to answer.
const SETTLEMENT: Micros = 60_000_000;

/// How many losses make a job a suspect, which is sent on to run alone; as many again make it poison.
const SUSPECTED: usize = 3;

pub(super) fn check(book: &Book, verdict: &mut Verdict) {
    let reruns = Reruns::of(book);
    for (call, runs) in &book.runs {
        let mut explained = Explained::default();
        for (n, again) in runs.iter().enumerate().skip(1) {
            match reruns.why(*call, &runs[..n], again, &mut explained) {
                Some(why) => *verdict.extra.entry(why).or_default() += 1,
                None => {
                    let which = if call.step == Step::WriteOff { "I3" } else { "I7" };
                    let before = &runs[n - 1];
                    verdict.violations.push(format!(
                        "{which}: {call:?} ran again without a reason: in process {} from {} to {:?}, in process {} from {}",
                        before.by, before.started, before.ended, again.by, again.started
                    ));
                }
            }
        }
    }
}

/// What has explained a run of one call already: nothing explains two. A process may die with a run in its hands, and with
/// what the call's message was sent for as well; these are two things.
#[derive(Debug, Default)]
struct Explained {
    /// Runs that came again.
    runs: HashSet<usize>,
    /// Deaths of processes with a run in their hands.
    deaths: HashSet<u32>,
    /// Faults of processes that had sent the message, and had not acknowledged what they sent it for.
    senders: HashSet<u32>,
    /// Faults of processes that stood still with it.
    stale: HashSet<u32>,
    /// How many runs only followed from others.
    followed: usize,
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

    /// Faults that can have touched this process, or any, with a moment in the time given.
    fn hit(&self, process: Option<u32>, from: Micros, to: Micros) -> impl Iterator<Item = (u32, &'a Fault)> {
        self.faults.iter().copied().filter(move |(_, fault)| {
            let touches = match (fault.scope, process) {
                (Scope::Nobody, _) => false,
                (Scope::All, _) | (_, None) => true,
                (Scope::Process(touched), Some(process)) => touched == process,
            };
            touches && fault.from <= to && fault.is_felt_after(from)
        })
    }

    fn why(&self, call: Call, runs: &[Run], again: &Run, explained: &mut Explained) -> Option<Why> {
        // The latest first: what came to an end long ago is settled.
        let of_run = runs.iter().enumerate().rev().find_map(|(n, run)| {
            if explained.runs.contains(&n) {
                return None;
            }
            let (number, fault) = self
                .hit(Some(run.by), run.started, again.started)
                .filter(|(_, fault)| run.ended.is_none_or(|(end, _)| end + SETTLEMENT >= fault.from))
                .find(|(number, fault)| !fault.is_death() || !explained.deaths.contains(number))?;
            Some((n, number, fault, run.ended.is_none_or(|(end, _)| end >= fault.from)))
        });
        if let Some((n, number, fault, cut)) = of_run {
            explained.runs.insert(n);
            if fault.is_death() {
                explained.deaths.insert(number);
            }
            return Some(if cut { Why::Cut } else { Why::NotSettled });
        }
        if self.is_exact {
            return None;
        }
        if self.is_stale(call, runs, again, explained) {
            return Some(Why::Stale);
        }
        let senders = self.senders(call);
        let sent = senders.iter().filter(|(_, at)| *at < again.started).count();
        if sent > explained.followed + 1 {
            explained.followed += 1;
            return Some(Why::Follows);
        }
        self.sent_twice(call, runs, again, &senders, explained).then_some(Why::SentTwice)
    }

    /// Whether the process of a later run had the message already when it was stopped, and lost it to an earlier run.
    fn is_stale(&self, call: Call, runs: &[Run], again: &Run, explained: &mut Explained) -> bool {
        let Some(job) = self.book.jobs.get(&call.job) else { return false };
        let mut stops = self.hit(Some(again.by), job.asked, again.started).filter(|(number, fault)| {
            let meanwhile = runs.iter().any(|run| run.by != again.by && run.started >= fault.from);
            !fault.is_death()
                && meanwhile
                && fault.is_felt_after(again.started)
                && !explained.stale.contains(number)
        });
        let found = stops.next().map(|(number, _)| number);
        found.is_some_and(|number| explained.stale.insert(number))
    }

    /// The runs that sent this call's message, by process and end: each that came to the end that sends it.
    fn senders(&self, call: Call) -> Vec<(u32, Micros)> {
        let of = |attempt| self.book.runs.get(&Call { job: call.job, step: Step::Make, attempt });
        let ended = |attempt: u32, is: fn(Ending) -> bool| {
            of(attempt).into_iter().flatten().filter_map(move |run| {
                run.ended.filter(|(_, ending)| is(*ending)).map(|(at, _)| (run.by, at))
            })
        };
        match call.step {
            Step::Make => {
                ended(call.attempt.saturating_sub(1), |ending| matches!(ending, Ending::Again(_))).collect()
            }
            Step::WriteOff => ended(call.attempt, |ending| ending == Ending::GaveUp).collect(),
            Step::Shelve => {
                (1..=MAX_RETRIES + 1).flat_map(|n| ended(n, |ending| ending == Ending::Succeeded)).collect()
            }
        }
    }

    /// On a broker without transactions who sends something on may be hit before the acknowledgement of what it had.
    fn sent_twice(
        &self,
        call: Call,
        runs: &[Run],
        again: &Run,
        senders: &[(u32, Micros)],
        explained: &mut Explained,
    ) -> bool {
        let (Some(job), Some(first)) = (self.book.jobs.get(&call.job), runs.first()) else { return false };
        // The first of two may be there long before the fault: its sender waited for the other's acknowledgement.
        let until = again.started.min(first.started + SETTLEMENT);
        let is_first = call.step == Step::Make && call.attempt == 1;
        let sent = senders.iter().map(|(_, at)| *at).min().unwrap_or(job.asked);
        // A reaction is no run that the ledger knows; it may be in any process.
        let is_by_reaction = call.step == Step::Shelve || is_first && job.kind.begins_as_event();

        // Who lives on and does not know whether the broker took a message sends it again.
        let lives_on = |by: Option<u32>, from, to| self.hit(by, from, to).any(|(_, fault)| !fault.is_death());
        let is_unsure = match senders {
            _ if is_by_reaction => lives_on(None, sent, until),
            [] if is_first => {
                lives_on(Some(job.by), sent, job.answered.map_or(until, |(at, _)| at.min(until)))
            }
            [] => lives_on(None, sent, until),
            senders => senders.iter().any(|(by, at)| lives_on(Some(*by), *at, until)),
        };
        if is_unsure {
            return true;
        }

        // Who dies, or loses his connection, between the copy's confirm and the acknowledgement of the original leaves both;
        // the original comes to a process that knows nothing of the copy. A run that sends came again itself then, and is counted above;
        // that leaves reactions, and who sends a suspect on, without running it, after it was lost three times.
        let spared = match call.step {
            _ if is_by_reaction => 0,
            Step::WriteOff if job.kind.is_deadly() => 2 * SUSPECTED,
            _ => SUSPECTED,
        };
        let mut hits = self.hit(None, sent, until).skip(spared);
        let hit = hits.find(|(number, _)| !explained.senders.contains(number));
        hit.is_some_and(|(number, _)| explained.senders.insert(number))
    }
}
