use proptest::prelude::*;

use super::*;
use crate::envelope::{ErrorClass, GaveUpReason};
use crate::name::QueueName;

fn origin(id: u64) -> Arc<Origin> {
    Arc::new(Origin {
        id,
        app: AppName::from_checked("pheidi"),
        version: id.is_multiple_of(2).then(|| "1.2.3".into()),
        host: format!("host/{id}").into(),
        started: Timestamp::from_millis(1_767_268_991_000),
    })
}

fn at() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        4 => (1_767_268_991_000..1_767_269_991_000u64).prop_map(Timestamp::from_millis),
        1 => any::<u64>().prop_map(Timestamp::from_millis),
    ]
}

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![Just(Arc::from("org.payment.processed")), any::<String>().prop_map(Into::into)]
}

fn queue() -> impl Strategy<Value = QueueName> {
    prop_oneof![Just("pheidi.email.send"), Just("pheidi.org.payment.processed")]
        .prop_map(QueueName::from_checked)
}

fn micros_of() -> impl Strategy<Value = Duration> {
    any::<u32>().prop_map(|micros| Duration::from_micros(micros.into()))
}

fn class() -> impl Strategy<Value = ErrorClass> {
    use ErrorClass::{Error, Lost, Panic, Snooze, Stop, Timeout, Undecodable};
    proptest::sample::select(vec![Error, Timeout, Panic, Stop, Undecodable, Lost, Snooze])
}

fn reason() -> impl Strategy<Value = GaveUpReason> {
    use GaveUpReason::{Exhausted, Poison, Stopped, TooOld, Undecodable};
    proptest::sample::select(vec![Exhausted, Stopped, TooOld, Undecodable, Poison])
}

fn end() -> impl Strategy<Value = AttemptEnd> {
    prop_oneof![
        Just(AttemptEnd::Done),
        Just(AttemptEnd::Lost),
        (class(), at()).prop_map(|(class, due)| AttemptEnd::Retry { class, due }),
        (class(), reason()).prop_map(|(class, reason)| AttemptEnd::GaveUp { class, reason }),
        (reason(), any::<bool>()).prop_map(|(reason, recovered)| AttemptEnd::Failed { reason, recovered }),
    ]
}

fn attempts() -> impl Strategy<Value = What> {
    let delay = proptest::option::of(proptest::sample::select(vec![
        DelayBy::Backoff,
        DelayBy::Handler,
        DelayBy::Snooze,
    ]));
    let head = (queue(), any::<u32>(), any::<bool>(), at(), micros_of(), end());
    let of = proptest::option::of(0..u32::MAX - 1);
    let tail = (proptest::option::of(text()), proptest::option::of(at()), of, delay, micros_of());
    (head, tail).prop_map(
        |((queue, attempt, recover, started, took, end), (error, ready, of, delay_by, held))| {
            let phase = if recover { Phase::Recover } else { Phase::Run };
            let fingerprint = error.clone();
            let record = AttemptRecord {
                queue,
                attempt,
                phase,
                started,
                took,
                end,
                error,
                ready,
                of,
                delay_by,
                fingerprint,
                held,
            };
            What::Attempt(record)
        },
    )
}

fn whats() -> impl Strategy<Value = What> {
    let id = || any::<[u8; 16]>().prop_map(MessageId::from_bytes);
    prop_oneof![
        (
            text(),
            any::<bool>(),
            proptest::option::of(id()),
            proptest::option::of(text()),
            any::<(u32, u32, u32)>()
        )
            .prop_map(|(name, event, cause, by, (queues, hops, size))| {
                let app = event.then(|| AppName::from_checked("cream"));
                What::Published(PublishedRecord { name, event, app, cause, by, queues, hops, size })
            }),
        (text(), any::<(bool, bool)>(), proptest::option::of(id()), text()).prop_map(
            |(name, (event, open), cause, error)| {
                What::Unpublished(UnpublishedRecord { name, event, cause, by: None, open, error })
            }
        ),
        attempts(),
        queue().prop_map(|queue| What::Duplicate { queue }),
        (queue(), any::<u32>()).prop_map(|(queue, losses)| What::Suspected { queue, losses }),
        (text(), queue(), proptest::option::of(text())).prop_map(|(by, queue, reason)| {
            What::ByHand(HandMade { verb: "retried".into(), queue, by, operation: reason.clone(), reason })
        }),
    ]
}

fn notices() -> impl Strategy<Value = Notice> {
    let tid = || any::<[u8; 16]>().prop_map(Tid::from_uuid_bytes);
    let id = || any::<[u8; 16]>().prop_map(MessageId::from_bytes);
    let phases =
        || proptest::sample::select(vec![CircuitPhase::Closed, CircuitPhase::Open, CircuitPhase::HalfOpen]);
    let beat = (
        proptest::collection::vec((queue(), any::<(u32, bool, bool)>(), proptest::option::of(at())), 0..3),
        proptest::collection::vec((id(), tid(), queue(), any::<u32>(), at()), 0..3),
        proptest::collection::vec((text(), phases()), 0..3),
    );
    prop_oneof![
        proptest::option::of(text()).prop_map(|manifest| Notice::Hello { manifest }),
        Just(Notice::Bye),
        (text(), proptest::collection::vec(queue(), 0..3), phases(), proptest::option::of(micros_of()))
            .prop_map(|(circuit, queues, phase, open_for)| {
                Notice::Circuit(CircuitNotice { cause: circuit.clone(), circuit, queues, phase, open_for })
            }),
        (text(), text(), any::<bool>(), proptest::option::of(at())).prop_map(
            |(target, by, stands, until)| {
                Notice::Order(OrderNotice {
                    target,
                    action: by.clone(),
                    stands,
                    reason: by.clone(),
                    by,
                    until,
                })
            }
        ),
        (queue(), proptest::option::of(at()))
            .prop_map(|(queue, until)| Notice::Limit(LimitNotice { queue, until })),
        beat.prop_map(|(queues, flights, circuits)| Notice::Beat(Beat {
            every_ms: 5000,
            dropped: 7,
            queues: queues
                .into_iter()
                .map(|(queue, (n, up, paused), last_delivery)| QueueBeat {
                    queue,
                    in_flight: n,
                    buffered: n / 2,
                    prefetch: n / 3,
                    up,
                    paused,
                    last_delivery,
                })
                .collect(),
            flights: flights
                .into_iter()
                .map(|(message, tid, queue, attempt, started)| Flight {
                    message,
                    tid,
                    queue,
                    attempt,
                    started
                })
                .collect(),
            circuits,
        })),
    ]
}

fn entries_of() -> impl Strategy<Value = Vec<Entry>> {
    let tid = prop_oneof![
        any::<[u8; 16]>().prop_map(Tid::from_uuid_bytes),
        "[a-z0-9.:_-]{1,128}".prop_map(|text| Tid::from_foreign(&text).expect("safe characters")),
    ];
    let record = (at(), tid, any::<[u8; 16]>(), whats()).prop_map(|(at, tid, id, what)| {
        Said::Record(Record { at, tid, message: MessageId::from_bytes(id), what })
    });
    let said = prop_oneof![
        4 => record,
        1 => (at(), notices()).prop_map(|(at, notice)| Said::Notice(at, notice)),
        1 => at().prop_map(Said::Later),
    ];
    let entry =
        (0..3u64, any::<u64>(), said).prop_map(|(id, seq, said)| Entry { origin: origin(id), seq, said });
    proptest::collection::vec(entry, 0..40)
}

proptest! {
    #[test]
    fn entries_survive_their_encoding(entries in entries_of()) {
        prop_assert_eq!(decode(&encode(&entries)).unwrap(), entries);
    }

    #[test]
    fn damaged_batches_are_errors_or_entries_and_never_a_panic(
        entries in entries_of(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        let mut bytes = encode(&entries);
        let place = at.index(bytes.len());
        bytes[place] ^= with;
        bytes.truncate(cut.index(bytes.len()) + 1);
        let _ = decode(&bytes);
    }

    #[test]
    fn rubbish_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        prop_assert!(decode(&[b"XX".as_slice(), &bytes].concat()).is_err());
    }
}

/// A few bytes that say they are gigabytes: nothing is made room for.
#[test]
fn a_batch_that_says_it_is_huge_is_refused() {
    for size in [u32::MAX, 1 << 30, u32::try_from(MAX_BATCH_BYTES).unwrap() + 1] {
        let bytes = [b"PJ", &[RECORD_VERSION, LZ4][..], &size.to_le_bytes(), b"\x00"].concat();
        assert_eq!(decode(&bytes).unwrap_err().0, "the batch of records is larger than any that is written");
    }
}

#[test]
fn a_later_versions_kind_is_skipped_and_not_lost() {
    let said = Said::Later(Timestamp::from_millis(9));
    let entries = vec![
        Entry { origin: origin(1), seq: 4, said: said.clone() },
        Entry { origin: origin(1), seq: 5, said: Said::Notice(Timestamp::from_millis(10), Notice::Bye) },
    ];
    assert_eq!(decode(&encode(&entries)).unwrap(), entries);
    let mut later = encode(&entries);
    later[2] = RECORD_VERSION + 1;
    assert!(decode(&later).unwrap_err().to_string().contains("update this program"));
}

/// A batch as version 1 wrote it, for ever readable: (tid 01…, message 02…, a published event).
#[test]
fn the_largest_numbers_are_read_back() {
    let queue = QueueName::from_checked("pheidi.email.send");
    let started = Timestamp::from_millis(1 << 63);
    let attempt = AttemptRecord {
        of: Some(u32::MAX),
        ready: Some(Timestamp::EPOCH),
        ..AttemptRecord::first(queue, Phase::Run, started, AttemptEnd::Done)
    };
    let message = MessageId::from_bytes([1; 16]);
    let record =
        Record { at: started, tid: Tid::from_uuid_bytes([2; 16]), message, what: What::Attempt(attempt) };
    let entry = Entry { origin: origin(1), seq: u64::MAX, said: Said::Record(record) };
    assert_eq!(decode(&encode(std::slice::from_ref(&entry))), Ok(vec![entry]));
}

#[test]
fn a_small_batch_cannot_claim_more_than_memory_holds() {
    let entry = Entry { origin: origin(1), seq: 0, said: Said::Later(Timestamp::EPOCH) };
    let plain = pack(encode(&[entry])[4..].to_vec());
    assert_eq!(decode(&plain).map(|entries| entries.len()), Ok(1));
    // Four zeros are an entry: the first origin, the next number, the same time, and nothing said.
    let claims = |entries: usize| decode(&pack([&plain[4..], &vec![0; 4 * entries]].concat()));
    assert_eq!(claims(MAX_ENTRIES - 1).map(|entries| entries.len()), Ok(MAX_ENTRIES));
    let bomb = pack([&plain[4..], &vec![0; 4 * MAX_ENTRIES]].concat());
    assert!(bomb.len() < 2048, "{} bytes", bomb.len());
    assert!(decode(&bomb).is_err());
    let texts = pack([&[0xff, 0xff, 0x3f][..], &vec![0; 1 << 20]].concat());
    assert!(decode(&texts).is_err(), "a million texts of no length");
}

#[test]
fn version_1_is_read_for_ever() {
    let entry = Entry {
        origin: Arc::new(Origin {
            id: 0x0102_0304_0506_0708,
            app: AppName::from_checked("cream"),
            version: None,
            host: "h/1".into(),
            started: Timestamp::from_millis(1000),
        }),
        seq: 3,
        said: Said::Record(Record {
            at: Timestamp::from_millis(2000),
            tid: Tid::from_uuid_bytes([1; 16]),
            message: MessageId::from_bytes([2; 16]),
            what: What::Published(PublishedRecord {
                name: "a.happened".into(),
                event: true,
                app: Some(AppName::from_checked("cream")),
                cause: None,
                by: None,
                queues: 2,
                hops: 0,
                size: 9,
            }),
        }),
    };
    let hex: String = encode(std::slice::from_ref(&entry)).iter().map(|byte| format!("{byte:02x}")).collect();
    let written = include_str!("version_1.hex").trim();
    assert_eq!(hex, written);
    let bytes: Vec<u8> =
        (0..written.len()).step_by(2).map(|n| u8::from_str_radix(&written[n..n + 2], 16).unwrap()).collect();
    assert_eq!(decode(&bytes).unwrap(), [entry]);
}

/// The cost on the wire that `docs/performance.md` names, with its command; here only that it stays compact.
#[test]
fn a_job_costs_few_bytes() {
    let entries: Vec<Entry> = (0..256u64)
        .map(|n| {
            let job = n / 2;
            let id = |salt: u64| {
                let mut bytes = [0; 16];
                let mut state =
                    (job + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xff51_afd7_ed55_8ccd);
                for byte in &mut bytes {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    *byte = state.to_le_bytes()[3];
                }
                bytes
            };
            let at = Timestamp::from_millis(1_767_268_991_000 + n);
            let what = if n % 2 == 0 {
                What::Published(PublishedRecord {
                    name: "pheidi.email.send".into(),
                    event: false,
                    app: Some(AppName::from_checked("pheidi")),
                    cause: Some(MessageId::from_bytes(id(3))),
                    by: Some("pheidi.org.payment.processed".into()),
                    queues: 1,
                    hops: 2,
                    size: 256,
                })
            } else {
                What::Attempt(AttemptRecord {
                    queue: QueueName::from_checked("pheidi.email.send"),
                    attempt: 1,
                    phase: Phase::Run,
                    started: at,
                    took: Duration::from_micros(180),
                    end: AttemptEnd::Done,
                    error: None,
                    ready: Some(at),
                    of: Some(11),
                    delay_by: None,
                    fingerprint: None,
                    held: Duration::ZERO,
                })
            };
            let record =
                Record { at, tid: Tid::from_uuid_bytes(id(1)), message: MessageId::from_bytes(id(2)), what };
            Entry { origin: origin(1), seq: n, said: Said::Record(record) }
        })
        .collect();
    let each = encode(&entries).len() / entries.len();
    assert!(each <= 48, "{each} bytes a record");
}
