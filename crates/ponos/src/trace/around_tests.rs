//! Trees with what is known around them: the future, the gaps, what held jobs back; and two trees side by side.

use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::QueueStats;
use ponos_core::envelope::{ErrorClass, GaveUpReason, Phase};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{AttemptEnd, AttemptRecord, Flight, Origin, PublishedRecord, Record, What};
use ponos_core::name::{AppName, QueueName};
use proptest::prelude::*;

use super::*;

const START: u64 = 1_767_268_991_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

fn tid() -> Tid {
    Tid::new(at(0), [7; 10])
}

fn origin(app: &str) -> Arc<Origin> {
    let version = (app == "pheidi").then(|| "2.4.1".into());
    Arc::new(Origin {
        id: 1,
        app: AppName::parse(app).unwrap(),
        version,
        host: format!("{app}-1/7").into(),
        started: at(0),
    })
}

fn record(millis: u64, id: u8, what: What) -> Record {
    Record { at: at(millis), tid: tid(), message: MessageId::from_bytes([id; 16]), what }
}

fn published(millis: u64, id: u8, name: &str, from: Option<(u8, &str)>, queues: u32) -> Record {
    let event = !["cream.", "pheidi.", "metrics."].iter().any(|app| name.starts_with(app));
    let what = PublishedRecord {
        name: name.into(),
        event,
        app: Some(AppName::from_checked("cream")),
        cause: from.map(|(cause, _)| MessageId::from_bytes([cause; 16])),
        by: from.map(|(_, queue)| queue.into()),
        queues,
        hops: 0,
        size: 0,
    };
    record(millis, id, What::Published(what))
}

fn attempt(millis: u64, id: u8, queue: &str, number: u32, took: u64, end: AttemptEnd) -> Record {
    let what = AttemptRecord {
        attempt: number,
        took: Duration::from_millis(took),
        error: matches!(end, AttemptEnd::Retry { .. }).then(|| "connection refused".into()),
        ..AttemptRecord::first(QueueName::parse(queue).unwrap(), Phase::Run, at(millis), end)
    };
    record(millis + took, id, What::Attempt(what))
}

const PAY: &str = "cream.invoice.pay";
const HEARD: &str = "pheidi.org.payment.processed";
const SEND: &str = "pheidi.email.send";

fn payment() -> Vec<Record> {
    vec![
        published(0, 1, PAY, None, 1),
        attempt(2, 1, PAY, 1, 10, AttemptEnd::Done),
        published(12, 2, "org.payment.processed", Some((1, PAY)), 2),
        attempt(15, 2, HEARD, 1, 1, AttemptEnd::Done),
        published(16, 3, SEND, Some((2, HEARD)), 1),
        attempt(20, 3, SEND, 1, 500, AttemptEnd::Retry { class: ErrorClass::Timeout, due: at(1520) }),
    ]
}

fn around(now: u64) -> Surroundings {
    let listener = |queue: &str| Listener {
        event: "org.payment.processed".into(),
        queue: QueueName::parse(queue).unwrap(),
        since: at(0),
    };
    Surroundings {
        listeners: vec![listener(HEARD), listener("metrics.org.payment.processed")],
        counted: true,
        now: at(now),
        ..Surroundings::default()
    }
}

fn tree(records: Vec<Record>, around: Surroundings) -> Cascade {
    let by = |record: &Record| match &record.what {
        What::Attempt(attempt) => Some(origin(attempt.queue.app().as_str())),
        _ => Some(origin("cream")),
    };
    Cascade::from_entries(records.into_iter().map(|record| (by(&record), record)).collect(), around)
}

fn picture(cascade: &Cascade, now: u64) -> String {
    cascade.render(RenderOptions { color: false, timing: true, width: 110, now: at(now) })
}

#[test]
fn a_queue_that_hears_and_has_done_nothing_is_named_with_its_figures() {
    let mut around = around(1000);
    around.queues.push(QueueStats {
        queue: QueueName::parse("metrics.org.payment.processed").unwrap(),
        ready: 1204,
        delayed: None,
        unsettled: None,
        consumers: 0,
        oldest: Some(at(0)),
    });
    let cascade = tree(payment(), around);
    let picture = picture(&cascade, 1000);
    assert!(picture.contains("metrics → on org.payment.processed  not yet"), "{picture}");
    let figures = "⋯ queue metrics.org.payment.processed: 1204 ready, oldest 1.0s, nobody works it";
    assert!(picture.contains(figures), "{picture}");
    assert_eq!(cascade.tally().not_yet, 1);
}

#[test]
fn where_the_broker_has_counted_more_candidates_than_queues_are_no_knowledge() {
    let mut around = around(1000);
    for queue in ["one", "two"] {
        let queue = QueueName::parse(&format!("{queue}.org.payment.processed")).unwrap();
        around.listeners.push(Listener { event: "org.payment.processed".into(), queue, since: at(0) });
    }
    let text = tree(payment(), around.clone()).to_string();
    assert!(text.contains("└ 1 not yet") && !text.contains("metrics"), "{text}");
    around.counted = false;
    let text = tree(payment(), around).to_string();
    assert!(text.contains("metrics → on") && text.contains("one → on"), "{text}");
}

#[test]
fn who_listens_since_later_has_not_heard_it() {
    let mut around = around(1000);
    around.listeners[1].since = at(500);
    let text = tree(payment(), around).to_string();
    assert!(text.contains("└ 1 not yet") && !text.contains("metrics"), "{text}");
}

#[test]
fn an_open_circuit_is_shown_where_it_held_a_job_and_is_no_attempt() {
    let mut records = payment();
    records.push(attempt(31_600, 3, SEND, 2, 20, AttemptEnd::Done));
    if let What::Attempt(attempt) = &mut records[6].what {
        attempt.ready = Some(at(1520));
    }
    let hold = |why: &str, from, until| Hold {
        queues: vec![QueueName::parse(SEND).unwrap()],
        why: why.into(),
        from: at(from),
        until,
    };
    let mut around = around(60_000);
    around.holds = vec![
        hold("circuit smtp open (8 of 10 attempts failed)", 1000, Some(at(31_520))),
        hold("circuit smtp open (8 of 10 attempts failed)", 1500, Some(at(30_000))),
        hold("paused by ana", 40_000, None),
    ];
    let cascade = tree(records, around);
    let picture = picture(&cascade, 60_000);
    let held = "– held 30.0s: circuit smtp open (8 of 10 attempts failed) — not an attempt";
    assert_eq!(picture.matches("held").count(), 1, "{picture}");
    let (first, second) = (picture.find("1 timeout").unwrap(), picture.find("2 done").unwrap());
    let place = picture.find(held).unwrap_or_else(|| panic!("{picture}"));
    assert!(first < place && place < second, "{picture}");
}

#[test]
fn what_runs_and_what_died_with_its_instance_are_told_apart() {
    let flight = |alive| InFlight {
        flight: Flight {
            message: MessageId::from_bytes([3; 16]),
            tid: tid(),
            queue: QueueName::parse(SEND).unwrap(),
            attempt: 2,
            started: at(2000),
        },
        origin: origin("pheidi"),
        seen: at(3000),
        alive,
    };
    let mut known = around(5000);
    known.flights = vec![flight(true)];
    let cascade = tree(payment(), known.clone());
    assert_eq!(cascade.find(SEND).unwrap().state(), Some(JobState::Running { since: at(2000) }));
    let text = picture(&cascade, 5000);
    assert!(text.contains("running for 3.0s") && text.contains("attempt 2 runs on pheidi-1/7"), "{text}");
    known.flights = vec![flight(false)];
    let cascade = tree(payment(), known);
    assert_eq!(cascade.find(SEND).unwrap().state(), Some(JobState::Waiting { due: at(1520) }));
    let text = picture(&cascade, 5000);
    assert!(
        text.contains("attempt 2 ran on pheidi-1/7") && text.contains("lost with its instance"),
        "{text}"
    );
}

fn gap(app: &str, from: u64, until: u64) -> Gap {
    Gap { origin: origin(app), count: 37, after: at(from), before: at(until) }
}

#[test]
fn where_records_were_lost_nothing_is_said_to_be_open() {
    let mut known = around(60_000);
    known.gaps = vec![gap("pheidi", 20_000, 21_000)];
    let cascade = tree(payment(), known.clone());
    assert_eq!(cascade.find(SEND).unwrap().state(), Some(JobState::Unknown));
    let text = picture(&cascade, 60_000);
    assert!(text.contains("not known: records were lost"), "{text}");
    assert!(text.contains("⋯ 37 records of pheidi on pheidi-1/7 lost between"), "{text}");
    // Another application's loss does not hide this one's attempts; what was lost before they could be does not either.
    known.gaps = vec![gap("big-poppa", 20_000, 21_000)];
    assert!(matches!(
        tree(payment(), known.clone()).find(SEND).unwrap().state(),
        Some(JobState::Waiting { .. })
    ));
    known.gaps = vec![gap("pheidi", 0, 1000)];
    let late = vec![published(60_000, 3, SEND, None, 1)];
    assert_eq!(tree(late, known).find(SEND).unwrap().state(), Some(JobState::NotYet));
}

#[test]
fn attempts_that_are_not_recorded_are_missed() {
    let mut records = payment();
    records[5] = attempt(31_600, 3, SEND, 3, 20, AttemptEnd::Done);
    let text = tree(records, Surroundings::default()).to_string();
    assert!(text.contains("done, attempt 3 (not all of its attempts are recorded)"), "{text}");
}

#[test]
fn two_transactions_are_compared_by_names_and_not_by_time() {
    let mut good = payment();
    good[5] = attempt(20, 3, SEND, 1, 310, AttemptEnd::Done);
    good.push(published(330, 4, "org.receipt.emailed", Some((3, SEND)), 0));
    let failed = AttemptEnd::Failed { reason: GaveUpReason::Exhausted, recovered: true };
    let mut bad = payment();
    bad.push(attempt(1520, 3, SEND, 2, 20, failed));
    let (good, bad) = (tree(good, Surroundings::default()), tree(bad, Surroundings::default()));
    let diff = good.diff(&bad);
    let told: Vec<_> = diff.lines.iter().map(|line| (line.path.as_str(), line.alike)).collect();
    let root = "cream.invoice.pay → org.payment.processed";
    let heard = format!("{root} → pheidi.org.payment.processed");
    assert_eq!(
        told,
        [
            ("cream.invoice.pay", true),
            (root, true),
            (heard.as_str(), true),
            (&format!("{heard} → pheidi.email.send"), false),
            (&format!("{heard} → pheidi.email.send → org.receipt.emailed"), false),
        ]
    );
    assert_eq!(diff.first, Some(3));
    let sides = &diff.lines[3];
    assert_eq!(sides.a.as_ref().unwrap().status, "done");
    assert_eq!(sides.b.as_ref().unwrap().error.as_deref(), Some("connection refused"));
    assert_eq!(sides.b.as_ref().unwrap().version.as_deref(), Some("2.4.1"));
    assert!(diff.lines[4].b.is_none());
    assert!(good.diff(&good).is_empty());
    let back = bad.diff(&good);
    assert_eq!(back.lines.len(), 5, "what only the other has is told too");
    assert!(back.lines[4].a.is_none());
}

#[test]
fn a_flowchart_has_an_arrow_for_each_cause_and_no_syntax_from_names() {
    let mut records = payment();
    records.push(published(20, 9, "x\"]; click m0 \"javascript:alert(1)\" %%<b>", Some((1, PAY)), 0));
    let chart = tree(records, Surroundings::default()).to_mermaid();
    assert!(chart.starts_with("flowchart TD\n"), "{chart}");
    assert_eq!(chart.matches("-->").count(), 5, "{chart}");
    assert!(!chart.contains("\"]; click") && !chart.contains("<b>"), "{chart}");
    assert!(chart.lines().all(|line| line.matches('"').count() % 2 == 0), "{chart}");
}

/// A system of three applications: who hears what, for [`grow`].
fn grow(seed: u64) -> Vec<(Arc<Origin>, Record)> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut roll = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    let apps = ["cream", "pheidi", "metrics"].map(origin);
    let of = |queue: &str| apps.iter().find(|origin| queue.starts_with(origin.app.as_str())).unwrap();
    let mut out = vec![(Arc::clone(&apps[0]), published(0, 1, PAY, None, 1))];
    let mut open: Vec<(u8, String, u64)> = vec![(1, PAY.into(), 1)];
    let mut next = 2u8;
    while let Some((id, queue, mut millis)) = open.pop() {
        let origin = of(&queue);
        let mut number = 1;
        while roll(3) == 0 && number < 4 {
            let due = at(millis + 100);
            let end = AttemptEnd::Retry { class: ErrorClass::Error, due };
            out.push((Arc::clone(origin), attempt(millis, id, &queue, number, 2, end)));
            (number, millis) = (number + 1, millis + 110);
        }
        match roll(8) {
            0 => continue,
            1 => {
                let failed = AttemptEnd::Failed { reason: GaveUpReason::Exhausted, recovered: false };
                out.push((Arc::clone(origin), attempt(millis, id, &queue, number, 2, failed)));
                continue;
            }
            _ => out.push((Arc::clone(origin), attempt(millis, id, &queue, number, 2, AttemptEnd::Done))),
        }
        for _ in 0..roll(3) {
            if next > 40 {
                break;
            }
            let child = next;
            next += 1;
            let millis = millis + 5;
            if roll(2) == 0 {
                let heard: Vec<String> =
                    ["pheidi", "metrics"].iter().map(|app| format!("{app}.org.payment.processed")).collect();
                let queues = roll(3);
                let record =
                    published(millis, child, "org.payment.processed", Some((id, &queue)), queues as u32);
                out.push((Arc::clone(origin), record));
                open.extend(heard.into_iter().take(queues as usize).map(|queue| (child, queue, millis + 1)));
            } else {
                let task = format!("{}.email.send", origin.app);
                out.push((Arc::clone(origin), published(millis, child, &task, Some((id, &queue)), 1)));
                open.push((child, task, millis + 1));
            }
        }
    }
    out
}

proptest! {
    /// One record in twenty is dropped, by the numbers of its origin, as a full buffer does it.
    #[test]
    fn with_records_dropped_nothing_is_invented_and_the_loss_is_told(
        seed in any::<u64>(), drops in proptest::collection::vec(0..20u8, 300)
    ) {
        let all = grow(seed);
        let now = 1_000_000;
        let truth = Cascade::from_entries(
            all.iter().map(|(by, record)| (Some(Arc::clone(by)), record.clone())).collect(),
            Surroundings { now: at(now), ..around(now) },
        );
        let dropped = |n: usize| drops.get(n).is_some_and(|roll| *roll == 0);
        let kept: Vec<_> = all.iter().enumerate().filter(|(n, _)| !dropped(*n)).map(|(_, entry)| entry).collect();
        let gaps: Vec<Gap> = all
            .iter()
            .enumerate()
            .filter(|(n, _)| dropped(*n))
            .map(|(_, (by, record))| Gap { origin: Arc::clone(by), count: 1, after: record.at, before: record.at })
            .collect();
        let lossy = Cascade::from_entries(
            kept.iter().map(|(by, record)| (Some(Arc::clone(by)), record.clone())).collect(),
            Surroundings { gaps: gaps.clone(), now: at(now), ..around(now) },
        );
        for node in lossy.nodes() {
            let real = truth.nodes().find(|real| real.id() == node.id());
            prop_assert!(real.is_some(), "a message that never was");
            let real = real.unwrap();
            if let Some(parent) = node.parent() {
                prop_assert_eq!(Some(parent.id()), real.parent().map(|parent| parent.id()));
            } else {
                prop_assert!(real.parent().is_none() || node.origin().is_gap());
            }
            for job in node.jobs() {
                let truly = real.job(job.queue());
                let known = matches!(job.state(), JobState::Done | JobState::Failed { .. } | JobState::Waiting { .. });
                if known {
                    prop_assert_eq!(truly.map(|job| job.state()), Some(job.state()), "{} of {:?}", job.queue(), node);
                }
                // "Not yet" is only said where it is so.
                if job.state() == JobState::NotYet {
                    prop_assert_eq!(truly.map(|job| job.state()), Some(JobState::NotYet));
                }
            }
        }
        if !gaps.is_empty() && !kept.is_empty() {
            let text = picture(&lossy, now);
            prop_assert!(text.contains("lost between") || text.contains("in "), "{}", text);
            prop_assert!(text.contains("⋯"), "{}", text);
            prop_assert_ne!(lossy.outcome(), CascadeOutcome::Done, "{}", text);
        }
    }
}
