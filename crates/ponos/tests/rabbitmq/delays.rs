//! Delays live in the broker: never early, spread by their jitter, many at once, and nobody's problem when a queue goes
//! away. `PONOS_RETRIES=3000` for the long form of the first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use ponos::core::broker::{Broker as _, Inspect, Topology};
use ponos::core::id::Timestamp;
use ponos::core::name::{AppName, QueueName};
use ponos::prelude::*;
use ponos::{RabbitBroker, RabbitOptions, TaskPolicy};
use ponos_testbed::Node;

use super::{figure, messages};

const PATIENCE: Duration = Duration::from_secs(60);

/// How many retries are due at one moment.
const AT_ONCE: u32 = 10_000;

/// How much later than asked a retry may come, in milliseconds; `scripts/torture`, which has the machine for itself, asks
/// for less.
fn latest() -> Duration {
    millis(u64::from(figure("PONOS_LATEST", 10_000)))
}

#[app("mill", state = Bell)]
pub struct Mill;

#[task("mill.grain.grind", app = Mill)]
pub struct GrainGrind {
    pub n: u32,
}

#[task("mill.grain.sift", app = Mill)]
pub struct GrainSift {
    pub n: u32,
}

#[app("farm", state = Bell)]
pub struct Farm;

#[task("farm.field.plow", app = Farm)]
pub struct FieldPlow {
    pub n: u32,
}

/// When what began and ended.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Mutex<HashMap<u32, Vec<Rung>>>>);

#[derive(Debug, Clone, Copy)]
pub struct Rung {
    began: Instant,
    wall: SystemTime,
    ended: Instant,
}

impl Bell {
    /// Notes a run of a job and gives how many there were before it.
    fn ring(&self, n: u32, began: Instant) -> usize {
        let mut all = self.0.lock().unwrap();
        let rung = all.entry(n).or_default();
        rung.push(Rung { began, wall: SystemTime::now(), ended: Instant::now() });
        rung.len() - 1
    }

    async fn until(&self, jobs: u32, runs: usize) -> HashMap<u32, Vec<Rung>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                let all = self.0.lock().unwrap();
                let there = all.values().filter(|rung| rung.len() >= runs).count();
                if there >= jobs as usize {
                    return all.clone();
                }
                assert!(Instant::now() < deadline, "{there} of {jobs} after {PATIENCE:?}");
            }
            tokio::time::sleep(millis(10)).await;
        }
    }
}

/// What an even job asks for; an odd one leaves it to the backoff.
fn asked(n: u32) -> Duration {
    millis(u64::from(1_000 + n * 97 % 251))
}

async fn grind(t: GrainGrind, cx: TaskCx<GrainGrind>) -> Outcome {
    let began = Instant::now();
    match cx.state().ring(t.n, began) {
        0 if t.n.is_multiple_of(2) => snooze(asked(t.n)),
        0 => Err("the stone stands")?,
        _ => Ok(()),
    }
}

async fn sift(t: GrainSift, cx: TaskCx<GrainSift>) -> Outcome {
    cx.state().ring(t.n, Instant::now());
    Ok(())
}

async fn plow(t: FieldPlow, cx: TaskCx<FieldPlow>) -> Outcome {
    cx.state().ring(t.n, Instant::now());
    Ok(())
}

async fn connect(url: &str) -> Arc<RabbitBroker> {
    Arc::new(RabbitBroker::connect(RabbitOptions::from_url(url).unwrap()).await.unwrap())
}

async fn declare(broker: &RabbitBroker, queues: &[&str]) {
    for queue in queues {
        let queue = QueueName::parse(queue).unwrap();
        let app = Some(queue.app());
        broker.declare(&Topology { app, tasks: vec![queue], ..Topology::default() }).await.unwrap();
    }
}

fn in_future(delay: Duration) -> Timestamp {
    Timestamp::from(SystemTime::now() + delay)
}

fn spread(what: &str, mut all: Vec<Duration>) -> (Duration, Duration) {
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    let ms = |share: f64| at(share).as_secs_f64() * 1000.0;
    eprintln!(
        "{what}: {} of them; min {:.0}, 10 % {:.0}, median {:.0}, 90 % {:.0}, 99 % {:.0}, max {:.0} ms",
        all.len(),
        ms(0.0),
        ms(0.1),
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(1.0)
    );
    (at(0.5), at(1.0))
}

/// How late, after the moment that was asked for; an error when it is early. The broker's time has milliseconds.
fn late(at: SystemTime, due: Timestamp) -> Duration {
    let (at, due) = (Timestamp::from(at), due.as_millis());
    assert!(at.as_millis() >= due, "{} ms early", due - at.as_millis());
    millis(at.as_millis() - due)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_retry_is_early_and_few_are_late_and_their_jitter_shows() {
    let jobs = figure("PONOS_RETRIES", 400);
    let broker = connect(&Node::shared().fresh_vhost()).await;
    let bell = Bell::default();
    let service = Service::<Mill>::new().task(grind, |p| p.retry(Backoff::exponential(secs(1))).no_breaker());
    let running = service.start(bell.clone(), Arc::clone(&broker)).await.unwrap();
    // A hundred a second, so that what is late is late for its delay and not for the crowd.
    let mut tick = tokio::time::interval(millis(100));
    let all: Vec<u32> = (0..jobs).collect();
    for some in all.chunks(10) {
        tick.tick().await;
        messages::send(&*broker, some.iter().map(|&n| messages::task(&GrainGrind { n }, None)).collect())
            .await;
    }
    let rung = bell.until(jobs, 2).await;
    running.shutdown().await;
    broker.close().await.unwrap();

    let (mut lateness, mut gaps) = (Vec::new(), Vec::new());
    for (n, rung) in rung {
        assert_eq!(rung.len(), 2, "job {n}");
        let gap = rung[1].began - rung[0].ended;
        let asked = if n.is_multiple_of(2) { asked(n) } else { secs(1) };
        assert!(gap + millis(1) >= asked, "job {n}: {gap:?} for {asked:?}");
        if n.is_multiple_of(2) {
            lateness.push(gap.saturating_sub(asked));
        } else {
            gaps.push(gap);
        }
    }
    let (median, max) = spread("asked for 1.0 to 1.25 s exactly: late by", lateness);
    gaps.sort_unstable();
    let middle = gaps[gaps.len() * 9 / 10] - gaps[gaps.len() / 10];
    spread("backoff of 1 s with up to 25 % of jitter: came after", gaps);
    assert!(middle > millis(50), "no jitter: eight tenths within {middle:?}");
    assert!(median < latest() / 4 && max < latest(), "late by {median:?} and up to {max:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_retries_that_are_due_at_once_drain_without_loss() {
    let broker = connect(&Node::shared().fresh_vhost()).await;
    declare(&broker, &["mill.grain.sift"]).await;
    let bell = Bell::default();
    let service = Service::<Mill>::new().task(sift, TaskPolicy::no_breaker);
    let running = service.start(bell.clone(), Arc::clone(&broker)).await.unwrap();
    let due = in_future(secs(8));
    let filling = Instant::now();
    let all: Vec<u32> = (0..AT_ONCE).collect();
    for some in all.chunks(500) {
        messages::send(&*broker, some.iter().map(|&n| messages::task(&GrainSift { n }, Some(due))).collect())
            .await;
    }
    let filled = filling.elapsed();
    let rung = bell.until(AT_ONCE, 1).await;
    running.shutdown().await;
    broker.close().await.unwrap();
    let again = rung.values().filter(|rung| rung.len() > 1).count();
    let (_, max) = spread(
        &format!(
            "{AT_ONCE} due at one moment, published in {:.1} s, {again} ran twice: late by",
            filled.as_secs_f64()
        ),
        rung.values().map(|rung| late(rung[0].wall, due)).collect(),
    );
    eprintln!("{:.0} jobs/s from the moment on", f64::from(AT_ONCE) / max.as_secs_f64());
    assert_eq!(again, 0, "no connection was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_delays_nobodys_retries_and_its_jobs_are_kept() {
    const EACH: u32 = 300;
    let (node, vhost) = (Node::shared(), Node::shared().fresh_vhost_name());
    let broker = connect(&node.url_of(&vhost)).await;
    declare(&broker, &["mill.grain.grind", "mill.grain.sift", "farm.field.plow"]).await;
    let (own, other) = (Bell::default(), Bell::default());
    // Nobody serves the queue that goes away; who does would make it again.
    let mill = Service::<Mill>::new().task(sift, TaskPolicy::no_breaker);
    let mill = mill.start(own.clone(), connect(&node.url_of(&vhost)).await as Arc<_>).await.unwrap();
    let farm = Service::<Farm>::new().task(plow, TaskPolicy::no_breaker);
    let farm = farm.start(other.clone(), connect(&node.url_of(&vhost)).await as Arc<_>).await.unwrap();
    let due = in_future(secs(3));
    let mut all = Vec::new();
    for n in 0..EACH {
        all.push(messages::task(&GrainGrind { n }, Some(due)));
        all.push(messages::task(&GrainSift { n }, Some(due)));
        all.push(messages::task(&FieldPlow { n }, Some(due)));
    }
    messages::send(&*broker, all).await;
    let (status, answer) = node.http("DELETE", &format!("/api/queues/{vhost}/mill.grain.grind"), None);
    assert!(status == 204 && in_future(Duration::ZERO) < due, "too late or not deleted: {status} {answer}");

    for (whose, bell) in [("the same application's", own), ("another application's", other)] {
        let rung = bell.until(EACH, 1).await;
        let lateness = rung.values().map(|rung| late(rung[0].wall, due)).collect();
        let (_, max) = spread(&format!("{whose} retries beside those of a deleted queue: late by"), lateness);
        assert!(max < latest(), "{whose} were late by {max:?}");
    }
    let failed = QueueName::failed(&AppName::parse("mill").unwrap());
    let deadline = Instant::now() + PATIENCE;
    let kept = loop {
        let query = Inspect::Messages { queue: failed.clone(), limit: 1_000, after: None };
        let kept = broker.inspect(query).await.unwrap().into_messages();
        if kept.len() >= EACH as usize {
            break kept;
        }
        assert!(Instant::now() < deadline, "{} of {EACH} are in {failed}", kept.len());
    };
    let report = kept[0].report.as_ref().expect("it says why");
    eprintln!("{} jobs are in {failed}: {}", kept.len(), report.gave_up.error);
    assert_eq!(kept.len(), EACH as usize);
    assert!(kept.iter().all(|job| job.report.as_ref().unwrap().queue.as_str() == "mill.grain.grind"));
    mill.shutdown().await;
    farm.shutdown().await;
    broker.close().await.unwrap();
}
