//! Ponos with its defaults, records of the lifecycle on. `prefetch=0` takes the default, everything else asks for that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peer_report::{Measuring, Order, filler};
use ponos::core::broker::{Broker as _, Inspect};
use ponos::core::name::QueueName;
use ponos::prelude::*;
use ponos::{QueueType, RabbitBroker, RabbitOptions};
use tokio::sync::Notify;

#[app("bench", state = Arc<Counting>)]
pub struct Bench;

#[task("bench.job.run", app = Bench)]
pub struct JobRun {
    pub n: usize,
    pub text: String,
}

/// Counts what has run.
#[derive(Debug)]
pub struct Counting {
    measuring: OnceLock<Mutex<Option<Measuring>>>,
    left: AtomicUsize,
    wait: Duration,
    all: Notify,
}

async fn run(_: JobRun, cx: TaskCx<JobRun>) -> Outcome {
    let counting = cx.state();
    counting.measuring.get_or_init(|| Mutex::new(Some(Measuring::begin())));
    if !counting.wait.is_zero() {
        cx.sleep(counting.wait).await;
    }
    if counting.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        counting.all.notify_one();
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let order = Order::of_this_process()?;
    let options = RabbitOptions::from_url(order.text("url")?)?;
    let options = match order.value("type", "classic".to_owned())?.as_str() {
        "quorum" => options.queue_type(QueueType::Quorum),
        _ => options.queue_type(QueueType::Classic),
    };
    let broker = Arc::new(RabbitBroker::connect(options).await?);
    match order.workload.as_str() {
        "publish" => publish(broker, &order).await,
        "consume" => consume(broker, &order).await,
        other => bail!("this peer does not know `{other}`"),
    }
}

async fn publish(broker: Arc<RabbitBroker>, order: &Order) -> Result<()> {
    let (count, window) = (order.value("count", 10_000)?, order.value("window", 256)?);
    let text = filler(order.value("body", 256)?);
    // The service's queue exists once it has started.
    service().start(counting(0, Duration::ZERO), Arc::clone(&broker)).await?.shutdown().await;
    let publisher = Publisher::<Bench>::connect(Arc::clone(&broker)).await?;
    let measuring = Measuring::begin();
    let mut open = FuturesUnordered::new();
    for n in 0..count {
        open.push(publisher.create(JobRun { n, text: text.clone() }));
        if open.len() >= window {
            open.next().await.transpose()?;
        }
    }
    while let Some(published) = open.next().await {
        published?;
    }
    measuring.end(count);
    broker.close().await?;
    Ok(())
}

async fn consume(broker: Arc<RabbitBroker>, order: &Order) -> Result<()> {
    let (count, prefetch) = (order.value("count", 10_000)?, order.value("prefetch", 0)?);
    let counting = counting(count, Duration::from_millis(order.value("wait_ms", 0)?));
    let service = Service::<Bench>::new()
        .task(run, |p| if prefetch == 0 { p } else { p.prefetch(prefetch).concurrency(prefetch) });
    let running = service.start(Arc::clone(&counting), Arc::clone(&broker)).await?;
    counting.all.notified().await;
    let measuring = counting.measuring.get().and_then(|m| m.lock().ok()?.take());
    measuring.context("nothing came")?.end(count);
    running.shutdown().await;
    let stats = broker.inspect(Inspect::Queues(None)).await?.into_queues();
    let queue = QueueName::parse("bench.job.run")?;
    let left: u64 = stats.iter().filter(|stats| stats.queue == queue).map(|stats| stats.ready).sum();
    anyhow::ensure!(left == 0, "{left} jobs were not settled");
    broker.close().await?;
    Ok(())
}

fn service() -> Service<Bench> {
    Service::new().task(run, |p| p)
}

fn counting(left: usize, wait: Duration) -> Arc<Counting> {
    Arc::new(Counting { measuring: OnceLock::new(), left: AtomicUsize::new(left), wait, all: Notify::new() })
}
