//! The breaker on RabbitMQ: it cuts the listener off, and the queue keeps the jobs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ponos::core::broker::{Broker as _, Inspect};
use ponos::core::name::AppName;
use ponos::prelude::*;
use ponos::{BreakerConfig, CircuitState, RabbitBroker};
use ponos_testbed::Node;

use super::support::{broker, until};

const JOBS: u64 = 120;

#[app("mailer", state = Arc<Smtp>)]
pub struct Mailer;

#[task("mailer.mail.send", app = Mailer)]
pub struct MailSend {
    pub n: u64,
}

/// What the handler depends on.
#[derive(Debug, Default)]
pub struct Smtp {
    healthy: AtomicBool,
    starts: Mutex<Vec<(Instant, u64, u32)>>,
    sent: AtomicUsize,
    at_once: AtomicUsize,
    most: AtomicUsize,
    opened: Mutex<Vec<Instant>>,
}

async fn send(mail: MailSend, cx: TaskCx<MailSend>) -> Outcome {
    let smtp = Arc::clone(cx.state());
    smtp.starts.lock().unwrap().push((Instant::now(), mail.n, cx.attempt()));
    let now = smtp.at_once.fetch_add(1, Ordering::SeqCst) + 1;
    smtp.most.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(millis(20)).await;
    smtp.at_once.fetch_sub(1, Ordering::SeqCst);
    if !smtp.healthy.load(Ordering::SeqCst) {
        Err("connection refused")?;
    }
    smtp.sent.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

fn service(smtp: &Arc<Smtp>) -> Service<Mailer> {
    let opened = Arc::clone(smtp);
    let breaker = BreakerConfig::default().open_initial(secs(3));
    Service::new()
        .task(send, move |p| {
            p.concurrency(4)
                .prefetch(20)
                .max_retries(50)
                .retry(Backoff::constant(millis(500)))
                .breaker(breaker)
        })
        .on_circuit(move |change| {
            if matches!(change.state, CircuitState::Open { .. }) {
                opened.opened.lock().unwrap().push(Instant::now());
            }
        })
}

/// What is ready in the queue, and what waits in the delay ladder: what is neither somebody holds.
async fn in_the_broker(broker: &RabbitBroker) -> (u64, u64) {
    let app = AppName::parse("mailer").unwrap();
    let queues = broker.inspect(Inspect::Queues(Some(app))).await.unwrap().into_queues();
    let ready = |prefix: &str| {
        queues.iter().filter(|stats| stats.queue.as_str().starts_with(prefix)).map(|stats| stats.ready).sum()
    };
    (ready("mailer.mail.send"), ready("mailer.retry."))
}

#[tokio::test]
async fn the_listener_is_cut_off_and_the_queue_keeps_the_jobs() {
    let url = Node::shared().fresh_vhost();
    let smtp = Arc::new(Smtp::default());
    let broker = broker(&url).await;
    let running = service(&smtp).start(Arc::clone(&smtp), Arc::clone(&broker)).await.unwrap();
    for n in 0..JOBS {
        running.publisher().create(MailSend { n }).await.unwrap();
    }
    until("it opens", secs(10), || !smtp.opened.lock().unwrap().is_empty()).await;
    let opened = smtp.opened.lock().unwrap()[0];
    // What ran ends; from one second on nothing starts, for as long as it is open.
    until("it has been open for 2.5 s", secs(5), || opened.elapsed() > millis(2500)).await;
    let late = |from, to| {
        let starts = smtp.starts.lock().unwrap();
        starts.iter().filter(|(at, ..)| (from..to).contains(&at.saturating_duration_since(opened))).count()
    };
    assert_eq!(late(secs(1), millis(2500)), 0, "nothing starts while it is open");
    let started: std::collections::BTreeSet<u64> =
        smtp.starts.lock().unwrap().iter().map(|(_, n, _)| *n).collect();
    let retried = started.len() as u64;
    let (ready, delayed) = in_the_broker(&broker).await;
    println!("open: {ready} ready, {delayed} wait for their next attempt");
    assert_eq!(ready + delayed, JOBS, "the queue keeps every job, the worker holds none");
    assert!(retried <= 10 + 4, "{retried} jobs were started before it opened");

    // Half-open: one job at a time, until three have succeeded.
    smtp.most.store(0, Ordering::SeqCst);
    let before = smtp.starts.lock().unwrap().len();
    smtp.healthy.store(true, Ordering::SeqCst);
    until("the first probe ran", secs(30), || smtp.sent.load(Ordering::SeqCst) >= 2).await;
    assert_eq!(smtp.most.load(Ordering::SeqCst), 1, "one job at a time");
    until("all are sent", secs(60), || smtp.sent.load(Ordering::SeqCst) as u64 == JOBS).await;
    let starts = std::mem::take(&mut *smtp.starts.lock().unwrap());
    let first_runs =
        starts.iter().filter(|(_, n, attempt)| !started.contains(n) && *attempt == 1).count() as u64;
    assert_eq!(first_runs, JOBS - retried, "who was held spent no attempt");
    assert!(starts.len() - before >= (JOBS - 1) as usize);
    running.shutdown().await;
    broker.close().await.unwrap();
}

#[tokio::test]
async fn another_instance_is_not_affected() {
    let url = Node::shared().fresh_vhost();
    let (sick, healthy) = (Arc::new(Smtp::default()), Arc::new(Smtp::default()));
    healthy.healthy.store(true, Ordering::SeqCst);
    let (one, other) = (broker(&url).await, broker(&url).await);
    let first = service(&sick).start(Arc::clone(&sick), Arc::clone(&one)).await.unwrap();
    for n in 0..JOBS {
        first.publisher().create(MailSend { n }).await.unwrap();
    }
    until("it opens", secs(10), || !sick.opened.lock().unwrap().is_empty()).await;
    let second = service(&healthy).start(Arc::clone(&healthy), Arc::clone(&other)).await.unwrap();
    until("the healthy one does it all", secs(30), || healthy.sent.load(Ordering::SeqCst) as u64 >= JOBS - 3)
        .await;
    assert!(healthy.opened.lock().unwrap().is_empty());
    assert!(healthy.most.load(Ordering::SeqCst) > 1, "at its full concurrency");
    for (running, broker) in [(first, one), (second, other)] {
        running.shutdown().await;
        broker.close().await.unwrap();
    }
}
