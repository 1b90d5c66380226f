//! The journal beside the file: bounded, shared, and never in the way.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ponos_core::broker::Broker;
use ponos_core::id::{MessageId, Tid};
use ponos_core::journal::{
    Entry, From, Journal, JournalQuery, Origin, PublishedRecord, Record, Said, What, read,
};
use ponos_core::name::AppName;
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
            hops: 0,
            size: 9,
        }),
    }
}

/// An instance that tells a journal what it does.
struct Teller(Arc<Origin>, std::sync::atomic::AtomicU64);

impl Teller {
    fn new() -> Self {
        let (app, host) = (AppName::from_checked("unit"), "host/1".into());
        let id = u64::from_le_bytes(random()[..8].try_into().unwrap());
        Self(Arc::new(Origin { id, app, version: None, host, started: now() }), 0.into())
    }

    fn tell(&self, journal: &dyn Journal, record: Record) {
        let seq = self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        journal.append(Entry { origin: Arc::clone(&self.0), seq, said: Said::Record(record) });
    }
}

fn broker(path: &std::path::Path, records: u64) -> SqliteBroker {
    SqliteBroker::open(path, SqliteOptions::new().journal(Some(records))).unwrap()
}

#[tokio::test]
async fn records_are_found_by_their_transaction_and_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir.path().join("ponos.db"), 1000);
    let (journal, teller) = (broker.journal().unwrap(), Teller::new());
    let tids: Vec<Tid> = (0..3).map(|_| Tid::new(now(), random())).collect();
    let records: Vec<Record> = (0..9).map(|n| record(&tids[n % 3])).collect();
    for record in &records {
        teller.tell(&*journal, record.clone());
    }
    let found = read(&*journal, &JournalQuery::Tid(tids[1].clone())).await.unwrap();
    assert_eq!(found, [records[1].clone(), records[4].clone(), records[7].clone()]);
    assert_eq!(read(&*journal, &JournalQuery::TidSuffix(tids[1].short())).await.unwrap(), found);
    assert_eq!(read(&*journal, &JournalQuery::Last(2)).await.unwrap(), records[7..]);
    assert_eq!(read(&*journal, &JournalQuery::TidSuffix("no-such".into())).await.unwrap(), []);
    broker.close().await.unwrap();
    teller.tell(&*journal, records[0].clone());
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
            let (tid, teller) = (Tid::new(now(), random()), Teller::new());
            for _ in 0..3000 {
                teller.tell(&*journal, record(&tid));
            }
        })
    });
    writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
    let appended = start.elapsed();
    let mut dropped = 0;
    for broker in &brokers {
        // Behind what it was given before: all is written.
        let _end = broker.journal().unwrap().open(From::End).await.unwrap();
    }
    for broker in &brokers {
        let journal = broker.journal().unwrap();
        let last = read(&*journal, &JournalQuery::Last(100_000)).await.unwrap();
        assert!(!last.is_empty() && last.len() <= 1000 + 2048, "{}", last.len());
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
    let (teller, large) = (Teller::new(), broker(&file, 8000));
    for _ in 0..7000 {
        teller.tell(&*large.journal().unwrap(), record(&tid));
    }
    assert_eq!(read(&*large.journal().unwrap(), &JournalQuery::Last(9000)).await.unwrap().len(), 7000);
    large.close().await.unwrap();
    let small = broker(&file, 10).journal().unwrap();
    for _ in 0..2 {
        teller.tell(&*small, record(&tid));
        assert_eq!(read(&*small, &JournalQuery::Last(0)).await.unwrap(), []);
    }
    // The oldest batch that is kept holds more than the bound asks for.
    assert!(read(&*small, &JournalQuery::Last(9000)).await.unwrap().len() <= 10 + 2048);
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

#[tokio::test]
async fn a_reader_goes_on_where_it_was_and_begins_anew_in_another_log() {
    let dir = tempfile::tempdir().unwrap();
    let (teller, tid) = (Teller::new(), Tid::new(now(), random()));
    let first = broker(&dir.path().join("first.db"), 1000);
    let journal = first.journal().unwrap();
    for _ in 0..3 {
        teller.tell(&*journal, record(&tid));
    }
    let mut reader = journal.open(From::Start).await.unwrap();
    let numbers = |entries: Vec<Entry>| entries.iter().map(|entry| entry.seq).collect::<Vec<_>>();
    assert_eq!(numbers(reader.next().await.unwrap()), [0, 1, 2]);
    assert_eq!(numbers(reader.next().await.unwrap()), [0; 0]);
    let place = reader.position().unwrap();
    teller.tell(&*journal, record(&tid));
    assert_eq!(numbers(reader.next().await.unwrap()), [3]);
    let mut later = journal.open(From::After(place)).await.unwrap();
    assert_eq!(numbers(later.next().await.unwrap()), [3]);
    assert_eq!(later.position(), reader.position());
    let mut end = journal.open(From::End).await.unwrap();
    assert_eq!(numbers(end.next().await.unwrap()), [0; 0]);
    let second = broker(&dir.path().join("second.db"), 1000);
    let journal = second.journal().unwrap();
    teller.tell(&*journal, record(&tid));
    let mut other = journal.open(From::After(place)).await.unwrap();
    assert_eq!(numbers(other.next().await.unwrap()), [4], "the place was in another log");
}

#[tokio::test]
async fn a_journal_of_version_1_is_emptied_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let old = rusqlite::Connection::open(dir.path().join("ponos.db.journal")).unwrap();
    old.execute_batch(
        "PRAGMA application_id = 1349480010; PRAGMA user_version = 1;
         CREATE TABLE record (id INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER NOT NULL, tail TEXT NOT NULL,
           json TEXT NOT NULL) STRICT;
         INSERT INTO record VALUES (1, 1, 'x', '{}');",
    )
    .unwrap();
    drop(old);
    let broker = broker(&dir.path().join("ponos.db"), 1000);
    let (journal, teller, tid) = (broker.journal().unwrap(), Teller::new(), Tid::new(now(), random()));
    teller.tell(&*journal, record(&tid));
    assert_eq!(read(&*journal, &JournalQuery::Last(10)).await.unwrap().len(), 1);
    assert_eq!(journal.dropped(), 0);
}
