//! The journal beside the file: bounded, shared, and never in the way.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

mod support;

use std::time::{Duration, Instant};

use ponos_core::broker::Broker;
use ponos_core::id::{MessageId, Tid};
use ponos_core::journal::{JournalQuery, PublishedRecord, Record, What};
use ponos_sqlite::{SqliteBroker, SqliteOptions};
use support::*;

fn record(tid: &Tid) -> Record {
    Record {
        at: now(),
        tid: tid.clone(),
        message: MessageId::new(now(), random()),
        what: What::Published(PublishedRecord {
            name: "org.payment.processed".into(),
            event: true,
            app: None,
            cause: None,
            by: None,
            queues: 1,
        }),
    }
}

fn broker(path: &std::path::Path, records: u64) -> SqliteBroker {
    SqliteBroker::open(path, SqliteOptions::new().journal(Some(records))).unwrap()
}

#[tokio::test]
async fn records_are_found_by_their_transaction_and_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir.path().join("ponos.db"), 1000);
    let journal = broker.journal().unwrap();
    let tids: Vec<Tid> = (0..3).map(|_| Tid::new(now(), random())).collect();
    let records: Vec<Record> = (0..9).map(|n| record(&tids[n % 3])).collect();
    for record in &records {
        journal.append(record.clone());
    }
    let found = journal.read(JournalQuery::Tid(tids[1].clone())).await.unwrap();
    assert_eq!(found, [records[1].clone(), records[4].clone(), records[7].clone()]);
    assert_eq!(journal.read(JournalQuery::TidSuffix(tids[1].short())).await.unwrap(), found);
    assert_eq!(journal.read(JournalQuery::Last(2)).await.unwrap(), records[7..]);
    assert_eq!(journal.read(JournalQuery::TidSuffix("no-such".into())).await.unwrap(), []);
    broker.close().await.unwrap();
    journal.append(records[0].clone());
    assert_eq!(journal.dropped(), 1, "after the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stays_bounded_while_several_write() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let brokers: Vec<_> = (0..4).map(|_| broker(&file, 1000)).collect();
    let start = Instant::now();
    let writers = brokers.iter().map(|broker| {
        let journal = broker.journal().unwrap();
        std::thread::spawn(move || {
            let tid = Tid::new(now(), random());
            for _ in 0..3000 {
                journal.append(record(&tid));
            }
        })
    });
    writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
    let appended = start.elapsed();
    let mut dropped = 0;
    for broker in &brokers {
        let journal = broker.journal().unwrap();
        let last = journal.read(JournalQuery::Last(100_000)).await.unwrap();
        assert!(!last.is_empty() && last.len() <= 1000, "{}", last.len());
        dropped += journal.dropped();
    }
    eprintln!("12,000 records appended in {appended:?}, written in {:?}, {dropped} dropped", start.elapsed());
    assert!(appended < Duration::from_secs(2), "appending does not wait");
}

#[tokio::test]
async fn a_smaller_bound_is_reached_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let tid = Tid::new(now(), random());
    let large = broker(&file, 8000);
    for _ in 0..7000 {
        large.journal().unwrap().append(record(&tid));
    }
    assert_eq!(large.journal().unwrap().read(JournalQuery::Last(9000)).await.unwrap().len(), 7000);
    large.close().await.unwrap();
    let small = broker(&file, 10).journal().unwrap();
    for _ in 0..2 {
        small.append(record(&tid));
        assert_eq!(small.read(JournalQuery::Last(0)).await.unwrap(), []);
    }
    assert_eq!(small.read(JournalQuery::Last(9000)).await.unwrap().len(), 10);
}

#[tokio::test]
async fn a_journal_that_cannot_be_opened_keeps_nobody_from_working() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    std::fs::write(dir.path().join("ponos.db.journal"), "no database ".repeat(1000)).unwrap();
    let broker = ready(&file).await;
    assert!(broker.journal().is_none());
    assert!(broker.publish(tasks(1)).await[0].is_confirmed());
}
