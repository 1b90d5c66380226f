//! A million records: how fast they are taken, how many bytes each needs, how long it takes to find one transaction.
//!
//! `cargo bench -p ponos-readmodel`; every figure it prints beside a limit is asserted.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ponos_core::envelope::{ErrorClass, Phase};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{
    AttemptEnd, AttemptRecord, Entry, Origin, PublishedRecord, Record, Said, What, encode,
};
use ponos_core::name::{AppName, QueueName};
use ponos_readmodel::{ReadModel, ReadModelOptions, TraceFilter, TraceOutcome};

const RECORDS: usize = 1_000_000;
const NOW: u64 = 1_795_416_600_000;

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tids = Vec::new();
    let entries = entries(&mut tids);
    let options = ReadModelOptions::new().clock(|| Timestamp::from_millis(NOW));
    let mut model = ReadModel::open(directory.path(), options.clone()).expect("a read model");

    let packed: usize = entries.chunks(500).map(|batch| encode(batch).len()).sum();
    let began = Instant::now();
    for page in entries.chunks(32 * 1024) {
        model.ingest(page, None).expect("taken");
    }
    let took = began.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = RECORDS as f64 / took.as_secs_f64();
    println!("taken        {RECORDS} records in {took:.2?}: {rate:.0}/s (wanted: 100000/s)");
    let again = Instant::now();
    assert_eq!(model.ingest(&entries[..32 * 1024], None).expect("taken"), 0);
    println!("taken again  32768 known records in {:.2?}", again.elapsed());

    let storage = model.storage().expect("figures");
    assert_eq!(storage.entries, RECORDS as u64);
    let each = storage.bytes / RECORDS as u64;
    println!("stored       {each} bytes a record; {} in the log's own form", packed / RECORDS);

    let asked: Vec<&Tid> = (0..1000).map(|n| &tids[n * 7919 % tids.len()]).collect();
    let worst = |what: &str, ask: &dyn Fn(&Tid)| {
        let mut times: Vec<Duration> = asked
            .iter()
            .map(|tid| {
                let began = Instant::now();
                ask(tid);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        let (p50, p95, max) = (times[500], times[950], times[999]);
        println!("{what}  p50 {p50:.2?}  p95 {p95:.2?}  max {max:.2?} (limit of p95: 5 ms)");
        assert!(p95 < Duration::from_millis(5), "{what} took {p95:?}");
    };
    worst("one by id  ", &|tid| assert_eq!(model.trace(tid).expect("read").records.len(), 5));
    worst("by its end ", &|tid| assert!(!model.find(&tid.short()).expect("read").is_empty()));

    let cold = Instant::now();
    let other = ReadModel::open(directory.path(), options).expect("a read model");
    assert_eq!(other.trace(&tids[77]).expect("read").records.len(), 5);
    println!("opened anew  and one by its id in {:.2?}", cold.elapsed());

    let timed = |what: &str, ask: &dyn Fn()| {
        let began = Instant::now();
        ask();
        println!("{what}  {:.2?}", began.elapsed());
    };
    timed("last 100   ", &|| {
        let filter = TraceFilter { limit: 100, ..TraceFilter::default() };
        assert_eq!(model.traces(&filter).expect("read").traces.len(), 100);
    });
    timed("none failed", &|| {
        let filter =
            TraceFilter { limit: 100, outcome: Some(TraceOutcome::Failed), ..TraceFilter::default() };
        assert_eq!(model.traces(&filter).expect("read").traces.len(), 0);
    });
    timed("names      ", &|| assert_eq!(model.names(Timestamp::EPOCH).expect("read").len(), 2));
    timed("followed by", &|| {
        assert_eq!(model.followed_by("org.payment.processed", 1000).expect("read").traces, 1000);
    });
}

/// Cascades of an event, two attempts at it, a task, and its attempt; as of three instances, interleaved by time.
fn entries(tids: &mut Vec<Tid>) -> Vec<Entry> {
    let origins: Vec<Arc<Origin>> = ["cream", "pheidi", "pheidi"]
        .into_iter()
        .zip(0..)
        .map(|(app, id)| {
            Arc::new(Origin {
                id: 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(id + 1),
                app: AppName::from_checked(app),
                version: Some("1.4.0".into()),
                host: format!("{app}-{id}/4711").into(),
                started: Timestamp::from_millis(NOW - 7_200_000),
            })
        })
        .collect();
    let (heard, sent) = ("pheidi.org.payment.processed", "pheidi.email.send");
    let mut random = 1u64;
    let mut drawn = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 16).to_le_bytes()
    };
    let mut ten = || {
        let mut bytes = [0; 10];
        bytes[..6].copy_from_slice(&drawn()[..6]);
        bytes[6..].copy_from_slice(&drawn()[..4]);
        bytes
    };
    let mut said: Vec<(Timestamp, usize, Record)> = Vec::with_capacity(RECORDS);
    for number in 0..RECORDS as u64 / 5 {
        // Some twenty cascades are under way at any time.
        let at = |after: u64| Timestamp::from_millis(NOW - 7_000_000 + number * 30 + after);
        let tid = Tid::new(at(0), ten());
        let (event, task) = (MessageId::new(at(0), ten()), MessageId::new(at(0), ten()));
        let worker = 1 + usize::try_from(number % 2).expect("0 or 1");
        let published = |name: &str, event, cause, by: Option<&str>| {
            What::Published(PublishedRecord {
                name: name.into(),
                event,
                app: Some(AppName::from_checked(if event { "cream" } else { "pheidi" })),
                cause,
                by: by.map(Into::into),
                queues: 1,
                hops: u32::from(!event),
                size: 412,
            })
        };
        let attempt = |queue, started: Timestamp, took, end| {
            What::Attempt(AttemptRecord {
                took: Duration::from_micros(took),
                ready: Some(Timestamp::from_millis(started.as_millis() - 3)),
                of: Some(5),
                error: matches!(end, AttemptEnd::Retry { .. }).then(|| "the provider took too long".into()),
                ..AttemptRecord::first(QueueName::from_checked(queue), Phase::Run, started, end)
            })
        };
        let again = AttemptEnd::Retry { class: ErrorClass::Timeout, due: at(400) };
        let took = 11_000 + number % 7919;
        for (after, who, message, what) in [
            (0, 0, event, published("org.payment.processed", true, None, None)),
            (35, worker, event, attempt(heard, at(15), took, again)),
            (440, worker, event, attempt(heard, at(410), took * 2, AttemptEnd::Done)),
            (441, worker, task, published(sent, false, Some(event), Some(heard))),
            (600, 3 - worker, task, attempt(sent, at(450), took * 3, AttemptEnd::Done)),
        ] {
            said.push((at(after), who, Record { at: at(after), tid: tid.clone(), message, what }));
        }
        tids.push(tid);
    }
    said.sort_by_key(|(at, who, _)| (*at, *who));
    let mut seqs = [0u64; 3];
    let mut numbered = |who: usize| {
        seqs[who] += 1;
        seqs[who] - 1
    };
    said.into_iter()
        .map(|(_, who, record)| Entry {
            origin: Arc::clone(&origins[who]),
            seq: numbered(who),
            said: Said::Record(record),
        })
        .collect()
}
