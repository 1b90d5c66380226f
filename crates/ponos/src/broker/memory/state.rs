//! What the broker in memory remembers.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use ponos_core::broker::{
    BrokerError, BrokerErrorKind, Delivery, DeliveryTag, Destination, Inspect, Inspection, Order, OrderKey,
    Outgoing, PROTOTYPE_EXPIRES, PROTOTYPE_LENGTH, Published, QueueStats, SubscribeOptions, SubscriptionLost,
    Topology, Verdict,
};
use ponos_core::envelope::{Envelope, Progress};
use ponos_core::id::{MessageId, Timestamp};
use ponos_core::name::{EventName, QueueName};

/// Everything.
#[derive(Debug)]
pub(super) struct State {
    queues: Queues,
    /// Which queues hear an event; an event without queues is known too.
    events: HashMap<EventName, BTreeSet<QueueName>>,
    orders: BTreeMap<OrderKey, Order>,
    pub(super) withholds_orders: bool,
    /// Numbers messages, deliveries and subscriptions.
    next: u64,
    /// How many messages a prototype keeps.
    pub(super) prototype_length: usize,
    /// How many messages prototypes have dropped.
    pub(super) dropped: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            queues: Queues::default(),
            events: HashMap::new(),
            orders: BTreeMap::new(),
            withholds_orders: false,
            next: 0,
            prototype_length: usize::try_from(PROTOTYPE_LENGTH).unwrap_or(usize::MAX),
            dropped: 0,
        }
    }
}

/// The queues, by name and by number: a delivery's tag holds the number, so settling looks no name up.
#[derive(Debug, Default)]
struct Queues {
    index: HashMap<QueueName, usize>,
    list: Vec<(QueueName, Queue)>,
}

impl Queues {
    fn index(&self, name: &QueueName) -> Option<usize> {
        self.index.get(name).copied()
    }

    fn get(&self, name: &QueueName) -> Option<&Queue> {
        self.index(name).map(|at| &self.list[at].1)
    }

    fn get_mut(&mut self, name: &QueueName) -> Option<&mut Queue> {
        self.index(name).map(|at| &mut self.list[at].1)
    }

    /// The queue of this name, made if need be.
    fn make(&mut self, name: &QueueName) -> &mut Queue {
        let at = *self.index.entry(name.clone()).or_insert_with(|| {
            self.list.push((name.clone(), Queue::default()));
            self.list.len() - 1
        });
        &mut self.list[at].1
    }

    /// Forgets a queue. Its number is not given again, because tags hold it.
    fn remove(&mut self, name: &QueueName) -> Option<Queue> {
        self.index.remove(name).map(|at| std::mem::take(&mut self.list[at].1))
    }

    fn of(&self, tag: DeliveryTag) -> Option<&Queue> {
        self.list.get(usize::try_from(tag.number).ok()?).map(|(_, queue)| queue)
    }

    fn of_mut(&mut self, tag: DeliveryTag) -> Option<&mut Queue> {
        self.list.get_mut(usize::try_from(tag.number).ok()?).map(|(_, queue)| queue)
    }

    fn names(&self) -> impl Iterator<Item = &QueueName> {
        self.index.keys()
    }
}

#[derive(Debug, Default)]
struct Queue {
    /// Deliverable, by place.
    ready: Ready,
    /// Not yet, by time and place.
    delayed: BTreeMap<(Timestamp, u64), Stored>,
    /// Delivered and not settled, by the number of the delivery.
    held: BTreeMap<u64, Held>,
    subscriptions: HashMap<u64, Consumer>,
    /// Bounded, and forgotten when nobody listens.
    prototype: bool,
    /// When a message first came to a prototype that nobody listened to.
    forgotten_since: Option<Timestamp>,
}

/// Deliverable messages by place. Nearly all are added at the end and taken from the front; only what is handed back
/// goes in between.
#[derive(Debug, Default)]
struct Ready(VecDeque<(u64, Stored)>);

impl Ready {
    fn insert(&mut self, place: u64, stored: Stored) {
        if self.0.back().is_none_or(|(last, _)| *last < place) {
            self.0.push_back((place, stored));
        } else {
            let at = self.0.partition_point(|(other, _)| *other < place);
            self.0.insert(at, (place, stored));
        }
    }

    fn take_first(&mut self, wanted: Option<&[MessageId]>) -> Option<(u64, Stored)> {
        match wanted {
            None => self.0.pop_front(),
            Some(wanted) => {
                let at = self.0.iter().position(|(_, stored)| wanted.contains(&stored.envelope.id))?;
                self.0.remove(at)
            }
        }
    }

    fn values(&self) -> impl Iterator<Item = &Stored> {
        self.0.iter().map(|(_, stored)| stored)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

#[derive(Debug)]
struct Stored {
    envelope: Arc<Envelope>,
    losses: u32,
}

#[derive(Debug)]
struct Held {
    stored: Stored,
    place: u64,
    subscription: u64,
}

#[derive(Debug, Default)]
struct Consumer {
    /// The broker's handle that it belongs to.
    handle: usize,
    held: usize,
    waker: Option<Waker>,
}

impl Queue {
    fn wake_all(&self) {
        for consumer in self.subscriptions.values() {
            if let Some(waker) = &consumer.waker {
                waker.wake_by_ref();
            }
        }
    }

    fn store(&mut self, place: u64, due: Option<Timestamp>, stored: Stored, now: Timestamp) {
        match due.filter(|due| *due > now) {
            Some(due) => {
                self.delayed.insert((due, place), stored);
            }
            None => {
                self.ready.insert(place, stored);
            }
        }
        self.wake_all();
    }

    fn envelopes(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        let held = self.held.values().map(|held| &held.stored);
        self.ready.values().chain(self.delayed.values()).chain(held).map(|stored| &stored.envelope)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn declare(&mut self, topology: &Topology) {
        for event in &topology.events {
            self.events.entry(event.clone()).or_default();
        }
        for (queue, event) in &topology.subscriptions {
            let made = self.queues.make(queue);
            made.prototype = topology.prototypes.contains(queue);
            made.forgotten_since = None;
            self.events.entry(event.clone()).or_default().insert(queue.clone());
        }
        for queue in &topology.tasks {
            self.queues.make(queue);
        }
        if let Some(app) = &topology.app {
            self.queues.make(&QueueName::failed(app));
        }
    }

    /// What publishing would give.
    pub(super) fn would_publish(&self, message: &Outgoing) -> Published {
        match &message.to {
            Destination::Queue(queue) if self.queues.get(queue).is_none() => Published::Returned,
            Destination::Queue(_) => Published::Confirmed { queues: 1 },
            Destination::Event(event) => {
                let queues = self.events.get(event).map_or(0, BTreeSet::len);
                Published::Confirmed { queues: u32::try_from(queues).unwrap_or(u32::MAX) }
            }
        }
    }

    pub(super) fn publish(&mut self, message: Outgoing, now: Timestamp) -> Published {
        if let Destination::Event(event) = &message.to {
            self.forget_prototypes(event, now);
        }
        let outcome = self.would_publish(&message);
        let due = message.envelope.progress.due;
        let envelope = Arc::new(message.envelope);
        let to: Vec<QueueName> = match message.to {
            Destination::Queue(queue) => vec![queue],
            Destination::Event(event) => self.events.get(&event).into_iter().flatten().cloned().collect(),
        };
        for queue in to {
            let place = self.number();
            if let Some(queue) = self.queues.get_mut(&queue) {
                queue.store(place, due, Stored { envelope: Arc::clone(&envelope), losses: 0 }, now);
                while queue.prototype && queue.ready.len() > self.prototype_length {
                    queue.ready.take_first(None);
                    self.dropped += 1;
                    // Not one line for each: it is told that it happens.
                    if self.dropped.is_power_of_two() {
                        tracing::info!(
                            dropped = self.dropped,
                            "a prototype is full: the oldest messages make room"
                        );
                    }
                }
            }
        }
        outcome
    }

    /// Removes the prototypes that hear an event and that nobody has listened to for too long.
    fn forget_prototypes(&mut self, event: &EventName, now: Timestamp) {
        let Some(hearers) = self.events.get_mut(event) else {
            return;
        };
        let mut forgotten = Vec::new();
        for name in hearers.iter() {
            let Some(queue) = self.queues.get_mut(name) else { continue };
            if !queue.prototype || !queue.subscriptions.is_empty() || !queue.held.is_empty() {
                queue.forgotten_since = None;
            } else if now.since(*queue.forgotten_since.get_or_insert(now)) >= PROTOTYPE_EXPIRES {
                forgotten.push(name.clone());
            }
        }
        for name in forgotten {
            hearers.remove(&name);
            let messages = self.queues.remove(&name).map_or(0, |queue| queue.envelopes().count() as u64);
            self.dropped += messages;
            tracing::info!(queue = %name, messages, "a prototype that nobody has listened to for 7 days is gone");
        }
    }

    pub(super) fn open(
        &mut self,
        queue: &QueueName,
        options: &SubscribeOptions,
        handle: usize,
    ) -> Result<u64, BrokerError> {
        options.check()?;
        let id = self.number();
        let queue = self.queues.get_mut(queue).ok_or_else(|| no_queue(queue))?;
        queue.subscriptions.insert(id, Consumer { handle, ..Consumer::default() });
        Ok(id)
    }

    /// Delivers to a subscription; whether there was anything.
    #[expect(clippy::too_many_arguments, reason = "one call site, which has them apart")]
    pub(super) fn take(
        &mut self,
        name: &QueueName,
        id: u64,
        prefetch: usize,
        max: usize,
        only: Option<&[MessageId]>,
        now: Timestamp,
        waker: &Waker,
        out: &mut Vec<Delivery>,
    ) -> Result<bool, SubscriptionLost> {
        let lost = || SubscriptionLost { reason: "the broker ended it".into() };
        let first = self.next;
        let index = self.queues.index(name).ok_or_else(lost)?;
        let queue = &mut self.queues.list[index].1;
        let consumer = queue.subscriptions.get_mut(&id).ok_or_else(lost)?;
        while let Some(entry) = queue.delayed.first_entry()
            && entry.key().0 <= now
        {
            let (_, place) = *entry.key();
            queue.ready.insert(place, entry.remove());
        }
        let limit = max.min(prefetch.saturating_sub(consumer.held));
        let mut fence = first;
        for _ in 0..limit {
            let next = queue.ready.take_first(only);
            let Some((place, stored)) = next else { break };
            fence += 1;
            consumer.held += 1;
            out.push(Delivery {
                tag: DeliveryTag { subscription: id, number: index as u64, fence },
                queue: name.clone(),
                envelope: Arc::clone(&stored.envelope),
                losses: stored.losses,
            });
            queue.held.insert(fence, Held { stored, place, subscription: id });
        }
        let delivered = fence > first;
        if !delivered && !consumer.waker.as_ref().is_some_and(|own| own.will_wake(waker)) {
            consumer.waker = Some(waker.clone());
        }
        self.next = fence;
        Ok(delivered)
    }

    /// When the next delayed message of a queue is due.
    pub(super) fn next_due(&self, queue: &QueueName) -> Option<Timestamp> {
        self.queues.get(queue)?.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn holds(&self, delivery: &Delivery) -> bool {
        self.queues.of(delivery.tag).is_some_and(|queue| queue.held.contains_key(&delivery.tag.fence))
    }

    /// Carries out a verdict on a delivery that is held.
    pub(super) fn apply(&mut self, delivery: &Delivery, verdict: Verdict, now: Timestamp) {
        let next_place = self.next + 1;
        let Some(queue) = self.queues.of_mut(delivery.tag) else {
            return;
        };
        let Some(Held { mut stored, place, subscription }) = queue.held.remove(&delivery.tag.fence) else {
            return;
        };
        if let Some(consumer) = queue.subscriptions.get_mut(&subscription) {
            consumer.held -= 1;
            // A full prefetch may have kept it from taking what is ready.
            if let Some(waker) = &consumer.waker {
                waker.wake_by_ref();
            }
        }
        match verdict {
            Verdict::Done => {}
            Verdict::Release => queue.store(place, None, stored, now),
            Verdict::RetryAt(due, progress) => {
                self.next = next_place;
                queue.store(next_place, Some(due), again(&stored, *progress), now);
            }
            Verdict::Recover(progress) => {
                self.next = next_place;
                queue.store(next_place, None, again(&stored, *progress), now);
            }
            Verdict::Failed(report) => {
                self.next = next_place;
                let failed = QueueName::failed(&delivery.queue.app());
                let mut envelope = (*stored.envelope).clone();
                envelope.report = Some(report);
                stored = Stored { envelope: Arc::new(envelope), losses: 0 };
                self.queues.make(&failed).store(next_place, None, stored, now);
            }
        }
    }

    /// A subscription was closed by its owner: nothing is counted as lost.
    pub(super) fn close(&mut self, queue: &QueueName, id: u64) {
        self.end(queue, id, 0);
    }

    /// A subscription ends as when its connection breaks.
    pub(super) fn lose_subscription(&mut self, id: u64) {
        let name = self
            .queues
            .list
            .iter()
            .find(|(_, queue)| queue.subscriptions.contains_key(&id))
            .map(|(name, _)| name.clone());
        if let Some(name) = name {
            self.end(&name, id, 1);
        }
    }

    pub(super) fn break_subscriptions(&mut self, queue: &QueueName) {
        let open =
            self.queues.get(queue).map(|found| found.subscriptions.keys().copied().collect::<Vec<_>>());
        for id in open.unwrap_or_default() {
            self.end(queue, id, 1);
        }
    }

    /// A handle was closed: its subscriptions end, and nothing is counted as lost.
    pub(super) fn close_all(&mut self, handle: usize) {
        let mut open = Vec::new();
        for (name, queue) in &self.queues.list {
            let own = queue.subscriptions.iter().filter(|(_, consumer)| consumer.handle == handle);
            open.extend(own.map(|(id, _)| (name.clone(), *id)));
        }
        for (name, id) in open {
            self.end(&name, id, 0);
        }
    }

    fn end(&mut self, queue: &QueueName, id: u64, losses: u32) {
        let Some(queue) = self.queues.get_mut(queue) else {
            return;
        };
        let Some(consumer) = queue.subscriptions.remove(&id) else {
            return;
        };
        let fences: Vec<u64> =
            queue.held.iter().filter(|(_, held)| held.subscription == id).map(|(fence, _)| *fence).collect();
        for fence in fences {
            if let Some(mut held) = queue.held.remove(&fence) {
                held.stored.losses += losses;
                queue.ready.insert(held.place, held.stored);
            }
        }
        if let Some(waker) = consumer.waker {
            waker.wake();
        }
        queue.wake_all();
    }

    pub(super) fn steer(&mut self, order: Order) {
        if order.action.is_end() {
            self.orders.remove(&order.key());
        } else {
            self.orders.insert(order.key(), order);
        }
    }

    pub(super) fn inspect(&self, query: Inspect, now: Timestamp) -> Result<Inspection, BrokerError> {
        let find = |queue: &QueueName| self.queues.get(queue).ok_or_else(|| no_queue(queue));
        Ok(match query {
            Inspect::Queues(app) => {
                let mine = |queue: &&QueueName| app.as_ref().is_none_or(|app| queue.app() == *app);
                let mut names: Vec<_> = self.queues.names().filter(mine).collect();
                names.sort();
                Inspection::Queues(names.into_iter().map(|name| self.stats(name, now)).collect())
            }
            Inspect::Queue(queue) => {
                let found = self.queues.get(&queue).map(|_| self.stats(&queue, now));
                Inspection::Queues(found.into_iter().collect())
            }
            Inspect::Messages { queue, limit, after } => {
                let mut all: Vec<_> = find(&queue)?.envelopes().collect();
                all.sort_by_key(|envelope| (envelope.report.as_ref().map(|report| report.at), envelope.id));
                let from = match after {
                    None => 0,
                    Some(after) => {
                        all.iter().position(|e| e.id == after).map(|at| at + 1).ok_or_else(|| {
                            let problem = format!(
                                "`{after}` is no longer in `{queue}`: begin again with its first page"
                            );
                            BrokerError::new(BrokerErrorKind::NotFound, problem)
                        })?
                    }
                };
                Inspection::Messages(all.into_iter().skip(from).take(limit).map(|e| (**e).clone()).collect())
            }
            Inspect::Message { queue, id } => Inspection::Messages(
                find(&queue)?.envelopes().find(|e| e.id == id).map(|e| (**e).clone()).into_iter().collect(),
            ),
            Inspect::Orders(_) if self.withholds_orders => {
                let problem = "the broker in memory withholds the standing orders";
                return Err(BrokerError::new(BrokerErrorKind::Unavailable, problem));
            }
            Inspect::Orders(app) => {
                let stands = |order: &&Order| order.target.app() == app && order.stands(now);
                Inspection::Orders(self.orders.values().filter(stands).cloned().collect())
            }
            _ => {
                return Err(BrokerError::new(
                    BrokerErrorKind::Invalid,
                    "the broker in memory does not know this question",
                ));
            }
        })
    }

    fn stats(&self, name: &QueueName, now: Timestamp) -> QueueStats {
        let Some(queue) = self.queues.get(name) else {
            unreachable!("asked for a queue that was just listed")
        };
        let due = queue.delayed.keys().take_while(|(due, _)| *due <= now).count();
        let since = |stored: &Stored| {
            let envelope = &stored.envelope;
            envelope.published_at.max(envelope.progress.due.unwrap_or_default())
        };
        let ready = queue.ready.values().chain(queue.delayed.values().take(due));
        QueueStats {
            queue: name.clone(),
            ready: (queue.ready.len() + due) as u64,
            delayed: Some((queue.delayed.len() - due) as u64),
            unsettled: Some(queue.held.len() as u64),
            consumers: u32::try_from(queue.subscriptions.len()).unwrap_or(u32::MAX),
            oldest: ready.map(since).min(),
        }
    }

    /// How many messages a queue has, whatever their state.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self, queue: &QueueName) -> usize {
        self.queues.get(queue).map_or(0, |queue| queue.envelopes().count())
    }
}

/// The same message with new progress; its losses count anew.
fn again(stored: &Stored, progress: Progress) -> Stored {
    let mut envelope = (*stored.envelope).clone();
    envelope.progress = progress;
    Stored { envelope: Arc::new(envelope), losses: 0 }
}

fn no_queue(queue: &QueueName) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::NotFound,
        format!("there is no queue `{queue}`: start the service that owns it once, it declares its queues"),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ponos_core::Bytes;
    use ponos_core::envelope::MessageName;
    use ponos_core::id::Tid;
    use ponos_core::name::AppName;

    use super::*;

    fn event() -> EventName {
        EventName::from_checked("thing.happened")
    }

    fn prototype() -> QueueName {
        QueueName::subscription(&AppName::from_checked("lab"), &event())
    }

    fn with_prototype() -> (State, Topology) {
        let topology = Topology {
            events: vec![event()],
            subscriptions: vec![(prototype(), event())],
            prototypes: vec![prototype()],
            ..Topology::default()
        };
        let mut state = State { prototype_length: 3, ..State::default() };
        state.declare(&topology);
        (state, topology)
    }

    fn publish(state: &mut State, n: u8, at: Timestamp) -> Published {
        let envelope = Envelope {
            id: MessageId::new(at, [n; 10]),
            name: MessageName::Event(event()),
            tid: Tid::new(at, [n; 10]),
            cause: None,
            app: None,
            publisher: None,
            published_at: at,
            hops: 0,
            version: None,
            trace: None,
            progress: Progress::default(),
            report: None,
            body: Bytes::new(),
        };
        state.publish(Outgoing { to: Destination::Event(event()), envelope }, at)
    }

    const fn day(n: u64) -> Timestamp {
        Timestamp::from_millis(n * 24 * 3_600_000)
    }

    #[test]
    fn the_oldest_messages_of_a_full_prototype_make_room() {
        let (mut state, topology) = with_prototype();
        for n in 0..5 {
            assert_eq!(publish(&mut state, n, day(1)), Published::Confirmed { queues: 1 });
        }
        let query = Inspect::Messages { queue: prototype(), limit: 9, after: None };
        let kept = state.inspect(query, day(1)).unwrap().into_messages();
        let ids: Vec<_> = kept.iter().map(|envelope| envelope.id).collect();
        assert_eq!(ids, [2, 3, 4].map(|n| MessageId::new(day(1), [n; 10])));
        assert_eq!(state.dropped, 2);
        // No prototype any more: nothing is dropped any more.
        state.declare(&Topology { prototypes: Vec::new(), ..topology });
        publish(&mut state, 5, day(1));
        assert_eq!((state.stats(&prototype(), day(1)).ready, state.dropped), (4, 2));
    }

    #[test]
    fn a_prototype_that_nobody_listens_to_for_a_week_is_gone_until_it_is_declared_again() {
        let (mut state, topology) = with_prototype();
        let listening = state.open(&prototype(), &SubscribeOptions::prefetch(1), 0).unwrap();
        for n in 0..20 {
            assert_eq!(publish(&mut state, 0, day(n)), Published::Confirmed { queues: 1 }, "day {n}");
        }
        state.close(&prototype(), listening);
        for n in 20..27 {
            assert_eq!(publish(&mut state, 0, day(n)), Published::Confirmed { queues: 1 }, "day {n}");
        }
        let dropped = state.dropped;
        assert_eq!(publish(&mut state, 0, day(27)), Published::Confirmed { queues: 0 });
        assert_eq!(state.dropped, dropped + 3);
        assert!(state.inspect(Inspect::Queues(None), day(27)).unwrap().into_queues().is_empty());
        state.declare(&topology);
        assert_eq!(publish(&mut state, 0, day(27)), Published::Confirmed { queues: 1 });
        assert_eq!(state.stats(&prototype(), day(27) + Duration::ZERO).ready, 1);
    }
}
