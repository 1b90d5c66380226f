//! What the processes of a faulty broker share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use ponos_core::broker::{Broker, Delivery, DeliveryTag, Destination, Outgoing, Published, Subscription};
use ponos_core::envelope::Envelope;
use ponos_core::id::MessageId;
use ponos_core::name::{EventName, QueueName};
use ponos_core::policy::Moment;

use super::super::faults::{Fault, Faults};
use super::super::history::{Happened, History, Sent};
use crate::clock::Clock;

/// The broker behind the faults, and the truth about it.
pub(crate) struct World {
    pub(in super::super) inner: Arc<dyn Broker>,
    /// A clock that belongs to no process: what is on its way arrives although its sender has died.
    pub(in super::super) clock: Clock,
    pub(in super::super) history: History,
    pub(in super::super) transactions: bool,
    /// Held for one operation, never across an await.
    state: Mutex<State>,
}

struct State {
    faults: Faults,
    random: fastrand::Rng,
    /// Whether nothing goes wrong any more.
    healed: bool,
    down_until: Moment,
    intakes: BTreeMap<u64, Open>,
    next_intake: u64,
    held: HashMap<DeliveryTag, Held>,
    /// Which delivery an envelope in memory belongs to: each is given one of its own.
    given: HashMap<usize, (Weak<Envelope>, DeliveryTag)>,
    /// How many of them there may be before those that nobody has any more are forgotten.
    given_limit: usize,
    bound: BTreeMap<EventName, BTreeSet<QueueName>>,
    /// How often processes died with a message since it was last told to come again.
    losses: HashMap<(QueueName, MessageId), u32>,
    /// What of a settlement was confirmed by an earlier try, by the settled delivery.
    sent: HashMap<DeliveryTag, Vec<(MessageId, Published)>>,
}

/// An open subscription.
struct Open {
    process: Arc<str>,
    /// The subscription behind it, and who waits for it. Dropping it hands everything back.
    inner: Option<Box<dyn Subscription>>,
    waker: Option<Waker>,
}

/// A delivery that a process holds.
struct Held {
    intake: u64,
    process: Arc<str>,
    queue: QueueName,
    id: MessageId,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl World {
    pub(super) fn new(clock: Clock, inner: Arc<dyn Broker>, faults: Faults) -> Arc<Self> {
        let transactions = faults.transactions;
        let state = State {
            random: fastrand::Rng::with_seed(faults.seed),
            faults,
            healed: false,
            down_until: Moment::ORIGIN,
            intakes: BTreeMap::new(),
            next_intake: 0,
            held: HashMap::new(),
            given: HashMap::new(),
            given_limit: 1000,
            bound: BTreeMap::new(),
            losses: HashMap::new(),
            sent: HashMap::new(),
        };
        Arc::new(Self { inner, clock, history: History::default(), transactions, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in super::super) fn record(&self, process: &Arc<str>, what: Happened) {
        self.history.add(self.clock.now().since(Moment::ORIGIN), process, what);
    }

    /// Whether this fault happens now.
    pub(in super::super) fn rolls(&self, fault: Fault) -> bool {
        let mut state = self.state();
        let rate = state.faults.rate_of(fault);
        !state.healed && rate > 0 && state.random.u32(0..1000) < rate
    }

    pub(in super::super) fn coin(&self) -> bool {
        self.state().random.bool()
    }

    /// A time of at most so long.
    pub(in super::super) fn within(&self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.state().random.u64(0..=most))
    }

    /// Takes the time that one way between a process and the broker takes.
    pub(in super::super) async fn way(&self) {
        let most = {
            let state = self.state();
            if state.healed { Duration::ZERO } else { state.faults.latency }
        };
        if !most.is_zero() {
            self.clock.sleep(self.within(most)).await;
        }
    }

    pub(in super::super) fn heal(&self) {
        let mut state = self.state();
        state.healed = true;
        state.down_until = Moment::ORIGIN;
    }

    pub(in super::super) fn is_healed(&self) -> bool {
        self.state().healed
    }

    /// Whether the broker is away, or goes away now.
    pub(super) fn goes_down(&self, process: &Arc<str>) -> bool {
        let now = self.clock.now();
        if now < self.state().down_until {
            return true;
        }
        let goes = self.rolls(Fault::BrokerDown);
        if goes {
            self.record(process, Happened::Fault(Fault::BrokerDown, None));
            let back = now + self.within(Duration::from_secs(30));
            self.state().down_until = back;
            let open: Vec<u64> = self.state().intakes.keys().copied().collect();
            open.into_iter().for_each(|intake| self.sever(intake, false));
        }
        goes
    }

    /// Whether the queue did not hear the event before.
    pub(super) fn bind(&self, queue: &QueueName, event: &EventName) -> bool {
        self.state().bound.entry(event.clone()).or_default().insert(queue.clone())
    }

    fn queues_of(&self, to: &Destination) -> Vec<QueueName> {
        match to {
            Destination::Queue(queue) => vec![queue.clone()],
            Destination::Event(event) => {
                self.state().bound.get(event).into_iter().flatten().cloned().collect()
            }
        }
    }

    /// Gives a message to the broker.
    pub(super) async fn take(
        &self,
        process: &Arc<str>,
        message: Outgoing,
        copies: u32,
        sent: Sent,
    ) -> Published {
        let mut outcome = Published::Returned;
        for _ in 0..copies {
            outcome = self.inner.publish(vec![message.clone()]).await.pop().unwrap_or(Published::Returned);
        }
        if outcome.is_confirmed() {
            self.record(process, self.taken(&message, copies, sent));
        }
        outcome
    }

    /// That the broker has a message.
    pub(super) fn taken(&self, message: &Outgoing, copies: u32, sent: Sent) -> Happened {
        let envelope = &message.envelope;
        Happened::Taken {
            id: envelope.id,
            name: envelope.name.as_str().into(),
            to: self.queues_of(&message.to),
            copies,
            sent,
            tid: envelope.tid.clone(),
            cause: envelope.cause,
        }
    }

    pub(super) fn opened(&self, process: &Arc<str>, inner: Box<dyn Subscription>) -> u64 {
        let mut state = self.state();
        state.next_intake += 1;
        let number = state.next_intake;
        state.intakes.insert(number, Open { process: Arc::clone(process), inner: Some(inner), waker: None });
        number
    }

    /// The subscription behind an intake, to be polled and put back; `None` once it was severed.
    pub(super) fn borrow(&self, intake: u64, waker: &Waker) -> Option<Box<dyn Subscription>> {
        let mut state = self.state();
        let open = state.intakes.get_mut(&intake)?;
        open.waker = Some(waker.clone());
        open.inner.take()
    }

    /// Whether it was not severed meanwhile.
    pub(super) fn put_back(&self, intake: u64, inner: Box<dyn Subscription>) -> bool {
        let mut state = self.state();
        let open = state.intakes.get_mut(&intake);
        let is_open = open.is_some();
        if let Some(open) = open {
            open.inner = Some(inner);
        }
        is_open
    }

    pub(super) fn is_open(&self, intake: u64) -> bool {
        self.state().intakes.contains_key(&intake)
    }

    /// A process holds a delivery from now on. It is given an envelope of its own, and told how often the message was
    /// lost besides what its broker knows.
    pub(super) fn holds(&self, intake: u64, process: &Arc<str>, delivery: &mut Delivery) {
        let (queue, id) = (delivery.queue.clone(), delivery.envelope.id);
        delivery.envelope = Arc::new((*delivery.envelope).clone());
        let mut state = self.state();
        delivery.losses += state.losses.get(&(queue.clone(), id)).copied().unwrap_or(0);
        let given = (Arc::downgrade(&delivery.envelope), delivery.tag);
        state.given.insert(Arc::as_ptr(&delivery.envelope).addr(), given);
        if state.given.len() > state.given_limit {
            state.given.retain(|_, (envelope, _)| envelope.strong_count() > 0);
            state.given_limit = 1000.max(2 * state.given.len());
        }
        state.held.insert(delivery.tag, Held { intake, process: Arc::clone(process), queue, id });
    }

    /// The delivery that an envelope belongs to.
    pub(in super::super) fn tag_of(&self, envelope: &Arc<Envelope>) -> Option<DeliveryTag> {
        self.state().given.get(&Arc::as_ptr(envelope).addr()).map(|(_, tag)| *tag)
    }

    pub(super) fn is_held(&self, tag: DeliveryTag) -> bool {
        self.state().held.contains_key(&tag)
    }

    /// A delivery is settled: whether it was held.
    pub(super) fn let_go(&self, tag: DeliveryTag) -> bool {
        let mut state = self.state();
        state.sent.remove(&tag);
        state.held.remove(&tag).is_some()
    }

    /// A message was told to come again: its losses count anew.
    pub(super) fn forgive(&self, queue: &QueueName, id: MessageId) {
        self.state().losses.remove(&(queue.clone(), id));
    }

    pub(super) fn sent_before(&self, tag: DeliveryTag, id: MessageId) -> Option<Published> {
        let state = self.state();
        let sent = state.sent.get(&tag)?;
        sent.iter().find(|(other, _)| *other == id).map(|(_, outcome)| outcome.clone())
    }

    pub(super) fn remember_sent(&self, tag: DeliveryTag, id: MessageId, outcome: Published) {
        self.state().sent.entry(tag).or_default().push((id, outcome));
    }

    /// Ends the subscription that a delivery came from, as when its connection breaks.
    pub(super) fn sever_of(&self, tag: DeliveryTag) {
        let intake = self.state().held.get(&tag).map(|held| held.intake);
        if let Some(intake) = intake {
            self.sever(intake, false);
        }
    }

    /// Ends all subscriptions of a process.
    pub(in super::super) fn sever_process(&self, process: &Arc<str>, handed_back: bool) {
        let own: Vec<u64> = {
            let state = self.state();
            let own = state.intakes.iter().filter(|(_, open)| open.process == *process);
            own.map(|(number, _)| *number).collect()
        };
        own.into_iter().for_each(|intake| self.sever(intake, handed_back));
    }

    /// Ends a subscription. What it held is delivered again, and counted as lost unless it was handed back.
    pub(super) fn sever(&self, intake: u64, handed_back: bool) {
        let mut state = self.state();
        let Some(open) = state.intakes.remove(&intake) else { return };
        let mut held: Vec<_> =
            state.held.iter().filter(|(_, held)| held.intake == intake).map(|(tag, _)| *tag).collect();
        held.sort_by_key(|tag| (tag.subscription, tag.number, tag.fence));
        let mut returned = Vec::new();
        let mut lost = BTreeSet::new();
        for tag in held {
            let Some(Held { process, queue, id, .. }) = state.held.remove(&tag) else { continue };
            if !handed_back && lost.insert((queue.clone(), id)) {
                *state.losses.entry((queue.clone(), id)).or_default() += 1;
            }
            state.sent.remove(&tag);
            returned.push((process, Happened::Returned { tag, queue, id, handed_back }));
        }
        drop(state);
        for (process, what) in returned {
            self.record(&process, what);
        }
        // Last: what it hands back may be delivered at once.
        drop(open.inner);
        if let Some(waker) = open.waker {
            waker.wake();
        }
    }
}
