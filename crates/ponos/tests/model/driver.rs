//! Takes a broker and the reference through the same run, step by step, and says where they differ.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use ponos::core::broker::{
    Broker, BrokerErrorKind, Delivery, Inspect, Outgoing, Published, SettleError, Settlement,
    SubscribeOptions, Subscription, Verdict,
};
use ponos::core::envelope::Phase;
use ponos::core::id::{MessageId, Timestamp};
use ponos::core::name::QueueName;

use super::commands::{Command, End, Message, next_attempt, outgoing, put_back, report, topologies};
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

    async fn declare(&mut self, by: u8, what: u8) -> Agreed {
        let topology = &topologies()[usize::from(what)];
        self.insisting("declare", || self.handles[usize::from(by)].declare(topology)).await?;
        self.model.declare(topology);
        Ok(())
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

    /// Publishes until everything that can be is confirmed.
    async fn publish(&mut self, by: u8, mut batch: Vec<Outgoing>) -> Agreed {
        while !batch.is_empty() {
            let outcomes =
                self.within("publish", self.handles[usize::from(by)].publish(batch.clone())).await?;
            ensure!(outcomes.len() == batch.len(), "{} outcomes of {}", outcomes.len(), batch.len());
            let mut again = Vec::new();
            for (message, outcome) in batch.into_iter().zip(outcomes) {
                if self.told(&message, &outcome, true)? {
                    again.push(message);
                }
            }
            batch = again;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// What was said of a message that was sent, `first` or again; whether to send it again.
    fn told(&mut self, message: &Outgoing, outcome: &Published, first: bool) -> Agreed<bool> {
        let size = message.envelope.body.len();
        let expected = self.model.outcome(message);
        match outcome {
            Published::Refused(error) if error.is_temporary() && self.may_fail() => return Ok(true),
            Published::Unknown(error) if error.is_temporary() && self.may_fail() => {
                self.model.publish(message, false);
                return Ok(true);
            }
            Published::Refused(error) if error.kind() == BrokerErrorKind::Invalid => {
                ensure!(size > ponos::core::body::MAX_BODY, "refused: {error}");
            }
            outcome => {
                ensure!(size <= ponos::core::body::MAX_BODY, "a body of {size} bytes was taken: {outcome:?}");
                // Of the same message twice in a batch RabbitMQ's returns do not say which one they are of.
                let is_alike =
                    !self.model.promises.counts && outcome.is_confirmed() && expected.is_confirmed();
                ensure!(*outcome == expected || is_alike, "{outcome:?} and not {expected:?}: {message:?}");
                self.model.publish(message, first);
            }
        }
        Ok(false)
    }

    async fn subscribe(&mut self, by: u8, queue: u8, prefetch: u8, only: Option<u8>) -> Agreed {
        let (queue, prefetch) = (self.queue(queue), u32::from(prefetch));
        if self.consumers.len() >= CONSUMERS {
            return Ok(());
        }
        if prefetch == 0 {
            let options = SubscribeOptions::prefetch(0);
            let refused = self.handles[usize::from(by)].subscribe(&queue, options).await;
            let kind = refused.err().map(|error| error.kind());
            ensure!(kind == Some(BrokerErrorKind::Invalid), "a prefetch of 0 is {kind:?}");
            return Ok(());
        }
        let entries = &self.model.queues[&queue];
        // A broker that scans for what is picked finds it only if nobody else has it.
        let only = only.filter(|_| !entries.is_empty() && !self.model.promises.fetches_ahead).map(|first| {
            let first = usize::from(first) % entries.len();
            entries[first..].iter().take(2).map(|entry| entry.envelope.id).collect()
        });
        self.open(usize::from(by), &queue, prefetch, only).await.map(drop)
    }

    /// Opens a queue; where it stands among the open ones.
    async fn open(
        &mut self,
        handle: usize,
        queue: &QueueName,
        prefetch: u32,
        only: Option<Vec<MessageId>>,
    ) -> Agreed<usize> {
        let options = SubscribeOptions { prefetch, only: only.clone() };
        let broker = &self.handles[handle];
        let subscription = self.insisting("subscribe", || broker.subscribe(queue, options.clone())).await?;
        let id = self.model.subscribe(queue, prefetch, only);
        self.consumers.push(Open { id, handle, queue: queue.clone(), subscription });
        Ok(self.consumers.len() - 1)
    }

    /// Takes what a subscription has: it must give something if it owes it.
    async fn take(&mut self, at: usize, max: usize) -> Agreed {
        let id = self.consumers[at].id;
        let (owed, waits) = (self.model.owed(id, self.now()), self.waits());
        let mut out = Vec::new();
        let consumer = &mut self.consumers[at];
        let polling = poll_fn(|cx| match consumer.subscription.poll_next(cx, max, &mut out) {
            Poll::Pending if owed == 0 => Poll::Ready(None),
            polled => polled.map(Some),
        });
        let polled = tokio::time::timeout(waits, polling).await;
        let polled = polled.map_err(|_| format!("nothing came although {owed} are there"))?;
        match polled {
            None => {
                ensure!(out.is_empty(), "it waits and delivers: {out:?}");
                if self.model.promises.keeps_asking {
                    let consumer = self.model.consumers.get_mut(&id).expect("it is open");
                    consumer.unseen = consumer.unseen.max(max);
                }
            }
            Some(Err(lost)) => {
                ensure!(self.model.promises.is_rough, "{lost}");
                self.lost(id);
            }
            Some(Ok(())) => {
                ensure!((1..=max).contains(&out.len()), "{} deliveries of {max}", out.len());
                for delivery in out {
                    self.delivered(at, delivery)?;
                }
            }
        }
        Ok(())
    }

    fn delivered(&mut self, at: usize, delivery: Delivery) -> Agreed {
        let Open { id, handle, .. } = self.consumers[at];
        let (_, fence) = self.model.deliver(id, &delivery, self.now())?;
        let consumer = self.model.consumers.get_mut(&id).expect("it is open");
        consumer.unseen = consumer.unseen.saturating_sub(1);
        let twice = self.held.iter().chain(&self.past).any(|held| {
            held.delivery.tag == delivery.tag && Arc::ptr_eq(&held.broker, &self.handles[handle])
        });
        ensure!(!twice, "two deliveries have the tag {:?}", delivery.tag);
        let broker = Arc::clone(&self.handles[handle]);
        self.held.push(Held { delivery, fence, consumer: id, handle, broker });
        Ok(())
    }

    /// A subscription has ended by itself, as when its connection breaks.
    fn lost(&mut self, id: u64) {
        self.consumers.retain(|open| open.id != id);
        self.model.end(id, 1);
        self.retire();
    }

    /// Drops a subscription.
    fn close(&mut self, at: usize) {
        let Open { id, subscription, .. } = self.consumers.remove(at);
        drop(subscription);
        self.model.end(id, 0);
        self.retire();
    }

    /// Puts away what is no longer held.
    fn retire(&mut self) {
        let model = &self.model;
        let gone = self.held.extract_if(.., |held| !model.holds(&held.delivery.queue, held.fence));
        self.past.extend(gone);
        let excess = self.past.len().saturating_sub(PAST);
        self.past.drain(..excess);
    }

    fn settlement(&mut self, held: &Held, send: &[Message], verdict: End) -> Settlement {
        let now = self.now();
        let send = send.iter().map(|message| self.message(message, Some(held))).collect();
        let envelope = &held.delivery.envelope;
        let again = |due, phase| next_attempt(&envelope.progress, due, phase, now);
        let verdict = match verdict {
            End::Done => Verdict::Done,
            End::Release => Verdict::Release,
            End::Retry(delay) => {
                let due = delay.from(now).unwrap_or(now);
                Verdict::RetryAt(due, again(Some(due), envelope.progress.phase))
            }
            End::Recover => Verdict::Recover(again(None, Phase::Recover)),
            End::Fail => Verdict::Failed(report(&held.delivery.queue, envelope, now)),
        };
        Settlement { send, verdict }
    }

    /// Settles until it is said what became of it.
    async fn settle(&mut self, held: Held, settlement: Settlement) -> Agreed {
        let Held { delivery, fence, consumer, handle, broker } = &held;
        let queue = delivery.queue.clone();
        let ours = self.model.holds(&queue, *fence);
        let is_open = Arc::ptr_eq(broker, &self.handles[*handle]);
        let Settlement { send, verdict } = &settlement;
        let mut confirmed = vec![false; send.len()];
        let mut doubtful = false;
        loop {
            let settled = self.within("settle", broker.settle(delivery, settlement.clone())).await?;
            match settled {
                Ok(outcomes) => {
                    ensure!(ours, "settled although it was no longer ours: {verdict:?}");
                    ensure!(outcomes.len() == send.len(), "{} outcomes of {}", outcomes.len(), send.len());
                    let (old, _) = self.model.settle(&queue, *fence, verdict);
                    for ((message, outcome), before) in send.iter().zip(&outcomes).zip(&confirmed) {
                        ensure!(outcome.is_confirmed(), "settled, with {outcome:?}");
                        self.told(message, outcome, !before)?;
                    }
                    if self.model.promises.fetches_ahead && *verdict != Verdict::Release {
                        self.on_their_way.push((*handle, queue, Entry { held: None, sure: false, ..old }));
                    }
                    break;
                }
                Err(SettleError::Lost { sent }) if ours => {
                    ensure!(self.model.promises.is_rough, "lost although it is ours: {verdict:?}");
                    for (message, before) in send.iter().zip(&confirmed) {
                        self.model.publish(message, sent && !before);
                    }
                    // Released or lost, it is back.
                    if doubtful && *verdict != Verdict::Release {
                        self.doubt(&queue, *fence, verdict);
                    }
                    let consumer = *consumer;
                    self.past.push(held);
                    self.lost(consumer);
                    return self.resolve().await;
                }
                Err(SettleError::Lost { sent }) => {
                    ensure!(!sent, "lost before, and yet sent: {send:?}");
                    self.model.told(*consumer, *fence);
                    if self.model.promises.is_rough && self.has_ended(*consumer).await? {
                        let consumer = *consumer;
                        self.lost(consumer);
                    }
                    break;
                }
                Err(SettleError::NotSent(outcomes)) => {
                    ensure!(ours, "it is said to be still ours, and is not: {outcomes:?}");
                    ensure!(outcomes.len() == send.len(), "{} outcomes of {}", outcomes.len(), send.len());
                    if self.not_sent(send, &outcomes, &mut confirmed)? {
                        self.held.push(held);
                        return Ok(());
                    }
                }
                Err(SettleError::Unavailable(error)) if !is_open => {
                    ensure!(error.kind() == BrokerErrorKind::Closed, "after the close: {error}");
                    break;
                }
                Err(SettleError::Unavailable(error)) => {
                    ensure!(error.is_temporary() && self.may_fail(), "not settled: {error}");
                    // It may have been sent all the same.
                    send.iter().for_each(|message| self.model.publish(message, false));
                    doubtful = true;
                }
                Err(error) => return Err(format!("not settled: {error}")),
            }
            tokio::task::yield_now().await;
        }
        self.past.push(held);
        self.retire();
        Ok(())
    }

    /// Whether a subscription has ended by itself and nobody was told.
    async fn has_ended(&self, id: u64) -> Agreed<bool> {
        let Some(open) = self.consumers.iter().find(|open| open.id == id) else { return Ok(false) };
        let query = Inspect::Queue(open.queue.clone());
        let stats = self.handles[0].inspect(query).await.map_err(|error| error.to_string())?.into_queues();
        let known = self.consumers.iter().filter(|other| other.queue == open.queue).count();
        Ok(stats.iter().any(|stats| (stats.consumers as usize) < known))
    }

    /// Not everything of a settlement was sent; whether it never will be.
    fn not_sent(
        &mut self,
        send: &[Outgoing],
        outcomes: &[Published],
        confirmed: &mut [bool],
    ) -> Agreed<bool> {
        ensure!(!outcomes.iter().all(Published::is_confirmed), "not sent, and all is confirmed");
        let cannot_be = |message: &Outgoing| {
            message.envelope.body.len() > ponos::core::body::MAX_BODY
                || self.model.outcome(message) == Published::Returned
        };
        let never = send.iter().any(cannot_be);
        if !self.may_fail() {
            ensure!(never, "everything could be sent: {outcomes:?}");
            ensure!(!outcomes.iter().any(Published::is_confirmed), "both or nothing: {outcomes:?}");
            return Ok(true);
        }
        for ((message, outcome), before) in send.iter().zip(outcomes).zip(confirmed) {
            self.told(message, outcome, !*before)?;
            *before |= outcome.is_confirmed();
        }
        Ok(never)
    }

    /// Nobody can tell whether a verdict was carried out.
    fn doubt(&mut self, queue: &QueueName, fence: u64, verdict: &Verdict) {
        let (old, new) = self.model.settle(queue, fence, verdict);
        let key = old.key;
        for entry in self.model.queues.values_mut().flatten().filter(|entry| Some(entry.key) == new) {
            entry.sure = false;
        }
        let entries = self.model.queues.get_mut(queue).expect("it exists");
        entries.iter_mut().filter(|e| e.envelope.id == old.envelope.id).for_each(|e| e.place = None);
        entries.push(Entry { sure: false, place: None, ..old });
        self.model.either.extend(new.map(|new| (key, new)));
    }

    async fn crash(&mut self, at: u8, take: usize) -> Agreed {
        let (handle, queue) = (usize::from(at) % 2, self.queue(at));
        let gone: Vec<u64> = match self.subject.sever(handle, &queue) {
            Severed::Nothing => return self.kill_holder(&queue, take),
            Severed::Queue => {
                self.consumers.iter().filter(|open| open.queue == queue).map(|o| o.id).collect()
            }
            Severed::Handle(handle) => {
                for (_, queue, entry) in self.on_their_way.extract_if(.., |(by, ..)| *by == handle) {
                    self.model
                        .queues
                        .get_mut(&queue)
                        .expect("it exists")
                        .push(Entry { place: None, ..entry });
                }
                self.consumers.iter().filter(|open| open.handle == handle).map(|open| open.id).collect()
            }
        };
        for id in gone {
            self.ends(id).await?;
            self.lost(id);
        }
        Ok(())
    }

    /// A subscription comes to its end.
    async fn ends(&mut self, id: u64) -> Agreed {
        let Some(at) = self.consumers.iter().position(|open| open.id == id) else { return Ok(()) };
        let mut open = self.consumers.remove(at);
        let mut out = Vec::new();
        // What had come before may still be given out.
        let ending =
            async { while poll_fn(|cx| open.subscription.poll_next(cx, 9, &mut out)).await.is_ok() {} };
        self.within("the end of a subscription", ending).await
    }

    /// Another process takes some messages and dies.
    fn kill_holder(&mut self, queue: &QueueName, take: usize) -> Agreed {
        let figures = self.model.figures(queue, self.now());
        let is_moved = *queue == QueueName::failed(&queue.app());
        let take = take.min(figures.ready);
        if take == 0 || figures.unseen > 0 || is_moved {
            return Ok(());
        }
        let Some(taken) = self.subject.kill_holder(queue, take) else { return Ok(()) };
        ensure!(taken.len() == take, "another process got {} of {take}", taken.len());
        self.model.lose(queue, &taken, self.subject.now())
    }

    async fn expire(&mut self) -> Agreed {
        // Who waits would take what is handed back, while everybody is still taken for dead.
        while let Some(at) = self.consumers.iter().position(|o| self.model.consumers[&o.id].unseen > 0) {
            self.close(at);
        }
        self.agree().await?;
        let Some(reaper) = self.subject.reaper() else { return Ok(()) };
        self.model.expire();
        self.retire();
        let back = self.agree().await;
        reaper.close().await.map_err(|error| format!("the reaper: {error}"))?;
        back
    }

    async fn reopen(&mut self, by: u8) -> Agreed {
        let handle = usize::from(by);
        let closed = self.within("close", self.handles[handle].close()).await?;
        closed.map_err(|error| format!("close: {error}"))?;
        let ids: Vec<_> = self.consumers.iter().filter(|open| open.handle == handle).map(|o| o.id).collect();
        for id in ids {
            self.ends(id).await?;
            self.model.end(id, 0);
        }
        self.retire();
        self.handles[handle] = self.subject.open(handle).await;
        Ok(())
    }

    /// Lets time pass, or waits for what is due next.
    async fn pass(&mut self, by: Duration) -> Agreed {
        if self.subject.advance(by) {
            return Ok(());
        }
        let soon = self.now() + Duration::from_secs(1);
        let Some(due) = self.model.next_due(self.now()).filter(|due| *due < soon) else { return Ok(()) };
        while self.now() < due {
            self.agree().await?;
        }
        Ok(())
    }

    /// Picks a failed job and puts it back or throws it away.
    async fn redo(&mut self, by: u8, queue: u8, job: u8, back: bool) -> Agreed {
        let app = ["unit", "other"][usize::from(queue)];
        let queue = QueueName::failed(&ponos::core::name::AppName::from_checked(app));
        let now = self.now();
        let free: Vec<_> = self.model.queues[&queue].iter().filter(|entry| entry.is_ready(now)).collect();
        if free.is_empty() || self.model.unseen(&queue, None) > 0 {
            return Ok(());
        }
        let id = free[usize::from(job) % free.len()].envelope.id;
        let held = self.held.len();
        let deadline = tokio::time::Instant::now() + self.patience;
        while self.held.len() == held {
            let at = self.open(by.into(), &queue, 1, Some(vec![id])).await?;
            let open = self.consumers[at].id;
            if self.model.promises.fetches_ahead {
                // What was handed back a moment ago may not be back yet: then it is looked for again.
                let mut out = Vec::new();
                let subscription = &mut self.consumers[at].subscription;
                let asking = poll_fn(|cx| subscription.poll_next(cx, 1, &mut out));
                let _ = tokio::time::timeout(Duration::from_millis(100), asking).await;
                for delivery in out {
                    self.delivered(at, delivery)?;
                }
            } else {
                self.take(at, 1).await?;
            }
            if self.held.len() > held {
                let picked = self.held.pop().expect("it was just picked");
                let send = if back { put_back(&picked.delivery.envelope, self.now()) } else { None };
                let settlement = Settlement { send: send.into_iter().collect(), verdict: Verdict::Done };
                self.settle(picked, settlement).await?;
                if let Some(at) = self.consumers.iter().position(|consumer| consumer.id == open) {
                    self.close(at);
                }
                return Ok(());
            }
            if let Some(at) = self.consumers.iter().position(|consumer| consumer.id == open) {
                self.close(at);
            }
            ensure!(tokio::time::Instant::now() < deadline, "{id} could not be picked");
        }
        Ok(())
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
