//! One record in twenty is dropped on purpose: nothing is invented, and what is missing is said.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ponos::core::broker::{
    BoxFuture, Broker, BrokerError, Delivery, Inspect, Inspection, Order, Outgoing, Published, SettleError,
    Settlement, SubscribeOptions, Subscription, Topology,
};
use ponos::core::id::Tid;
use ponos::core::journal::{Entry, From, Journal, JournalReader, Said};
use ponos::core::name::QueueName;
use ponos::prelude::*;
use ponos::trace::Cascade;
use serde_json::Value;

use crate::place::Place;
use crate::system::{
    BigPoppa, Cream, InvoicePay, Metrics, Pheidi, Smtp, big_poppa_service, cream_service, metrics_service,
    pheidi_service,
};

/// How many payments there are.
const PAYMENTS: u64 = 60;

/// A broker whose journal loses entries, and remembers all of them.
#[derive(Debug)]
struct Lossy {
    inner: Arc<dyn Broker>,
    journal: Arc<LossyJournal>,
}

#[derive(Debug)]
struct LossyJournal {
    inner: Arc<dyn Journal>,
    count: AtomicU64,
    all: Mutex<Vec<(Entry, bool)>>,
}

impl Lossy {
    async fn at(place: &Place) -> Arc<Self> {
        let inner = place.broker().connect().await.unwrap();
        let journal = inner.journal().unwrap();
        let journal = LossyJournal { inner: journal, count: AtomicU64::new(7), all: Mutex::default() };
        Arc::new(Self { inner, journal: Arc::new(journal) })
    }
}

impl Journal for LossyJournal {
    fn append(&self, entry: Entry) {
        // A fixed row of numbers, so that every run loses as many.
        let n = self.count.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let kept = !n.is_multiple_of(20);
        self.all.lock().unwrap().push((entry.clone(), kept));
        if kept {
            self.inner.append(entry);
        }
    }

    fn open(&self, from: From) -> BoxFuture<'_, Result<Box<dyn JournalReader>, BrokerError>> {
        self.inner.open(from)
    }

    fn dropped(&self) -> u64 {
        self.inner.dropped()
    }
}

impl Broker for Lossy {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.inner.declare(topology)
    }

    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Published>> {
        self.inner.publish(batch)
    }

    fn subscribe<'a>(
        &'a self,
        queue: &'a QueueName,
        options: SubscribeOptions,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, BrokerError>> {
        self.inner.subscribe(queue, options)
    }

    fn settle<'a>(
        &'a self,
        delivery: &'a Delivery,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Vec<Published>, SettleError>> {
        self.inner.settle(delivery, settlement)
    }

    fn inspect(&self, query: Inspect) -> BoxFuture<'_, Result<Inspection, BrokerError>> {
        self.inner.inspect(query)
    }

    fn steer(&self, order: Order) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.inner.steer(order)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.inner.close()
    }

    fn may_duplicate(&self) -> bool {
        self.inner.may_duplicate()
    }

    fn journal(&self) -> Option<Arc<dyn Journal>> {
        Some(Arc::clone(&self.journal) as Arc<dyn Journal>)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    loss(&Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq() {
    loss(&Place::rabbitmq().await).await;
}

async fn loss(place: &Place) {
    let lossy = Lossy::at(place).await;
    let broker = || ponos::Broker::from(Arc::clone(&lossy) as Arc<dyn Broker>);
    let smtp = Arc::new(Smtp::default());
    smtp.failures.store(4, Ordering::SeqCst);
    let cream: Running<Cream> = cream_service().start((), broker()).await.unwrap();
    let big_poppa: Running<BigPoppa> = big_poppa_service().start((), broker()).await.unwrap();
    let pheidi: Running<Pheidi> = pheidi_service().start(Arc::clone(&smtp), broker()).await.unwrap();
    let metrics: Running<Metrics> = metrics_service().start((), broker()).await.unwrap();
    let mut tids = Vec::new();
    for n in 0..PAYMENTS {
        let org = if n % 15 == 7 { "nobody".into() } else { format!("org-{n}") };
        let paid = cream.publisher().create(InvoicePay { org, card: "4111".into(), cents: 1 }).await.unwrap();
        tids.push(paid.tid);
    }
    // Seven jobs each, by the entries that were not lost on the way to this test.
    let end = std::time::Instant::now() + crate::place::DEADLINE;
    let truth = loop {
        let mut by_tid: BTreeMap<Tid, Vec<_>> = BTreeMap::new();
        for (entry, _) in &*lossy.journal.all.lock().unwrap() {
            if let Said::Record(record) = &entry.said {
                by_tid.entry(record.tid.clone()).or_default().push(record.clone());
            }
        }
        let trees: BTreeMap<Tid, Cascade> =
            by_tid.into_iter().map(|(tid, records)| (tid, Cascade::from_records(records))).collect();
        let over = |tree: &Cascade| tree.jobs().count() == 7 && tree.jobs().all(|job| job.state().is_final());
        if trees.len() == tids.len() && trees.values().all(over) {
            break trees;
        }
        assert!(std::time::Instant::now() < end, "not everything has ended");
        tokio::task::yield_now().await;
    };
    cream.shutdown().await;
    big_poppa.shutdown().await;
    pheidi.shutdown().await;
    metrics.shutdown().await;
    lossy.close().await.unwrap();

    let all = lossy.journal.all.lock().unwrap().clone();
    let lost_of = |tid: &Tid| {
        let mine = |entry: &Entry| matches!(&entry.said, Said::Record(record) if record.tid == *tid);
        all.iter().filter(|(entry, kept)| !kept && mine(entry)).count()
    };
    let lost: usize = tids.iter().map(lost_of).sum();
    assert!(lost >= 20, "{lost} of {} entries were dropped", all.len());
    let mut said = 0;
    for tid in &tids {
        let text = tid.to_string();
        let shown = place.ponos(&["trace", &text, "--json"]).ok().json();
        nothing_is_invented(&shown, &truth[tid]);
        if lost_of(tid) > 0 {
            let picture = place.ponos(&["trace", &text]).ok().out.clone();
            assert!(picture.contains(" lost between "), "{picture}");
            assert_ne!(shown["outcome"], "done", "{picture}");
            said += 1;
        }
    }
    assert!(said >= 10, "{said}");
    place.ponos(&["tail", "--no-follow"]).ok().says("⋯ 1 record of ");
}

/// Whatever the tree says for certain is so.
fn nothing_is_invented(shown: &Value, truth: &Cascade) {
    for message in shown["messages"].as_array().unwrap() {
        let id = message["id"].as_str().unwrap();
        let real = truth.nodes().find(|node| node.id().to_string() == id);
        let real = real.unwrap_or_else(|| panic!("there never was {message:#}"));
        if message["origin"] == "caused" {
            let parent = real.parent().map(|parent| parent.id().to_string());
            assert_eq!(message["cause"].as_str(), parent.as_deref(), "{message:#}");
        }
        if message["origin"] == "start" {
            assert!(real.parent().is_none(), "{message:#}");
        }
        for job in message["jobs"].as_array().unwrap() {
            let state = job["state"].as_str().unwrap();
            let queue = job["queue"].as_str().unwrap();
            let truly =
                real.job(queue).unwrap_or_else(|| panic!("{queue} never had it: {message:#}")).state();
            let alike = match state {
                "done" => truly == ponos::trace::JobState::Done,
                "failed" => matches!(truly, ponos::trace::JobState::Failed { .. }),
                // Everything has ended: what is said to be open would be invented.
                "unknown" | "unrecorded" => true,
                _ => false,
            };
            assert!(alike, "{queue} is said to be {state}, and is {truly:?}");
        }
    }
}
