//! The client library alone. `mode` says how it acknowledges:
//!
//! * `await`: `delivery.ack().await` for each, which waits until the frame is written: what the documentation shows.
//! * `each`: `basic_ack` for each, without waiting.
//! * `batch`: one `basic_ack` with `multiple` for 64.
//!
//! Each delivery's body is parsed as JSON, which every framework does.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use peer_report::{Measuring, Order, filler};
use serde::{Deserialize, Serialize};

/// How many deliveries one acknowledgement settles in the mode `batch`.
const BATCH: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
struct Job {
    n: usize,
    text: String,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let order = Order::of_this_process()?;
    let connection = Connection::connect(order.text("url")?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    declare(&channel, &order).await?;
    match order.workload.as_str() {
        "publish" => publish(&channel, &order).await,
        "consume" => consume(&channel, &order).await,
        other => bail!("this peer does not know `{other}`"),
    }
}

async fn declare(channel: &Channel, order: &Order) -> Result<()> {
    let mut arguments = FieldTable::default();
    let kind = order.value("type", "classic".to_owned())?;
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(order.text("queue")?.into(), options, arguments).await?;
    Ok(())
}

async fn publish(channel: &Channel, order: &Order) -> Result<()> {
    let (count, window) = (order.value("count", 10_000)?, order.value("window", 256)?);
    let (queue, text) = (order.text("queue")?, filler(order.value("body", 256)?));
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let properties =
        BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
    let mut open = VecDeque::with_capacity(window);
    let measuring = Measuring::begin();
    for n in 0..count {
        let body = serde_json::to_vec(&Job { n, text: text.clone() })?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        open.push_back(
            channel.basic_publish("".into(), queue.into(), options, &body, properties.clone()).await?,
        );
        if open.len() >= window {
            let confirm = open.pop_front().context("it is not empty")?.await?;
            anyhow::ensure!(confirm.is_ack(), "not confirmed: {confirm:?}");
        }
    }
    for confirm in open {
        anyhow::ensure!(confirm.await?.is_ack(), "not confirmed");
    }
    measuring.end(count);
    Ok(())
}

async fn consume(channel: &Channel, order: &Order) -> Result<()> {
    let (count, prefetch) = (order.value("count", 10_000)?, order.value("prefetch", 256)?);
    let mode = order.value("mode", "await".to_owned())?;
    let wait = Duration::from_millis(order.value("wait_ms", 0)?);
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let queue = order.text("queue")?.into();
    let mut consumer = channel
        .basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;
    let (mut measuring, mut seen) = (None, 0);
    let mut waiting = tokio::task::JoinSet::new();
    while seen < count {
        let delivery = consumer.next().await.context("the consumer was cancelled")??;
        measuring.get_or_insert_with(Measuring::begin);
        let job: Job = serde_json::from_slice(&delivery.data)?;
        std::hint::black_box(job);
        seen += 1;
        if !wait.is_zero() {
            // As many at once as the prefetch allows.
            waiting.spawn(async move {
                tokio::time::sleep(wait).await;
                delivery.ack(BasicAckOptions::default()).await
            });
            while waiting.try_join_next().is_some() {}
            continue;
        }
        match mode.as_str() {
            "await" => {
                delivery.ack(BasicAckOptions::default()).await?;
            }
            "each" => drop(channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?),
            "batch" if seen % BATCH == 0 || seen == count => {
                channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
            }
            "batch" => {}
            other => bail!("no such mode: {other}"),
        }
    }
    while let Some(acked) = waiting.join_next().await {
        acked??;
    }
    measuring.context("nothing came")?.end(count);
    Ok(())
}
