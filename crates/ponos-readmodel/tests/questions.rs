//! What a read model answers.

mod common;

use common::*;
use ponos_core::id::Tid;
use ponos_core::journal::{AttemptEnd, Notice};
use ponos_readmodel::{TraceFilter, TraceOutcome};

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
