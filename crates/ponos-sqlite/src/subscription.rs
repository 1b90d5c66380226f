//! An open queue: what one consumer has asked for, what was claimed for it, what it holds.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ponos_core::broker::{Delivery, DeliveryTag, Subscription, SubscriptionLost};
use ponos_core::envelope::Envelope;
use ponos_core::id::MessageId;
use ponos_core::name::QueueName;
use ponos_core::wire::{self, Reading};
use rusqlite::Row;

use crate::shared::{Shared, locked};
use crate::transaction::time;

/// Jobs that were claimed but not fetched go back after so long, for other processes: their consumer has stopped asking.
const UNFETCHED: Duration = Duration::from_secs(1);

/// A claimed row, not decoded yet: that is done on the consumer's thread and not on the writer's.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) id: i64,
    pub(crate) fence: i64,
    pub(crate) ready_at: i64,
    pub(crate) losses: i64,
    pub(crate) message_id: Option<[u8; 16]>,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
}

impl Claimed {
    /// Reads the columns id, fence, ready_at, losses, message_id, head, body.
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            fence: row.get(1)?,
            ready_at: row.get(2)?,
            losses: row.get(3)?,
            // Of another length only when somebody wrote it by hand: then the head says what the id is.
            message_id: row.get_ref(4)?.as_blob()?.try_into().ok(),
            head: row.get_ref(5)?.as_blob()?.to_vec(),
            body: Bytes::copy_from_slice(row.get_ref(6)?.as_blob()?),
        })
    }
}

/// Decodes a row; what is wrong with it is replaced, because it must be delivered all the same.
pub(crate) fn envelope(row: Claimed, queue: &QueueName) -> Envelope {
    // What brings no transaction id gets the same one each time that it is delivered.
    let mut random = [0; 10];
    if let Some(id) = &row.message_id {
        random.copy_from_slice(&id[6..]);
    }
    let reading = Reading { queue, now: time(row.ready_at), random };
    let (mut envelope, anomalies) = wire::decode(&row.head, row.body, reading);
    if let Some(id) = row.message_id {
        // The column is what inspection and picking go by; a head that cannot be read has no say.
        envelope.id = MessageId::from_bytes(id);
    }
    for anomaly in anomalies {
        tracing::debug!(%queue, message = %envelope.id, part = anomaly.part, "{}", anomaly.problem);
    }
    envelope
}

/// The part of a subscription that the threads see.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) id: u64,
    pub(crate) queue: QueueName,
    pub(crate) queue_id: i64,
    pub(crate) prefetch: usize,
    pub(crate) only: Option<Vec<MessageId>>,
    state: Mutex<State>,
}

/// The demand is pulled: nothing is claimed that `poll_next` has not asked for.
#[derive(Debug)]
struct State {
    /// Claimed and not fetched; since when.
    inbox: VecDeque<Claimed>,
    filled: Instant,
    /// Rows that count as unsettled, with their fences: fetched ones and those in the inbox.
    held: HashMap<i64, i64>,
    /// How many deliveries a waiting `poll_next` asked for; 0 while nobody waits.
    demand: usize,
    /// Whether a claim is asked for and not answered.
    claiming: bool,
    /// Whether the queue may hold something that the last claim did not take.
    more: bool,
    waker: Option<Waker>,
    /// Set once: it will never deliver again.
    lost: Option<String>,
    /// Whether the subscription was dropped.
    dropped: bool,
}

impl State {
    fn room(&self, prefetch: usize) -> usize {
        self.demand.min(prefetch.saturating_sub(self.held.len()))
    }
}

impl Consumer {
    pub(crate) fn new(
        id: u64,
        queue: QueueName,
        queue_id: i64,
        prefetch: usize,
        only: Option<Vec<MessageId>>,
    ) -> Self {
        let state = State {
            inbox: VecDeque::new(),
            filled: Instant::now(),
            held: HashMap::new(),
            demand: 0,
            claiming: false,
            more: true,
            waker: None,
            lost: None,
            dropped: false,
        };
        Self { id, queue, queue_id, prefetch, only, state: Mutex::new(state) }
    }

    /// Whether somebody waits for messages of this queue.
    pub(crate) fn is_hungry(&self) -> bool {
        let state = locked(&self.state);
        !state.dropped && !state.claiming && state.room(self.prefetch) > 0
    }

    /// Notes that the queue has something. True: the caller must pass a claim on to the writer, and does so only once.
    pub(crate) fn ring(&self) -> bool {
        let mut state = locked(&self.state);
        state.more = true;
        self.start_claim(&mut state)
    }

    /// True if there is something to claim and room for it; the caller passes the claim on.
    fn start_claim(&self, state: &mut State) -> bool {
        let start = state.more && !state.claiming && !state.dropped && state.room(self.prefetch) > 0;
        state.claiming |= start;
        start
    }

    /// At the start of a claim, within its transaction: how many to take. What rings after this rings for the next.
    pub(crate) fn claim_size(&self) -> usize {
        let mut state = locked(&self.state);
        state.more = false;
        if state.dropped { 0 } else { state.room(self.prefetch) }
    }

    /// Takes what was claimed, after its commit; `more` when the queue may hold more. True: claim again.
    ///
    /// A subscription that was dropped meanwhile hands its rows back.
    pub(crate) fn fill(&self, rows: Vec<Claimed>, more: bool, shared: &Shared) -> bool {
        let mut state = locked(&self.state);
        state.claiming = false;
        state.more |= more;
        if state.dropped {
            drop(state);
            let leases = rows.iter().map(|row| (row.id, row.fence)).collect::<Vec<_>>();
            if !leases.is_empty() {
                shared.chore(|chores| chores.releases.extend(leases));
            }
            return false;
        }
        if rows.is_empty() {
            return self.start_claim(&mut state);
        }
        state.demand = 0;
        state.filled = Instant::now();
        for row in rows {
            state.held.insert(row.id, row.fence);
            state.inbox.push_back(row);
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        false
    }

    /// Counts a row as held that is delivered later; not when nobody is there any more.
    pub(crate) fn keep(&self, row: &Claimed) -> bool {
        let mut state = locked(&self.state);
        if !state.dropped {
            state.held.insert(row.id, row.fence);
        }
        !state.dropped
    }

    /// Delivers a row that was kept; one that is no longer held has been handed back.
    pub(crate) fn deliver(&self, row: Claimed) {
        let mut state = locked(&self.state);
        if state.held.get(&row.id) != Some(&row.fence) {
            return;
        }
        state.demand = 0;
        state.filled = Instant::now();
        state.inbox.push_back(row);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The claim did not happen; the poller will ask for it again.
    pub(crate) fn claim_failed(&self) {
        let mut state = locked(&self.state);
        state.claiming = false;
        state.more = true;
    }

    /// A delivery is no longer held. True: there is room for a claim that waits; the caller passes it on.
    pub(crate) fn settled(&self, row: i64, fence: i64) -> bool {
        let mut state = locked(&self.state);
        if state.held.get(&row) == Some(&fence) {
            state.held.remove(&row);
        }
        self.start_claim(&mut state)
    }

    /// Takes back what was claimed and lies there unfetched, with the demand that it was claimed for.
    pub(crate) fn take_unfetched(&self) -> Vec<(i64, i64)> {
        let mut state = locked(&self.state);
        if state.inbox.is_empty() || state.filled.elapsed() < UNFETCHED {
            return Vec::new();
        }
        state.more = true;
        let leases: Vec<_> = state.inbox.drain(..).map(|row| (row.id, row.fence)).collect();
        for (row, _) in &leases {
            state.held.remove(row);
        }
        leases
    }

    pub(crate) fn lose(&self, reason: &str) {
        let mut state = locked(&self.state);
        state.lost.get_or_insert_with(|| reason.to_owned());
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>, max: usize) -> Next {
        let mut state = locked(&self.state);
        if let Some(reason) = &state.lost {
            return Next::Lost(SubscriptionLost { reason: reason.clone() });
        }
        let available = max.min(state.inbox.len());
        if available > 0 {
            state.demand = 0;
            return Next::Rows(state.inbox.drain(..available).collect());
        }
        state.demand = max;
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Next::Wait { claim: self.start_claim(&mut state) }
    }
}

/// What a poll found.
enum Next {
    Rows(Vec<Claimed>),
    Lost(SubscriptionLost),
    /// Nothing yet; `claim`: the caller passes a claim on to the writer.
    Wait {
        claim: bool,
    },
}

/// The handle that its owner polls.
#[derive(Debug)]
pub(crate) struct SqliteSubscription {
    consumer: Arc<Consumer>,
    shared: Arc<Shared>,
}

impl SqliteSubscription {
    pub(crate) fn new(consumer: Arc<Consumer>, shared: Arc<Shared>) -> Self {
        Self { consumer, shared }
    }
}

/// A row as it is handed to the consumer of this number.
pub(crate) fn delivery(row: Claimed, queue: &QueueName, subscription: u64) -> Delivery {
    Delivery {
        tag: DeliveryTag { subscription, number: row.id.cast_unsigned(), fence: row.fence.cast_unsigned() },
        losses: u32::try_from(row.losses).unwrap_or(u32::MAX),
        envelope: Arc::new(envelope(row, queue)),
        queue: queue.clone(),
    }
}

impl Subscription for SqliteSubscription {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        out: &mut Vec<Delivery>,
    ) -> Poll<Result<(), SubscriptionLost>> {
        match self.consumer.poll(cx, max) {
            Next::Rows(rows) => {
                let Consumer { queue, id, .. } = &*self.consumer;
                out.extend(rows.into_iter().map(|row| delivery(row, queue, *id)));
                Poll::Ready(Ok(()))
            }
            Next::Lost(lost) => Poll::Ready(Err(lost)),
            Next::Wait { claim: true } => {
                self.shared.chore(|chores| chores.claims.push(Arc::clone(&self.consumer)));
                Poll::Pending
            }
            Next::Wait { claim: false } => {
                self.shared.look();
                Poll::Pending
            }
        }
    }
}

impl Drop for SqliteSubscription {
    fn drop(&mut self) {
        let consumer = &self.consumer;
        self.shared.remove_consumer(consumer);
        let held = {
            let mut state = locked(&consumer.state);
            state.dropped = true;
            state.inbox.clear();
            std::mem::take(&mut state.held)
        };
        self.shared.chore(|chores| {
            chores.releases.extend(held);
            chores.ended.push(consumer.id);
        });
    }
}
