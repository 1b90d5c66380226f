//! The ledger as a whole: what its lines say of each job, each call and each fault.

use std::collections::{BTreeMap, HashMap};

use super::record::{Answer, Call, Ending, Entry, Micros, Record, Scope, Step};

use crate::load::Kind;

/// Everything that was written so far.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) seed: u64,
    pub(crate) scenario: String,
    pub(crate) broker: String,
    /// By number. Numbers that a publisher did not come to before its end are missing.
    pub(crate) jobs: BTreeMap<u32, Job>,
    pub(crate) runs: HashMap<Call, Vec<Run>>,
    pub(crate) faults: BTreeMap<u32, Fault>,
    pub(crate) left: Vec<Left>,
    pub(crate) failed: Vec<Failed>,
    pub(crate) samples: Vec<Sample>,
    /// States of circuits, with their time and process.
    pub(crate) circuits: Vec<(Micros, u32, String)>,
    pub(crate) notes: Vec<String>,
    /// Which processes said that they are there, with their roles.
    pub(crate) up: HashMap<u32, String>,
    /// What contradicts itself, such as a call that ended without a beginning.
    pub(crate) torn: Vec<String>,
    /// Calls that have begun and not ended, by process and number.
    open: HashMap<(u32, u32), (Call, usize)>,
    /// What succeeded of jobs whose publisher's line comes later: lines of different processes may change places.
    early: HashMap<u32, Vec<Step>>,
    /// How many jobs a publisher has asked for, and how many of its publishes have an answer.
    pub(crate) publishers: HashMap<u32, (u32, u32)>,
    pub(crate) confirmed: u32,
    /// Confirmed, and something is still to come.
    pub(crate) unfinished: u32,
    pub(crate) ended: u64,
}

/// What a publisher asked for.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) by: u32,
    pub(crate) asked: Micros,
    pub(crate) answered: Option<(Micros, Answer)>,
    /// Of the confirmed publish.
    pub(crate) tid: String,
    /// It succeeded, or its recovery function did.
    pub(crate) over: bool,
    pub(crate) shelved: bool,
}

impl Job {
    /// Whether everything that was to follow has followed.
    pub(crate) fn is_complete(&self) -> bool {
        self.over && (self.shelved || !self.kind.must_be_shelved())
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        matches!(self.answered, Some((_, Answer::Confirmed)))
    }
}

/// One run of one call.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) by: u32,
    pub(crate) started: Micros,
    pub(crate) ended: Option<(Micros, Ending)>,
    pub(crate) id: String,
    pub(crate) tid: String,
}

/// Something that was done to somebody.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: String,
    pub(crate) scope: Scope,
    pub(crate) from: Micros,
    /// `None` while it lasts.
    pub(crate) to: Option<Micros>,
}

/// How long after a fault that did not end the process its connection may still turn out to be lost.
const AFTERMATH: Micros = 10_000_000;

impl Fault {
    /// Whether its process is dead afterwards: it does nothing any more, and dies only once.
    pub(crate) fn is_death(&self) -> bool {
        matches!(self.kind.as_str(), "kill" | "abort")
    }

    /// Whether it can still have an effect at this time or later.
    pub(crate) fn is_felt_after(&self, time: Micros) -> bool {
        self.to.is_none_or(|to| if self.is_death() { to >= time } else { to + AFTERMATH >= time })
    }
}

/// What is in a queue at the end.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    pub(crate) queue: String,
    pub(crate) messages: u64,
}

/// A job in the queue of failed jobs.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) job: u32,
    pub(crate) step: Step,
    pub(crate) recovered: bool,
    pub(crate) reason: String,
}

/// What a process needed at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Micros,
    pub(crate) process: u32,
    pub(crate) rss_kib: u64,
    pub(crate) fds: u64,
}

/// Where the numbers of faults begin that nobody but their victim knows of.
const DEATHS: u32 = 1 << 31;

/// How long the kernel may take to end a process that aborts.
const ABORT: Micros = 1_000_000;

impl Book {
    /// A ledger from its beginning.
    pub(crate) fn of(records: impl IntoIterator<Item = Record>) -> Self {
        let mut book = Self::default();
        records.into_iter().for_each(|record| book.add(record));
        book
    }

    /// How many publishes of this process have no answer.
    pub(crate) fn publishing(&self, process: u32) -> u32 {
        self.publishers.get(&process).map_or(0, |(asked, answered)| asked - answered)
    }

    /// How many calls of this process have begun and not ended.
    pub(crate) fn running(&self, process: u32) -> usize {
        self.open.keys().filter(|(by, _)| *by == process).count()
    }

    pub(crate) fn add(&mut self, record: Record) {
        let Record { at, by, entry } = record;
        match entry {
            Entry::Begun { seed, scenario, broker } => {
                (self.seed, self.scenario, self.broker) = (seed, scenario, broker);
            }
            Entry::Up { role } => {
                self.up.insert(by, role);
            }
            Entry::Asked { job, kind } => {
                self.publishers.entry(by).or_default().0 += 1;
                let asked = Job {
                    kind,
                    by,
                    asked: at,
                    answered: None,
                    tid: String::new(),
                    over: false,
                    shelved: false,
                };
                if self.jobs.insert(job, asked).is_some() {
                    self.torn.push(format!("job {job} was asked for twice"));
                }
                self.early.remove(&job).into_iter().flatten().for_each(|step| self.succeeded(job, step));
            }
            Entry::Answered { job, answer, tid } => self.answered(at, by, job, answer, tid),
            Entry::Started { run, call, id, tid } => {
                let runs = self.runs.entry(call).or_default();
                runs.push(Run { by, started: at, ended: None, id, tid });
                if self.open.insert((by, run), (call, runs.len() - 1)).is_some() {
                    self.torn.push(format!("process {by} began its call {run} twice"));
                }
            }
            Entry::Ended { run, ending } => self.ended(at, by, run, ending),
            Entry::Fault { fault, kind, scope, .. } => {
                self.faults.insert(fault, Fault { kind, scope, from: at, to: None });
            }
            Entry::Dying => {
                let kind = "abort".to_owned();
                let fault = Fault { kind, scope: Scope::Process(by), from: at, to: Some(at + ABORT) };
                self.faults.insert(DEATHS + by, fault);
            }
            Entry::Over { fault } => match self.faults.get_mut(&fault) {
                Some(fault) => fault.to = Some(at),
                None => self.torn.push(format!("fault {fault} is over and never began")),
            },
            Entry::Left { queue, messages } => self.left.push(Left { queue, messages }),
            Entry::Failed { job, step, recovered, reason } => {
                self.failed.push(Failed { job, step, recovered, reason });
            }
            Entry::Sample { process, rss_kib, fds } => {
                self.samples.push(Sample { at, process, rss_kib, fds });
            }
            Entry::Circuit { state } => self.circuits.push((at, by, state)),
            Entry::Note { text } => self.notes.push(text),
        }
    }

    fn answered(&mut self, at: Micros, by: u32, number: u32, answer: Answer, tid: String) {
        self.publishers.entry(by).or_default().1 += 1;
        let Some(job) = self.jobs.get_mut(&number) else {
            self.torn.push(format!("job {number} has an answer and was never asked for"));
            return;
        };
        job.answered = Some((at, answer));
        match answer {
            Answer::Confirmed => {
                job.tid = tid;
                self.confirmed += 1;
                self.unfinished += u32::from(!job.is_complete());
            }
            Answer::Unknown | Answer::Refused => self.notes.push(format!("job {number}: {tid}")),
        }
    }

    fn ended(&mut self, at: Micros, by: u32, run: u32, ending: Ending) {
        let Some((call, place)) = self.open.remove(&(by, run)) else {
            self.torn.push(format!("call {run} of process {by} ended and never began"));
            return;
        };
        self.ended += 1;
        if let Some(run) = self.runs.get_mut(&call).and_then(|runs| runs.get_mut(place)) {
            run.ended = Some((at, ending));
        }
        if ending == Ending::Succeeded {
            self.succeeded(call.job, call.step);
        }
    }

    fn succeeded(&mut self, number: u32, step: Step) {
        let Some(job) = self.jobs.get_mut(&number) else {
            self.early.entry(number).or_default().push(step);
            return;
        };
        let before = job.is_complete();
        match step {
            Step::Shelve => job.shelved = true,
            Step::Make | Step::WriteOff => job.over = true,
        }
        if !before && job.is_complete() && job.is_confirmed() {
            self.unfinished -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_unfinished_from_its_confirm_until_all_that_follows_has_followed() {
        let call = Call { job: 0, step: Step::Make, attempt: 1 };
        let record = |entry| Record { at: 1, by: 1, entry };
        let kind = Kind::default().emitting();
        let mut book = Book::of([record(Entry::Asked { job: 0, kind })]);
        assert_eq!(book.unfinished, 0);
        book.add(record(Entry::Answered { job: 0, answer: Answer::Confirmed, tid: "t".to_owned() }));
        assert_eq!((book.confirmed, book.unfinished), (1, 1));
        book.add(record(Entry::Started { run: 0, call, id: "i".to_owned(), tid: "t".to_owned() }));
        assert_eq!(book.running(1), 1);
        book.add(record(Entry::Ended { run: 0, ending: Ending::Succeeded }));
        assert_eq!((book.running(1), book.unfinished), (0, 1), "its event has not arrived");
        let call = Call { step: Step::Shelve, ..call };
        book.add(record(Entry::Started { run: 1, call, id: "j".to_owned(), tid: "t".to_owned() }));
        book.add(record(Entry::Ended { run: 1, ending: Ending::Succeeded }));
        assert_eq!(book.unfinished, 0);
        assert!(book.torn.is_empty());
        book.add(record(Entry::Ended { run: 1, ending: Ending::Succeeded }));
        assert_eq!(book.torn.len(), 1);
    }
}
