//! The reference: what a broker must do, as plain data. It knows nothing of how one does it.

use std::collections::{BTreeMap, BTreeSet};

use ponos::core::broker::{Delivery, Destination, Outgoing, Published, Topology, Verdict};
use ponos::core::envelope::{Envelope, Progress};
use ponos::core::id::{MessageId, Timestamp};
use ponos::core::name::{EventName, QueueName};

/// What one broker promises beyond what all do.
#[derive(Debug, Clone, Copy)]
pub struct Promises {
    /// A settlement is one transaction, and nothing comes twice.
    pub exactly_once: bool,
    /// What is handed back is at its old place again.
    pub keeps_places: bool,
    /// A message that is still in its queue is not taken a second time.
    pub recognises_repeats: bool,
    /// It tells each loss from a hand-back, and how many queues an event went to.
    pub counts: bool,
    /// It shows all messages and figures of a queue: what is ready, what waits and what is held.
    pub shows_all: bool,
    /// A subscription takes as much as its prefetch allows before anybody asks.
    pub fetches_ahead: bool,
    /// Who asked and did not wait for the answer gets it the next time, and nobody else meanwhile.
    pub keeps_asking: bool,
    /// Nothing happens in the background: what was done is seen at once.
    pub at_once: bool,
    /// Calls fail now and then, and subscriptions end by themselves.
    pub is_rough: bool,
}

/// A message in a queue.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: u64,
    pub envelope: Envelope,
    /// Not delivered before.
    pub due: Option<Timestamp>,
    /// Delivered before those with a later place; `None` for what has no promised place.
    pub place: Option<u64>,
    pub losses: u32,
    /// The subscription and the fence of the delivery that is not settled.
    pub held: Option<(u64, u64)>,
    /// It was moved here by a failure: two of the same id are two.
    pub moved: bool,
    /// It is there. Otherwise it may be: nobody could tell.
    pub sure: bool,
}

/// An open queue.
#[derive(Debug, Clone)]
pub struct Consumer {
    pub queue: QueueName,
    prefetch: usize,
    only: Option<Vec<MessageId>>,
    /// Fences of deliveries that are no longer its own, and that it has not found out about.
    stale: BTreeSet<u64>,
    /// How many messages may lie with it that were asked for and not fetched, once it has room for them.
    pub unseen: usize,
}

/// What the figures of a queue must be: the least and the most that is ready, what waits and what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub ready: usize,
    pub maybe_ready: usize,
    pub delayed: usize,
    pub held: usize,
    /// How many of the ready ones may count as held.
    pub unseen: usize,
}

#[derive(Debug)]
pub struct Reference {
    pub promises: Promises,
    pub queues: BTreeMap<QueueName, Vec<Entry>>,
    hearers: BTreeMap<EventName, BTreeSet<QueueName>>,
    pub consumers: BTreeMap<u64, Consumer>,
    /// Of each pair at least one must turn out to be there.
    pub either: Vec<(u64, u64)>,
    /// What was ever sent where.
    known: BTreeSet<(QueueName, MessageId, Option<Timestamp>)>,
    next: u64,
}

impl Reference {
    pub fn new(promises: Promises) -> Self {
        Self {
            promises,
            queues: BTreeMap::new(),
            hearers: BTreeMap::new(),
            consumers: BTreeMap::new(),
            either: Vec::new(),
            known: BTreeSet::new(),
            next: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn declare(&mut self, topology: &Topology) {
        let failed = topology.app.as_ref().map(QueueName::failed);
        let heard = topology.subscriptions.iter().map(|(queue, _)| queue);
        for queue in topology.tasks.iter().chain(heard).chain(&failed) {
            self.queues.entry(queue.clone()).or_default();
        }
        for (queue, event) in &topology.subscriptions {
            self.hearers.entry(event.clone()).or_default().insert(queue.clone());
        }
    }

    /// The queues that a message goes to; `None` when it is returned.
    fn way(&self, to: &Destination) -> Option<Vec<QueueName>> {
        match to {
            Destination::Queue(queue) => self.queues.contains_key(queue).then(|| vec![queue.clone()]),
            Destination::Event(event) => {
                Some(self.hearers.get(event).into_iter().flatten().cloned().collect())
            }
        }
    }

    /// What is said of a message that is published.
    pub fn outcome(&self, message: &Outgoing) -> Published {
        match self.way(&message.to) {
            None => Published::Returned,
            Some(queues) if self.promises.counts => {
                Published::Confirmed { queues: u32::try_from(queues.len()).unwrap() }
            }
            Some(queues) => Published::Confirmed { queues: u32::from(!queues.is_empty()) },
        }
    }

    /// A message was taken, or (`sure` is false) may have been.
    pub fn publish(&mut self, message: &Outgoing, sure: bool) {
        for queue in self.way(&message.to).into_iter().flatten() {
            let id = message.envelope.id;
            let is_there = self.queues[&queue].iter().any(|entry| entry.envelope.id == id && !entry.moved);
            if is_there && self.promises.recognises_repeats {
                continue;
            }
            let due = message.envelope.progress.due;
            let is_new = self.known.insert((queue.clone(), id, due));
            // A broker across a network may take a second copy for the first one that comes again.
            let sure = sure && (is_new || !self.promises.fetches_ahead);
            self.add(&queue, message.envelope.clone(), due, sure);
        }
    }

    /// Adds a message; its key.
    pub fn add(&mut self, queue: &QueueName, envelope: Envelope, due: Option<Timestamp>, sure: bool) -> u64 {
        let (key, is_rough) = (self.number(), self.promises.is_rough);
        let entries = self.queues.get_mut(queue).expect("the queue exists");
        let mut copies = entries.iter_mut().filter(|entry| entry.envelope.id == envelope.id);
        // Which copy is which cannot be told if one of them may not be there.
        let is_clear = sure && copies.all(|entry| entry.place.is_some() || !is_rough);
        if !is_clear {
            entries.iter_mut().filter(|e| e.envelope.id == envelope.id).for_each(|e| e.place = None);
        }
        let place = (is_clear && due.is_none()).then_some(key);
        let entry = Entry { key, envelope, due, place, losses: 0, held: None, moved: false, sure };
        entries.push(entry);
        key
    }

    pub fn subscribe(&mut self, queue: &QueueName, prefetch: u32, only: Option<Vec<MessageId>>) -> u64 {
        let (queue, prefetch) = (queue.clone(), prefetch as usize);
        let consumer = Consumer { queue, prefetch, only, stale: BTreeSet::new(), unseen: 0 };
        let id = self.number();
        self.consumers.insert(id, consumer);
        id
    }

    /// How much more may be delivered to a subscription.
    pub fn room(&self, id: u64) -> usize {
        let consumer = &self.consumers[&id];
        let held =
            self.queues[&consumer.queue].iter().filter(|entry| entry.held.is_some_and(|(to, _)| to == id));
        consumer.prefetch.saturating_sub(held.count())
    }

    fn unseen_by(&self, id: u64) -> usize {
        if self.promises.fetches_ahead {
            self.room(id)
        } else {
            self.consumers[&id].unseen.min(self.room(id))
        }
    }

    /// How many messages of a queue may lie with subscriptions, one of them apart.
    pub fn unseen(&self, queue: &QueueName, except: Option<u64>) -> usize {
        let others =
            self.consumers.iter().filter(|(id, other)| other.queue == *queue && Some(**id) != except);
        others.map(|(id, _)| self.unseen_by(*id)).sum()
    }

    /// How many messages must be delivered to a subscription that asks now.
    pub fn owed(&self, id: u64, now: Timestamp) -> usize {
        let Consumer { queue, only, stale, .. } = &self.consumers[&id];
        let wanted = |entry: &&Entry| only.as_ref().is_none_or(|only| only.contains(&entry.envelope.id));
        let free = self.queues[queue].iter().filter(|entry| entry.sure && entry.is_ready(now)).filter(wanted);
        // What it does not know to be lost may still count for it.
        let room = self.room(id).saturating_sub(stale.len());
        free.count().saturating_sub(self.unseen(queue, Some(id))).min(room)
    }

    /// A message was delivered: which one it is, or why it may not be.
    pub fn deliver(&mut self, id: u64, delivery: &Delivery, now: Timestamp) -> Result<(u64, u64), String> {
        let Promises { counts, keeps_places, .. } = self.promises;
        let room = self.room(id);
        let others = self.unseen(&delivery.queue, Some(id));
        let fence = self.number();
        let consumer = self.consumers.get_mut(&id).expect("the subscription is open");
        let entries = self.queues.get_mut(&consumer.queue).expect("the queue exists");
        let message = delivery.envelope.id;
        let known = || entries.iter().filter(|entry| entry.envelope.id == message).collect::<Vec<_>>();
        if room == 0 {
            return Err(format!("{message} came although the prefetch is full"));
        }
        if delivery.queue != consumer.queue {
            return Err(format!("{message} came from `{}` and not `{}`", delivery.queue, consumer.queue));
        }
        if consumer.only.as_ref().is_some_and(|only| !only.contains(&message)) {
            return Err(format!("{message} came and was not picked"));
        }
        let is_it = |entry: &&Entry| {
            entry.held.is_none()
                && entry.envelope == *delivery.envelope
                && (!counts || entry.losses == delivery.losses)
        };
        let found = entries.iter().filter(is_it).min_by_key(|e| (!e.sure, e.due, e.place.is_none(), e.place));
        let Some(found) = found else {
            let losses = delivery.losses;
            return Err(format!(
                "{:?} came, {losses} times lost; known are {:?}",
                delivery.envelope,
                known()
            ));
        };
        if found.due.is_some_and(|due| due > now) {
            return Err(format!("{message} came early: at {now:?}, it is due at {:?}", found.due));
        }
        // What lies with the subscription already may be overtaken by what was handed back since.
        let may_overtake = consumer.only.is_some() || (keeps_places && consumer.unseen > 0);
        let before = |entry: &&Entry| {
            entry.sure && entry.held.is_none() && entry.place.zip(found.place).is_some_and(|(a, b)| a < b)
        };
        let skipped = entries.iter().filter(before).count();
        if skipped > others && !may_overtake {
            return Err(format!("{message} came before {skipped} that were published earlier"));
        }
        let key = found.key;
        let found = entries.iter_mut().find(|entry| entry.key == key).expect("it was just found");
        found.held = Some((id, fence));
        // What has come is there.
        found.sure = true;
        self.either.retain(|(a, b)| *a != key && *b != key);
        Ok((key, fence))
    }

    /// Whether a delivery is still its consumer's.
    pub fn holds(&self, queue: &QueueName, fence: u64) -> bool {
        self.queues[queue].iter().any(|entry| entry.held.is_some_and(|(_, own)| own == fence))
    }

    /// A delivery that is held was settled: what it was, and the key of what it became.
    pub fn settle(&mut self, queue: &QueueName, fence: u64, verdict: &Verdict) -> (Entry, Option<u64>) {
        let next = self.number();
        let entries = self.queues.get_mut(queue).expect("the queue exists");
        let is_it = |entry: &Entry| entry.held.is_some_and(|(_, own)| own == fence);
        let at = entries.iter().position(is_it).expect("it is held");
        let old = entries.remove(at);
        let entry = Entry { held: None, ..old.clone() };
        let again = |progress: &Progress, due| Entry {
            key: next,
            envelope: Envelope { progress: progress.clone(), ..entry.envelope.clone() },
            due,
            place: None,
            losses: 0,
            ..entry.clone()
        };
        let (to, new) = match verdict {
            Verdict::Done => return (old, None),
            Verdict::Release => {
                let place = entry.place.filter(|_| self.promises.keeps_places);
                (queue.clone(), Entry { place, ..entry })
            }
            Verdict::RetryAt(due, progress) => (queue.clone(), again(progress, Some(*due))),
            Verdict::Recover(progress) => (queue.clone(), again(progress, None)),
            Verdict::Failed(report) => {
                let mut failed = again(&entry.envelope.progress, None);
                failed.envelope.report = Some(report.clone());
                failed.moved = true;
                if self.promises.fetches_ahead {
                    failed.envelope.progress.history.clear(); // the report has it
                }
                (QueueName::failed(&queue.app()), failed)
            }
        };
        let key = new.key;
        self.queues.get_mut(&to).expect("an application has its queue of failed jobs").push(new);
        (old, Some(key))
    }

    /// A consumer found out that a delivery is no longer its own.
    pub fn told(&mut self, id: u64, fence: u64) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.stale.remove(&fence);
        }
    }

    /// A subscription has ended; what it held is ready again.
    pub fn end(&mut self, id: u64, losses: u32) {
        let Some(consumer) = self.consumers.remove(&id) else { return };
        for entry in self.queues.get_mut(&consumer.queue).expect("the queue exists") {
            if entry.held.is_some_and(|(to, _)| to == id) {
                entry.held = None;
                entry.losses += losses;
            }
            if !self.promises.keeps_places {
                entry.place = None;
            }
        }
    }

    /// A process got these, in this order, and died with them.
    pub fn lose(&mut self, queue: &QueueName, taken: &[MessageId], now: Timestamp) -> Result<(), String> {
        let entries = self.queues.get_mut(queue).expect("the queue exists");
        let ready = || entries.iter().filter(|entry| entry.is_ready(now));
        let mut placed: Vec<_> =
            ready().filter_map(|entry| entry.place.map(|place| (place, entry.envelope.id))).collect();
        placed.sort();
        let in_order = placed.iter().map(|(_, id)| id);
        let got = taken.iter().filter(|id| in_order.clone().any(|placed| placed == *id));
        if !got.clone().eq(in_order.clone().take(got.clone().count())) {
            return Err(format!("{taken:?} came to another process and not first {placed:?}"));
        }
        for id in taken {
            let found = entries.iter_mut().find(|entry| entry.envelope.id == *id && entry.is_ready(now));
            found.ok_or_else(|| format!("{id} came to another process"))?.losses += 1;
        }
        Ok(())
    }

    /// Everybody stood still for too long: nobody holds anything any more, and nobody knows.
    pub fn expire(&mut self) {
        for entry in self.queues.values_mut().flatten() {
            if let Some((to, fence)) = entry.held.take() {
                entry.losses += 1;
                self.consumers.get_mut(&to).expect("who holds is there").stale.insert(fence);
            }
        }
    }

    pub fn figures(&self, queue: &QueueName, now: Timestamp) -> Figures {
        let entries = &self.queues[queue];
        let count = |is_it: &dyn Fn(&Entry) -> bool| entries.iter().filter(|entry| is_it(entry)).count();
        Figures {
            ready: count(&|entry| entry.sure && entry.is_ready(now)),
            maybe_ready: count(&|entry| entry.is_ready(now)),
            delayed: count(&|entry| entry.held.is_none() && !entry.is_ready(now)),
            held: count(&|entry| entry.held.is_some()),
            unseen: self.unseen(queue, None),
        }
    }

    /// When the next message is due that waits for its time.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let waiting = self.queues.values().flatten().filter(|entry| entry.held.is_none());
        waiting.filter_map(|entry| entry.due).filter(|due| *due > now).min()
    }
}

impl Entry {
    pub fn is_ready(&self, now: Timestamp) -> bool {
        self.held.is_none() && self.due.is_none_or(|due| due <= now)
    }
}
