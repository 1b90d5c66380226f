//! What a process remembers of messages, so that what comes again is judged rightly.
//!
//! Nothing of it must survive the process: whoever has forgotten runs a job twice at most, or counts one loss too many.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ponos_core::broker::{Destination, Published};
use ponos_core::envelope::Envelope;
use ponos_core::id::{MessageId, Timestamp};
use ponos_core::name::QueueName;
use ponos_core::policy::DedupWindow;

/// How many hand-backs are remembered, so that they do not count as losses.
const EXCUSES: usize = 65_536;

/// What a settlement's earlier try had confirmed, by message.
pub(crate) type Sent = ((Destination, MessageId, Option<Timestamp>), Published);

/// A delivery by its subscription and tag.
type Held = (u64, u64);

/// What is remembered of messages.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// Hand-backs by this process, which quorum queues count like losses.
    excuses: HashMap<(QueueName, MessageId), u32>,
    excuses_order: VecDeque<(QueueName, MessageId)>,
    /// What a confirmed copy has replaced.
    superseded: DedupWindow,
    /// What settlements that are not carried through yet have sent.
    sent: HashMap<Held, Vec<Sent>>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These were handed back by this process; quorum queues count that.
    pub(crate) fn excuse(&self, queue: &QueueName, ids: impl Iterator<Item = MessageId>) {
        let mut remembered = self.lock();
        for id in ids {
            let key = (queue.clone(), id);
            *remembered.excuses.entry(key.clone()).or_default() += 1;
            remembered.excuses_order.push_back(key);
            if remembered.excuses_order.len() > EXCUSES
                && let Some(oldest) = remembered.excuses_order.pop_front()
            {
                remembered.excuses.remove(&oldest);
            }
        }
    }

    /// How often this process handed a message back.
    pub(crate) fn excused(&self, queue: &QueueName, id: MessageId) -> u32 {
        self.lock().excuses.get(&(queue.clone(), id)).copied().unwrap_or(0)
    }

    /// A copy starts with a count of its own.
    pub(crate) fn starts_anew(&self, queue: &QueueName, id: MessageId) {
        self.lock().excuses.remove(&(queue.clone(), id));
    }

    /// A confirmed copy has replaced it: when it comes again, it is only acknowledged.
    pub(crate) fn supersede(&self, queue: &QueueName, envelope: &Envelope) {
        self.lock().superseded.insert(identity(queue, envelope));
    }

    pub(crate) fn is_superseded(&self, queue: &QueueName, envelope: &Envelope) -> bool {
        self.lock().superseded.contains(&identity(queue, envelope))
    }

    /// What an earlier try to settle has sent, so that the next one does not send it again.
    pub(crate) fn sent_before(&self, held: Held) -> Vec<Sent> {
        self.lock().sent.get(&held).cloned().unwrap_or_default()
    }

    pub(crate) fn remember_sent(&self, held: Held, sent: impl Iterator<Item = Sent>) {
        self.lock().sent.entry(held).or_default().extend(sent);
    }

    pub(crate) fn forget_sent(&self, held: Held) {
        self.lock().sent.remove(&held);
    }

    /// What a subscription held is settled by others.
    pub(crate) fn forget_subscription(&self, id: u64) {
        self.lock().sent.retain(|(subscription, _), _| *subscription != id);
    }
}

/// What a delivery is known by, to recognise it when it comes again although its copy was confirmed.
pub(crate) fn identity(queue: &QueueName, envelope: &Envelope) -> [u8; 16] {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        queue.as_str().hash(&mut hasher);
        envelope.id.as_bytes().hash(&mut hasher);
        let progress = &envelope.progress;
        (progress.attempt, progress.phase.as_str(), progress.suspect).hash(&mut hasher);
        progress.due.map(Timestamp::as_millis).hash(&mut hasher);
        envelope.report.is_some().hash(&mut hasher);
        hasher.finish()
    };
    (u128::from(half(1)) << 64 | u128::from(half(2))).to_le_bytes()
}
