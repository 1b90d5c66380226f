//! Rate limits in a real Redis: exact over instances, and never unlimited whatever becomes of the server.

#![cfg(feature = "redis")]
#![allow(missing_debug_implementations, clippy::unwrap_used, reason = "messages and helpers of tests")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ponos::prelude::*;
use ponos::testing::System;
use ponos::{MemoryBroker, RedisLimits, SharedLimitsState, StartError};
use tempfile::TempDir;

/// How long what must happen may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Starts per second, and the burst that goes with it.
const RATE: u32 = 50;
const BURST: f64 = 5.0;

/// What a busy machine may shift: starts that come late after they were granted.
const LATE: f64 = 5.0;

/// What a change between Redis and the local share may let through: a burst of each side, and for a second the share of
/// an instance that has not found Redis again.
const CHANGE: f64 = 2.0 * BURST + RATE as f64 / 2.0;

#[app("limited", state = Clock)]
struct Limited;

#[task("limited.call.make", app = Limited)]
struct CallMake {
    n: u64,
}

#[task("limited.call.check", app = Limited)]
struct CallCheck {
    n: u64,
}

/// Notes when jobs start.
#[derive(Clone, Default)]
struct Clock {
    starts: Arc<Mutex<Vec<Instant>>>,
    /// Whether a job, once started, never ends.
    stuck: bool,
}

impl Clock {
    fn count(&self) -> usize {
        self.starts.lock().unwrap().len()
    }

    fn starts(&self) -> Vec<Instant> {
        let mut starts = self.starts.lock().unwrap().clone();
        starts.sort();
        starts
    }

    async fn start(&self) -> Outcome {
        self.starts.lock().unwrap().push(Instant::now());
        if self.stuck {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

async fn make(_: CallMake, cx: TaskCx<CallMake>) -> Outcome {
    cx.state().start().await
}

async fn check(_: CallCheck, cx: TaskCx<CallCheck>) -> Outcome {
    cx.state().start().await
}

fn service(url: &str) -> Service<Limited> {
    Service::new()
        .task(make, |p| p.rate_limit(RATE.per_second()).concurrency(8))
        .shared_limits(RedisLimits::at(url))
}

/// A server of its own, which ends with the test.
struct Redis {
    child: Child,
    port: u16,
    dir: TempDir,
    options: Vec<String>,
}

impl Redis {
    /// `None`, said aloud, where none is installed.
    fn start(options: &[&str]) -> Option<Self> {
        if Command::new("redis-server").arg("--version").output().is_err() {
            // Past the capture of the test harness.
            std::io::stderr().write_all(b"SKIPPED: redis-server is not installed\n").unwrap();
            return None;
        }
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let child = Self::spawn(port, &dir, &options);
        let mut redis = Self { child, port, dir, options };
        redis.wait();
        Some(redis)
    }

    fn spawn(port: u16, dir: &TempDir, options: &[String]) -> Child {
        Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(dir.path())
            .args(options)
            .args(["--logfile", "log"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < DEADLINE, "redis-server does not listen");
            let log = || std::fs::read_to_string(self.dir.path().join("log"));
            assert!(self.child.try_wait().unwrap().is_none(), "redis-server has ended: {:?}", log());
            std::thread::yield_now();
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Says it in Redis' inline form; what it answers.
    fn say(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = Self::spawn(self.port, &self.dir, &self.options);
        self.wait();
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success()
        );
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Frozen or not; it may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free and stays so: below those that the system hands out, and no other test of this process takes it.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 120) as u16 * 100;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let polling = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, polling).await.is_ok(), "not within {DEADLINE:?}: {what}");
}

fn state(running: &Running<Limited>) -> SharedLimitsState {
    running.shared_limits().unwrap().state
}

async fn becomes(running: &Running<Limited>, wanted: SharedLimitsState) {
    eventually(&format!("{wanted:?}"), || state(running) == wanted).await;
}

async fn create(running: &Running<Limited>, jobs: u64) {
    for n in 0..jobs {
        running.publisher().create(CallMake { n }).await.unwrap();
    }
}

/// Between any two starts there are no more than the rate, a burst and `more` allow.
fn never_faster(starts: &[Instant], more: f64) {
    for (i, from) in starts.iter().enumerate() {
        for (j, to) in starts.iter().enumerate().skip(i) {
            let (count, time) = ((j - i + 1) as f64, to.duration_since(*from).as_secs_f64());
            let allowed = f64::from(RATE) * time + BURST + LATE + more;
            assert!(count <= allowed, "{count} starts within {time:.3} s, allowed are {allowed:.1}");
        }
    }
}

fn seconds(starts: &[Instant]) -> f64 {
    starts.last().unwrap().duration_since(starts[0]).as_secs_f64()
}

/// Shows the figures that a test found with `--nocapture`.
fn note(text: &str) {
    std::io::stdout().write_all(format!("{text}\n").as_bytes()).unwrap();
}

#[tokio::test]
async fn the_busy_one_of_two_instances_gets_the_whole_limit() {
    let Some(redis) = Redis::start(&[]) else { return };
    let broker = Arc::new(MemoryBroker::new());
    let (busy, stuck) = (Clock::default(), Clock { stuck: true, ..Clock::default() });
    let narrow = Service::<Limited>::new()
        .task(make, |p| p.rate_limit(RATE.per_second()).concurrency(1).prefetch(1))
        .shared_limits(RedisLimits::at(redis.url()));
    let second = narrow.start(stuck.clone(), Arc::clone(&broker)).await.unwrap();
    create(&second, 1).await;
    eventually("the second instance is stuck", || stuck.count() == 1).await;
    let first = service(&redis.url()).start(busy.clone(), broker).await.unwrap();
    becomes(&first, SharedLimitsState::Redis).await;
    becomes(&second, SharedLimitsState::Redis).await;

    create(&first, 200).await;
    eventually("200 starts", || busy.count() == 200).await;
    let starts = busy.starts();
    never_faster(&starts, 0.0);
    let (took, at_the_rate) = (seconds(&starts), (200.0 - BURST) / f64::from(RATE));
    note(&format!("200 starts of one busy instance: {took:.2} s, at the whole rate {at_the_rate:.2} s"));
    assert!(took < at_the_rate / 0.8, "{took:.2} s: less than 80 % of the limit");
    assert_eq!(first.shared_limits().unwrap().fallbacks, 0);
}

/// They have a broker each, so that each takes itself for the only one.
#[tokio::test]
async fn instances_that_do_not_know_of_each_other_keep_one_limit() {
    let Some(redis) = Redis::start(&[]) else { return };
    let both = Clock::default();
    let mut running = Vec::new();
    for _ in 0..2 {
        let started = service(&redis.url()).start(both.clone(), Broker::memory()).await.unwrap();
        becomes(&started, SharedLimitsState::Redis).await;
        running.push(started);
    }
    for running in &running {
        create(running, 150).await;
    }
    eventually("200 starts", || both.count() >= 200).await;
    let starts = both.starts();
    never_faster(&starts, 0.0);
    let (took, at_the_rate) = (seconds(&starts), (starts.len() as f64 - BURST) / f64::from(RATE));
    note(&format!("{} starts of two: {took:.2} s, at the rate {at_the_rate:.2} s", starts.len()));
    assert!(took < at_the_rate / 0.8, "{took:.2} s: less than 80 % of the limit");
}

#[tokio::test]
async fn without_redis_the_local_share_holds_until_it_is_back() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let broker = Arc::new(MemoryBroker::new());
    let clock = Clock::default();
    let first = service(&redis.url()).start(clock.clone(), Arc::clone(&broker)).await.unwrap();
    let second = service(&redis.url()).start(clock.clone(), broker).await.unwrap();
    becomes(&first, SharedLimitsState::Redis).await;
    becomes(&second, SharedLimitsState::Redis).await;
    create(&first, 2_000).await;
    eventually("50 starts", || clock.count() >= 50).await;

    redis.kill();
    becomes(&first, SharedLimitsState::LocalShare).await;
    becomes(&second, SharedLimitsState::LocalShare).await;
    let away = Instant::now();
    let before = clock.count();
    // An instance that has just started first looks for others, for up to 5.5 s.
    eventually("starts without Redis", || clock.count() >= before + 150).await;
    assert_eq!(first.shared_limits().unwrap().fallbacks, 1);
    let local: Vec<_> = clock.starts().into_iter().filter(|&at| at > away).collect();
    never_faster(&local, 0.0);
    note(&format!("{} starts within {:.2} s without Redis", local.len(), seconds(&local)));

    redis.restart();
    becomes(&first, SharedLimitsState::Redis).await;
    becomes(&second, SharedLimitsState::Redis).await;
    let (back, before) = (Instant::now(), clock.count());
    eventually("starts with Redis again", || clock.count() >= before + 100).await;
    let starts = clock.starts();
    never_faster(&starts, CHANGE);
    let again: Vec<_> = starts.into_iter().filter(|&at| at > back).collect();
    note(&format!("{} starts within {:.2} s with Redis again", again.len(), seconds(&again)));
    never_faster(&again, 0.0);
    assert!(seconds(&again) < 2.0 / 0.8, "the whole limit again");
}

#[tokio::test]
async fn a_frozen_redis_delays_no_start_beyond_its_time_limit() {
    let Some(redis) = Redis::start(&[]) else { return };
    let clock = Clock::default();
    let running = service(&redis.url()).start(clock.clone(), Broker::memory()).await.unwrap();
    becomes(&running, SharedLimitsState::Redis).await;
    create(&running, 2_000).await;
    eventually("50 starts", || clock.count() >= 50).await;

    redis.signal("-STOP");
    let frozen = clock.count();
    becomes(&running, SharedLimitsState::LocalShare).await;
    eventually("150 starts without Redis", || clock.count() >= frozen + 150).await;
    redis.signal("-CONT");
    becomes(&running, SharedLimitsState::Redis).await;
    let thawed = clock.count();
    eventually("50 starts with Redis again", || clock.count() >= thawed + 50).await;

    let starts = clock.starts();
    never_faster(&starts, CHANGE);
    let gap = starts.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap();
    note(&format!("the longest time between two starts: {gap:?}"));
    assert!(gap < Duration::from_millis(400), "{gap:?}");
}

#[tokio::test]
async fn a_service_starts_without_redis_and_uses_it_once_it_is_there() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    redis.kill();
    let clock = Clock::default();
    let running = service(&redis.url()).start(clock.clone(), Broker::memory()).await.unwrap();
    create(&running, 500).await;
    eventually("starts on the local share", || clock.count() >= 60).await;
    assert_eq!(state(&running), SharedLimitsState::LocalShare);
    redis.restart();
    becomes(&running, SharedLimitsState::Redis).await;
    eventually("starts with Redis", || clock.count() >= 160).await;
    // What the local share let start is paid for, so coming back is worth no burst.
    never_faster(&clock.starts(), 0.0);
    assert_eq!(
        running.shared_limits().unwrap().fallbacks,
        0,
        "it has not gone from Redis to the local share"
    );
}

#[tokio::test]
async fn a_key_that_holds_something_else_puts_its_limit_alone_on_the_local_share() {
    let Some(redis) = Redis::start(&[]) else { return };
    redis.say("SET ponos:rate:limited:smtp nonsense");
    let clock = Clock::default();
    let running = service(&redis.url())
        .task(check, |p| p.rate_limit(RATE.per_second()).depends_on("smtp"))
        .start(clock.clone(), Broker::memory())
        .await
        .unwrap();
    create(&running, 20).await;
    for n in 0..20 {
        running.publisher().create(CallCheck { n }).await.unwrap();
    }
    eventually("all have started", || clock.count() == 40).await;
    assert_eq!(state(&running), SharedLimitsState::LocalShare);
    assert!(redis.say("GET ponos:rate:limited:smtp").contains("nonsense"), "it is left alone");
    redis.say("DEL ponos:rate:limited:smtp");
    becomes(&running, SharedLimitsState::Redis).await;
    assert_eq!(running.shared_limits().unwrap().fallbacks, 0, "the other limit stayed in Redis");
}

#[tokio::test]
async fn nothing_is_asked_while_no_job_waits_and_no_more_than_jobs() {
    let Some(redis) = Redis::start(&[]) else { return };
    let clock = Clock::default();
    let running = service(&redis.url()).start(clock.clone(), Broker::memory()).await.unwrap();
    becomes(&running, SharedLimitsState::Redis).await;
    for n in 1..=5 {
        create(&running, 1).await;
        eventually("it has started", || clock.count() == n).await;
    }
    let statistics = redis.say("INFO commandstats");
    // The first asks for nothing: it finds out whether the script can run.
    assert!(statistics.contains("cmdstat_eval:calls=6,"), "{statistics}");
}

// --- The password ---

/// Keeps everything that is logged in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("ponos") || metadata.target().starts_with("redis")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = self.0.lock().unwrap();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            text.push_str(&format!("{field}={value:?} "));
        });
        text.push('\n');
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_password_is_used_and_never_shown() {
    let options = "--requirepass another --user limits on >ver:y/s@cret ~ponos:rate:* +eval +time +get +set";
    let Some(redis) = Redis::start(&options.split(' ').collect::<Vec<_>>()) else { return };
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    // The other tests log as well.
    let told = || {
        let server = format!("127.0.0.1:{} ", redis.port);
        let log = log.0.lock().unwrap();
        log.lines().filter(|line| line.contains(&server)).map(|line| format!("{line}\n")).collect::<String>()
    };
    let url = |password: &str| format!("redis://limits:{password}@127.0.0.1:{}", redis.port);

    let clock = Clock::default();
    let right = service(&url("ver%3Ay%2Fs%40cret"));
    let shown = format!("{right:?} {:?}", RedisLimits::at(url("ver%3Ay%2Fs%40cret")));
    let running = right.start(clock.clone(), Broker::memory()).await.unwrap();
    becomes(&running, SharedLimitsState::Redis).await;
    create(&running, 10).await;
    eventually("ten starts", || clock.count() == 10).await;
    let shown = format!("{shown} {running:?} {:?}", running.shared_limits());
    assert!(!shown.contains("s@cret") && !shown.contains("%40cret"), "{shown}");

    let clock = Clock::default();
    let wrong = service(&url("wr0ng")).start(clock.clone(), Broker::memory()).await.unwrap();
    create(&wrong, 10).await;
    eventually("ten starts on the local share", || clock.count() == 10).await;
    assert_eq!(state(&wrong), SharedLimitsState::LocalShare);
    eventually("it was tried again", || told().contains("Redis is still away")).await;
    note(&told());
    let log = log.0.lock().unwrap().clone();
    assert!(!log.contains("s@cret") && !log.contains("wr0ng"), "{log}");
    assert_eq!(told().matches("Redis is away").count(), 1, "once a minute at most");
}

// --- Bad input ---

async fn refused(limits: RedisLimits) -> String {
    let service = Service::<Limited>::new().task(make, |p| p).shared_limits(limits);
    match service.start(Clock::default(), Broker::memory()).await {
        Err(error @ StartError::Definition { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_read_is_a_problem_of_the_definition() {
    for url in
        ["", "localhost", "http://u:s3cret@h", "redis://u:s3cret@h:port", "redis://u:s3cret@h/db", "redis://"]
    {
        let error = refused(RedisLimits::at(url)).await;
        assert!(
            error.contains("`shared_limits`: the URL is not Redis' URL: write `redis://"),
            "{url}: {error}"
        );
        assert!(!error.contains("s3cret"), "{error}");
        let shown = format!("{:?}", RedisLimits::at(url));
        assert!(!shown.contains("s3cret") && !shown.contains("localhost"), "{shown}");
    }
    let error = refused(RedisLimits::at("rediss://u:s3cret@h")).await;
    assert!(error.contains("needs TLS") && !error.contains("s3cret"), "{error}");
    let error = refused(RedisLimits::from_env("PONOS_TEST_NO_SUCH_VARIABLE")).await;
    assert!(error.contains("the variable `PONOS_TEST_NO_SUCH_VARIABLE` is not set"), "{error}");
}

#[tokio::test]
async fn a_test_needs_no_redis() {
    let clock = Clock::default();
    let service = service("redis://127.0.0.1:1");
    let system = System::seeded(1).service(service, clock.clone()).start().await;
    for n in 0..100 {
        system.create(CallMake { n }).await;
    }
    system.settled().await;
    assert_eq!(clock.count(), 100);
    assert!(system.elapsed() >= Duration::from_millis(1_900), "the limit holds: {:?}", system.elapsed());
    let variable = Service::<Limited>::new()
        .task(make, |p| p.rate_limit(RATE.per_second()))
        .shared_limits(RedisLimits::from_env("PONOS_TEST_NO_SUCH_VARIABLE"));
    System::seeded(2).service(variable, clock).start().await;
}
