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
    BoxFuture, Broker, BrokerError, BrokerErrorKind, Delivery, Destination, Outgoing, Published, SettleError,
    Settlement, SubscribeOptions, Subscription, Verdict,
};
use ponos_core::envelope::Envelope;
use ponos_core::id::MessageId;
use ponos_core::name::QueueName;
use ponos_core::policy::Rate;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{FailedJobs, Operation};

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

/// How long one settlement may take, and how often it is tried.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);
const SETTLE_TRIES: u32 = 5;
const SETTLE_PAUSE: Duration = Duration::from_secs(1);

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

/// What is sent for a job that is picked, before it is acknowledged; the first message is the job itself. An error
/// leaves it where it is.
pub(super) type Work = Box<dyn Fn(&Envelope) -> Result<Vec<Outgoing>, String> + Send + Sync>;

impl FailedJobs {
    /// Carries out an operation on one job: where it went, or `None` when it is not there.
    pub(super) async fn carry_out_one(
        &self,
        from: &QueueName,
        id: MessageId,
        work: Work,
    ) -> Result<Option<QueueName>, BrokerError> {
        let mut became = None;
        let bulk = Bulk::new(Operation::begun_by("")).told(|moved| became = Some(moved.to));
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
}

/// What became of a settlement.
enum Settled {
    Done,
    Both,
    /// It comes again.
    Lost,
    Refused(BrokerError),
    /// The broker is not to be reached.
    Broken(BrokerError),
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
                    let Ok((id, to, settled)) = joined else { continue };
                    self.conclude(id, to, settled, left)?;
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

    fn conclude(
        &mut self,
        id: MessageId,
        to: Option<QueueName>,
        settled: Settled,
        left: &mut HashSet<MessageId>,
    ) -> Result<(), BrokerError> {
        let to = match (settled, to) {
            (Settled::Lost, _) => return Ok(()),
            (Settled::Broken(error), _) => return Err(error),
            (Settled::Refused(error), _) => MovedTo::Refused(error),
            (Settled::Done, Some(queue)) => MovedTo::Queue(queue),
            (Settled::Both, Some(queue)) => MovedTo::Both(queue),
            (Settled::Done | Settled::Both, None) => MovedTo::Gone,
        };
        left.remove(&id);
        self.bulk.tell(id, to);
        Ok(())
    }

    /// Starts the settlement of the job that is first, if its circuit lets it.
    async fn start(&mut self, pass: &mut Pass) {
        let Some(delivery) = pass.ready.pop_front() else { return };
        let id = delivery.envelope.id;
        let send = match (self.work)(&delivery.envelope) {
            Ok(send) => send,
            Err(problem) => {
                let error = BrokerError::new(BrokerErrorKind::Invalid, problem);
                pass.spare.push(delivery);
                pass.settling.spawn(std::future::ready((id, None, Settled::Refused(error))));
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
            self.bulk.tell(id, MovedTo::Waits(queue.clone()));
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
            let settled = settle(&*broker, &delivery, send, to.as_ref()).await;
            (id, to, settled)
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
    settling: JoinSet<(MessageId, Option<QueueName>, Settled)>,
    lost: bool,
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

async fn settle(
    broker: &dyn Broker,
    delivery: &Delivery,
    send: Vec<Outgoing>,
    to: Option<&QueueName>,
) -> Settled {
    let mut tried = 0;
    loop {
        tried += 1;
        let settlement = Settlement { send: send.clone(), verdict: Verdict::Done };
        let error = match timeout(SETTLE_DEADLINE, broker.settle(delivery, settlement)).await {
            Ok(Ok(_)) => return Settled::Done,
            Ok(Err(SettleError::Lost { sent: true })) => return Settled::Both,
            Ok(Err(SettleError::Lost { sent: false })) => return Settled::Lost,
            Ok(Err(SettleError::Unavailable(error))) if !error.is_temporary() => {
                return Settled::Refused(error);
            }
            Ok(Err(SettleError::Unavailable(error))) => error,
            Ok(Err(SettleError::NotSent(outcomes))) => match not_sent(outcomes, to) {
                error if error.is_temporary() => error,
                error => return Settled::Refused(error),
            },
            Ok(Err(error)) => BrokerError::new(BrokerErrorKind::Unavailable, error.to_string()),
            Err(_) => BrokerError::new(
                BrokerErrorKind::Unavailable,
                format!("{}: no answer within {} seconds", broker.name(), SETTLE_DEADLINE.as_secs()),
            ),
        };
        if tried == SETTLE_TRIES {
            return Settled::Broken(error);
        }
        sleep(SETTLE_PAUSE).await;
    }
}

/// Why a settlement's messages were not sent.
fn not_sent(outcomes: Vec<Published>, to: Option<&QueueName>) -> BrokerError {
    let mut outcomes: Vec<_> = outcomes.into_iter().filter(|outcome| !outcome.is_confirmed()).collect();
    if outcomes.contains(&Published::Returned) {
        let queue = to.map(ToString::to_string).unwrap_or_default();
        return BrokerError::new(
            BrokerErrorKind::NotFound,
            format!(
                "the queue `{queue}` does not exist: start the service that owns it once, it declares its queues"
            ),
        );
    }
    // What is refused for good says why; the others were only held back with it.
    outcomes.sort_by_key(|outcome| match outcome {
        Published::Refused(error) => error.is_temporary(),
        _ => true,
    });
    match outcomes.into_iter().next() {
        Some(Published::Refused(error) | Published::Unknown(error)) => error,
        _ => BrokerError::new(
            BrokerErrorKind::Unavailable,
            "a message was not sent, and the broker does not say why",
        ),
    }
}
