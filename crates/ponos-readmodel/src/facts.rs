//! What the tables say of an entry, beside the entry itself.

use ponos_core::envelope::ErrorClass;
use ponos_core::id::MessageId;
use ponos_core::journal::{AttemptEnd, Notice, Record, Said, What};

/// The kinds of entries in a segment's table. Numbers are never used again for something else.
pub(crate) mod kind {
    pub(crate) const PUBLISHED: i64 = 1;
    pub(crate) const UNPUBLISHED: i64 = 2;
    pub(crate) const DONE: i64 = 3;
    pub(crate) const RETRY: i64 = 4;
    pub(crate) const GAVE_UP: i64 = 5;
    pub(crate) const FAILED: i64 = 6;
    pub(crate) const LOST: i64 = 7;
    pub(crate) const DUPLICATE: i64 = 8;
    pub(crate) const SUSPECTED: i64 = 9;
    pub(crate) const BY_HAND: i64 = 10;
    pub(crate) const HELLO: i64 = 32;
    pub(crate) const BYE: i64 = 34;
    pub(crate) const CIRCUIT: i64 = 35;
    pub(crate) const ORDER: i64 = 36;
    pub(crate) const LIMIT: i64 = 37;
    /// Something that this version does not count.
    pub(crate) const OTHER: i64 = 255;
}

/// What a record means for its transaction.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// The name or the queue.
    pub(crate) word: &'a str,
    /// The application.
    pub(crate) app: Option<&'a str>,
    /// How well `word` names the transaction; less is better.
    pub(crate) rank: u64,
    pub(crate) failed: bool,
    pub(crate) retried: bool,
    /// How many jobs came to be.
    pub(crate) opened: u32,
    /// Whether a job ended.
    pub(crate) closed: bool,
}

/// Whether an entry is kept as it is. Beats are not: the latest of each instance says all.
pub(crate) fn is_kept(said: &Said) -> bool {
    !matches!(said, Said::Notice(_, Notice::Beat(_)) | Said::Later(_))
}

pub(crate) fn kind_of(said: &Said) -> i64 {
    match said {
        Said::Record(record) => match &record.what {
            What::Published(_) => kind::PUBLISHED,
            What::Unpublished(_) => kind::UNPUBLISHED,
            What::Attempt(attempt) => match attempt.end {
                AttemptEnd::Done => kind::DONE,
                AttemptEnd::Retry { .. } => kind::RETRY,
                AttemptEnd::GaveUp { .. } => kind::GAVE_UP,
                AttemptEnd::Failed { .. } => kind::FAILED,
                AttemptEnd::Lost => kind::LOST,
                _ => kind::OTHER,
            },
            What::Duplicate { .. } => kind::DUPLICATE,
            What::Suspected { .. } => kind::SUSPECTED,
            What::ByHand(_) => kind::BY_HAND,
            _ => kind::OTHER,
        },
        Said::Notice(_, notice) => match notice {
            Notice::Hello { .. } => kind::HELLO,
            Notice::Bye => kind::BYE,
            Notice::Circuit(_) => kind::CIRCUIT,
            Notice::Order(_) => kind::ORDER,
            Notice::Limit(_) => kind::LIMIT,
            _ => kind::OTHER,
        },
        Said::Later(_) => kind::OTHER,
    }
}

/// A message without a cause names its transaction best; any other message is a guess; a queue is a worse one.
const CAUSED: u64 = 1 << 60;
const UNPUBLISHED: u64 = 2 << 60;
const HANDLED: u64 = 3 << 60;

pub(crate) fn facts_of(record: &Record) -> Option<Facts<'_>> {
    let at = record.at.as_millis().min((1 << 60) - 1);
    let handled = HANDLED + at;
    let facts =
        |word, app, rank| Facts { word, app, rank, failed: false, retried: false, opened: 0, closed: false };
    Some(match &record.what {
        What::Published(it) => {
            let rank = if it.cause.is_none() { at } else { CAUSED + at };
            let app = it.app.as_ref().map(ponos_core::name::AppName::as_str);
            Facts { opened: it.queues, ..facts(&it.name, app, rank) }
        }
        What::Unpublished(it) => {
            let app = it.by.as_deref().map(app_of);
            facts(&it.name, app, UNPUBLISHED + at)
        }
        What::Attempt(it) => {
            let queue = it.queue.as_str();
            let (mut failed, mut retried, mut closed) = (false, false, false);
            match &it.end {
                AttemptEnd::Done => closed = true,
                AttemptEnd::Failed { .. } => (failed, closed) = (true, true),
                AttemptEnd::Retry { class, .. } => retried = *class != ErrorClass::Snooze,
                _ => {}
            }
            Facts { failed, retried, closed, ..facts(queue, Some(app_of(queue)), handled) }
        }
        What::Duplicate { queue } | What::Suspected { queue, .. } => {
            facts(queue.as_str(), Some(app_of(queue.as_str())), handled)
        }
        What::ByHand(it) => {
            // What is discarded had ended before; what is put back has to end once more.
            let opened = u32::from(&*it.verb != "discarded");
            let queue = it.queue.as_str();
            Facts { opened, ..facts(queue, Some(app_of(queue)), handled) }
        }
        _ => return None,
    })
}

/// The application that owns a queue.
pub(crate) fn app_of(queue: &str) -> &str {
    queue.split('.').next().unwrap_or(queue)
}

/// A number for a message's id, alike for neighbours in time so that an index of them grows at its end.
pub(crate) fn message_key(message: &MessageId) -> i64 {
    let bytes = message.as_bytes();
    let fold = bytes[6..].chunks(4).fold(0u32, |fold, chunk| {
        let mut four = [0; 4];
        four[..chunk.len()].copy_from_slice(chunk);
        fold.rotate_left(5) ^ u32::from_le_bytes(four)
    });
    let time = u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
    (u64::from(time) << 32 | u64::from(fold)).cast_signed()
}
