//! What these tests share: an application whose jobs do as they are told, and another one that hears of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ponos::core::broker::Broker as _;
use ponos::prelude::*;
use ponos::{RabbitBroker, RabbitOptions};

#[event("job.done")]
pub struct JobDone {
    pub n: u64,
}

#[event("secret.told")]
pub struct SecretTold {}

#[app("unit", state = Arc<Seen>, emits(JobDone))]
pub struct Unit;

/// What a job does.
#[data]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It emits `job.done`.
    Emit,
    /// It fails the first time, and emits then.
    FailOnce,
    /// It fails each time.
    Fail,
    /// It takes so many milliseconds.
    Take(u64),
    /// It emits what its user may not.
    Tell,
    /// It publishes more than the broker takes.
    Large,
}

#[task("unit.job.do", app = Unit, emits(JobDone, SecretTold))]
pub struct JobDo {
    pub n: u64,
    pub how: How,
}

#[task("unit.other.do", app = Unit)]
pub struct OtherDo {
    pub n: u64,
}

#[app("ear", state = Arc<Seen>)]
pub struct Ear;

#[task("ear.job.note", app = Ear)]
pub struct JobNote {
    pub n: u64,
}

/// What came.
#[derive(Debug, Default)]
pub struct Seen {
    runs: Mutex<BTreeMap<u64, u32>>,
    recovered: Mutex<BTreeMap<u64, String>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Seen {
    pub fn ran(&self, n: u64) -> u32 {
        let mut runs = self.runs.lock().unwrap();
        let count = runs.entry(n).or_default();
        *count += 1;
        *count
    }

    pub fn runs(&self, n: u64) -> u32 {
        self.runs.lock().unwrap().get(&n).copied().unwrap_or(0)
    }

    /// How many different jobs came.
    pub fn jobs(&self) -> usize {
        self.runs.lock().unwrap().len()
    }

    pub fn recovered(&self, n: u64) -> Option<String> {
        self.recovered.lock().unwrap().get(&n).cloned()
    }

    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// The most that ran at once.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

struct Running1<'a>(&'a Seen);

impl<'a> Running1<'a> {
    fn enter(seen: &'a Seen) -> Self {
        let now = seen.running.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(now, Ordering::SeqCst);
        Self(seen)
    }
}

impl Drop for Running1<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn do_job(job: JobDo, cx: TaskCx<JobDo>) -> Outcome {
    let seen = Arc::clone(cx.state());
    let _running = Running1::enter(&seen);
    let run = seen.ran(job.n);
    match job.how {
        How::Emit => {}
        How::FailOnce if run > 1 => {}
        How::FailOnce | How::Fail => return Err("as it was told".into()),
        How::Take(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
        How::Tell => {
            cx.emit(SecretTold {})?;
            return Ok(());
        }
        How::Large => {}
    }
    cx.emit(JobDone { n: job.n })?;
    Ok(())
}

async fn recover_job(job: JobDo, cx: TaskCx<JobDo>, why: GaveUp) -> Outcome {
    cx.state().recovered.lock().unwrap().insert(job.n, why.error);
    Ok(())
}

async fn do_other(job: OtherDo, cx: TaskCx<OtherDo>) -> Outcome {
    cx.state().ran(job.n);
    Ok(())
}

fn note(event: JobDone) -> JobNote {
    JobNote { n: event.n }
}

async fn write_note(job: JobNote, cx: TaskCx<JobNote>) -> Outcome {
    cx.state().ran(job.n);
    Ok(())
}

/// The application whose jobs do as they are told; retries come fast.
pub fn unit() -> Service<Unit> {
    unit_with(|p| p)
}

pub fn unit_with(more: impl FnOnce(ponos::TaskPolicy<JobDo>) -> ponos::TaskPolicy<JobDo>) -> Service<Unit> {
    Service::new()
        .task(do_job, |p| {
            more(
                p.retry(Backoff::exponential(millis(50)).max(millis(200)))
                    .max_retries(2)
                    .recover(recover_job),
            )
        })
        .task(do_other, |p| p)
}

pub fn ear() -> Service<Ear> {
    Service::new().on(note).task(write_note, |p| p)
}

/// Shows what is logged, for who looks into a failure: `PONOS_TEST_LOG=debug cargo test … -- --nocapture`.
pub fn show_logs() {
    if let Some(level) =
        std::env::var("PONOS_TEST_LOG").ok().and_then(|level| level.parse::<tracing::Level>().ok())
    {
        let _ = tracing_subscriber::fmt().with_max_level(level).with_test_writer().try_init();
    }
}

/// A broker of its own, as a process would have, that notices and repairs fast.
pub async fn broker(url: &str) -> Arc<RabbitBroker> {
    show_logs();
    let options = RabbitOptions::from_url(url).unwrap().check_every(secs(1));
    Arc::new(RabbitBroker::connect(options).await.unwrap())
}

/// Waits until it is so.
pub async fn until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        tokio::time::sleep(millis(5)).await;
    }
}

/// Both services at work on brokers of their own, with what they saw.
pub struct Stage {
    pub unit: Running<Unit>,
    pub ear: Running<Ear>,
    pub did: Arc<Seen>,
    pub heard: Arc<Seen>,
    pub broker: Arc<RabbitBroker>,
    pub ear_broker: Arc<RabbitBroker>,
}

impl Stage {
    pub async fn new(url: &str) -> Self {
        Self::with(url, unit()).await
    }

    pub async fn with(url: &str, service: Service<Unit>) -> Self {
        let (did, heard) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
        let (broker, ear_broker) = (broker(url).await, broker(url).await);
        let ear = ear().start(Arc::clone(&heard), Arc::clone(&ear_broker)).await.unwrap();
        let unit = service.start(Arc::clone(&did), Arc::clone(&broker)).await.unwrap();
        Self { unit, ear, did, heard, broker, ear_broker }
    }

    pub async fn job(&self, n: u64, how: How) {
        self.unit.publisher().create(JobDo { n, how }).await.unwrap();
    }

    /// A job goes all the way, until it was heard of.
    pub async fn works(&self, n: u64) {
        self.works_within(n, secs(15)).await;
    }

    pub async fn works_within(&self, n: u64, within: Duration) {
        self.job(n, How::Emit).await;
        until(&format!("job {n} is heard of"), within, || self.heard.runs(n) > 0).await;
    }

    pub async fn end(self) {
        self.unit.shutdown().await;
        self.ear.shutdown().await;
        self.broker.close().await.unwrap();
        self.ear_broker.close().await.unwrap();
    }
}

/// The failed jobs of `unit`.
pub fn failed(broker: &Arc<RabbitBroker>) -> ponos::FailedJobs {
    ponos::FailedJobs::new(Arc::clone(broker) as _, ponos::core::name::AppName::parse("unit").unwrap())
}

/// The vhost's part of a URL, as the management API wants it.
pub fn vhost(url: &str) -> &str {
    url.rsplit_once('/').unwrap().1
}
