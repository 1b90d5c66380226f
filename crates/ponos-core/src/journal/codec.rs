//! Batches of entries as bytes.
//!
//! ```text
//! batch    = "PJ" version:u8 flags:u8 payload            flags: 1 = the payload is an LZ4 block after its size (u32, LE)
//! payload  = texts ids time:ms origins* entry*
//! origin   = id:8 bytes, app, version?, host, started    texts and ids are places in the dictionary
//! entry    = origin seq time frame                       seq and time as the difference from the entry before
//! frame    = length kind:u8 fields…                      unknown kinds are skipped, unknown fields at the end ignored
//! ```
//!
//! | version | change |
//! | --- | --- |
//! | 1 | the first |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer;

use super::binary::{Damaged, Reader, Texts, Writer};
use super::notice::{Beat, CircuitNotice, CircuitPhase, Flight, LimitNotice, Notice, OrderNotice, QueueBeat};
use super::record::{
    AttemptEnd, AttemptRecord, DelayBy, HandMade, PublishedRecord, Record, UnpublishedRecord, What,
};
use super::{Entry, Origin, Said};
use crate::envelope::Phase;
use crate::id::{MessageId, Tid, Timestamp};
use crate::name::AppName;

/// The version of the form that this crate writes. A reader refuses a batch of a higher one.
pub const RECORD_VERSION: u8 = 1;

/// The largest payload of a batch that is unpacked; a larger one is damaged, or meant to fill the memory.
pub const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The most entries of a batch. Writers put a few thousand into one; compressed, a small batch could claim millions, each
/// of which takes much more memory than its four bytes.
pub(super) const MAX_ENTRIES: usize = 1 << 16;

const MAGIC: [u8; 2] = *b"PJ";
const LZ4: u8 = 1;

/// Below this many bytes compression does not pay.
const WORTH_COMPRESSING: usize = 256;

/// Bytes that are no batch of entries, or one of a later version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DamagedBatch(&'static str);

/// Writes entries in their order.
#[must_use]
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::default();
    let base = entries.first().map_or(0, |entry| entry.said.at().as_millis());
    writer.unsigned(base);
    let mut places: HashMap<u64, (u64, u64)> = HashMap::new();
    let mut origins: Vec<&Origin> = Vec::new();
    for entry in entries {
        places.entry(entry.origin.id).or_insert_with(|| {
            origins.push(&entry.origin);
            (origins.len() as u64 - 1, 0)
        });
    }
    writer.unsigned(origins.len() as u64);
    for origin in origins {
        for byte in origin.id.to_be_bytes() {
            writer.byte(byte);
        }
        writer.text(origin.app.as_str());
        writer.maybe_text(origin.version.as_deref());
        writer.text(&origin.host);
        writer.signed(difference(origin.started.as_millis(), base));
    }
    let mut before = base;
    for entry in entries {
        if let Some((place, next)) = places.get_mut(&entry.origin.id) {
            writer.unsigned(*place);
            writer.signed(difference(entry.seq, *next));
            *next = entry.seq.wrapping_add(1);
        }
        let at = entry.said.at().as_millis();
        writer.signed(difference(at, before));
        before = at;
        writer.framed(|writer| match &entry.said {
            Said::Record(record) => write_record(writer, record),
            Said::Notice(_, notice) => write_notice(writer, at, notice),
            Said::Later(_) => writer.byte(kind::LATER),
        });
    }
    pack(writer.finish())
}

fn pack(payload: Vec<u8>) -> Vec<u8> {
    let mut out = vec![MAGIC[0], MAGIC[1], RECORD_VERSION, 0];
    if payload.len() >= WORTH_COMPRESSING {
        let packed = lz4_flex::compress_prepend_size(&payload);
        if packed.len() < payload.len() {
            out[3] = LZ4;
            out.extend_from_slice(&packed);
            return out;
        }
    }
    out.extend_from_slice(&payload);
    out
}

/// Reads a batch.
///
/// # Errors
///
/// When the bytes are no batch, a damaged one, or one of a later version.
pub fn decode(bytes: &[u8]) -> Result<Vec<Entry>, DamagedBatch> {
    let Some((&[b'P', b'J', version, flags], payload)) = bytes.split_first_chunk::<4>() else {
        return Err(DamagedBatch("these bytes are no batch of records"));
    };
    if version > RECORD_VERSION || flags & !LZ4 != 0 {
        return Err(DamagedBatch("the records are of a later version: update this program"));
    }
    let damaged = |Damaged| DamagedBatch("the batch of records is damaged");
    if flags & LZ4 == 0 {
        return entries(payload).map_err(damaged);
    }
    let size = payload.first_chunk::<4>().map_or(usize::MAX, |size| u32::from_le_bytes(*size) as usize);
    if size > MAX_BATCH_BYTES {
        return Err(DamagedBatch("the batch of records is larger than any that is written"));
    }
    let payload = lz4_flex::decompress_size_prepended(payload).map_err(|_| damaged(Damaged))?;
    entries(&payload).map_err(damaged)
}

fn entries(payload: &[u8]) -> Result<Vec<Entry>, Damaged> {
    let (texts, rest) = Texts::read(payload)?;
    let mut reader = texts.reader(rest);
    let base = reader.unsigned()?;
    let mut origins: Vec<(Arc<Origin>, u64)> = Vec::new();
    for _ in 0..reader.count(12)? {
        let mut id = [0; 8];
        for byte in &mut id {
            *byte = reader.byte()?;
        }
        let origin = Origin {
            id: u64::from_be_bytes(id),
            app: AppName::parse(&reader.text()?).map_err(|_| Damaged)?,
            version: reader.maybe_text()?,
            host: reader.text()?,
            started: moved(Timestamp::from_millis(base), reader.signed()?),
        };
        origins.push((Arc::new(origin), 0));
    }
    let mut entries = Vec::new();
    let mut at = Timestamp::from_millis(base);
    while !reader.is_empty() {
        if entries.len() == MAX_ENTRIES {
            return Err(Damaged);
        }
        let place = usize::try_from(reader.unsigned()?).map_err(|_| Damaged)?;
        let (origin, next) = origins.get_mut(place).ok_or(Damaged)?;
        let seq = next.wrapping_add_signed(reader.signed()?);
        *next = seq.wrapping_add(1);
        at = moved(at, reader.signed()?);
        let mut frame = reader.framed()?;
        // What a later version says of a kind that is known here may be out of reach too.
        let said = said(&mut frame, at).unwrap_or(Said::Later(at));
        entries.push(Entry { origin: Arc::clone(origin), seq, said });
    }
    Ok(entries)
}

mod kind {
    pub(super) const PUBLISHED: u8 = 1;
    pub(super) const UNPUBLISHED: u8 = 2;
    pub(super) const ATTEMPT: u8 = 3;
    pub(super) const DUPLICATE: u8 = 4;
    pub(super) const SUSPECTED: u8 = 5;
    pub(super) const BY_HAND: u8 = 6;
    pub(super) const HELLO: u8 = 32;
    pub(super) const BEAT: u8 = 33;
    pub(super) const BYE: u8 = 34;
    pub(super) const CIRCUIT: u8 = 35;
    pub(super) const ORDER: u8 = 36;
    pub(super) const LIMIT: u8 = 37;
    pub(super) const LATER: u8 = 255;
}

fn write_record(writer: &mut Writer, record: &Record) {
    let at = record.at.as_millis();
    writer.byte(match &record.what {
        What::Published(_) => kind::PUBLISHED,
        What::Unpublished(_) => kind::UNPUBLISHED,
        What::Attempt(_) => kind::ATTEMPT,
        What::Duplicate { .. } => kind::DUPLICATE,
        What::Suspected { .. } => kind::SUSPECTED,
        What::ByHand(_) => kind::BY_HAND,
    });
    write_tid(writer, &record.tid);
    writer.id(record.message.as_bytes());
    match &record.what {
        What::Published(it) => {
            writer.byte(u8::from(it.event));
            writer.text(&it.name);
            writer.maybe_text(it.app.as_ref().map(AppName::as_str));
            writer.maybe_id(it.cause.as_ref().map(MessageId::as_bytes));
            writer.maybe_text(it.by.as_deref());
            writer.unsigned(it.queues.into());
            writer.unsigned(it.hops.into());
            writer.unsigned(it.size.into());
        }
        What::Unpublished(it) => {
            writer.byte(u8::from(it.event) | u8::from(it.open) << 1);
            writer.text(&it.name);
            writer.maybe_id(it.cause.as_ref().map(MessageId::as_bytes));
            writer.maybe_text(it.by.as_deref());
            writer.text(&it.error);
        }
        What::Attempt(it) => write_attempt(writer, at, it),
        What::Duplicate { queue } => writer.text(queue.as_str()),
        What::Suspected { queue, losses } => {
            writer.text(queue.as_str());
            writer.unsigned((*losses).into());
        }
        What::ByHand(it) => {
            writer.text(&it.verb);
            writer.text(it.queue.as_str());
            writer.text(&it.by);
            writer.maybe_text(it.operation.as_deref());
            writer.maybe_text(it.reason.as_deref());
        }
    }
}

fn write_attempt(writer: &mut Writer, at: u64, it: &AttemptRecord) {
    writer.text(it.queue.as_str());
    writer.unsigned(it.attempt.into());
    writer.byte(u8::from(it.phase == Phase::Recover));
    writer.signed(difference(it.started.as_millis(), at));
    writer.unsigned(micros(it.took));
    match &it.end {
        AttemptEnd::Done => writer.byte(0),
        AttemptEnd::Retry { class, due } => {
            writer.byte(1);
            writer.text(class.as_str());
            writer.signed(difference(due.as_millis(), at));
        }
        AttemptEnd::GaveUp { class, reason } => {
            writer.byte(2);
            writer.text(class.as_str());
            writer.text(reason.as_str());
        }
        AttemptEnd::Failed { reason, recovered } => {
            writer.byte(3);
            writer.text(reason.as_str());
            writer.byte(u8::from(*recovered));
        }
        AttemptEnd::Lost => writer.byte(4),
    }
    writer.maybe_text(it.error.as_deref());
    // Most jobs start soon after they are ready: from the start, where the difference is small.
    match it.ready {
        None => writer.byte(0),
        Some(ready) => {
            writer.byte(1);
            writer.signed(difference(it.started.as_millis(), ready.as_millis()));
        }
    }
    writer.unsigned(it.of.map_or(0, |of| u64::from(of) + 1));
    writer.byte(match it.delay_by {
        None => 0,
        Some(DelayBy::Backoff) => 1,
        Some(DelayBy::Handler) => 2,
        Some(DelayBy::Snooze) => 3,
    });
    writer.maybe_text(it.fingerprint.as_deref());
    writer.unsigned(micros(it.held));
}

fn write_notice(writer: &mut Writer, at: u64, notice: &Notice) {
    match notice {
        Notice::Hello { manifest } => {
            writer.byte(kind::HELLO);
            writer.maybe_text(manifest.as_deref());
        }
        Notice::Beat(beat) => {
            writer.byte(kind::BEAT);
            write_beat(writer, at, beat);
        }
        Notice::Bye => writer.byte(kind::BYE),
        Notice::Circuit(it) => {
            writer.byte(kind::CIRCUIT);
            writer.text(&it.circuit);
            writer.byte(phase_code(it.phase));
            writer.unsigned(it.open_for.map_or(0, |time| micros(time).saturating_add(1)));
            writer.text(&it.cause);
            writer.unsigned(it.queues.len() as u64);
            for queue in &it.queues {
                writer.text(queue.as_str());
            }
        }
        Notice::Order(it) => {
            writer.byte(kind::ORDER);
            writer.text(&it.target);
            writer.text(&it.action);
            writer.byte(u8::from(it.stands));
            writer.text(&it.by);
            writer.text(&it.reason);
            write_maybe_time(writer, at, it.until);
        }
        Notice::Limit(it) => {
            writer.byte(kind::LIMIT);
            writer.text(it.queue.as_str());
            write_maybe_time(writer, at, it.until);
        }
    }
}

fn write_beat(writer: &mut Writer, at: u64, beat: &Beat) {
    writer.unsigned(beat.every_ms.into());
    writer.unsigned(beat.dropped);
    writer.unsigned(beat.queues.len() as u64);
    for queue in &beat.queues {
        writer.framed(|writer| {
            writer.text(queue.queue.as_str());
            writer.unsigned(queue.in_flight.into());
            writer.unsigned(queue.buffered.into());
            writer.unsigned(queue.prefetch.into());
            writer.byte(u8::from(queue.up) | u8::from(queue.paused) << 1);
            write_maybe_time(writer, at, queue.last_delivery);
        });
    }
    writer.unsigned(beat.flights.len() as u64);
    for flight in &beat.flights {
        writer.framed(|writer| {
            writer.id(flight.message.as_bytes());
            write_tid(writer, &flight.tid);
            writer.text(flight.queue.as_str());
            writer.unsigned(flight.attempt.into());
            writer.signed(difference(flight.started.as_millis(), at));
        });
    }
    writer.unsigned(beat.circuits.len() as u64);
    for (circuit, phase) in &beat.circuits {
        writer.text(circuit);
        writer.byte(phase_code(*phase));
    }
}

fn write_tid(writer: &mut Writer, tid: &Tid) {
    match tid.uuid_bytes() {
        Some(bytes) => writer.maybe_id(Some(bytes)),
        None => {
            writer.maybe_id(None);
            writer.text(&tid.to_string());
        }
    }
}

fn write_maybe_time(writer: &mut Writer, at: u64, time: Option<Timestamp>) {
    match time {
        None => writer.byte(0),
        Some(time) => {
            writer.byte(1);
            writer.signed(difference(time.as_millis(), at));
        }
    }
}

fn said(reader: &mut Reader<'_>, at: Timestamp) -> Result<Said, Damaged> {
    let kind = reader.byte()?;
    if kind >= kind::HELLO {
        return Ok(Said::Notice(at, notice(reader, at, kind)?));
    }
    let tid = tid(reader)?;
    let message = MessageId::from_bytes(reader.id()?);
    let what = match kind {
        kind::PUBLISHED => What::Published(PublishedRecord {
            event: reader.byte()? & 1 != 0,
            name: reader.text()?,
            app: reader.maybe_text()?.map(|app| AppName::parse(&app)).transpose().map_err(|_| Damaged)?,
            cause: reader.maybe_id()?.map(MessageId::from_bytes),
            by: reader.maybe_text()?,
            queues: reader.small()?,
            hops: reader.small()?,
            size: reader.small()?,
        }),
        kind::UNPUBLISHED => {
            let flags = reader.byte()?;
            What::Unpublished(UnpublishedRecord {
                event: flags & 1 != 0,
                open: flags & 2 != 0,
                name: reader.text()?,
                cause: reader.maybe_id()?.map(MessageId::from_bytes),
                by: reader.maybe_text()?,
                error: reader.text()?,
            })
        }
        kind::ATTEMPT => What::Attempt(attempt(reader, at)?),
        kind::DUPLICATE => What::Duplicate { queue: reader.queue()? },
        kind::SUSPECTED => What::Suspected { queue: reader.queue()?, losses: reader.small()? },
        kind::BY_HAND => What::ByHand(HandMade {
            verb: reader.text()?,
            queue: reader.queue()?,
            by: reader.text()?,
            operation: reader.maybe_text()?,
            reason: reader.maybe_text()?,
        }),
        _ => return Err(Damaged),
    };
    Ok(Said::Record(Record { at, tid, message, what }))
}

fn attempt(reader: &mut Reader<'_>, at: Timestamp) -> Result<AttemptRecord, Damaged> {
    let queue = reader.queue()?;
    let attempt = reader.small()?;
    let phase = if reader.byte()? & 1 == 0 { Phase::Run } else { Phase::Recover };
    let started = moved(at, reader.signed()?);
    let took = Duration::from_micros(reader.unsigned()?);
    let end = match reader.byte()? {
        0 => AttemptEnd::Done,
        1 => AttemptEnd::Retry { class: word(reader)?, due: moved(at, reader.signed()?) },
        2 => AttemptEnd::GaveUp { class: word(reader)?, reason: word(reader)? },
        3 => AttemptEnd::Failed { reason: word(reader)?, recovered: reader.byte()? & 1 != 0 },
        4 => AttemptEnd::Lost,
        _ => return Err(Damaged),
    };
    Ok(AttemptRecord {
        queue,
        attempt,
        phase,
        started,
        took,
        end,
        error: reader.maybe_text()?,
        ready: match reader.byte()? {
            0 => None,
            _ => Some(moved(started, reader.signed()?.wrapping_neg())),
        },
        of: match reader.unsigned()?.checked_sub(1) {
            None => None,
            Some(of) => Some(u32::try_from(of).map_err(|_| Damaged)?),
        },
        delay_by: match reader.byte()? {
            1 => Some(DelayBy::Backoff),
            2 => Some(DelayBy::Handler),
            3 => Some(DelayBy::Snooze),
            _ => None,
        },
        fingerprint: reader.maybe_text()?,
        held: Duration::from_micros(reader.unsigned()?),
    })
}

fn notice(reader: &mut Reader<'_>, at: Timestamp, kind: u8) -> Result<Notice, Damaged> {
    Ok(match kind {
        kind::HELLO => Notice::Hello { manifest: reader.maybe_text()? },
        kind::BEAT => Notice::Beat(beat(reader, at)?),
        kind::BYE => Notice::Bye,
        kind::CIRCUIT => Notice::Circuit(CircuitNotice {
            circuit: reader.text()?,
            phase: phase(reader)?,
            open_for: reader.unsigned()?.checked_sub(1).map(Duration::from_micros),
            cause: reader.text()?,
            queues: (0..reader.count(1)?).map(|_| reader.queue()).collect::<Result<_, _>>()?,
        }),
        kind::ORDER => Notice::Order(OrderNotice {
            target: reader.text()?,
            action: reader.text()?,
            stands: reader.byte()? & 1 != 0,
            by: reader.text()?,
            reason: reader.text()?,
            until: maybe_time(reader, at)?,
        }),
        kind::LIMIT => Notice::Limit(LimitNotice { queue: reader.queue()?, until: maybe_time(reader, at)? }),
        _ => return Err(Damaged),
    })
}

fn beat(reader: &mut Reader<'_>, at: Timestamp) -> Result<Beat, Damaged> {
    let mut beat = Beat { every_ms: reader.small()?, dropped: reader.unsigned()?, ..Beat::default() };
    for _ in 0..reader.count(1)? {
        let mut frame = reader.framed()?;
        let queue = frame.queue()?;
        let (in_flight, buffered, prefetch) = (frame.small()?, frame.small()?, frame.small()?);
        let flags = frame.byte()?;
        let last_delivery = maybe_time(&mut frame, at)?;
        let (up, paused) = (flags & 1 != 0, flags & 2 != 0);
        beat.queues.push(QueueBeat { queue, in_flight, buffered, prefetch, up, paused, last_delivery });
    }
    for _ in 0..reader.count(1)? {
        let mut frame = reader.framed()?;
        beat.flights.push(Flight {
            message: MessageId::from_bytes(frame.id()?),
            tid: tid(&mut frame)?,
            queue: frame.queue()?,
            attempt: frame.small()?,
            started: moved(at, frame.signed()?),
        });
    }
    for _ in 0..reader.count(2)? {
        beat.circuits.push((reader.text()?, phase(reader)?));
    }
    Ok(beat)
}

fn tid(reader: &mut Reader<'_>) -> Result<Tid, Damaged> {
    match reader.maybe_id()? {
        Some(bytes) => Ok(Tid::from_uuid_bytes(bytes)),
        None => Tid::from_foreign(&reader.text()?).ok_or(Damaged),
    }
}

/// One of an enum's words.
fn word<'de, T: Deserialize<'de>>(reader: &mut Reader<'_>) -> Result<T, Damaged> {
    let text: Arc<str> = reader.text()?;
    let text: String = (*text).to_owned();
    let deserializer: serde::de::value::StringDeserializer<serde::de::value::Error> =
        text.into_deserializer();
    T::deserialize(deserializer).map_err(|_| Damaged)
}

const fn phase_code(phase: CircuitPhase) -> u8 {
    match phase {
        CircuitPhase::Closed => 0,
        CircuitPhase::Open => 1,
        CircuitPhase::HalfOpen => 2,
    }
}

fn phase(reader: &mut Reader<'_>) -> Result<CircuitPhase, Damaged> {
    match reader.byte()? {
        0 => Ok(CircuitPhase::Closed),
        1 => Ok(CircuitPhase::Open),
        2 => Ok(CircuitPhase::HalfOpen),
        _ => Err(Damaged),
    }
}

fn maybe_time(reader: &mut Reader<'_>, at: Timestamp) -> Result<Option<Timestamp>, Damaged> {
    match reader.byte()? {
        0 => Ok(None),
        _ => Ok(Some(moved(at, reader.signed()?))),
    }
}

fn difference(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b).cast_signed()
}

fn moved(from: Timestamp, by: i64) -> Timestamp {
    Timestamp::from_millis(from.as_millis().wrapping_add_signed(by))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
