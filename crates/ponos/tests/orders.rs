//! Standing orders, on the virtual clock: carried out by every instance, until they end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ponos::core::broker::OrderAction;
use ponos::core::id::Timestamp;
use ponos::core::journal::What;
use ponos::core::manifest::{Manifest, OrdersManifest};
use ponos::core::policy::RateExt as _;
use ponos::prelude::*;
use ponos::testing::System;
use ponos::{BreakerConfig, CircuitState};
use support::*;

const QUEUE: &str = "unit.work.do";

async fn quick(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
    assert_eq!(cx.attempt(), 1, "an order spends no attempt");
    cx.state().add("run");
    Ok(())
}

async fn check(_: WorkCheck, cx: TaskCx<WorkCheck>) -> Outcome {
    cx.state().add("checked");
    Ok(())
}

/// Two queues, both of which depend on `smtp`.
fn mailer() -> Service<Unit> {
    Service::new().task(quick, |p| p.depends_on("smtp")).task(check, |p| p.depends_on("smtp"))
}

async fn create(system: &System, jobs: u64) {
    for n in 0..jobs {
        system.create(WorkDo { n }).await;
    }
}

/// When each attempt started, since the beginning.
async fn starts(system: &System) -> Vec<Duration> {
    let attempts = system.records().await.into_iter().filter_map(|record| match record.what {
        What::Attempt(attempt) => Some(attempt.started.since(Timestamp::from_millis(1_767_225_600_000))),
        _ => None,
    });
    let mut starts: Vec<_> = attempts.collect();
    starts.sort();
    starts
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let to = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    fn lines(&self, with: &str) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        text.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The most starts within one second.
fn densest(starts: &[Duration]) -> usize {
    let within = |from: &Duration| starts.iter().filter(|at| (*from..*from + secs(1)).contains(*at)).count();
    starts.iter().map(within).max().unwrap_or(0)
}

#[tokio::test]
async fn a_pause_ends_by_itself_also_while_the_broker_tells_nothing() {
    let counter = Counter::default();
    let system = System::seeded(1).service(mailer(), counter.clone()).start().await;
    order(&system, QUEUE, OrderAction::Pause, Some(mins(30))).await;
    system.advance(secs(2)).await;
    create(&system, 3).await;
    // The order that everybody has read is not to be had any more.
    system.broker().withhold_orders();
    system.advance(mins(29)).await;
    assert_eq!(counter.get("run"), 0);
    system.advance(mins(1)).await;
    assert_eq!(counter.get("run"), 3);
}

#[tokio::test]
async fn an_ordered_rate_is_kept_by_two_instances_together_and_by_one_that_starts_later() {
    let counter = Counter::default();
    let service = || Service::<Unit>::new().task(quick, |p| p.prefetch(4));
    let mut system = System::seeded(2)
        .service(service(), counter.clone())
        .service(service(), counter.clone())
        .start()
        .await;
    system.advance(secs(10)).await;
    order(&system, QUEUE, OrderAction::Rate(10.per_second().burst(1)), None).await;
    system.advance(secs(2)).await;
    create(&system, 200).await;
    system.advance(secs(10)).await;
    let early = counter.get("run");
    assert!((80..=105).contains(&early), "ten a second in ten seconds: {early}");
    system.add(service(), counter.clone()).await;
    system.settled().await;
    assert_eq!(counter.get("run"), 200);
    let starts = starts(&system).await;
    assert!(densest(&starts) <= 13, "count and a burst of one for each of three: {}", densest(&starts));
}

#[tokio::test]
async fn an_ordered_rate_stands_in_the_place_of_the_configured_one_until_it_ends() {
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(quick, |p| p.rate_limit(100.per_second().burst(1)));
    let system = System::seeded(3).service(service, counter.clone()).start().await;
    // So slow that the queue rests.
    order(&system, QUEUE, OrderAction::Rate(1.per_hour()), None).await;
    system.advance(secs(2)).await;
    create(&system, 100).await;
    system.advance(mins(30)).await;
    assert_eq!(counter.get("run"), 1);
    order(&system, QUEUE, OrderAction::Rate(1000.per_second().burst(1)), None).await;
    system.advance(millis(1010)).await;
    assert!(counter.get("run") > 1, "it rests no longer than the order stands");
    order(&system, QUEUE, OrderAction::RateReset, None).await;
    system.advance(secs(2)).await;
    let faster = starts(&system).await;
    assert_eq!(faster.len(), 100);
    create(&system, 100).await;
    system.settled().await;
    let later = starts(&system).await.split_off(100);
    let pause = later.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(pause >= millis(10), "the configured limit holds again: {pause:?}");
}

#[tokio::test]
async fn an_ordered_rate_of_a_dependency_is_shared_by_its_queues_and_ends_at_its_time() {
    let counter = Counter::default();
    let system = System::seeded(4).service(mailer(), counter.clone()).start().await;
    order(&system, "smtp", OrderAction::Rate(1.per_second()), Some(secs(20))).await;
    system.advance(secs(2)).await;
    create(&system, 100).await;
    for n in 0..100 {
        system.create(WorkCheck { n }).await;
    }
    system.advance(secs(10)).await;
    let both = counter.get("run") + counter.get("checked");
    assert!((9..=12).contains(&both), "{both} in ten seconds");
    assert!(counter.get("checked") > 0 && counter.get("run") > 0);
    system.advance(secs(10)).await;
    assert_eq!((counter.get("run"), counter.get("checked")), (100, 100), "no limit was configured");
}

#[tokio::test]
async fn an_ordered_rate_of_one_queue_leaves_its_dependencys_limit_standing() {
    let counter = Counter::default();
    let service = mailer().dependency("smtp", |d| d.rate_limit(10.per_second().burst(1)));
    let system = System::seeded(5).service(service, counter.clone()).start().await;
    order(&system, QUEUE, OrderAction::Rate(1.per_second()), None).await;
    system.advance(secs(2)).await;
    create(&system, 20).await;
    for n in 0..1000 {
        system.create(WorkCheck { n }).await;
    }
    system.advance(secs(10)).await;
    assert!((9..=12).contains(&counter.get("run")), "{}", counter.get("run"));
    assert!((75..=92).contains(&counter.get("checked")), "{}", counter.get("checked"));
    assert!(densest(&starts(&system).await) <= 10);
}

#[tokio::test]
async fn a_circuit_that_is_held_open_leaves_the_jobs_in_the_broker_until_it_is_resumed() {
    let counter = Counter::default();
    let mut system = System::seeded(6).service(mailer(), counter.clone()).start().await;
    order(&system, "smtp", OrderAction::CircuitOpen, None).await;
    system.advance(secs(2)).await;
    create(&system, 20).await;
    system.create(WorkCheck { n: 1 }).await;
    system.add(mailer(), counter.clone()).await;
    system.advance(mins(60)).await;
    assert_eq!((counter.get("run"), counter.get("checked")), (0, 0), "nor by who starts later");
    let queue = system.queues::<Unit>().await.into_iter().find(|q| q.queue == QUEUE).unwrap();
    assert_eq!((queue.ready, queue.unsettled, queue.consumers), (20, Some(0), 0));
    // A pause of one queue stands beside it.
    order(&system, "unit.work.check", OrderAction::Pause, None).await;
    order(&system, "smtp", OrderAction::CircuitResume, None).await;
    system.advance(secs(2)).await;
    assert_eq!((counter.get("run"), counter.get("checked")), (20, 0));
    order(&system, "unit.work.check", OrderAction::Resume, None).await;
    system.advance(secs(2)).await;
    assert_eq!(counter.get("checked"), 1);
}

#[tokio::test]
async fn a_reset_half_opens_what_is_open_now_once() {
    async fn needs_smtp(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        if cx.state().get("healthy") == 0 {
            Err("connection refused")?;
        }
        cx.state().add("done");
        Ok(())
    }
    let counter = Counter::default();
    let changes = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&changes);
    let service = move || {
        let told = Arc::clone(&told);
        let breaker = BreakerConfig::default().consecutive(3).open_initial(mins(60)).open_max(mins(60));
        Service::<Unit>::new()
            .task(needs_smtp, move |p| {
                p.concurrency(1)
                    .retry(Backoff::constant(secs(1)))
                    .max_retries(50)
                    .depends_on("smtp")
                    .breaker(breaker)
            })
            .on_circuit(move |change| {
                told.lock().unwrap().push(match change.state {
                    CircuitState::Open { .. } => "open",
                    CircuitState::HalfOpen => "half-open",
                    _ => "closed",
                });
            })
    };
    let mut system = System::seeded(7).service(service(), counter.clone()).start().await;
    create(&system, 5).await;
    system.advance(mins(1)).await;
    assert_eq!(*changes.lock().unwrap(), ["open"]);
    // It is still sick: the probe opens it again, and the reset is not carried out twice.
    order(&system, "smtp", OrderAction::CircuitReset, Some(mins(10))).await;
    system.advance(mins(5)).await;
    assert_eq!(*changes.lock().unwrap(), ["open", "half-open", "open"]);
    counter.add("healthy");
    order(&system, "smtp", OrderAction::CircuitReset, Some(mins(10))).await;
    system.advance(secs(10)).await;
    assert_eq!(counter.get("done"), 5);
    assert_eq!(changes.lock().unwrap()[3..], ["half-open", "closed"]);
    // Who starts later has nothing to reset, though the order is still to be read.
    let sick = Counter::default();
    system.stop::<Unit>().await;
    system.add(service(), sick.clone()).await;
    create(&system, 5).await;
    system.advance(mins(1)).await;
    assert_eq!(changes.lock().unwrap()[5..], ["open"]);
}

#[tokio::test]
async fn a_service_may_ignore_orders() {
    let manifest = mailer().ignore_orders().manifest().to_json();
    assert!(manifest.contains(r#""orders": "ignored""#), "{manifest}");
    assert!(!mailer().manifest().to_json().contains(r#""orders""#), "nothing is said of what is usual");
    assert_eq!(Manifest::from_json(&manifest).unwrap().orders, OrdersManifest::Ignored);
    let later = manifest.replace(r#""ignored""#, r#""sold""#);
    assert_eq!(Manifest::from_json(&later).unwrap().orders, OrdersManifest::Unknown);
    let logged = Logged::default();
    let _capturing = logged.capture();
    let counter = Counter::default();
    let system = System::seeded(8).service(mailer().ignore_orders(), counter.clone()).start().await;
    order(&system, QUEUE, OrderAction::Pause, None).await;
    order(&system, QUEUE, OrderAction::Rate(1.per_hour()), None).await;
    order(&system, "smtp", OrderAction::CircuitOpen, None).await;
    system.advance(secs(2)).await;
    create(&system, 20).await;
    system.settled().await;
    assert_eq!(counter.get("run"), 20);
    system.advance(mins(5)).await;
    let warnings = logged.lines("is not carried out: this service ignores orders");
    assert_eq!(warnings.len(), 3, "each once: {warnings:?}");
    assert!(warnings[0].contains("WARN") && warnings[0].contains("to see"), "{warnings:?}");
}

#[tokio::test]
async fn an_order_is_told_once_when_it_begins_and_ends_and_when_it_is_about_nothing() {
    let logged = Logged::default();
    let _capturing = logged.capture();
    let system = System::seeded(9).service(mailer(), Counter::default()).start().await;
    order(&system, QUEUE, OrderAction::Pause, Some(mins(2))).await;
    order(&system, "stmp", OrderAction::CircuitOpen, None).await;
    system.advance(mins(10)).await;
    assert_eq!(logged.lines("is about nothing that this service has").len(), 1);
    let told = logged.lines(QUEUE);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("to see") && told[1].contains("standing order ended"), "{told:?}");
}

#[tokio::test]
async fn what_runs_when_an_order_comes_ends_by_itself() {
    async fn slow(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.sleep(secs(20)).await;
        assert_eq!(cx.attempt(), 1);
        cx.state().add("done");
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(slow, |p| p.concurrency(2).prefetch(4).depends_on("smtp"));
    let system = System::seeded(10).service(service, counter.clone()).start().await;
    create(&system, 4).await;
    system.advance(secs(1)).await;
    order(&system, "smtp", OrderAction::CircuitOpen, Some(mins(10))).await;
    system.advance(mins(9)).await;
    assert_eq!(counter.get("done"), 2);
    let queue = system.queues::<Unit>().await.into_iter().find(|q| q.queue == QUEUE).unwrap();
    assert_eq!((queue.ready, queue.unsettled), (2, Some(0)), "what had not started is the broker's again");
    system.advance(mins(2)).await;
    assert_eq!(counter.get("done"), 4);
}

/// On the real clock, because the file is shared by two brokers as by two processes.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn on_sqlite_an_instance_started_during_a_pause_does_not_consume() {
    use ponos::core::broker::{Inspect, Order};
    use ponos::core::name::QueueName;
    use std::time::Instant;

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let (early, late) = (Counter::default(), Counter::default());
    let first = mailer().start(early.clone(), Broker::sqlite(&file)).await.unwrap();
    let outside = Broker::sqlite(&file).connect().await.unwrap();
    let queue: QueueName = QUEUE.parse().unwrap();
    let look = async |name: &str| {
        let found = outside.inspect(Inspect::Queue(name.parse().unwrap())).await.unwrap().into_queues();
        (found[0].ready, found[0].consumers)
    };
    let until = async |name: &str, wanted: (u64, u32)| {
        let began = Instant::now();
        while look(name).await != wanted {
            assert!(began.elapsed() < secs(15), "{name}: {:?}, not {wanted:?}", look(name).await);
            tokio::time::sleep(millis(5)).await;
        }
    };
    let steer = async |action: OrderAction| {
        let (target, at) = (queue.clone().into(), Timestamp::from(std::time::SystemTime::now()));
        let order = Order { target, action, by: "test".into(), reason: "to see".into(), at, until: None };
        outside.steer(order).await.unwrap();
    };
    until(QUEUE, (0, 1)).await;
    steer(OrderAction::Pause).await;
    until(QUEUE, (0, 0)).await;
    for n in 0..5 {
        first.publisher().create(WorkDo { n }).await.unwrap();
    }
    let second = mailer().start(late.clone(), Broker::sqlite(&file)).await.unwrap();
    let began = Instant::now();
    // The new instance works its other queue, and reads the orders again several times.
    while look("unit.work.check").await != (0, 2) || began.elapsed() < secs(3) {
        assert_eq!(look(QUEUE).await, (5, 0), "it keeps the pause from its start");
        assert!(began.elapsed() < secs(15), "the new instance works");
        tokio::time::sleep(millis(5)).await;
    }
    steer(OrderAction::Resume).await;
    until(QUEUE, (0, 2)).await;
    let began = Instant::now();
    while early.get("run") + late.get("run") < 5 {
        assert!(began.elapsed() < secs(15), "the jobs are done");
        tokio::time::sleep(millis(5)).await;
    }
    first.shutdown().await;
    second.shutdown().await;
    outside.close().await.unwrap();
}
