//! Whatever comes, in whatever order and however often: each entry counts once, and what is missing is known.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::*;
use ponos_core::id::{Tid, Timestamp};
use ponos_core::journal::{AttemptEnd, Entry, Notice, Position, Said};
use ponos_readmodel::{EntryCursor, EntryFilter, ReadModel};
use proptest::prelude::*;

const QUEUE: &str = "pheidi.org.payment.processed";
const ORIGINS: u64 = 3;
const EACH: u64 = 24;

fn tids() -> [Tid; 4] {
    [
        tid(1),
        tid(2),
        Tid::from_foreign("order-4711").expect("a test's own"),
        Tid::from_foreign("4711").expect("a test's own"),
    ]
}

/// The entry of a number: of all kinds, and over three segments.
fn entry(id: u64, seq: u64) -> Entry {
    let when = Timestamp::from_millis(NOW - 13 * 3_600_000 + seq * 32 * 60_000 + id * 7);
    let tid = &tids()[usize::try_from((seq + id) % 4).expect("a test's own")];
    let message = message(u8::try_from(seq).expect("a test's own"));
    match seq % 6 {
        0 => record(id, seq, when, tid, message, published("org.payment.processed", None, 1)),
        1 => record(id, seq, when, tid, message, attempt(QUEUE, when, retry(when))),
        2 => record(id, seq, when, tid, message, attempt(QUEUE, when, AttemptEnd::Done)),
        3 => beat(id, seq, when),
        4 => record(id, seq, when, tid, message, attempt(QUEUE, when, failed())),
        _ => Entry { origin: origin(id), seq, said: Said::Later(when) },
    }
}

/// What an entry is known by.
fn key(entry: &Entry) -> (u64, u64) {
    (entry.origin.id, entry.seq)
}

fn check(model: &ReadModel, given: &BTreeSet<(u64, u64)>) {
    let entries: Vec<Entry> = given.iter().map(|(id, seq)| entry(*id, *seq)).collect();
    for tid in tids() {
        let expected: BTreeMap<_, _> = entries
            .iter()
            .filter_map(|entry| match &entry.said {
                Said::Record(record) if record.tid == tid => Some((key(entry), record.clone())),
                _ => None,
            })
            .collect();
        let trace = model.trace(&tid).expect("a test's own");
        assert_eq!(trace.records.len(), expected.len());
        let found: BTreeMap<_, _> =
            trace.records.into_iter().map(|(origin, seq, record)| ((origin.id, seq), record)).collect();
        assert_eq!(found, expected);
        let summaries: Vec<_> = model.find(&tid.to_string()).expect("a test's own");
        let summary = summaries.iter().find(|it| it.tid == tid);
        assert_eq!(summary.map_or(0, |it| it.records), expected.len() as u64);
        let retried = expected.keys().filter(|(_, seq)| seq % 6 == 1).count();
        assert_eq!(summary.map_or(0, |it| it.retries), retried as u64);
    }
    let mut missing = BTreeSet::new();
    for id in 0..ORIGINS {
        let highest = given.iter().filter(|key| key.0 == id).map(|key| key.1).max();
        missing.extend((0..highest.unwrap_or(0)).map(|seq| (id, seq)).filter(|key| !given.contains(key)));
    }
    let mut gone = BTreeSet::new();
    for gap in model.gaps(Timestamp::EPOCH, Timestamp::from_millis(u64::MAX)).expect("a test's own") {
        for seq in gap.first..=gap.last {
            assert!(gone.insert((gap.origin.id, seq)), "gaps overlap");
        }
    }
    assert_eq!(gone, missing);
    let of_kind = |kind: u64| given.iter().filter(|(_, seq)| seq % 6 == kind).count() as u64;
    let queues = model.queues(Timestamp::EPOCH).expect("a test's own");
    let counts = queues.first().map(|(_, counts)| counts.clone()).unwrap_or_default();
    assert_eq!((counts.retried, counts.done, counts.failed), (of_kind(1), of_kind(2), of_kind(4)));
    assert_eq!((counts.took.count(), counts.wait.count()), (counts.attempts(), counts.attempts()));
    let names = model.names(Timestamp::EPOCH).expect("a test's own");
    let published: u64 = names.iter().flat_map(|name| &name.sources).map(|source| source.published).sum();
    assert_eq!(published, of_kind(0));
    let page = model.entries(EntryCursor::default(), &EntryFilter::default(), 10_000).expect("a test's own");
    let listed: Vec<_> = page.entries.iter().map(key).collect();
    assert_eq!(listed.len(), given.iter().filter(|(_, seq)| seq % 6 != 3 && seq % 6 != 5).count());
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len());
}

/// What `model.db` was before, as if the process had died after the segments were written and before it was.
fn as_before<T>(directory: &Path, during: impl FnOnce() -> T) -> T {
    let file = directory.join("model").join("model.db");
    let before = std::fs::read(&file).expect("a test's own");
    let value = during();
    for companion in ["model.db-wal", "model.db-shm"] {
        let _ = std::fs::remove_file(directory.join("model").join(companion));
    }
    std::fs::write(&file, before).expect("a test's own");
    value
}

#[derive(Debug, Clone)]
enum Step {
    Take(Vec<(u64, u64)>),
    Restart,
    /// Takes them and dies before all is written.
    Die(Vec<(u64, u64)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || proptest::collection::vec((0..ORIGINS, 0..EACH), 0..40);
    let step = prop_oneof![
        4 => some().prop_map(Step::Take),
        1 => Just(Step::Restart),
        2 => some().prop_map(Step::Die),
    ];
    proptest::collection::vec(step, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_order_loss_and_repetition_gives_what_was_given(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let mut model = model(directory.path());
        let mut given = BTreeSet::new();
        for step in steps {
            match step {
                Step::Take(keys) => {
                    let entries: Vec<Entry> = keys.iter().map(|(id, seq)| entry(*id, *seq)).collect();
                    let before = given.len();
                    given.extend(keys);
                    prop_assert_eq!(model.ingest(&entries, None).unwrap(), (given.len() - before) as u64);
                }
                Step::Restart => {
                    drop(model);
                    model = common::model(directory.path());
                }
                Step::Die(keys) => {
                    drop(model);
                    let entries: Vec<Entry> = keys.iter().map(|(id, seq)| entry(*id, *seq)).collect();
                    as_before(directory.path(), || {
                        common::model(directory.path()).ingest(&entries, None).unwrap();
                    });
                    model = common::model(directory.path());
                    // The place in the log was not stored, so they come again.
                    given.extend(keys);
                    model.ingest(&entries, None).unwrap();
                }
            }
        }
        check(&model, &given);
    }
}

#[test]
fn what_a_crash_brings_again_is_taken_from_the_log_and_not_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let keys: BTreeSet<(u64, u64)> =
        (0..ORIGINS).flat_map(|id| (0..EACH).map(move |seq| (id, seq))).collect();
    let log = Log { id: 5, ..Log::default() };
    let (early, late): (Vec<_>, Vec<_>) =
        keys.iter().map(|(id, seq)| entry(*id, *seq)).partition(|it| it.seq < 10);
    log.entries.lock().unwrap().extend(early.iter().cloned());
    drop(model(directory.path()));
    let died = as_before(directory.path(), || log.catch_up(&mut model(directory.path())));
    assert_eq!(died.new, early.len() as u64);
    let mut again = model(directory.path());
    assert_eq!(again.position().unwrap(), None);
    log.entries.lock().unwrap().extend(late);
    assert_eq!(log.catch_up(&mut again).new, keys.len() as u64);
    assert_eq!(again.position().unwrap(), Some(Position { log: 5, offset: keys.len() as u64 }));
    check(&again, &keys);
    let before = log.read.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(log.catch_up(&mut again).read, 0);
    assert_eq!(log.read.load(std::sync::atomic::Ordering::Relaxed), before, "what was read is read again");
}

#[test]
fn a_server_may_follow_a_log_from_any_thread() {
    fn can_move(_: &impl Send) {}
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    let log = Log::default();
    log.entries.lock().unwrap().extend((0..9).map(|seq| entry(0, seq)));
    let mut reader = log.reader(model.read_from().unwrap());
    let following = model.follow(&mut reader);
    can_move(&following);
    assert_eq!(now(following).unwrap().new, 9);
    log.entries.lock().unwrap().extend((9..12).map(|seq| entry(0, seq)));
    // The same reader goes on.
    assert_eq!(now(model.follow(&mut reader)).unwrap().read, 3);
    check(&model, &(0..12).map(|seq| (0, seq)).collect());
}

#[test]
fn another_log_is_read_from_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    let first = Log { id: 1, ..Log::default() };
    first.entries.lock().unwrap().extend((0..9).map(|seq| entry(0, seq)));
    first.catch_up(&mut model);
    let second = Log { id: 2, ..Log::default() };
    second.entries.lock().unwrap().extend((6..12).map(|seq| entry(0, seq)));
    let caught_up = second.catch_up(&mut model);
    assert_eq!((caught_up.read, caught_up.new), (6, 3));
    assert_eq!(model.position().unwrap(), Some(Position { log: 2, offset: 6 }));
    check(&model, &(0..12).map(|seq| (0, seq)).collect());
}

#[test]
fn two_that_use_one_directory_at_once_double_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let keys: BTreeSet<(u64, u64)> =
        (0..ORIGINS).flat_map(|id| (0..EACH).map(move |seq| (id, seq))).collect();
    let log = Log { id: 5, ..Log::default() };
    std::thread::scope(|scope| {
        let looking = |_| {
            let (log, path) = (&log, directory.path());
            scope.spawn(move || {
                let mut model = model(path);
                // Each reads on its own, and all that the log has in the end.
                while model.position().unwrap().is_none_or(|at| at.offset < ORIGINS * EACH) {
                    log.catch_up(&mut model);
                    model.trace(&tid(1)).unwrap();
                    std::thread::yield_now();
                }
            })
        };
        let threads: Vec<_> = (0..3).map(looking).collect();
        for (id, seq) in &keys {
            log.entries.lock().unwrap().push(entry(*id, *seq));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    check(&model(directory.path()), &keys);
}

#[test]
fn hostile_texts_are_texts() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    let names = ["'; DROP TABLE entry; --", "%_\\", "\0\u{202e}\u{1b}[2J", "", "a\u{0}b", "名前.済み"];
    for (name, seq) in names.iter().zip(0..) {
        model
            .ingest(&[record(1, seq, at(seq), &tid(1), message(1), published(name, None, 0))], None)
            .unwrap();
    }
    assert_eq!(model.trace(&tid(1)).unwrap().records.len(), names.len());
    for name in names {
        let filter = ponos_readmodel::TraceFilter { name: Some(name.into()), limit: 9, ..Default::default() };
        assert_eq!(model.traces(&filter).unwrap().traces.len(), 1, "{name:?}");
        assert_eq!(model.followed_by(name, 5).unwrap().traces, 1, "{name:?}");
        assert!(model.find(name).unwrap().is_empty(), "{name:?}");
    }
    assert_eq!(model.names(Timestamp::EPOCH).unwrap().len(), names.len());
    let far = Timestamp::from_millis(u64::MAX);
    model
        .ingest(
            &[record(u64::MAX, u64::MAX, far, &tid(2), message(2), published("x.done", None, u32::MAX))],
            None,
        )
        .unwrap();
    assert_eq!(model.trace(&tid(2)).unwrap().records.len(), 1);
    model.ingest(&[notice(9, 0, Timestamp::EPOCH, Notice::Bye)], None).unwrap();
}
