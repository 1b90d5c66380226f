//! A definition: what it says of itself, what it refuses, and that each option does what it says.

#![allow(missing_debug_implementations, clippy::unwrap_used, reason = "messages and helpers of tests")]

mod support;

use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ponos::core::envelope::{GaveUpReason, Phase};
use ponos::core::journal::{AttemptEnd, What};
use ponos::prelude::*;
use ponos::testing::System;
use ponos::{CircuitState, FailedJobs, MemoryBroker};
use support::*;

/// How long what must happen may take on the real clock.
const DEADLINE: Duration = Duration::from_secs(10);

/// Polls until it holds.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, polling).await.is_ok(), "not within {DEADLINE:?}: {what}");
}

async fn quick(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
    cx.state().note(t.n);
    Ok(())
}

async fn quick_check(t: WorkCheck, cx: TaskCx<WorkCheck>) -> Outcome {
    cx.state().note(1000 + t.n);
    Ok(())
}

// --- What it says of itself ---

#[event("parcel.sent")]
struct ParcelSent {
    id: u64,
    #[serde(default)]
    weight: Option<f64>,
}

#[event("order.placed")]
struct OrderPlaced {
    id: u64,
}

#[app("shop", emits(OrderPlaced))]
struct Shop;

#[task("shop.parcel.send", app = Shop, emits(ParcelSent))]
struct ParcelSend {
    id: u64,
}

#[task("shop.invoice.write", app = Shop)]
struct InvoiceWrite {
    id: u64,
}

fn on_order(e: OrderPlaced) -> (ParcelSend, Option<InvoiceWrite>) {
    (ParcelSend { id: e.id }, Some(InvoiceWrite { id: e.id }))
}

async fn send(t: ParcelSend, cx: TaskCx<ParcelSend>) -> Outcome {
    cx.emit(ParcelSent { id: t.id, weight: None })?;
    Ok(())
}

async fn apologise(_: ParcelSend, _: TaskCx<ParcelSend>, _: GaveUp) -> Outcome {
    Ok(())
}

async fn write(_: InvoiceWrite, _: TaskCx<InvoiceWrite>) -> Outcome {
    Ok(())
}

/// Concurrency and prefetch are said everywhere: their defaults depend on the machine.
fn shop() -> Service<Shop> {
    Service::new()
        .version("1.2.3")
        .on_with(on_order, |p| p.concurrency(4).prefetch(8))
        .task(send, |p| {
            p.concurrency(2)
                .prefetch(4)
                .retry(Backoff::exponential(secs(2)).max(mins(1)).jitter(0.5))
                .max_retries(MaxRetries::Unlimited)
                .timeout(secs(10))
                .rate_limit(100.per_second())
                .depends_on("carrier")
                .recover(apologise)
        })
        .task(write, |p| p.concurrency(1).prefetch(1).no_breaker().no_timeout().long())
}

/// What tools read. After a change that is wanted: copy what the failure shows.
#[test]
fn an_event_that_the_worker_emits_is_part_of_the_manifest() {
    let manifest = shop().errored_events(ponos::ErroredEvents::WithoutPayload).manifest();
    assert_eq!(manifest.emits, ["order.placed", "worker.errored"]);
    assert!(manifest.events.contains_key("worker.errored"));
    assert!(manifest.topology().unwrap().events.iter().any(|event| *event == "worker.errored"));
}

/// A cycle that goes through such a reaction can end.
#[test]
fn a_reaction_that_may_create_nothing_says_so() {
    fn maybe(e: OrderPlaced) -> Option<ParcelSend> {
        Some(ParcelSend { id: e.id })
    }
    fn many(e: OrderPlaced) -> Vec<ParcelSend> {
        vec![ParcelSend { id: e.id }]
    }
    fn both(e: OrderPlaced) -> (Option<ParcelSend>, Vec<InvoiceWrite>) {
        (maybe(e), Vec::new())
    }
    let conditional = |service: Service<Shop>| service.manifest().reactions[0].conditional;
    assert!(conditional(Service::new().on(maybe)));
    assert!(conditional(Service::new().on(many)));
    assert!(conditional(Service::new().on(both)));
    assert!(!conditional(Service::new().on(on_order)), "its parcel is always sent");
}

#[test]
fn the_manifest_is_this_text() {
    let expected = include_str!("data/manifest.json");
    let manifest = shop().manifest().to_json();
    assert_eq!(manifest.trim_end(), expected.trim_end(), "the manifest is now:\n{manifest}");
}

/// Where the tests below start this binary anew; it does nothing in an ordinary run.
#[tokio::test]
async fn another_process() {
    match std::env::var("PONOS_TEST_ROLE").as_deref() {
        Ok("manifest") => {
            let _not_reached = shop().manifest_if_asked();
            panic!("it was asked");
        }
        Ok("npm") => npm_role().await,
        _ => {}
    }
}

/// Starts this binary anew in a role, and answers what it printed and whether it succeeded.
fn role(name: &str, variables: &[(&str, &str)]) -> (String, bool) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process", "--nocapture"])
        .env("PONOS_TEST_ROLE", name)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

#[test]
fn a_process_that_is_asked_prints_its_manifest_and_ends() {
    let (printed, succeeded) = role("manifest", &[("PONOS_MANIFEST", "1")]);
    assert!(succeeded, "{printed}");
    let json = &printed[printed.find('{').unwrap()..]; // after the line of the test harness
    let manifest = ponos::core::manifest::Manifest::from_json(json).unwrap();
    assert_eq!(manifest, shop().manifest());
    let (_, succeeded) = role("manifest", &[("PONOS_MANIFEST", "0")]);
    assert!(!succeeded, "only 1 asks");
}

// --- What it refuses ---

#[tokio::test]
async fn a_start_names_every_problem_at_once() {
    let service = Service::<Unit>::new()
        .on_with(on_wanted, |p| p.prefetch(0))
        .on(on_wanted)
        .task(quick, |p| {
            p.prefetch(0)
                .concurrency(0)
                .retry(Backoff::constant(secs(1)).max(millis(1)))
                .timeout(mins(25))
                .rate_limit(1.per_second())
                .depends_on("smtp")
        })
        .task(quick_check, |p| {
            p.rate_limit(2.per_second()).depends_on("smtp").recovery_timeout(Duration::ZERO)
        })
        .dependency("carrier", |d| d);
    let error = service.start(Counter::default(), Broker::memory()).await.err().unwrap().to_string();
    let mut problems = error.lines();
    assert_eq!(problems.next(), Some("the service `unit` cannot start:"));
    let problems: Vec<_> = problems.map(str::trim_start).collect();
    let expected = [
        "reaction to `work.wanted`: `prefetch` is 0, ",
        "task `unit.work.do`: `concurrency` is 0, ",
        "task `unit.work.do`: `prefetch` is 0, ",
        "task `unit.work.do`: backoff `max` is 1ms, shorter than `min`, which is 1s",
        "task `unit.work.do`: its `timeout` is 1500s: a broker takes a job away after 30 minutes",
        "task `unit.work.check`: `recovery_timeout` is 0, ",
        "two handlers for `unit.work.wanted`: ",
        "no handler says `.depends_on(\"carrier\")`: ",
        "the handlers that depend on `smtp` name different rate limits, but share one: ",
    ];
    assert_eq!(problems.len(), expected.len(), "{error}");
    for (problem, start) in problems.iter().zip(expected) {
        assert!(problem.starts_with(start), "{problem}\nis not about\n{start}");
    }
}

// --- Prototypes ---

#[app("origin", emits(WorkWanted))]
struct Origin;

fn on_wanted(e: WorkWanted) -> WorkDo {
    WorkDo { n: e.n }
}

#[tokio::test]
async fn a_prototype_that_was_forgotten_keeps_the_newest_messages_only() {
    let service = || Service::<Unit>::new().on_prototype(on_wanted).task(quick, |p| p);
    let broker = MemoryBroker::new().prototype_length(3);
    // Connected for the service alone, so that it may close its own handle.
    let start =
        async |counter: &Counter| service().start(counter.clone(), Arc::new(broker.handle())).await.unwrap();
    let counter = Counter::default();
    start(&counter).await.shutdown().await;
    let origin = Publisher::<Origin>::connect(Arc::new(broker.handle())).await.unwrap();
    for n in 1..=5 {
        assert_eq!(origin.emit(WorkWanted { n }).await.unwrap().queues, 1);
    }
    assert_eq!(broker.dropped(), 2);
    let running = start(&counter).await;
    eventually("what is left is done", async || counter.noted().len() == 3).await;
    running.shutdown().await;
    assert_eq!(counter.noted(), [3, 4, 5]);
}

#[tokio::test]
async fn a_prototype_beside_another_reaction_to_its_event_is_refused() {
    let both = Service::<Unit>::new().on(on_wanted).on_prototype(on_wanted).task(quick, |p| p);
    let error = both.start(Counter::default(), Broker::memory()).await.err().unwrap().to_string();
    assert!(error.contains("`unit.work.wanted`") && error.contains("an application of its own"), "{error}");
}

// --- What the npm package's variables mean ---

/// Prints how often a job ran that always fails, or why the service does not start. `explicit` sets its own options.
async fn npm_role() {
    async fn fails(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("run");
        if t.n == 2 {
            cx.sleep(mins(5)).await;
        }
        if cx.state().get("run") == 30 {
            return Ok(()); // without a limit it would go on for ever
        }
        Err("no")?
    }
    let explicit = std::env::var("PONOS_TEST_EXPLICIT").is_ok();
    let hangs = std::env::var("WORKER_TIMEOUT").is_ok();
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(fails, |p| {
        let p = p.no_breaker();
        if explicit { p.max_retries(3).retry(Backoff::constant(millis(1))).timeout(secs(60)) } else { p }
    });
    let broker = MemoryBroker::new();
    let running = match service.start(counter.clone(), Arc::new(broker.clone())).await {
        Ok(running) => running,
        Err(error) => return print_role(&error.to_string()),
    };
    running.publisher().create(WorkDo { n: if hangs && !explicit { 2 } else { 1 } }).await.unwrap();
    let failed = FailedJobs::new(Arc::new(broker), ponos::core::name::AppName::parse("unit").unwrap());
    eventually("the end", async || {
        counter.get("run") == 30 || !failed.list(1, None).await.unwrap().is_empty()
    })
    .await;
    let kept = failed.list(1, None).await.unwrap();
    let error = kept.first().and_then(|job| job.report.as_ref()).map(|report| report.gave_up.error.as_str());
    print_role(&format!("{} runs, {}", counter.get("run"), error.unwrap_or("no end")));
    running.shutdown_within(Duration::ZERO).await;
}

#[expect(clippy::print_stdout, reason = "the way to the process that asked")]
fn print_role(answer: &str) {
    println!("answer: {answer}");
}

#[test]
fn the_npm_packages_variables_are_fallbacks_with_its_meaning() {
    const RUNS: &str = "WORKER_MAX_NUM_RETRIES";
    let fast = [("WORKER_MIN_RETRY_DELAY", "1"), ("WORKER_MAX_RETRY_DELAY", "1")];
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[(RUNS, "1")], "1 runs, no"),
        (&[(RUNS, "3")], "3 runs, no"),
        (&[(RUNS, " 2 ")], "2 runs, no"),
        (&[(RUNS, "0")], "30 runs, no end"), // no limit
        (&[(RUNS, "2"), ("PONOS_TEST_EXPLICIT", "1")], "4 runs, no"), // what the service says wins
        (&[(RUNS, "1"), ("WORKER_TIMEOUT", "20")], "1 runs, the attempt was not done within 20ms"),
        (
            &[(RUNS, "many")],
            "the variable WORKER_MAX_NUM_RETRIES is `many`: expected a whole number, or nothing",
        ),
        (
            &[("WORKER_TIMEOUT", "-1")],
            "the variable WORKER_TIMEOUT is `-1`: expected a whole number, or nothing",
        ),
        (
            &[("WORKER_MIN_RETRY_DELAY", "\u{1b}[2J")],
            "the variable WORKER_MIN_RETRY_DELAY is `\\u{1b}[2J`: expected a whole number, or nothing",
        ),
    ];
    for (variables, says) in cases {
        let all: Vec<_> = fast.iter().chain(variables).copied().collect();
        let (printed, _) = role("npm", &all);
        assert!(printed.contains(says), "{variables:?}: {printed}");
    }
}

// --- One handler alone ---

#[tokio::test]
async fn a_handler_is_tested_alone_by_what_it_emitted_and_created() {
    async fn works(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.emit(WorkDone { n: t.n })?;
        cx.create(WorkCheck { n: t.n + 1 })?;
        cx.emit(WorkDone { n: t.n + 2 })?;
        cx.state().add("run");
        if t.n == 0 { Err("none")? } else { Ok(()) }
    }
    let counter = Counter::default();
    let cx = TaskCx::<WorkDo>::test(counter.clone());
    assert_eq!((cx.attempt(), cx.phase()), (1, Phase::Run));
    assert!(cx.tid().trace_id().is_some(), "the start of a chain: {}", cx.tid());
    works(WorkDo { n: 1 }, cx.clone()).await.unwrap();
    assert_eq!(cx.emitted::<WorkDone>().iter().map(|event| event.n).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(cx.created::<WorkCheck>().iter().map(|task| task.n).collect::<Vec<_>>(), [2]);
    assert_eq!(cx.created::<WorkDo>().len(), 0);
    let cause = cx.cause();
    assert_eq!((cause.tid, cause.message), (cx.tid().clone(), Some(cx.id())));
    let other = TaskCx::<WorkDo>::test(counter.clone());
    assert_ne!(other.id(), cx.id());
    assert_eq!(works(WorkDo { n: 0 }, other).await.unwrap_err().to_string(), "none");
    assert_eq!(counter.get("run"), 2, "the state is the given one");
}

// --- What handlers share ---

/// The attempts that ended so, in the order in which they started: queue and start.
async fn attempts(system: &System, wanted: fn(&AttemptEnd) -> bool) -> Vec<(String, u64)> {
    let records = system.records().await;
    let attempts = records.into_iter().filter_map(|record| match record.what {
        What::Attempt(a) if wanted(&a.end) => Some((a.queue.to_string(), a.started.as_millis())),
        _ => None,
    });
    let mut attempts: Vec<_> = attempts.collect();
    attempts.sort_by_key(|(_, started)| *started);
    attempts
}

/// Two handlers that need one thing, which is sick until the state counts `healthy`.
fn of_smtp(breaker: BreakerConfig) -> Service<Unit> {
    async fn needs(counter: &Counter) -> Outcome {
        if counter.get("healthy") == 0 { Err("connection refused")? } else { Ok(()) }
    }
    async fn works(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.sleep(millis(10)).await;
        needs(cx.state()).await
    }
    async fn checks(_: WorkCheck, cx: TaskCx<WorkCheck>) -> Outcome {
        cx.sleep(millis(10)).await;
        needs(cx.state()).await
    }
    Service::new()
        .task(works, |p| p.concurrency(1).depends_on("smtp"))
        .task(checks, |p| p.concurrency(1).depends_on("smtp"))
        .dependency("smtp", |d| d.breaker(breaker))
}

#[tokio::test]
async fn handlers_of_one_dependency_share_a_breaker_and_probe_in_turn() {
    let breaker = BreakerConfig::default()
        .consecutive(4)
        .open_initial(secs(60))
        .open_max(secs(60))
        .open_jitter(0.0)
        .close_after(8);
    let changes = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&changes);
    let service = of_smtp(breaker).on_circuit(move |change| told.lock().unwrap().push(change.clone()));
    let counter = Counter::default();
    let system = System::seeded(1).service(service, counter.clone()).start().await;
    for n in 0..20 {
        system.create(WorkDo { n }).await;
        system.create(WorkCheck { n }).await;
    }
    system.advance(secs(30)).await;
    let failures = attempts(&system, |end| matches!(end, AttemptEnd::Retry { .. })).await;
    assert!((4..=5).contains(&failures.len()), "four in a row over both, and one beside them: {failures:?}");
    let queues = system.queues::<Unit>().await;
    for queue in queues.iter().filter(|queue| queue.queue.as_str() != "unit.failed") {
        assert_eq!((queue.consumers, queue.messages()), (0, 20), "{}: cut off", queue.queue);
    }
    counter.add("healthy");
    system.settled().await;
    let done = attempts(&system, |end| *end == AttemptEnd::Done).await;
    assert_eq!(done.len(), 40);
    for pair in done[..8].windows(2) {
        assert_ne!(pair[0].0, pair[1].0, "probes go round the queues: {done:?}");
        assert!(pair[1].1 >= pair[0].1 + 10, "and one at a time: {done:?}");
    }
    let changes = changes.lock().unwrap();
    assert!(changes.iter().all(|change| change.circuit == "smtp"), "{changes:?}");
    let states: Vec<_> = changes.iter().map(|change| &change.state).collect();
    assert!(
        matches!(states[..], [CircuitState::Open { .. }, CircuitState::HalfOpen, CircuitState::Closed]),
        "{changes:?}"
    );
}

#[tokio::test]
async fn handlers_of_one_dependency_share_a_limit() {
    let service = Service::<Unit>::new()
        .task(quick, |p| p.depends_on("smtp"))
        .task(quick_check, |p| p.depends_on("smtp"))
        .dependency("smtp", |d| d.rate_limit(10.per_second().burst(1)));
    let counter = Counter::default();
    let system = System::seeded(2).service(service, counter.clone()).start().await;
    for n in 0..25 {
        system.create(WorkDo { n }).await;
        system.create(WorkCheck { n }).await;
    }
    system.settled().await;
    assert_eq!(counter.noted().len(), 50);
    let starts = attempts(&system, |end| *end == AttemptEnd::Done).await;
    for window in starts.windows(11) {
        assert!(window[10].1 - window[0].1 >= 999, "more than 10 in a second over both: {window:?}");
    }
    assert!(system.elapsed() < secs(6), "both get their share: {:?}", system.elapsed());
}

#[tokio::test]
async fn a_health_check_ends_an_open_time() {
    async fn works(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        if cx.state().get("healthy") == 0 { Err("connection refused")? } else { Ok(()) }
    }
    async fn asks(counter: Arc<Counter>) -> Result<(), &'static str> {
        counter.add("asked");
        if counter.get("healthy") == 0 { Err("still sick") } else { Ok(()) }
    }
    let long = BreakerConfig::default().consecutive(3).open_initial(mins(60)).open_max(mins(60));
    let half_opened = Arc::new(Mutex::new(0));
    let told = Arc::clone(&half_opened);
    let service = Service::<Unit>::new()
        .task(works, |p| p.concurrency(1).breaker(long).health_check(asks))
        .on_circuit(move |change| {
            *told.lock().unwrap() += u32::from(change.state == CircuitState::HalfOpen);
        });
    let counter = Counter::default();
    let system = System::seeded(3).service(service, counter.clone()).start().await;
    for n in 0..10 {
        system.create(WorkDo { n }).await;
    }
    system.advance(secs(21)).await;
    assert_eq!((counter.get("asked"), *half_opened.lock().unwrap()), (4, 0), "every five seconds");
    counter.add("healthy");
    system.advance(secs(5)).await;
    assert_eq!(*half_opened.lock().unwrap(), 1);
    system.settled().await;
    assert!(system.elapsed() < mins(1), "not after the hour: {:?}", system.elapsed());
}

// --- Blocking handlers ---

#[tokio::test]
async fn a_blocking_handler_works_and_is_timed_out() {
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let service = Service::<Unit>::new().blocking_task(
        move |t: WorkDo, cx: TaskCx<WorkDo>| {
            if t.n == 0 {
                let _released = blocked.lock().unwrap().recv();
            }
            cx.emit(WorkDone { n: t.n })?;
            cx.state().note(t.n);
            Ok(())
        },
        |p| p.timeout(millis(50)).max_retries(0).concurrency(2),
    );
    let counter = Counter::default();
    let broker = MemoryBroker::new();
    let running = service.start(counter.clone(), Arc::new(broker.clone())).await.unwrap();
    let publisher = running.publisher();
    let stuck = publisher.create(WorkDo { n: 0 }).await.unwrap();
    let fine = publisher.create(WorkDo { n: 1 }).await.unwrap();
    let failed =
        FailedJobs::new(Arc::new(broker.clone()), ponos::core::name::AppName::parse("unit").unwrap());
    eventually("one failed", async || failed.list(2, None).await.unwrap().len() == 1).await;
    eventually("one done", async || counter.noted() == [1]).await;
    let kept = failed.list(2, None).await.unwrap().remove(0);
    let gave_up = &kept.report.as_ref().unwrap().gave_up;
    assert_eq!((kept.id, gave_up.reason), (stuck.id, GaveUpReason::Exhausted));
    assert_eq!(gave_up.error, "the attempt was not done within 50ms");
    release.send(()).unwrap();
    eventually("it goes on beside", async || counter.noted() == [0, 1]).await;
    running.shutdown().await;
    let journal = ponos::core::broker::Broker::journal(&broker).unwrap();
    let records =
        ponos::core::journal::read(&*journal, &ponos::core::journal::JournalQuery::Last(100)).await.unwrap();
    let emitted: Vec<_> = records
        .iter()
        .filter(|record| matches!(&record.what, What::Published(p) if &*p.name == "work.done"))
        .map(|record| record.tid.clone())
        .collect();
    assert_eq!(emitted, [fine.tid], "what is emitted too late is not published");
}

// --- Hooks and logs ---

#[tokio::test]
async fn hooks_that_panic_do_no_harm() {
    async fn second_time(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("run");
        if cx.attempt() == 1 { Err("first")? } else { Ok(()) }
    }
    let told = Counter::default();
    let [errors, undecodable, circuits] = [told.clone(), told.clone(), told.clone()];
    let service = Service::<Unit>::new()
        .task(second_time, |p| p.breaker(BreakerConfig::default().consecutive(2)))
        .on_error(move |report| {
            errors.add("error");
            panic!("the reporter cannot send {}", report.error);
        })
        .on_undecodable(move |_| {
            undecodable.add("undecodable");
            panic!("nor this");
        })
        .on_circuit(move |_| {
            circuits.add("circuit");
            panic!("nor that");
        });
    let counter = Counter::default();
    let system = System::seeded(4).service(service, counter.clone()).start().await;
    for n in 0..5 {
        system.create(WorkDo { n }).await;
    }
    publish_raw(&system, "unit.work.do", b"not json").await;
    system.settled().await;
    assert_eq!(counter.get("run"), 10);
    assert_eq!(system.failed::<Unit>().await.len(), 1);
    assert_eq!((told.get("error"), told.get("undecodable")), (6, 1));
    assert!(told.get("circuit") >= 3, "opened, half-opened, closed");
}

/// Notes each log line with the fields of the spans that it is in.
#[derive(Default)]
struct Lines {
    /// The fields of each span, by its number.
    spans: Mutex<Vec<String>>,
    lines: Mutex<Vec<String>>,
}

thread_local! {
    /// The spans that this thread is in.
    static INSIDE: std::cell::RefCell<Vec<u64>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Writes fields as ` name=value`.
struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write;
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

struct Capture(Arc<Lines>);

impl tracing::Subscriber for Capture {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let mut text = Text(span.metadata().name().to_owned());
        span.record(&mut text);
        let mut spans = self.0.spans.lock().unwrap();
        spans.push(text.0);
        tracing::span::Id::from_u64(spans.len() as u64)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let spans = self.0.spans.lock().unwrap();
        INSIDE.with_borrow(|inside| {
            for span in inside {
                text.0.push_str(" | ");
                text.0.push_str(&spans[usize::try_from(*span).unwrap() - 1]);
            }
        });
        self.0.lines.lock().unwrap().push(text.0);
    }

    fn enter(&self, span: &tracing::span::Id) {
        INSIDE.with_borrow_mut(|inside| inside.push(span.into_u64()));
    }

    fn exit(&self, span: &tracing::span::Id) {
        INSIDE.with_borrow_mut(|inside| inside.retain(|other| *other != span.into_u64()));
    }
}

#[tokio::test]
async fn log_lines_inside_a_handler_carry_tid_queue_and_attempt() {
    async fn second_time(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        tokio::task::yield_now().await;
        tracing::info!("the handler speaks");
        cx.create(WorkCheck { n: t.n })?;
        if cx.attempt() == 1 { Err("at first")? } else { Ok(()) }
    }
    async fn stops(_: WorkCheck, _: TaskCx<WorkCheck>) -> Outcome {
        Err("hopeless").stop()
    }
    async fn recovers(_: WorkCheck, cx: TaskCx<WorkCheck>, _: GaveUp) -> Outcome {
        tracing::info!("the recovery speaks");
        cx.state().add("recovered");
        Ok(())
    }
    // The one subscriber of this test binary; the lines of other tests are told by their words.
    let lines = Arc::new(Lines::default());
    tracing::subscriber::set_global_default(Capture(Arc::clone(&lines))).unwrap();
    let service = Service::<Unit>::new()
        .task(second_time, |p| p.retry(Backoff::constant(millis(1))))
        .task(stops, |p| p.recover(recovers));
    let counter = Counter::default();
    let running = service.start(counter.clone(), Broker::memory()).await.unwrap();
    let tid = running.publisher().create(WorkDo { n: 1 }).await.unwrap().tid;
    eventually("done", async || counter.get("recovered") == 1).await;
    running.shutdown().await;
    let lines = lines.lines.lock().unwrap();
    let job =
        |queue, attempt, phase| format!("| job tid={tid} queue={queue} attempt={attempt} phase={phase:?}");
    let expected = [
        ("the handler speaks", job("unit.work.do", 1, "run")),
        ("the handler speaks", job("unit.work.do", 2, "run")),
        ("error=\"at first\"", job("unit.work.do", 1, "run")),
        ("error=\"hopeless\"", job("unit.work.check", 1, "run")),
        ("the recovery speaks", job("unit.work.check", 1, "recover")),
    ];
    for (words, span) in expected {
        let found = lines.iter().any(|line| line.contains(words) && line.contains(&span));
        assert!(found, "{words} … {span}\n{lines:#?}");
    }
}
