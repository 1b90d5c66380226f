//! What a process has been told, beside the trace of what it wrote: which state a cut must leave of each job.
//!
//! A mark is a line in a file below the watched directory, so the trace holds it in its place among the writes.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

use anyhow::{Context as _, bail};

/// The file of marks.
pub(super) const FILE: &str = "marks";

/// How far a job has come, in the order in which it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Not published.
    Absent,
    /// In its queue, for this attempt.
    Waits(u32),
    /// Gone, and its event is in both queues.
    Done,
    /// In the queue of failed jobs.
    Failed,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is about to be published.
    Publish(u32),
    /// Its publish was confirmed.
    Confirmed(u32),
    /// Its delivery for this attempt is about to be settled, so that it becomes this.
    Settle(u32, u32, State),
    /// The settlement was done.
    Settled(u32, State),
}

impl Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish(job) => writeln!(f, "publish {job}"),
            Self::Confirmed(job) => writeln!(f, "confirmed {job}"),
            Self::Settle(job, attempt, to) => writeln!(f, "settle {job} {attempt} {to}"),
            Self::Settled(job, to) => writeln!(f, "settled {job} {to}"),
        }
    }
}

impl FromStr for Mark {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let mut words = line.split(' ');
        let mut word = || words.next().with_context(|| format!("`{line}` is no mark"));
        let kind = word()?;
        let job = word()?.parse()?;
        Ok(match kind {
            "publish" => Self::Publish(job),
            "confirmed" => Self::Confirmed(job),
            "settle" => Self::Settle(job, word()?.parse()?, word()?.parse()?),
            "settled" => Self::Settled(job, word()?.parse()?),
            _ => bail!("`{line}` is no mark"),
        })
    }
}

impl Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::Waits(attempt) => write!(f, "{attempt}"),
            Self::Done => f.write_str("done"),
            Self::Failed => f.write_str("failed"),
        }
    }
}

impl FromStr for State {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        Ok(match word {
            "absent" => Self::Absent,
            "done" => Self::Done,
            "failed" => Self::Failed,
            attempt => Self::Waits(attempt.parse().with_context(|| format!("`{attempt}` is no state"))?),
        })
    }
}

/// What is known of a job: it is at least here, or it is there already if what was asked for last has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) sure: State,
    pub(super) perhaps: Option<State>,
}

impl Promise {
    /// Whether a power cut may leave it so.
    pub(super) fn allows(&self, state: State) -> bool {
        state == self.sure || self.perhaps == Some(state)
    }
}

/// What is promised of every job, at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Promises {
    jobs: BTreeMap<u32, Promise>,
}

impl Promises {
    /// Takes the next mark into account. A job is asked for again only after what was asked before had happened, or had not.
    pub(super) fn mark(&mut self, mark: Mark) {
        let (Mark::Publish(job) | Mark::Confirmed(job) | Mark::Settle(job, ..) | Mark::Settled(job, _)) =
            mark;
        let promise = self.jobs.entry(job).or_insert(Promise { sure: State::Absent, perhaps: None });
        match mark {
            Mark::Publish(_) => promise.perhaps = Some(State::Waits(1)),
            // It may have been delivered and settled before its publisher got the answer.
            Mark::Confirmed(_) => promise.reached(State::Waits(1)),
            // What is delivered is on the disk.
            Mark::Settle(_, attempt, to) => {
                promise.reached(State::Waits(attempt));
                promise.perhaps = Some(to);
            }
            Mark::Settled(_, to) => promise.reached(to),
        }
    }

    pub(super) fn of(&self, job: u32) -> Promise {
        self.jobs.get(&job).copied().unwrap_or(Promise { sure: State::Absent, perhaps: None })
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = u32> {
        self.jobs.keys().copied()
    }

    /// How many jobs had their publish, or a settlement, confirmed.
    pub(super) fn confirmed(&self) -> usize {
        self.jobs.values().filter(|promise| promise.sure > State::Absent).count()
    }
}

impl Promise {
    fn reached(&mut self, state: State) {
        self.sure = self.sure.max(state);
        if self.perhaps.is_some_and(|perhaps| perhaps <= self.sure) {
            self.perhaps = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &str) -> Promise {
        let mut promises = Promises::default();
        lines.lines().for_each(|line| promises.mark(line.parse().unwrap()));
        promises.of(7)
    }

    #[test]
    fn marks_read_as_they_were_written() {
        let marks = [
            Mark::Publish(7),
            Mark::Confirmed(7),
            Mark::Settle(7, 2, State::Waits(3)),
            Mark::Settled(7, State::Done),
        ];
        for mark in marks {
            assert_eq!(mark.to_string().trim_end().parse::<Mark>().unwrap(), mark);
        }
    }

    #[test]
    fn a_publish_without_an_answer_may_have_happened() {
        let promise = after("publish 7");
        assert!(promise.allows(State::Absent) && promise.allows(State::Waits(1)));
        assert!(!promise.allows(State::Done));
    }

    #[test]
    fn a_confirmed_job_is_there() {
        let promise = after("publish 7\nconfirmed 7");
        assert!(promise.allows(State::Waits(1)) && !promise.allows(State::Absent));
    }

    #[test]
    fn a_settlement_without_an_answer_may_have_happened() {
        let promise = after("publish 7\nconfirmed 7\nsettle 7 1 done");
        assert!(promise.allows(State::Waits(1)) && promise.allows(State::Done));
    }

    #[test]
    fn a_settled_job_does_not_come_back() {
        let promise = after("publish 7\nsettle 7 1 done\nsettled 7 done\nconfirmed 7");
        assert!(
            promise.allows(State::Done) && !promise.allows(State::Waits(1)) && !promise.allows(State::Absent)
        );
    }

    #[test]
    fn a_delivery_tells_of_the_settlement_before_it() {
        let promise = after("publish 7\nsettle 7 1 2\nsettle 7 2 failed\nsettled 7 2");
        assert_eq!(promise, Promise { sure: State::Waits(2), perhaps: Some(State::Failed) });
    }
}
