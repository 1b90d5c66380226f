//! What a cascade must show, on hand-made records.

use std::sync::Arc;
use std::time::Duration;

use ponos_core::envelope::{ErrorClass, GaveUpReason, Phase};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{AttemptEnd, AttemptRecord, PublishedRecord, Record, What};
use ponos_core::name::{AppName, QueueName};
use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Timestamp {
    // 2026-10-05 12:03:11.402 UTC.
    Timestamp::from_millis(1_791_201_791_402 + millis)
}

fn record(millis: u64, message: u8, what: What) -> Record {
    Record {
        at: at(millis),
        tid: Tid::from_foreign("0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17").unwrap(),
        message: MessageId::from_bytes([message; 16]),
        what,
    }
}

/// A published message; a name without an application in front is an event's.
fn published(millis: u64, id: u8, name: &str, from: Option<(u8, &str)>, queues: u32) -> Record {
    let event = !["cream.", "pheidi."].iter().any(|app| name.starts_with(app));
    record(
        millis,
        id,
        What::Published(PublishedRecord {
            name: name.into(),
            event,
            app: Some(AppName::parse("cream").unwrap()),
            cause: from.map(|(cause, _)| MessageId::from_bytes([cause; 16])),
            by: from.map(|(_, queue)| queue.into()).filter(|queue: &Arc<str>| !queue.is_empty()),
            queues,
            hops: 0,
            size: 0,
        }),
    )
}

fn attempt(millis: u64, id: u8, queue: &str, number: u32, took: u64, end: AttemptEnd) -> Record {
    let failed = matches!(end, AttemptEnd::Retry { .. } | AttemptEnd::GaveUp { .. });
    record(
        millis + took,
        id,
        What::Attempt(AttemptRecord {
            attempt: number,
            took: Duration::from_millis(took),
            error: failed.then(|| "connection refused\ncaused by: nobody there".into()),
            ..AttemptRecord::first(QueueName::parse(queue).unwrap(), Phase::Run, at(millis), end)
        }),
    )
}

fn recovery(millis: u64, id: u8, queue: &str, end: AttemptEnd) -> Record {
    let mut record = attempt(millis, id, queue, 1, 1, end);
    if let What::Attempt(attempt) = &mut record.what {
        attempt.phase = Phase::Recover;
    }
    record
}

fn retry(class: ErrorClass, due: u64) -> AttemptEnd {
    AttemptEnd::Retry { class, due: at(due) }
}

const GAVE_UP: AttemptEnd =
    AttemptEnd::GaveUp { class: ErrorClass::Timeout, reason: GaveUpReason::Exhausted };

const fn failed(recovered: bool) -> AttemptEnd {
    AttemptEnd::Failed { reason: GaveUpReason::Exhausted, recovered }
}

/// The payment of the module's example.
fn payment() -> Vec<Record> {
    vec![
        published(0, 1, "cream.payment.process", None, 1),
        attempt(2, 1, "cream.payment.process", 1, 10, AttemptEnd::Done),
        published(12, 2, "org.payment.processed", Some((1, "cream.payment.process")), 1),
        attempt(15, 2, "pheidi.org.payment.processed", 1, 1, AttemptEnd::Done),
        published(16, 3, "pheidi.email.send", Some((2, "pheidi.org.payment.processed")), 1),
        attempt(20, 3, "pheidi.email.send", 1, 500, retry(ErrorClass::Timeout, 1520)),
        attempt(1530, 3, "pheidi.email.send", 2, 20, retry(ErrorClass::Error, 3550)),
        attempt(3560, 3, "pheidi.email.send", 3, 30, AttemptEnd::Done),
        published(3590, 4, "email.sent", Some((3, "pheidi.email.send")), 0),
    ]
}

const PAYMENT: &str = "\
▸ cream.payment.process — done
└ ◇ org.payment.processed
  └ pheidi → on org.payment.processed — done
    └ ▸ pheidi.email.send — done, attempt 3 (timeout, error)
      └ ◇ email.sent — nobody listens";

fn shown(records: Vec<Record>) -> String {
    Cascade::from_records(records).to_string()
}

#[test]
fn a_cascade_reads_as_a_tree() {
    let cascade = Cascade::from_records(payment());
    assert_eq!(cascade.to_string(), PAYMENT);
    assert_eq!(cascade.outcome(), CascadeOutcome::Done);
    assert_eq!(cascade.tid().unwrap().short(), "4e2a9d17");
    assert_eq!(cascade.roots().count(), 1);
    assert_eq!(cascade.jobs().count(), 3);
    let email = cascade.find("pheidi.email.send").unwrap();
    assert_eq!(email.state(), Some(JobState::Done));
    assert_eq!(email.jobs().next().unwrap().attempts().len(), 3);
    assert_eq!(email.parent().unwrap().name(), Some("org.payment.processed"));
    assert!(cascade.find("email.sent").unwrap().is_unheard());
}

#[test]
fn no_records_make_an_empty_cascade() {
    let cascade = Cascade::from_records(Vec::new());
    assert_eq!((cascade.to_string().as_str(), cascade.tid()), ("", None));
    assert_eq!(cascade.outcome(), CascadeOutcome::Empty);
    assert_eq!(cascade.render(options()), "no records\n");
}

#[test]
fn queues_without_an_attempt_are_not_yet_done() {
    let mut records = payment();
    records.truncate(4);
    if let What::Published(event) = &mut records[2].what {
        event.queues = 3;
    }
    records.push(published(16, 3, "pheidi.email.send", Some((2, "pheidi.org.payment.processed")), 1));
    let cascade = Cascade::from_records(records);
    assert_eq!(
        cascade.to_string(),
        "\
▸ cream.payment.process — done
└ ◇ org.payment.processed
  ├ pheidi → on org.payment.processed — done
  │ └ ▸ pheidi.email.send — not yet
  └ 2 not yet"
    );
    assert_eq!(cascade.outcome(), CascadeOutcome::Pending);
    assert_eq!(cascade.tally().not_yet, 3);
    assert_eq!(cascade.find("org.payment.processed").unwrap().not_yet(), 2);
    assert_eq!(cascade.find("pheidi.email.send").unwrap().not_yet(), 1);
}

#[test]
fn each_end_of_a_job_has_its_words() {
    let queue = "cream.payment.process";
    let cases: Vec<(Vec<Record>, JobState, &str)> = vec![
        (
            vec![attempt(0, 1, queue, 1, 5, retry(ErrorClass::Panic, 1000))],
            JobState::Waiting { due: at(1000) },
            "retry due, attempt 1 (panic)",
        ),
        (
            vec![
                attempt(0, 1, queue, 1, 5, retry(ErrorClass::Snooze, 100)),
                attempt(100, 1, queue, 1, 5, AttemptEnd::Done),
            ],
            JobState::Done,
            "done, attempt 1 (snooze)",
        ),
        (
            vec![
                attempt(0, 1, queue, 1, 5, retry(ErrorClass::Timeout, 10)),
                attempt(10, 1, queue, 2, 5, GAVE_UP),
            ],
            JobState::Recovering,
            "recovery pending, attempt 2 (timeout ×2)",
        ),
        (
            vec![attempt(0, 1, queue, 1, 5, GAVE_UP), recovery(6, 1, queue, retry(ErrorClass::Error, 1000))],
            JobState::Recovering,
            "recovery pending, attempt 1 (timeout)",
        ),
        (
            vec![attempt(0, 1, queue, 1, 5, GAVE_UP), recovery(6, 1, queue, failed(true))],
            JobState::Failed { reason: GaveUpReason::Exhausted, recovered: true },
            "failed (exhausted), attempt 1 (timeout), recovered",
        ),
        (
            vec![attempt(
                0,
                1,
                queue,
                1,
                5,
                AttemptEnd::Failed { reason: GaveUpReason::TooOld, recovered: false },
            )],
            JobState::Failed { reason: GaveUpReason::TooOld, recovered: false },
            "failed (too old), not recovered",
        ),
        (
            vec![attempt(0, 1, queue, 1, 5, AttemptEnd::Lost)],
            JobState::Lost,
            "result came too late, attempt 1 (too late)",
        ),
        (vec![], JobState::NotYet, "not yet"),
    ];
    for (attempts, state, words) in cases {
        let mut records = vec![published(0, 1, queue, None, 1)];
        records.extend(attempts);
        let cascade = Cascade::from_records(records);
        assert_eq!(cascade.find(queue).unwrap().state(), Some(state));
        assert_eq!(cascade.to_string(), format!("▸ {queue} — {words}"));
    }
}

#[test]
fn attempts_are_ordered_by_number_where_clocks_disagree() {
    let queue = "cream.payment.process";
    // The host that recovered is 50 ms behind the host that gave up.
    let cascade = Cascade::from_records(vec![
        published(0, 1, queue, None, 1),
        attempt(120, 1, queue, 1, 5, GAVE_UP),
        recovery(80, 1, queue, failed(true)),
    ]);
    assert_eq!(cascade.outcome(), CascadeOutcome::Failed);
}

#[test]
fn a_failed_job_that_was_retried_by_hand_lives_again() {
    let queue = "cream.payment.process";
    let mut records = vec![
        published(0, 1, queue, None, 1),
        attempt(0, 1, queue, 1, 5, GAVE_UP),
        recovery(6, 1, queue, failed(false)),
        attempt(60_000, 1, queue, 1, 5, retry(ErrorClass::Error, 61_000)),
    ];
    let waiting = JobState::Waiting { due: at(61_000) };
    assert_eq!(Cascade::from_records(records.clone()).find(queue).unwrap().state(), Some(waiting));
    records.push(attempt(61_000, 1, queue, 2, 5, AttemptEnd::Done));
    assert_eq!(Cascade::from_records(records).outcome(), CascadeOutcome::Done);
}

#[test]
fn a_late_result_does_not_hide_the_attempt_that_replaced_it() {
    let queue = "cream.payment.process";
    let cascade = Cascade::from_records(vec![
        published(0, 1, queue, None, 1),
        attempt(0, 1, queue, 1, 100, AttemptEnd::Lost),
        attempt(50, 1, queue, 1, 5, retry(ErrorClass::Error, 900)),
    ]);
    assert_eq!(cascade.find(queue).unwrap().state(), Some(JobState::Waiting { due: at(900) }));
}

#[test]
fn a_message_published_twice_under_one_id_is_one() {
    let mut records = payment();
    records.push(published(40, 2, "org.payment.processed", Some((1, "cream.payment.process")), 0));
    records.extend(payment());
    assert_eq!(shown(records.clone()), PAYMENT);
    assert_eq!(Balance::from_records(&records), Balance::from_records(&payment()));
}

#[test]
fn missing_records_are_said_to_be_missing() {
    let without = |drop: &[usize]| {
        let keep = payment().into_iter().enumerate().filter(|(n, _)| !drop.contains(n));
        shown(keep.map(|(_, record)| record).collect())
    };
    // The event's publishing.
    assert_eq!(
        without(&[2]),
        "\
▸ cream.payment.process — done
? a message (its publishing is not recorded)
└ in pheidi.org.payment.processed — done
  └ ▸ pheidi.email.send — done, attempt 3 (timeout, error)
    └ ◇ email.sent — nobody listens"
    );
    // Everything about the event.
    assert_eq!(
        without(&[2, 3]),
        "\
▸ cream.payment.process — done
▸ pheidi.email.send — done, attempt 3 (timeout, error) (its cause is not recorded)
└ ◇ email.sent — nobody listens"
    );
    // The reaction's attempt: what it published shows that it ran.
    assert_eq!(
        without(&[3, 4, 5, 6, 7, 8]),
        "\
▸ cream.payment.process — done
└ ◇ org.payment.processed
  └ 1 not yet"
    );
    assert_eq!(
        without(&[3, 5, 6, 7, 8]),
        "\
▸ cream.payment.process — done
└ ◇ org.payment.processed
  └ pheidi → on org.payment.processed — its attempts are not recorded
    └ ▸ pheidi.email.send — not yet"
    );
}

#[test]
fn what_is_published_outside_a_handler_hangs_on_its_message() {
    let mut records = payment();
    records.truncate(2);
    records.push(published(12, 2, "card.charged", Some((1, "")), 0));
    assert_eq!(shown(records), "▸ cream.payment.process — done\n└ ◇ card.charged — nobody listens");
}

#[test]
fn siblings_stand_in_the_order_of_their_text() {
    let from = Some((1, "cream.payment.process"));
    let records = vec![
        published(0, 1, "cream.payment.process", None, 1),
        attempt(0, 1, "cream.payment.process", 1, 1, AttemptEnd::Done),
        published(9, 2, "pheidi.email.send", from, 1),
        published(3, 3, "pheidi.email.send", from, 1),
        attempt(4, 3, "pheidi.email.send", 1, 1, AttemptEnd::Done),
        published(7, 4, "email.sent", Some((3, "pheidi.email.send")), 0),
        published(1, 5, "org.payment.processed", from, 0),
    ];
    assert_eq!(
        shown(records),
        "\
▸ cream.payment.process — done
├ ◇ org.payment.processed — nobody listens
├ ▸ pheidi.email.send — done
│ └ ◇ email.sent — nobody listens
└ ▸ pheidi.email.send — not yet"
    );
}

#[test]
fn circles_and_long_chains_end() {
    let circle = vec![
        published(0, 1, "a.happened", Some((2, "")), 0),
        published(1, 2, "b.happened", Some((1, "")), 0),
        published(1, 3, "c.happened", Some((3, "")), 0),
        published(1, 4, "d.happened", Some((2, "")), 0),
    ];
    assert_eq!(
        shown(circle),
        "\
◇ a.happened — nobody listens (its cause is circular)
└ ◇ b.happened — nobody listens
  └ ◇ d.happened — nobody listens
◇ c.happened — nobody listens (its cause is circular)"
    );

    let id = |n: u32| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        MessageId::from_bytes(bytes)
    };
    let chain = (1..=50_000u32).map(|n| {
        let mut record = published(0, 0, "a.happened", (n > 1).then_some((0, "")), 1);
        record.message = id(n);
        if let What::Published(published) = &mut record.what {
            published.cause = (n > 1).then(|| id(n - 1));
        }
        record
    });
    let cascade = Cascade::from_records(chain.collect());
    let text = cascade.to_string();
    assert!(text.contains("(level 41) ◇ a.happened"), "{}", &text[..4000]);
    assert_eq!(cascade.render(options()).lines().count(), 100_002);
    assert_eq!(cascade.to_json()["messages"].as_array().unwrap().len(), 50_000);
}

#[test]
fn records_of_other_transactions_are_left_out() {
    let mut records = payment();
    let mut other = published(5, 9, "user.created", None, 0);
    other.tid = Tid::from_foreign("other").unwrap();
    records.insert(0, other);
    assert_eq!(shown(records.clone()), PAYMENT);
    let all: Vec<String> = Cascade::split(records).iter().map(ToString::to_string).collect();
    assert_eq!(all, [PAYMENT, "◇ user.created — nobody listens"]);
}

fn options() -> RenderOptions {
    RenderOptions { color: false, timing: true, width: 100, now: at(10_000) }
}

#[test]
fn a_terminal_sees_when_things_happened() {
    let picture = Cascade::from_records(payment()).render(options());
    let expected = "\
TID 0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17  done  started 12:03:11.402 UTC  3.5s

▸ cream.payment.process  done                █                             10ms
└ ◇ org.payment.processed
  └ pheidi → on org.payment.processed  done  █                             1.0ms
    └ ▸ pheidi.email.send  done, attempt 3   █████·······█··············█  3.5s
      │   1 timeout after 500ms, next due 1.0s later: connection refused
      │   2 error after 20ms, next due 2.0s later: connection refused
      │   3 done after 30ms
      └ ◇ email.sent  nobody listens
";
    assert_eq!(picture, expected, "\n{picture}");
    for width in [0, 40, 60, 72, 100, 200] {
        let picture = Cascade::from_records(payment()).render(RenderOptions { width, ..options() });
        let tid = picture.find('\n').unwrap();
        let longest = picture[tid..].lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= width.max(40), "{longest} > {width}\n{picture}");
    }
}

#[test]
fn a_terminal_sees_what_is_still_to_come() {
    let queue = "cream.payment.process";
    let records = vec![
        published(0, 1, queue, None, 1),
        attempt(0, 1, queue, 1, 5000, retry(ErrorClass::Timeout, 13_200)),
        published(0, 2, queue, None, 1),
        attempt(0, 2, queue, 1, 5000, GAVE_UP),
        published(0, 3, "org.payment.processed", None, 2),
    ];
    let picture = Cascade::from_records(records).render(RenderOptions { timing: false, ..options() });
    let expected = "\
TID 0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17  pending (4 of 4 jobs pending)

▸ cream.payment.process  recovery pending
    1 timeout, gave up (exhausted), recovery pending: connection refused
▸ cream.payment.process  retry due in 3.2s
    1 timeout, next due in 3.2s: connection refused
◇ org.payment.processed  by cream
└ 2 not yet
";
    assert_eq!(picture, expected, "\n{picture}");
}

#[test]
fn nothing_in_a_record_steers_the_terminal() {
    let evil = "x\x1b[2J\r\u{9b}31m\u{202e}\nline two";
    let mut records = payment();
    for record in &mut records {
        match &mut record.what {
            What::Published(published) => published.name = evil.into(),
            What::Attempt(attempt) => attempt.error = Some(evil.into()),
            _ => {}
        }
        if let What::Published(PublishedRecord { by: Some(by), .. }) = &mut record.what {
            *by = format!("{by}{evil}").into();
        }
    }
    let cascade = Cascade::from_records(records);
    for text in [cascade.to_string(), cascade.render(options())] {
        assert!(!text.contains(|c: char| c != '\n' && c.is_control()), "{text:?}");
        assert!(!text.contains('\u{202e}') && !text.contains("line two"), "{text:?}");
    }
    let colored = cascade.render(RenderOptions { color: true, ..options() });
    assert!(colored.contains("\x1b[2m") && !colored.contains("\x1b[2J"), "{colored:?}");
}

#[test]
fn the_json_has_its_documented_keys() {
    let json = Cascade::from_records(payment()).to_json();
    assert_eq!(json["version"], 1);
    assert_eq!(json["outcome"], "done");
    assert_eq!(json["ended"].as_u64().unwrap() - json["started"].as_u64().unwrap(), 3590);
    let email = &json["messages"][2];
    assert_eq!(email["name"], "pheidi.email.send");
    assert_eq!(
        (&email["kind"], &email["origin"], &email["depth"]),
        (&"task".into(), &"caused".into(), &2.into())
    );
    assert_eq!(email["cause"], json["messages"][1]["id"]);
    assert_eq!(email["by"], json["messages"][1]["jobs"][0]["queue"]);
    assert_eq!(email["jobs"][0]["state"], "done");
    assert_eq!(email["jobs"][0]["attempts"][0]["end"]["class"], "timeout");
    let keys: Vec<&String> = email.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "app",
            "by",
            "cause",
            "depth",
            "id",
            "jobs",
            "kind",
            "name",
            "not_yet",
            "origin",
            "published_at",
            "queues"
        ]
    );
}

#[test]
fn the_books_balance() {
    let balance = Balance::from_records(&payment());
    assert_eq!((balance.messages, balance.accepted, balance.done, balance.retries), (4, 3, 3, 2));
    assert_eq!(balance.lost(), 0);

    let queue = "cream.payment.process";
    let balance = Balance::from_records(&[
        published(0, 1, "a.happened", None, 5),
        attempt(0, 1, "a.a.happened", 1, 1, AttemptEnd::Done),
        attempt(0, 1, "b.a.happened", 1, 1, GAVE_UP),
        recovery(1, 1, "b.a.happened", failed(true)),
        attempt(0, 1, "c.a.happened", 1, 1, retry(ErrorClass::Snooze, 5)),
        attempt(0, 1, "d.a.happened", 1, 1, GAVE_UP),
        // Neither a job of an unknown message nor one too many makes up for a missing one.
        attempt(0, 2, queue, 1, 1, AttemptEnd::Done),
        published(0, 3, "b.happened", None, 0),
        attempt(0, 3, "a.b.happened", 1, 1, AttemptEnd::Done),
    ]);
    assert_eq!((balance.accepted, balance.done, balance.failed, balance.recovered), (5, 2, 1, 1));
    assert_eq!((balance.waiting, balance.recovering, balance.not_yet), (1, 1, 1));
    assert_eq!((balance.unpublished, balance.surplus, balance.retries), (1, 1, 0));
    assert_eq!(balance.lost(), 3);
}

/// Records out of a small world, so that causes, circles, duplicates and contradictions are frequent.
fn records() -> impl Strategy<Value = Vec<Record>> {
    const QUEUES: [&str; 4] = [
        "pheidi.org.payment.processed",
        "cream.org.payment.processed",
        "pheidi.email.send",
        "cream.payment.process",
    ];
    const NAMES: [&str; 4] =
        ["org.payment.processed", "email.sent", "pheidi.email.send", "cream.payment.process"];
    let from = prop::option::of((0u8..12, prop::option::of(0usize..4)));
    let published =
        (0u64..5, 0u8..10, 0usize..4, from, 0u32..4).prop_map(|(millis, id, name, from, queues)| {
            let from = from.map(|(cause, queue)| (cause, queue.map_or("", |n| QUEUES[n])));
            published(millis, id, NAMES[name], from, queues)
        });
    let end = prop_oneof![
        Just(AttemptEnd::Done),
        Just(retry(ErrorClass::Error, 9)),
        Just(retry(ErrorClass::Snooze, 5)),
        Just(GAVE_UP),
        any::<bool>().prop_map(failed),
        Just(AttemptEnd::Lost),
    ];
    let attempt = (0u64..5, 0u8..10, 0usize..4, 1u32..4, 0u64..3, end, any::<bool>()).prop_map(
        |(millis, id, queue, number, took, end, run)| {
            if run {
                attempt(millis, id, QUEUES[queue], number, took, end)
            } else {
                recovery(millis, id, QUEUES[queue], end)
            }
        },
    );
    prop::collection::vec(prop_oneof![published, attempt], 0..60)
}

fn everything(records: Vec<Record>) -> (String, String, String, Balance) {
    let balance = Balance::from_records(&records);
    let cascade = Cascade::from_records(records);
    (cascade.to_string(), cascade.render(options()), cascade.to_json().to_string(), balance)
}

proptest! {
    #[test]
    fn order_and_duplicates_change_nothing(
        (records, shuffled) in records().prop_flat_map(|records| {
            let twice: Vec<Record> = records.iter().chain(records.iter().step_by(2)).cloned().collect();
            (Just(records), Just(twice).prop_shuffle())
        })
    ) {
        prop_assert_eq!(everything(records), everything(shuffled));
    }

    #[test]
    fn nothing_is_invented_and_nothing_is_left_out(records in records()) {
        let cascade = Cascade::from_records(records.clone());
        everything(records.clone());
        let mut ids: Vec<_> = records.iter().map(|record| record.message).collect();
        ids.sort();
        ids.dedup();
        let mut shown: Vec<_> = cascade.nodes().map(|node| node.id()).collect();
        shown.sort();
        prop_assert_eq!(ids, shown);

        for node in cascade.nodes() {
            let publishing = |record: &&Record| record.message == node.id() && matches!(record.what, What::Published(_));
            prop_assert_eq!(node.name().is_some(), records.iter().any(|record| publishing(&record)));
            prop_assert!(node.parent().is_none_or(|parent| parent.children().any(|child| child.id() == node.id())));
        }
        for job in cascade.jobs() {
            for attempt in job.attempts() {
                let known = |record: &Record| record.message == job.message().id() && record.what == What::Attempt(attempt.clone());
                prop_assert!(records.iter().any(known));
            }
            let reason = match job.state() {
                JobState::NotYet => job.message().kind() == Kind::Task && job.message().name() == Some(job.queue()),
                JobState::Unrecorded => job.children().next().is_some(),
                _ => !job.attempts().is_empty(),
            };
            prop_assert!(reason, "{:?}", job);
        }
        let tally = cascade.tally();
        prop_assert_eq!(tally.total() - tally.not_yet, cascade.jobs().filter(|job| job.state() != JobState::NotYet).count() as u64);
    }
}
