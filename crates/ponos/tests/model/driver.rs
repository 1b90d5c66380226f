//! Takes a broker and the reference through the same run, step by step, and says where they differ.
//!
//! What each step does is in `steps.rs`, `settling.rs` and `faults.rs`.

#[path = "faults.rs"]
mod faults;
#[path = "settling.rs"]
mod settling;
#[path = "steps.rs"]
mod steps;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ponos::core::broker::{Broker, Delivery, Outgoing, Settlement, Subscription, Verdict};
use ponos::core::id::{MessageId, Timestamp};
use ponos::core::name::QueueName;

use super::commands::{Command, Message, outgoing, topologies};
use super::reference::{Entry, Promises, Reference};

/// How many subscriptions are open at once at most.
const CONSUMERS: usize = 4;

/// How many deliveries that are settled are remembered, to be settled again.
const PAST: usize = 8;

/// How broker and reference differ.
pub type Agreed<T = ()> = Result<T, String>;

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}
pub(crate) use ensure;

/// A broker under test, and what can be done to it from outside.
pub trait Subject {
    fn promises(&self) -> Promises;

    /// The time that its messages wait for.
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    /// Moves the time, where it is the test's; `false` where it passes by itself.
    fn advance(&self, _by: Duration) -> bool {
        false
    }

    /// Another handle to the same messages, in the place of this one.
    fn open(&self, handle: usize) -> impl Future<Output = Arc<dyn Broker>>;

    /// Breaks connections: of all who consume a queue, or of a handle.
    fn sever(&self, _handle: usize, _queue: &QueueName) -> Severed {
        Severed::Nothing
    }

    /// Starts a process that takes so many messages of a queue, and kills it; what it got, in order.
    fn kill_holder(&self, _queue: &QueueName, _take: usize) -> Option<Vec<MessageId>> {
        None
    }

    /// Somebody who soon takes their jobs from all who give no sign of life.
    fn reaper(&self) -> Option<Arc<dyn Broker>> {
        None
    }
}

/// Whom it hit.
#[allow(dead_code, reason = "each broker can do one of them")]
pub enum Severed {
    Nothing,
    Queue,
    Handle(usize),
}

pub struct Driver<'a, S> {
    pub subject: &'a S,
    pub model: Reference,
    pub handles: Vec<Arc<dyn Broker>>,
    consumers: Vec<Open>,
    held: Vec<Held>,
    past: Vec<Held>,
    sent: Vec<Outgoing>,
    /// Settled through this handle, whose acknowledgement may still be on its way.
    on_their_way: Vec<(usize, QueueName, Entry)>,
    numbers: u64,
    pub patience: Duration,
}

struct Open {
    id: u64,
    handle: usize,
    queue: QueueName,
    subscription: Box<dyn Subscription>,
}

struct Held {
    delivery: Delivery,
    fence: u64,
    consumer: u64,
    handle: usize,
    broker: Arc<dyn Broker>,
}

/// Runs commands against a fresh broker; `patience` is how long what must come may take.
pub async fn run<S: Subject>(subject: &S, commands: &[Command], patience: Duration) -> Agreed {
    let mut driver = Driver::new(subject, patience).await;
    let is_shown = std::env::var_os("PONOS_MODEL_STEPS").is_some();
    for (step, command) in commands.iter().enumerate() {
        if is_shown {
            println!(
                "{:?} step {step}, {command:?}",
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
            );
        }
        let done = async {
            driver.step(command).await?;
            driver.agree().await
        };
        done.await.map_err(|why| format!("step {step}, {command:?}: {why}"))?;
    }
    driver.drain().await.map_err(|why| format!("at the end: {why}"))
}

impl<'a, S: Subject> Driver<'a, S> {
    async fn new(subject: &'a S, patience: Duration) -> Self {
        let mut handles = Vec::new();
        let mut model = Reference::new(subject.promises());
        for handle in 0..2 {
            let broker = subject.open(handle).await;
            for topology in &topologies()[..2] {
                broker.declare(topology).await.expect("it can be declared");
                model.declare(topology);
            }
            handles.push(broker);
        }
        Self {
            subject,
            model,
            handles,
            consumers: Vec::new(),
            held: Vec::new(),
            past: Vec::new(),
            sent: Vec::new(),
            on_their_way: Vec::new(),
            numbers: 0,
            patience,
        }
    }

    fn now(&self) -> Timestamp {
        self.subject.now()
    }

    /// How long to wait for what must be.
    pub fn waits(&self) -> Duration {
        if self.model.promises.at_once { Duration::ZERO } else { self.patience }
    }

    /// Whether calls may fail for now.
    fn may_fail(&self) -> bool {
        !self.model.promises.exactly_once
    }

    pub async fn within<F: Future>(&self, what: &str, future: F) -> Agreed<F::Output> {
        let result = tokio::time::timeout(self.patience, future).await;
        result.map_err(|_| format!("{what}: not within {:?}", self.patience))
    }

    fn queue(&self, number: u8) -> QueueName {
        let queues = &self.model.queues;
        queues.keys().nth(usize::from(number) % queues.len()).expect("there are queues").clone()
    }

    async fn step(&mut self, command: &Command) -> Agreed {
        let pick = |number: u8, of: usize| (of > 0).then(|| usize::from(number) % of);
        match *command {
            Command::Declare { by, what } => self.declare(by, what).await,
            Command::Publish { by, ref messages } => {
                let batch: Vec<_> = messages.iter().map(|message| self.message(message, None)).collect();
                self.publish(by, batch).await
            }
            Command::Subscribe { by, queue, prefetch, only } => {
                self.subscribe(by, queue, prefetch, only).await
            }
            Command::Take { consumer, max } => match pick(consumer, self.consumers.len()) {
                Some(at) => self.take(at, max.into()).await,
                None => Ok(()),
            },
            Command::Settle { delivery, late, ref send, verdict } => {
                let of = if late { &self.past } else { &self.held };
                let Some(at) = pick(delivery, of.len()) else { return Ok(()) };
                let held = if late { self.past.remove(at) } else { self.held.remove(at) };
                let settlement = self.settlement(&held, send, verdict);
                self.settle(held, settlement).await
            }
            Command::Drop { consumer } => {
                if let Some(at) = pick(consumer, self.consumers.len()) {
                    self.close(at);
                }
                Ok(())
            }
            Command::Crash { at, take } => self.crash(at, take.into()).await,
            Command::Expire => self.expire().await,
            Command::Reopen { by } => self.reopen(by).await,
            Command::Pass { millis } => self.pass(Duration::from_millis(millis.into())).await,
            Command::Look { by, queue, page } => self.look(by, &self.queue(queue), page.into()).await,
            Command::Redo { by, queue, job, back } => self.redo(by, queue, job, back).await,
        }
    }

    /// Calls until it succeeds, where calls may fail for now.
    pub async fn insisting<T, Fut>(&self, what: &str, mut call: impl FnMut() -> Fut) -> Agreed<T>
    where
        Fut: Future<Output = Result<T, ponos::core::broker::BrokerError>>,
    {
        let calls = async {
            loop {
                match call().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) if error.is_temporary() && self.may_fail() => {}
                    Err(error) => return Err(format!("{what}: {error}")),
                }
                tokio::task::yield_now().await;
            }
        };
        self.within(what, calls).await?
    }

    /// A message, new or sent before.
    fn message(&mut self, message: &Message, by: Option<&Held>) -> Outgoing {
        // What a settlement has sent before is not sent again by another one, where both are not one transaction.
        if let Some(again) = message.again
            && !self.sent.is_empty()
            && !(by.is_some() && self.model.promises.fetches_ahead)
        {
            return self.sent[usize::from(again) % self.sent.len()].clone();
        }
        self.numbers += 1;
        let cause = by.map(|held| (&held.delivery.queue, held.delivery.envelope.id));
        let outgoing = outgoing(message, self.numbers, cause, self.now());
        self.sent.push(outgoing.clone());
        outgoing
    }

    /// Empties everything: what must be there comes, and nothing else.
    async fn drain(&mut self) -> Agreed {
        while !self.consumers.is_empty() {
            self.close(0);
        }
        if !self.subject.advance(Duration::from_secs(7200)) {
            while self.model.next_due(self.now()).is_some_and(|due| due.since(self.now()).as_secs() < 60) {
                self.pass(Duration::ZERO).await?;
            }
        }
        self.agree().await?;
        for queue in self.model.queues.keys().cloned().collect::<Vec<_>>() {
            loop {
                let at = match self.consumers.first() {
                    Some(_) => 0,
                    None => self.open(0, &queue, 50, None).await?,
                };
                let id = self.consumers[at].id;
                let maybe = self.model.figures(&queue, self.now()).maybe_ready;
                if self.model.owed(id, self.now()) == 0 && (maybe == 0 || self.is_empty(&queue).await?) {
                    break;
                }
                self.take(at, 50).await?;
                while let Some(held) = self.held.pop() {
                    self.settle(held, Settlement::just(Verdict::Done)).await?;
                }
            }
            self.close(0);
        }
        self.agree().await?;
        ensure!(self.model.either.is_empty(), "neither of {:?} came", self.model.either);
        Ok(())
    }
}
