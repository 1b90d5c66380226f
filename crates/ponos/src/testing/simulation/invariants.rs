//! What must hold, whatever went wrong, checked against a [`History`].
//!
//! | | invariant |
//! | --- | --- |
//! | I1 | each message that a publisher relies on, or that the broker has, comes to an end: done or failed. What is done has run to its end, and all that it wanted to send is sent |
//! | I2 | nothing is invented: what is delivered was published, and what a handler publishes leaves it only if it succeeds |
//! | I3 | recovery: it runs where the handler has given up, once but for faults; the handler never again |
//! | I4 | an event comes to an end, as in I1, in each queue that heard it when it was published |
//! | I5 | attempts count on, one by one, and there are never more than the policy allows |
//! | I6 | the transaction of each message is that of the message that caused it |
//! | I7 | a run, an end or a message is doubled only where a fault lies between |
//! | I8 | nothing comes earlier than it was asked for, to the millisecond |
//! | I9 | after the end queues are empty |
//! | fence | a settlement of a delivery that is no longer its process's has no effect |
//! | concurrency | no process runs more jobs of a queue at once than it may |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::DeliveryTag;
use ponos_core::envelope::{GaveUpReason, Phase};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::name::QueueName;

use super::super::faults::Fault;
use super::super::history::{Entry, Happened, History, Ruling, RunEnd, Sent, SettleTold, Told};
use crate::clock::virtual_time::START;

/// How exact the times are that travel with a message: what is due in a millisecond may begin with it.
const RESOLUTION: Duration = Duration::from_millis(1);

/// What should not have happened.
#[derive(Debug, Clone)]
pub struct Violation {
    /// What must hold.
    pub rule: String,
    /// The message that it is about, where it is about one.
    pub message: Option<MessageId>,
    /// What happened instead.
    pub problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.problem)?;
        self.message.map_or(Ok(()), |id| write!(f, " ({id})"))
    }
}

/// Checks I1 to I8, the fence and the concurrency. That nothing is left (I9) only the broker knows.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut checker = Checker::default();
    for entry in history.all() {
        checker.take(&entry);
    }
    checker.at_the_end();
    checker.violations
}

/// One message in one queue.
#[derive(Debug, Default)]
struct Job {
    /// How often the broker has taken it, copies for another attempt apart.
    copies: u32,
    /// How often it was taken away from a process in which it had begun to run.
    cut: u32,
    /// How often a settlement sent its copy more than once.
    doubled: u32,
    runs: BTreeMap<(bool, u32), u32>,
    /// How often the same attempt was asked for again: snoozed, or to run alone.
    repeated: BTreeMap<(bool, u32), u32>,
    recovered: u32,
    done: u32,
    failed: u32,
    gave_up: bool,
    ran_after_giving_up: bool,
    /// The last run that ended in a process.
    ends: HashMap<Arc<str>, Vec<(Phase, u32, RunEnd)>>,
}

impl Job {
    /// How many runs, ends or copies more than one faults may have caused.
    fn excused(&self) -> u32 {
        self.copies.saturating_sub(1) + self.cut + self.doubled
    }
}

type Key = (QueueName, MessageId);

/// What is known of a delivery that is being worked.
#[derive(Debug)]
struct Work {
    key: Key,
    process: Arc<str>,
    phase: Phase,
    attempt: u32,
    ran: bool,
    end: Option<(RunEnd, Duration)>,
    ruling: Option<Ruling>,
    copies: u32,
    /// Whether it was taken away before it was settled.
    lost: bool,
    /// Whether it is no longer its process's, for whatever reason.
    returned: bool,
}

#[derive(Debug, Default)]
struct Served {
    attempts: Option<u32>,
    concurrency: u32,
    recovers: bool,
}

#[derive(Default)]
struct Checker {
    violations: Vec<Violation>,
    jobs: BTreeMap<Key, Job>,
    works: HashMap<DeliveryTag, Work>,
    served: HashMap<QueueName, Served>,
    running: HashMap<(Arc<str>, QueueName), u32>,
    tids: HashMap<MessageId, Tid>,
    promised: Vec<MessageId>,
    /// Whose publisher or settlement was told that the broker has it.
    confirmed: HashSet<MessageId>,
    /// What arrived after its sender was told that there is no answer.
    late: HashSet<MessageId>,
    /// Taken again although it was confirmed, and whose job sent it, if one did.
    again: Vec<(MessageId, Option<Key>)>,
    /// What each successful run wanted to send.
    wanted: HashSet<MessageId>,
    /// When the next attempt may begin at the earliest.
    not_before: HashMap<(Key, bool, u32), Duration>,
}

impl Checker {
    fn violated(&mut self, rule: &str, message: MessageId, problem: impl Into<String>) {
        self.violations.push(Violation {
            rule: rule.into(),
            message: Some(message),
            problem: problem.into(),
        });
    }

    fn take(&mut self, entry: &Entry) {
        let process = &entry.process;
        match &entry.what {
            Happened::Serves { queue, attempts, concurrency, recovers } => {
                let served = Served { attempts: *attempts, concurrency: *concurrency, recovers: *recovers };
                self.served.insert(queue.clone(), served);
            }
            Happened::Fault(Fault::PublishLate, Some(id)) => {
                self.late.insert(*id);
            }
            Happened::Taken { .. } => self.taken(&entry.what),
            Happened::Told { id, outcome: Told::Confirmed } => {
                if !self.tids.contains_key(id) {
                    self.violated(
                        "I1",
                        *id,
                        "a publisher was told of a message that the broker does not have",
                    );
                }
                self.confirmed.insert(*id);
            }
            Happened::Promised { id } => self.promised.push(*id),
            Happened::Delivered { tag, queue, id, phase, attempt, due, .. } => {
                let key = (queue.clone(), *id);
                if !self.jobs.contains_key(&key) {
                    self.violated("I2", *id, format!("delivered from {queue}, which it never came to"));
                }
                if due.is_some_and(|due| wall(entry.at) < due) {
                    self.violated("I8", *id, format!("delivered at {:?}, before it was due", entry.at));
                }
                let work = Work {
                    key,
                    process: Arc::clone(process),
                    phase: *phase,
                    attempt: *attempt,
                    ran: false,
                    end: None,
                    ruling: None,
                    copies: 0,
                    lost: false,
                    returned: false,
                };
                self.works.insert(*tag, work);
            }
            Happened::Runs { tag, queue, id, phase, attempt } => {
                if let Some(work) = self.works.get_mut(tag) {
                    // Its worker does not know yet that it was lost.
                    if work.lost && !work.ran && work.copies == 0 {
                        self.jobs.entry(work.key.clone()).or_default().cut += 1;
                    }
                    work.ran = true;
                }
                self.runs(entry, queue, *id, *phase, *attempt);
            }
            Happened::Ran { tag, end, .. } => self.ran(entry, *tag, end),
            Happened::Settles { tag, id, ruling, .. } => self.settles(*tag, *id, *ruling),
            Happened::Settled { tag, id, ruling, held, .. } => {
                if !held {
                    self.violated("fence", *id, "settled although the delivery was another's by then");
                }
                self.ends(*tag, *ruling);
                if let Some(work) = self.works.get_mut(tag) {
                    work.returned = true;
                }
            }
            Happened::Acknowledged { tag, held } => {
                let Some(work) = self.works.get_mut(tag) else { return };
                work.returned = true;
                let (id, copies) = (work.key.1, work.copies);
                if copies == 0 {
                    self.violated("I1", id, "the original was removed before the broker had its copy");
                }
                if !held {
                    self.violated("fence", id, "removed although the delivery was another's by then");
                }
            }
            Happened::SettleTold { tag, outcome: SettleTold::Taken, .. } => {
                if let Some(work) = self.works.get(tag)
                    && let Some((RunEnd::Succeeded(sent), _)) = &work.end
                {
                    self.confirmed.extend(sent);
                }
            }
            Happened::Returned { tag, .. } => {
                let Some(work) = self.works.get_mut(tag) else { return };
                if !work.returned {
                    work.lost = true;
                    // Its copy is there as well as the original.
                    if work.ran || work.copies > 0 {
                        self.jobs.entry(work.key.clone()).or_default().cut += 1;
                    }
                }
                work.returned = true;
            }
            _ => {}
        }
    }

    fn taken(&mut self, what: &Happened) {
        let Happened::Taken { id, name, to, copies, sent, tid, cause } = what else { return };
        if let Some(expected) = cause.and_then(|cause| self.tids.get(&cause))
            && expected != tid
        {
            self.violated("I6", *id, format!("belongs to {tid}, and what caused it to another transaction"));
        }
        self.tids.entry(*id).or_insert_with(|| tid.clone());
        match sent {
            Sent::Copy(tag) => {
                if let Some(work) = self.works.get_mut(tag) {
                    // Late: the original has come again meanwhile.
                    if work.lost && !work.ran && work.copies == 0 {
                        self.jobs.entry(work.key.clone()).or_default().cut += 1;
                    }
                    work.copies += copies;
                    if work.copies > 1 {
                        let more = if work.copies == *copies { copies - 1 } else { *copies };
                        self.jobs.entry(work.key.clone()).or_default().doubled += more;
                    }
                    if let Some(ruling) = work.ruling {
                        for _ in 0..*copies {
                            self.ends(*tag, ruling);
                        }
                    }
                }
                return;
            }
            Sent::Effect(tag) => {
                let parent = self.works.get(tag).map(|work| work.key.clone());
                if !self.wanted.contains(id) && &**name != "worker.errored" {
                    self.violated("I2", *id, format!("{name} was sent, and no run that succeeded wants it"));
                }
                if self.confirmed.contains(id) {
                    self.again.push((*id, parent));
                }
            }
            Sent::Published => {
                if self.confirmed.contains(id) {
                    self.again.push((*id, None));
                }
            }
        }
        for queue in to {
            self.jobs.entry((queue.clone(), *id)).or_default().copies += copies;
        }
    }

    fn runs(&mut self, entry: &Entry, queue: &QueueName, id: MessageId, phase: Phase, attempt: u32) {
        let key = (queue.clone(), id);
        let recovers = phase == Phase::Recover;
        let job = self.jobs.entry(key.clone()).or_default();
        *job.runs.entry((recovers, attempt)).or_default() += 1;
        job.ran_after_giving_up |= job.gave_up && !recovers;
        let running = self.running.entry((Arc::clone(&entry.process), queue.clone())).or_default();
        *running += 1;
        let running = *running;
        let served = self.served.get(queue).map(|served| (served.concurrency, served.attempts));
        if served.is_some_and(|(concurrency, _)| running > concurrency) {
            self.violated("concurrency", id, format!("{running} jobs of {queue} run at once"));
        }
        let most = served.and_then(|(_, attempts)| attempts).filter(|_| !recovers);
        if most.is_some_and(|most| attempt > most) || (recovers && attempt > 5) {
            self.violated("I5", id, format!("attempt {attempt}, more than {queue} allows"));
        }
        let earliest = self.not_before.get(&(key, recovers, attempt)).copied();
        if let Some(earliest) = earliest
            && entry.at + RESOLUTION <= earliest
            && !self.is_excused(queue, id)
        {
            let problem =
                format!("attempt {attempt} began {:?} too early", earliest.saturating_sub(entry.at));
            self.violated("I8", id, problem);
        }
    }

    fn is_excused(&self, queue: &QueueName, id: MessageId) -> bool {
        self.jobs.get(&(queue.clone(), id)).is_some_and(|job| job.excused() > 0)
    }

    fn ran(&mut self, entry: &Entry, tag: DeliveryTag, end: &RunEnd) {
        let Some(work) = self.works.get_mut(&tag) else { return };
        let (key, phase, attempt) = (work.key.clone(), work.phase, work.attempt);
        work.end = Some((end.clone(), entry.at));
        if let Some(running) = self.running.get_mut(&(Arc::clone(&entry.process), key.0.clone())) {
            *running = running.saturating_sub(1);
        }
        let asked = match end {
            RunEnd::Failed(asked) | RunEnd::Cut(asked) => Some((*asked, attempt + 1)),
            RunEnd::Snoozed(asked) => Some((*asked, attempt)),
            RunEnd::Succeeded(_) | RunEnd::Stopped => None,
        };
        if let Some((asked, next)) = asked {
            self.not_before.insert((key.clone(), phase == Phase::Recover, next), entry.at + asked);
        }
        if let RunEnd::Succeeded(sends) = end {
            self.wanted.extend(sends);
        }
        let job = self.jobs.entry(key).or_default();
        if phase == Phase::Recover && matches!(end, RunEnd::Succeeded(_)) {
            job.recovered += 1;
        }
        job.ends.entry(Arc::clone(&entry.process)).or_default().push((phase, attempt, end.clone()));
    }

    /// A worker wants something to become of a delivery: whether that follows from how its run ended.
    fn settles(&mut self, tag: DeliveryTag, id: MessageId, ruling: Ruling) {
        let Some(work) = self.works.get_mut(&tag) else { return };
        work.ruling = Some(ruling);
        let (attempt, phase) = (work.attempt, work.phase);
        let Ruling::Again { due, attempt: next, suspect } = ruling else { return };
        match &work.end {
            Some((RunEnd::Failed(asked) | RunEnd::Cut(asked), at)) => {
                let earliest = wall(*at + *asked);
                if next != attempt + 1 {
                    let problem = format!("attempt {attempt} failed, and attempt {next} follows");
                    self.violated("I5", id, problem);
                } else if due < earliest {
                    self.violated("I8", id, "the next attempt is due earlier than was asked for");
                }
            }
            Some((RunEnd::Snoozed(asked), at)) => {
                let early = due < wall(*at + *asked);
                if next != attempt || early {
                    let problem =
                        format!("attempt {attempt} was put off, and attempt {next} follows at {due:?}");
                    self.violated("I8", id, problem);
                }
                let key = self.works.get(&tag).map(|work| work.key.clone());
                let job = key.map(|key| self.jobs.entry(key).or_default());
                if let Some(job) = job {
                    *job.repeated.entry((phase == Phase::Recover, attempt)).or_default() += 1;
                }
            }
            None if suspect && next == attempt => {
                let key = work.key.clone();
                let job = self.jobs.entry(key).or_default();
                *job.repeated.entry((phase == Phase::Recover, attempt)).or_default() += 1;
            }
            end => {
                let problem = format!("is to run again as attempt {next} after {end:?}");
                self.violated("I5", id, problem);
            }
        }
    }

    /// A delivery has come to this end.
    fn ends(&mut self, tag: DeliveryTag, ruling: Ruling) {
        let Some(work) = self.works.get(&tag) else { return };
        let (key, process) = (work.key.clone(), Arc::clone(&work.process));
        let id = key.1;
        let wanted_phase = match ruling {
            Ruling::Done => Some(Phase::Run),
            Ruling::Failed { recovered: Some(true), .. } => Some(Phase::Recover),
            _ => None,
        };
        if let Some(phase) = wanted_phase {
            let ends = self.jobs.get(&key).and_then(|job| job.ends.get(&process));
            let success = ends.into_iter().flatten().rev().find_map(|(ran, _, end)| match end {
                RunEnd::Succeeded(sends) if *ran == phase => Some(sends),
                _ => None,
            });
            match success {
                None => self.violated("I1", id, format!("{ruling:?}, and no run of {process} has succeeded")),
                Some(sends) => {
                    let missing = sends.iter().find(|sent| !self.tids.contains_key(sent)).copied();
                    if let Some(missing) = missing {
                        let problem =
                            format!("{ruling:?}, and the broker does not have its effect {missing}");
                        self.violated("I1", id, problem);
                    }
                }
            }
        }
        let recovers = self.served.get(&key.0).is_some_and(|served| served.recovers);
        if let Ruling::Failed { reason, recovered: None } = ruling
            && recovers
            && !matches!(reason, GaveUpReason::Undecodable | GaveUpReason::HopLimit)
        {
            self.violated("I3", id, format!("failed ({reason:?}) without its recovery function"));
        }
        let job = self.jobs.entry(key).or_default();
        match ruling {
            Ruling::Done => job.done += 1,
            Ruling::Failed { .. } => job.failed += 1,
            Ruling::Recover(_) => job.gave_up = true,
            Ruling::Again { .. } | Ruling::Release => {}
        }
    }

    fn at_the_end(&mut self) {
        for id in std::mem::take(&mut self.promised) {
            if !self.tids.contains_key(&id) {
                self.violated("I1", id, "its publisher relies on it, and the broker never had it");
            }
        }
        for (id, parent) in std::mem::take(&mut self.again) {
            let by_parent = || parent.as_ref().is_some_and(|(queue, id)| self.is_excused(queue, *id));
            let excused = self.late.contains(&id) || by_parent();
            if !excused {
                self.violated("I7", id, "sent again although it was confirmed, and no fault lies between");
            }
        }
        for ((queue, id), job) in std::mem::take(&mut self.jobs) {
            let excused = job.excused();
            let ends = job.done + job.failed;
            if job.copies > 0 && ends == 0 {
                self.violated("I1", id, format!("has no end in {queue}: it is lost"));
            }
            if ends > 1 + excused {
                let problem =
                    format!("has {ends} ends in {queue}, and faults explain {excused} more than one");
                self.violated("I7", id, problem);
            }
            for ((recovers, attempt), runs) in &job.runs {
                let repeated = job.repeated.get(&(*recovers, *attempt)).copied().unwrap_or(0);
                if *runs > 1 + excused + repeated {
                    let rule = if *recovers { "I3" } else { "I7" };
                    let problem = format!(
                        "attempt {attempt} ran {runs} times, and faults explain {excused} more than one"
                    );
                    self.violated(rule, id, problem);
                }
            }
            if job.recovered > 1 + excused {
                self.violated("I3", id, format!("recovered {} times", job.recovered));
            }
            if job.ran_after_giving_up && excused == 0 {
                self.violated("I3", id, "its handler ran again after it had given up");
            }
        }
    }
}

/// What the wall clock shows so long after the beginning.
fn wall(at: Duration) -> Timestamp {
    START + at
}
