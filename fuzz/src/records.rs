//! Batches of records: hostile bytes, and everything that can be said.

use std::sync::Arc;
use std::time::Duration;

use ponos_core::envelope::{ErrorClass, GaveUpReason, Phase};
use ponos_core::id::Tid;
use ponos_core::journal::{
    AttemptEnd, AttemptRecord, Beat, CircuitNotice, CircuitPhase, DelayBy, Entry, Flight, HandMade,
    LimitNotice, Notice, OrderNotice, Origin, PublishedRecord, QueueBeat, Record, Said, UnpublishedRecord,
    What, decode, encode,
};
use ponos_core::name::AppName;

use super::source::Source;

/// An even first byte: the rest is a batch. An odd one: decisions that make entries.
pub fn check(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    if first % 2 == 0 {
        hostile(rest);
    } else {
        let entries = entries(&mut Source::new(rest));
        let read = decode(&encode(&entries)).expect("what was written is read");
        assert_eq!(read.len(), entries.len());
        for (read, written) in read.iter().zip(&entries) {
            assert_eq!(read, written);
        }
    }
}

fn hostile(bytes: &[u8]) {
    // As it came, and as the payload of a batch that is not compressed.
    let plain = [b"PJ\x01\x00", bytes].concat();
    for batch in [bytes, &plain] {
        let Ok(read) = decode(batch) else {
            continue;
        };
        let again = decode(&encode(&read)).expect("what was written is read");
        assert_eq!(again.len(), read.len());
        for (again, read) in again.iter().zip(&read) {
            // Two origins with one id are one: ids are drawn at random.
            assert_eq!((again.origin.id, again.seq), (read.origin.id, read.seq));
            assert_eq!(again.said, read.said);
        }
    }
}

fn entries(source: &mut Source<'_>) -> Vec<Entry> {
    let origins: Vec<_> = (0..3).map(|number| Arc::new(origin(source, number))).collect();
    let mut entries = Vec::new();
    while !source.is_empty() && entries.len() < 100 {
        let origin = Arc::clone(&origins[usize::from(source.byte()) % origins.len()]);
        let seq = source.big();
        entries.push(Entry { origin, seq, said: said(source) });
    }
    entries
}

fn origin(source: &mut Source<'_>, number: u64) -> Origin {
    Origin {
        id: source.big() << 2 | number,
        app: AppName::parse(source.of(&["pheidi", "a", "0-a"]))
            .expect("each of them is an application's name"),
        version: source.maybe(text),
        host: text(source),
        started: source.time(),
    }
}

fn said(source: &mut Source<'_>) -> Said {
    let at = source.time();
    match source.byte() % 13 {
        0 => Said::Later(at),
        1 => Said::Notice(at, Notice::Hello { manifest: source.maybe(text) }),
        2 => Said::Notice(at, Notice::Bye),
        3 => Said::Notice(at, Notice::Beat(beat(source))),
        4 => Said::Notice(
            at,
            Notice::Circuit(CircuitNotice {
                circuit: text(source),
                queues: source.few(Source::queue),
                phase: phase(source),
                open_for: source.maybe(|source| Duration::from_micros(source.big() >> 1)),
                cause: text(source),
            }),
        ),
        5 => Said::Notice(
            at,
            Notice::Order(OrderNotice {
                target: text(source),
                action: text(source),
                stands: source.flag(),
                by: text(source),
                reason: text(source),
                until: source.maybe(Source::time),
            }),
        ),
        6 => Said::Notice(
            at,
            Notice::Limit(LimitNotice { queue: source.queue(), until: source.maybe(Source::time) }),
        ),
        _ => Said::Record(Record { at, tid: tid(source), message: source.message(), what: what(source) }),
    }
}

fn what(source: &mut Source<'_>) -> What {
    match source.byte() % 6 {
        0 => What::Published(PublishedRecord {
            name: text(source),
            event: source.flag(),
            app: source.maybe(|source| {
                AppName::parse(source.of(&["pheidi", "b"])).expect("each of them is an application's name")
            }),
            cause: source.maybe(Source::message),
            by: source.maybe(text),
            queues: source.small(),
            hops: source.small(),
            size: source.small(),
        }),
        1 => What::Unpublished(UnpublishedRecord {
            name: text(source),
            event: source.flag(),
            cause: source.maybe(Source::message),
            by: source.maybe(text),
            open: source.flag(),
            error: text(source),
        }),
        2 => What::Duplicate { queue: source.queue() },
        3 => What::Suspected { queue: source.queue(), losses: source.small() },
        4 => What::ByHand(HandMade {
            verb: text(source),
            queue: source.queue(),
            by: text(source),
            operation: source.maybe(text),
            reason: source.maybe(text),
        }),
        _ => What::Attempt(attempt(source)),
    }
}

fn attempt(source: &mut Source<'_>) -> AttemptRecord {
    use ErrorClass as C;
    use GaveUpReason as R;
    let classes = [C::Error, C::Timeout, C::Panic, C::Stop, C::Undecodable, C::Lost, C::Snooze, C::Unknown];
    let reasons = [R::Exhausted, R::Stopped, R::TooOld, R::Undecodable, R::Poison, R::HopLimit, R::Unknown];
    let end = match source.byte() % 5 {
        0 => AttemptEnd::Done,
        1 => AttemptEnd::Retry { class: source.of(&classes), due: source.time() },
        2 => AttemptEnd::GaveUp { class: source.of(&classes), reason: source.of(&reasons) },
        3 => AttemptEnd::Failed { reason: source.of(&reasons), recovered: source.flag() },
        _ => AttemptEnd::Lost,
    };
    AttemptRecord {
        queue: source.queue(),
        attempt: source.small(),
        phase: source.of(&[Phase::Run, Phase::Recover]),
        started: source.time(),
        took: Duration::from_micros(source.big()),
        end,
        error: source.maybe(text),
        ready: source.maybe(Source::time),
        of: source.maybe(Source::small),
        delay_by: source.maybe(|source| source.of(&[DelayBy::Backoff, DelayBy::Handler, DelayBy::Snooze])),
        fingerprint: source.maybe(text),
        held: Duration::from_micros(source.big()),
    }
}

fn beat(source: &mut Source<'_>) -> Beat {
    Beat {
        every_ms: source.small(),
        queues: source.few(|source| QueueBeat {
            queue: source.queue(),
            in_flight: source.small(),
            buffered: source.small(),
            prefetch: source.small(),
            up: source.flag(),
            paused: source.flag(),
            last_delivery: source.maybe(Source::time),
        }),
        flights: source.few(|source| Flight {
            message: source.message(),
            tid: tid(source),
            queue: source.queue(),
            attempt: source.small(),
            started: source.time(),
        }),
        circuits: source.few(|source| (text(source), phase(source))),
        dropped: source.big(),
    }
}

fn phase(source: &mut Source<'_>) -> CircuitPhase {
    source.of(&[CircuitPhase::Closed, CircuitPhase::Open, CircuitPhase::HalfOpen])
}

fn tid(source: &mut Source<'_>) -> Tid {
    match source.flag() {
        true => Tid::from_uuid_bytes(source.id()),
        false => Tid::from_foreign(source.text()).unwrap_or_else(|| Tid::from_uuid_bytes([1; 16])),
    }
}

fn text(source: &mut Source<'_>) -> Arc<str> {
    source.text().into()
}
