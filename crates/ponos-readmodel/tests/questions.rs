//! What a read model answers.

mod common;

use common::*;
use ponos_core::id::Tid;
use ponos_core::journal::{AttemptEnd, CircuitNotice, CircuitPhase, LimitNotice, Notice, OrderNotice};
use ponos_core::name::QueueName;
use ponos_readmodel::{EntryCursor, EntryFilter, Since, TraceFilter, TraceOutcome};

const QUEUE: &str = "pheidi.org.payment.processed";

/// A transaction of an event, a retry and an end.
fn cascade(number: u8, from: u64, seq: u64, end: AttemptEnd) -> Vec<ponos_core::journal::Entry> {
    let (tid, id) = (Tid::new(at(from), [number; 10]), message(number));
    vec![
        record(1, seq, at(from), &tid, id, published("org.payment.processed", None, 1)),
        record(2, seq, at(from + 9), &tid, id, attempt(QUEUE, at(from + 2), retry(at(from + 50)))),
        record(2, seq + 1, at(from + 80), &tid, id, attempt(QUEUE, at(from + 60), end)),
    ]
}

#[test]
fn a_transaction_is_found_by_its_id_and_by_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    let entries = [cascade(7, 0, 0, AttemptEnd::Done), cascade(8, 100, 2, failed())].concat();
    assert_eq!(model.ingest(&entries, None).unwrap(), 6);
    let tid = Tid::new(at(0), [7; 10]);
    let trace = model.trace(&tid).unwrap();
    assert_eq!(trace.records.len(), 3);
    assert_eq!(trace.instances.len(), 2);
    for cut in [0, 10, 24, 28, 30] {
        let found = model.find(&tid.to_string()[cut..]).unwrap();
        assert_eq!(found.len(), 1, "{cut}");
        assert_eq!(found[0].tid, tid);
    }
    assert!(model.find("08080807").unwrap().is_empty());
    let summary = &model.find(&tid.short()).unwrap()[0];
    assert_eq!(summary.root.as_deref(), Some("org.payment.processed"));
    assert_eq!((summary.records, summary.failed, summary.retries, summary.pending), (3, 0, 1, 0));
    assert_eq!((summary.first_at, summary.last_at), (at(0), at(80)));
    assert_eq!(model.message(message(8)).unwrap().len(), 3);
    assert!(model.message(message(9)).unwrap().is_empty());
}

#[test]
fn lists_are_filtered_and_paged() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    for number in 0..9u8 {
        let end = if number % 3 == 0 { failed() } else { AttemptEnd::Done };
        let place = u64::from(number);
        model.ingest(&cascade(number, place * 1000, place * 2, end), None).unwrap();
    }
    let all = model.traces(&TraceFilter { limit: 100, ..TraceFilter::default() }).unwrap();
    assert_eq!(all.traces.len(), 9);
    assert!(all.traces.is_sorted_by(|a, b| a.first_at > b.first_at));
    assert_eq!(all.next, None);
    let mut paged = Vec::new();
    let mut filter = TraceFilter { limit: 2, ..TraceFilter::default() };
    loop {
        let page = model.traces(&filter).unwrap();
        paged.extend(page.traces);
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    assert_eq!(paged, all.traces);
    let count =
        |filter: TraceFilter| model.traces(&TraceFilter { limit: 100, ..filter }).unwrap().traces.len();
    let outcome = |outcome| TraceFilter { outcome: Some(outcome), ..TraceFilter::default() };
    assert_eq!(count(outcome(TraceOutcome::Failed)), 3);
    assert_eq!(count(outcome(TraceOutcome::Done)), 6);
    assert_eq!(count(outcome(TraceOutcome::Retried)), 9);
    assert_eq!(count(outcome(TraceOutcome::Pending)), 0);
    let named = |name: &str| TraceFilter { name: Some(name.into()), ..TraceFilter::default() };
    assert_eq!(count(named(QUEUE)), 9);
    assert_eq!(count(named("org.payment.processed")), 9);
    assert_eq!(count(named("org.payment.refunded")), 0);
    assert_eq!(count(TraceFilter { app: Some("cream".into()), ..named(QUEUE) }), 9);
    assert_eq!(count(TraceFilter { since: Some(at(6500)), ..TraceFilter::default() }), 2);
    assert_eq!(count(TraceFilter { until: Some(at(1500)), ..TraceFilter::default() }), 2);
    assert_eq!(model.last().unwrap().unwrap().first_at, at(8000));
    assert_eq!(model.last_failed().unwrap().unwrap().first_at, at(6000));
}

#[test]
fn instances_manifests_and_gaps_are_known() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    let hello = Notice::Hello { manifest: Some("{\"ponos_manifest\":1}".into()) };
    model
        .ingest(
            &[notice(1, 0, at(0), hello), beat(1, 1, at(5000)), beat(1, 7, at(40_000)), beat(2, 3, at(9))],
            None,
        )
        .unwrap();
    let instances = model.instances().unwrap();
    assert_eq!(instances.len(), 2);
    assert_eq!((instances[0].origin.id, instances[0].lost, instances[0].hello_at), (1, 5, Some(at(0))));
    assert_eq!(instances[0].beat.as_ref().unwrap().0, at(40_000));
    assert!(!instances[0].is_silent(at(55_000)));
    assert!(instances[0].is_silent(at(55_001)));
    assert_eq!(instances[1].lost, 3);
    let manifests = model.manifests().unwrap();
    assert_eq!(manifests.len(), 1);
    assert_eq!(&*manifests[0].text, "{\"ponos_manifest\":1}");
    let gaps = model.gaps(at(6000), at(7000)).unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].first, gaps[0].last, gaps[0].after, gaps[0].before), (2, 6, at(5000), at(40_000)));
    // One that comes late splits it.
    model.ingest(&[beat(1, 4, at(20_000))], None).unwrap();
    let gaps = model.gaps(at(10), at(50_000)).unwrap();
    assert_eq!(gaps.iter().map(|gap| (gap.first, gap.last)).collect::<Vec<_>>(), [(2, 3), (5, 6)]);
    model.ingest(&[notice(1, 8, at(50_000), Notice::Bye)], None).unwrap();
    assert!(!model.instances().unwrap()[0].is_silent(at(500_000)));
}

#[test]
fn history_goes_on_where_it_was_left_and_sees_what_comes_late() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    // Over two segments.
    let hour = 3_600_000;
    for number in 0..4u8 {
        let place = u64::from(number);
        model.ingest(&cascade(number, place * hour / 2, place * 2, AttemptEnd::Done), None).unwrap();
    }
    let all = EntryFilter::default();
    let page = model.entries(EntryCursor::default(), &all, 5).unwrap();
    assert_eq!((page.entries.len(), page.end), (5, false));
    let rest = model.entries(page.next, &all, 100).unwrap();
    assert_eq!((rest.entries.len(), rest.end), (7, true));
    assert_eq!(model.cursor(Since::End).unwrap(), rest.next);
    assert_eq!(model.entries(rest.next, &all, 100).unwrap().entries.len(), 0);
    // Its time is long over; it is new all the same.
    model.ingest(&[record(3, 0, at(1), &tid(1), message(1), published("a.done", None, 0))], None).unwrap();
    let late = model.entries(rest.next, &all, 100).unwrap();
    assert_eq!(late.entries.len(), 1);
    assert_eq!(late.entries[0].origin.id, 3);
    let count = |since, filter: EntryFilter| {
        let cursor = model.cursor(since).unwrap();
        model.entries(cursor, &filter, 100).unwrap().entries.len()
    };
    assert_eq!(count(Since::Start, all.clone()), 13);
    assert_eq!(count(Since::Last(2), all.clone()), 2);
    assert_eq!(count(Since::Last(99), all.clone()), 13);
    assert_eq!(
        count(Since::Time(at(3 * hour / 2)), EntryFilter { since: Some(at(3 * hour / 2)), ..all.clone() }),
        3
    );
    assert_eq!(
        count(Since::Start, EntryFilter { name: Some("org.payment.processed".into()), ..all.clone() }),
        12
    );
    assert_eq!(count(Since::Start, EntryFilter { name: Some("pheidi.org.*".into()), ..all.clone() }), 8);
    assert_eq!(count(Since::Start, EntryFilter { app: Some("cream".into()), ..all.clone() }), 5);
    assert_eq!(count(Since::Start, EntryFilter { trouble: true, ..all.clone() }), 4);
    assert_eq!(count(Since::Start, EntryFilter { tid: Some(tid(1)), ..all }), 1);
}

#[test]
fn figures_say_who_published_what_and_what_became_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    for number in 0..4u8 {
        let end = if number == 0 { failed() } else { AttemptEnd::Done };
        let place = u64::from(number);
        model.ingest(&cascade(number, place * 1000, place * 2, end), None).unwrap();
    }
    let names = model.names(at(0)).unwrap();
    assert_eq!(names.len(), 1);
    assert_eq!((&*names[0].name, names[0].event), ("org.payment.processed", true));
    assert_eq!(names[0].sources.len(), 1);
    assert_eq!(names[0].sources[0].from.as_deref(), Some("cream"));
    assert_eq!((names[0].sources[0].published, names[0].sources[0].bytes), (4, 400));
    let (queue, counts) = &names[0].queues[0];
    assert_eq!(&**queue, QUEUE);
    assert_eq!((counts.done, counts.retried, counts.failed, counts.attempts()), (3, 4, 1, 8));
    let took = counts.took.p95().unwrap().as_millis();
    assert!((18..=22).contains(&took), "{took} ms");
    let wait = counts.wait.p50().unwrap().as_micros();
    assert!((4400..=5600).contains(&wait), "{wait} µs");
    let edges = model.edges(at(0)).unwrap();
    assert_eq!(edges.len(), 1);
    assert_eq!((edges[0].from.as_deref(), edges[0].to.as_deref()), (Some("cream"), Some(QUEUE)));
    assert_eq!((edges[0].published, edges[0].jobs, edges[0].failed), (4, 4, 1));
    assert!((edges[0].failed_share() - 0.25).abs() < 1e-9);
    assert!(model.names(at(7_200_000)).unwrap().is_empty());
}

#[test]
fn what_follows_a_name_is_what_it_caused() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    let mut seq = 0;
    let mut next = || {
        seq += 1;
        seq - 1
    };
    for number in 0..4u8 {
        let tid = Tid::new(at(u64::from(number)), [number; 10]);
        let ids: Vec<_> = (0..4).map(|place| message(number * 10 + place)).collect();
        let end = if number == 1 { failed() } else { AttemptEnd::Done };
        let mut entries = vec![
            record(1, next(), at(5), &tid, ids[0], published("org.created", None, 1)),
            // What comes before it, or beside it, does not follow it.
            record(1, next(), at(10), &tid, ids[1], published("org.payment.processed", Some(ids[0]), 1)),
            record(1, next(), at(11), &tid, ids[3], published("org.greeted", Some(ids[0]), 0)),
            record(1, next(), at(30), &tid, ids[1], attempt(QUEUE, at(20), end)),
        ];
        if number > 1 {
            entries.push(record(1, next(), at(35), &tid, ids[2], published("email.sent", Some(ids[1]), 0)));
        }
        model.ingest(&entries, None).unwrap();
    }
    let following = model.followed_by("org.payment.processed", 100).unwrap();
    assert_eq!((following.traces, following.failed, following.pending), (4, 1, 0));
    assert_eq!(following.names.len(), 1);
    let follower = &following.names[0];
    assert_eq!(
        (&*follower.name, follower.event, follower.steps, follower.traces),
        ("email.sent", true, 1, 2)
    );
    let settled = following.settled.quantile(1.0).unwrap().as_millis();
    assert!((22..=28).contains(&settled), "{settled} ms");
    assert_eq!(model.followed_by("org.created", 2).unwrap().traces, 2);
    assert_eq!(model.followed_by("org.created", 9).unwrap().pending, 4, "nobody was seen to take it");
    assert_eq!(model.followed_by("nothing.like-that", 9).unwrap().traces, 0);
}

#[test]
fn a_transaction_over_two_segments_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    let day = 24 * 3_600_000;
    let early = |millis: u64| ponos_core::id::Timestamp::from_millis(at(0).as_millis() - day + millis);
    let (tid, opaque) = (Tid::new(early(0), [7; 10]), Tid::from_foreign("order-1").unwrap());
    for (tid, number) in [(&tid, 1), (&opaque, 2)] {
        let entries = [
            record(number, 0, early(0), tid, message(1), published("org.payment.processed", None, 1)),
            record(number, 1, early(9), tid, message(1), attempt(QUEUE, early(5), failed())),
            record(number, 2, at(9), tid, message(1), attempt(QUEUE, at(5), failed())),
        ];
        model.ingest(&entries, None).unwrap();
        assert_eq!(model.trace(tid).unwrap().records.len(), 3);
    }
    for filter in [
        TraceFilter::default(),
        TraceFilter { outcome: Some(TraceOutcome::Failed), ..TraceFilter::default() },
        TraceFilter { name: Some("org.payment.processed".into()), ..TraceFilter::default() },
        TraceFilter { name: Some(QUEUE.into()), ..TraceFilter::default() },
    ] {
        let listed = model.traces(&TraceFilter { limit: 10, ..filter.clone() }).unwrap().traces;
        assert_eq!(listed.len(), 2, "{filter:?}");
        assert!(listed.iter().all(|it| it.records == 3 && it.failed == 2), "{filter:?} {listed:?}");
        assert_eq!(listed[0].root.as_deref(), Some("org.payment.processed"));
    }
    assert_eq!(model.find("order-1").unwrap().len(), 1);
}

#[test]
fn a_trace_knows_the_circuits_orders_and_limits_of_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    let queue = QueueName::from_checked(QUEUE);
    let circuit = |queues| {
        Notice::Circuit(CircuitNotice {
            circuit: "smtp".into(),
            queues,
            phase: CircuitPhase::Open,
            open_for: None,
            cause: "timeouts".into(),
        })
    };
    let order = Notice::Order(OrderNotice {
        target: QUEUE.into(),
        action: "pause".into(),
        stands: true,
        by: "me".into(),
        reason: "".into(),
        until: None,
    });
    model.ingest(&cascade(1, 60_000, 0, failed()), None).unwrap();
    model
        .ingest(
            &[
                notice(5, 0, at(59_000), circuit(vec![queue.clone()])),
                notice(5, 1, at(59_001), circuit(vec![QueueName::from_checked("pheidi.email.send")])),
                notice(5, 2, at(59_002), order),
                notice(5, 3, at(59_003), Notice::Limit(LimitNotice { queue, until: None })),
                notice(5, 9, at(60_020), Notice::Bye),
            ],
            None,
        )
        .unwrap();
    let trace = model.trace(&Tid::new(at(60_000), [1; 10])).unwrap();
    assert_eq!((trace.circuits.len(), trace.orders.len(), trace.limits.len()), (1, 1, 1));
    assert_eq!(trace.gaps.iter().map(|gap| (gap.origin.id, gap.entries())).collect::<Vec<_>>(), [(5, 5)]);
}
