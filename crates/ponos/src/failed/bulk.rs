//! One operation on many jobs of a queue.
//!
//! The jobs are picked over one subscription, which on a broker that cannot pick is one scan, and not one per job.
//! Settlements run side by side, at most [`PIPELINE`]; starts are paced by the rate. What an operation has not settled
//! is handed back when it ends, however it ends.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::{
    BoxFuture, BrokerError, BrokerErrorKind, Delivery, Destination, Outgoing, SubscribeOptions, Subscription,
};
use ponos_core::envelope::Envelope;
use ponos_core::id::MessageId;
use ponos_core::journal::{HandMade, What};
use ponos_core::name::QueueName;
use ponos_core::policy::Rate;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::settle::{Settled, settle};
use super::{FailedJobs, Operation};
use crate::clock::Clock;
use crate::context::Local;

/// How many settlements are under way at once: enough to fill a group commit or a window of confirms, and the most jobs
/// that a tool that is killed leaves in both places on a broker without transactions.
const PIPELINE: usize = 64;

/// How many jobs are held at once where the broker can pick: their bodies are in memory.
const HELD: u32 = 256;

/// How many jobs are picked over one subscription, and for how long: a broker that cannot pick keeps all of them from
/// others meanwhile, and RabbitMQ takes them back after half an hour.
const PICKED: usize = 5000;
const PICKED_FOR: Duration = Duration::from_secs(300);

/// How long nothing comes before what is missing is taken for gone, or held by another tool.
const QUIET: Duration = Duration::from_secs(5);

/// Up to so many jobs are looked up one by one, which is cheaper than waiting for those that are gone.
const FEW: usize = 4;

/// How often jobs that are there are subscribed to in vain.
const FRUITLESS: u32 = 2;

/// How often a circuit is asked about.
const GATE_ASKED: Duration = Duration::from_secs(1);

/// How far starts may catch up with a rate after a timer was late.
const CATCH_UP: Duration = Duration::from_millis(50);

/// How an operation on many jobs is carried out.
pub struct Bulk<'a> {
    /// Its mark.
    pub operation: Operation,
    rate: Option<Rate>,
    gate: Option<&'a dyn CircuitGate>,
    stop: Option<BoxFuture<'a, ()>>,
    told: Option<Box<dyn FnMut(Moved) + Send + 'a>>,
}

impl Debug for Bulk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bulk")
            .field("operation", &self.operation)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

impl<'a> Bulk<'a> {
    /// As fast as the broker takes it, to its end.
    #[must_use]
    pub fn new(operation: Operation) -> Self {
        Self { operation, rate: None, gate: None, stop: None, told: None }
    }

    /// Not faster than this; starts are spread evenly.
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Waits while the circuit in front of a job's queue is open.
    #[must_use]
    pub fn gate(mut self, gate: &'a dyn CircuitGate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Stops between two jobs when this is ready: what is under way is settled, all others stay.
    #[must_use]
    pub fn stop(mut self, stop: impl Future<Output = ()> + Send + 'a) -> Self {
        self.stop = Some(Box::pin(stop));
        self
    }

    /// Is told what became of each job, as it happens.
    #[must_use]
    pub fn told(mut self, told: impl FnMut(Moved) + Send + 'a) -> Self {
        self.told = Some(Box::new(told));
        self
    }

    fn tell(&mut self, id: MessageId, to: MovedTo) {
        if let Some(told) = &mut self.told {
            told(Moved { id, to });
        }
    }
}

/// Knows whether jobs of a queue would run now, or be held back by an open circuit.
pub trait CircuitGate: Debug + Send + Sync {
    /// What the circuit in front of this queue is like. Asked at most once a second.
    fn of<'a>(&'a self, queue: &'a QueueName) -> BoxFuture<'a, Gate>;
}

/// What a [`CircuitGate`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Closed: jobs run.
    Closed,
    /// Open: jobs would be held.
    Open,
    /// Nobody knows; jobs go.
    Unknown,
}

/// What became of one job.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Moved {
    /// The job.
    pub id: MessageId,
    /// Where it is now.
    pub to: MovedTo,
}

/// Where a job is now.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MovedTo {
    /// In this queue.
    Queue(QueueName),
    /// Nowhere any more.
    Gone,
    /// In this queue, and perhaps still where it was: the broker went away before it had acknowledged that.
    Both(QueueName),
    /// It was not there, or another tool holds it.
    NotThere,
    /// Where it was: the broker does not take it, for this reason.
    Refused(BrokerError),
    /// Where it was, for now: the circuit in front of its queue is open.
    Waits(QueueName),
}

/// How an operation has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkEnd {
    /// Something was told of each job.
    Finished,
    /// It was stopped: jobs of which nothing was told are where they were.
    Stopped,
}

/// What an operation does with a job.
pub(super) struct Work {
    /// What records say of it; nothing for `None`.
    pub(super) verb: Option<&'static str>,
    /// Why, for records.
    pub(super) reason: Option<Arc<str>>,
    /// What is sent for a job that is picked, before it is acknowledged; the first message is the job itself. An error
    /// leaves it where it is.
    pub(super) send: Sending,
}

/// See [`Work::send`].
pub(super) type Sending = Box<dyn Fn(&Envelope) -> Result<Vec<Outgoing>, String> + Send + Sync>;

impl FailedJobs {
    /// Carries out an operation on one job: where it went, or `None` when it is not there.
    pub(super) async fn carry_out_one(
        &self,
        from: &QueueName,
        id: MessageId,
        work: Work,
        operation: Operation,
    ) -> Result<Option<QueueName>, BrokerError> {
        let mut became = None;
        let bulk = Bulk::new(operation).told(|moved| became = Some(moved.to));
        self.carry_out(from, vec![id], work, bulk).await?;
        match became {
            Some(MovedTo::Queue(queue) | MovedTo::Both(queue)) => Ok(Some(queue)),
            Some(MovedTo::Refused(error)) => Err(error),
            _ => Ok(None),
        }
    }

    /// Carries out an operation on jobs of a queue.
    pub(super) async fn carry_out(
        &self,
        from: &QueueName,
        mut ids: Vec<MessageId>,
        work: Work,
        bulk: Bulk<'_>,
    ) -> Result<BulkEnd, BrokerError> {
        let mut seen = HashSet::new();
        ids.retain(|id| seen.insert(*id));
        let interval = bulk.rate.map(|rate| rate.period() / rate.count().max(1)).filter(|gap| !gap.is_zero());
        let chunk = interval.map_or(PICKED, |gap| {
            usize::try_from(PICKED_FOR.as_nanos() / gap.as_nanos()).unwrap_or(PICKED).clamp(1, PICKED)
        });
        let mut run = Run {
            jobs: self,
            from,
            work,
            bulk,
            interval,
            next: Instant::now(),
            stopping: false,
            gates: HashMap::new(),
            local: Local::new(self.app.clone(), Clock::real()).telling(&*self.broker),
        };
        for ids in ids.chunks(chunk) {
            if run.chunk(ids).await? == BulkEnd::Stopped {
                return Ok(BulkEnd::Stopped);
            }
        }
        Ok(BulkEnd::Finished)
    }
}

/// An operation under way.
struct Run<'a, 'b> {
    jobs: &'a FailedJobs,
    from: &'a QueueName,
    work: Work,
    bulk: Bulk<'b>,
    /// The time between two starts.
    interval: Option<Duration>,
    /// When the next may start.
    next: Instant,
    stopping: bool,
    /// What circuits were like, and when.
    gates: HashMap<QueueName, (Gate, Instant)>,
    /// What tells the journal.
    local: Local,
}

impl Run<'_, '_> {
    /// Settles these jobs, over more than one subscription when one is lost.
    async fn chunk(&mut self, ids: &[MessageId]) -> Result<BulkEnd, BrokerError> {
        let mut left: HashSet<MessageId> = ids.iter().copied().collect();
        let mut fruitless = 0;
        let mut incomplete = false;
        while !left.is_empty() {
            if left.len() <= FEW || incomplete {
                self.forget_the_gone(&mut left).await?;
                if left.is_empty() {
                    break;
                }
            }
            let before = left.len();
            // In the order that was asked for.
            let only: Vec<MessageId> = ids.iter().copied().filter(|id| left.contains(id)).collect();
            incomplete = !self.pass(only, &mut left).await?;
            if self.stopping {
                return Ok(BulkEnd::Stopped);
            }
            fruitless = if left.len() < before { 0 } else { fruitless + 1 };
            if fruitless == FRUITLESS {
                break;
            }
        }
        for id in ids.iter().filter(|id| left.contains(id)) {
            self.bulk.tell(*id, MovedTo::NotThere);
        }
        Ok(BulkEnd::Finished)
    }

    async fn forget_the_gone(&mut self, left: &mut HashSet<MessageId>) -> Result<(), BrokerError> {
        let mut there = HashSet::new();
        if left.len() <= FEW {
            for id in left.iter() {
                there.extend(self.jobs.one(self.from.clone(), *id).await?.map(|envelope| envelope.id));
            }
        } else {
            // Not picked at once: another tool looks, or the connection was lost. Rare enough to look at everything.
            let query = ponos_core::broker::Inspect::Messages {
                queue: self.from.clone(),
                limit: usize::from(u16::MAX),
                after: None,
            };
            let all = self.jobs.broker.inspect(query).await?.into_messages();
            there.extend(all.into_iter().map(|envelope| envelope.id));
        }
        let gone: Vec<MessageId> = left.iter().copied().filter(|id| !there.contains(id)).collect();
        for id in gone {
            left.remove(&id);
            self.bulk.tell(id, MovedTo::NotThere);
        }
        Ok(())
    }

    /// One subscription, until it has nothing more, is lost, or the operation stops. `true`: it may well have more, but
    /// was crowded with jobs that came back.
    async fn pass(
        &mut self,
        only: Vec<MessageId>,
        left: &mut HashSet<MessageId>,
    ) -> Result<bool, BrokerError> {
        let prefetch = u32::try_from(only.len()).unwrap_or(HELD).clamp(1, HELD);
        let options = SubscribeOptions { prefetch, only: Some(only) };
        let mut subscription = self.jobs.broker.subscribe(self.from, options).await?;
        let mut pass = Pass {
            unseen: left.clone(),
            ready: VecDeque::new(),
            spare: Vec::new(),
            settling: JoinSet::new(),
            lost: false,
        };
        let crowd = prefetch as usize / 2;
        loop {
            let busy = !pass.settling.is_empty();
            let crowded = pass.spare.len() > crowd;
            let start =
                !self.stopping && !pass.lost && !pass.ready.is_empty() && pass.settling.len() < PIPELINE;
            let want = !self.stopping
                && !pass.lost
                && !crowded
                && !pass.unseen.is_empty()
                && pass.ready.len() + pass.settling.len() < prefetch as usize;
            if !busy && !start && !want {
                return Ok(crowded || pass.unseen.is_empty());
            }
            tokio::select! {
                biased;
                () = stop(&mut self.bulk.stop), if !self.stopping => self.stopping = true,
                Some(joined) = pass.settling.join_next(), if busy => {
                    let Ok(settling) = joined else { continue };
                    self.conclude(settling, left)?;
                }
                () = pause_until(self.interval.map(|_| self.next)), if start => self.start(&mut pass).await,
                found = next(&mut subscription, prefetch as usize), if want => match found {
                    Ok(found) => pass.take(found),
                    Err(_lost) => pass.lost = true,
                },
                () = sleep(QUIET), if want && !busy && !start => return Ok(false),
            }
        }
    }

    fn conclude(&mut self, settling: Settling, left: &mut HashSet<MessageId>) -> Result<(), BrokerError> {
        let Settling { job, copies, to, settled } = settling;
        let to = match (settled, to) {
            (Settled::Lost, _) => return Ok(()),
            (Settled::Broken(error), _) => return Err(error),
            (Settled::Refused(error), _) => MovedTo::Refused(error),
            (Settled::Done, Some(queue)) => MovedTo::Queue(queue),
            (Settled::Both, Some(queue)) => MovedTo::Both(queue),
            (Settled::Done | Settled::Both, None) => MovedTo::Gone,
        };
        left.remove(&job.id);
        if matches!(to, MovedTo::Queue(_) | MovedTo::Both(_)) {
            self.record(&job, &copies);
        }
        self.bulk.tell(job.id, to);
        Ok(())
    }

    /// Tells the journal of a job that was moved, and of what is new beside it.
    fn record(&self, job: &Envelope, copies: &[Outgoing]) {
        for copy in copies.iter().filter(|copy| copy.envelope.id != job.id) {
            self.local.published(copy, 1, None);
        }
        let (Some(lifecycle), Some(verb), Some(report)) =
            (&self.local.lifecycle, self.work.verb, &job.report)
        else {
            return;
        };
        let Operation { id, by, .. } = &self.bulk.operation;
        let made = HandMade {
            verb: verb.into(),
            // Its own, which is where a trace shows it.
            queue: report.queue.clone(),
            by: by.as_str().into(),
            operation: Some(id.as_str().into()),
            reason: self.work.reason.clone(),
        };
        lifecycle.record(self.local.clock.wall(), job.tid.clone(), job.id, What::ByHand(made));
    }

    /// Starts the settlement of the job that is first, if its circuit lets it.
    async fn start(&mut self, pass: &mut Pass) {
        let Some(delivery) = pass.ready.pop_front() else { return };
        let job = Arc::clone(&delivery.envelope);
        let send = match (self.work.send)(&job) {
            Ok(send) => send,
            Err(problem) => {
                let error = BrokerError::new(BrokerErrorKind::Invalid, problem);
                pass.spare.push(delivery);
                let settled = Settled::Refused(error);
                pass.settling.spawn(std::future::ready(Settling {
                    job,
                    copies: Vec::new(),
                    to: None,
                    settled,
                }));
                return;
            }
        };
        let to = send.iter().find_map(|message| match &message.to {
            Destination::Queue(queue) => Some(queue.clone()),
            Destination::Event(_) => None,
        });
        let now = Instant::now();
        if let Some(queue) = &to
            && self.gate_of(queue, now).await == Gate::Open
        {
            pass.ready.push_front(delivery);
            self.bulk.tell(job.id, MovedTo::Waits(queue.clone()));
            // Without a rate too.
            tokio::select! {
                () = stop(&mut self.bulk.stop) => self.stopping = true,
                () = sleep(GATE_ASKED) => {}
            }
            return;
        }
        if let Some(gap) = self.interval {
            self.next = self.next.max(now.checked_sub(CATCH_UP).unwrap_or(now)) + gap;
        }
        let broker = Arc::clone(&self.jobs.broker);
        pass.settling.spawn(async move {
            let settled = settle(&*broker, &delivery, &send, to.as_ref()).await;
            Settling { job, copies: send, to, settled }
        });
    }

    async fn gate_of(&mut self, queue: &QueueName, now: Instant) -> Gate {
        let Some(gate) = self.bulk.gate else {
            return Gate::Unknown;
        };
        if let Some((known, at)) = self.gates.get(queue)
            && now.duration_since(*at) < GATE_ASKED
        {
            return *known;
        }
        let answer = gate.of(queue).await;
        self.gates.insert(queue.clone(), (answer, now));
        answer
    }
}

/// What one subscription has brought.
struct Pass {
    /// Jobs that it has not brought yet.
    unseen: HashSet<MessageId>,
    /// Jobs whose turn has not come.
    ready: VecDeque<Delivery>,
    /// Held until the end and then handed back: a job that has failed again meanwhile, or a second one under the same
    /// id, waits for an operation of its own.
    spare: Vec<Delivery>,
    settling: JoinSet<Settling>,
    lost: bool,
}

/// A job whose settlement has ended.
struct Settling {
    job: Arc<Envelope>,
    /// What was sent for it.
    copies: Vec<Outgoing>,
    /// Where the job itself went.
    to: Option<QueueName>,
    settled: Settled,
}

impl Pass {
    fn take(&mut self, found: Vec<Delivery>) {
        for delivery in found {
            if self.unseen.remove(&delivery.envelope.id) {
                self.ready.push_back(delivery);
            } else {
                self.spare.push(delivery);
            }
        }
    }
}

async fn next(
    subscription: &mut Box<dyn Subscription>,
    max: usize,
) -> Result<Vec<Delivery>, ponos_core::broker::SubscriptionLost> {
    let mut found = Vec::new();
    std::future::poll_fn(|cx| subscription.poll_next(cx, max, &mut found)).await?;
    Ok(found)
}

async fn stop(stop: &mut Option<BoxFuture<'_, ()>>) {
    match stop {
        Some(stop) => stop.await,
        None => std::future::pending().await,
    }
}

async fn pause_until(at: Option<Instant>) {
    if let Some(at) = at {
        sleep_until(at).await;
    }
}
