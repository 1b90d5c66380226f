//! The tables of `tests/bad_input` through a real RabbitMQ: a foreign client publishes what no program of Ponos would.

use std::sync::Arc;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, DecimalValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use ponos::StartError;
use ponos::core::broker::BrokerErrorKind;
use ponos::core::envelope::Recovery;
use ponos::prelude::*;
use ponos_testbed::Node;

#[path = "../bad_input/bodies.rs"]
mod bodies;
#[path = "../bad_input/headers.rs"]
mod headers;
#[path = "../bad_input/place.rs"]
mod place;
#[path = "../bad_input/properties.rs"]
mod properties;
#[path = "../bad_input/publishing.rs"]
mod publishing;
#[path = "../bad_input/row.rs"]
mod row;
#[path = "../support/mod.rs"]
mod support;

use self::place::{Amqp, Foreign, Hand, Place, Put, QUEUE, Value};
use self::support::{Counter, Unit, WorkDo};
use super::raw_client::{RawClient, nested, short};

/// A client of another make. It publishes to the queue by its name, as Node services do.
struct Client(Connection);

impl Client {
    async fn connect(url: &str) -> Self {
        Self(Connection::connect(url, ConnectionProperties::default()).await.unwrap())
    }

    async fn channel(&self) -> Channel {
        let channel = self.0.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel
    }

    /// Publishes over a channel of its own, which RabbitMQ may close.
    async fn publish(&self, exchange: &str, key: &str, message: &Foreign) -> Result<(), String> {
        let channel = self.channel().await;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = properties_of(message);
        let sent = channel.basic_publish(exchange.into(), key.into(), options, &message.body, properties);
        let confirm = match sent.await {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        let answer = match confirm {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(format!("{error:?}")),
        };
        if answer.is_ok() {
            channel.close(200, "done".into()).await.unwrap();
        }
        answer
    }
}

impl Hand for Client {
    fn put<'a>(&'a self, message: &'a Foreign) -> Put<'a> {
        Box::pin(self.publish("", QUEUE, message))
    }
}

fn properties_of(message: &Foreign) -> BasicProperties {
    let mut properties = BasicProperties::default();
    macro_rules! set {
        ($($value:expr => $with:ident),*) => {
            $(if let Some(value) = $value.clone() { properties = properties.$with(value.into()); })*
        };
    }
    let Amqp { content_type, content_encoding, expiration, priority, delivery_mode, reply_to, user_id } =
        message.amqp;
    set!(message.id => with_message_id, message.correlation => with_correlation_id, message.kind => with_type,
        message.app => with_app_id, message.timestamp => with_timestamp, content_type => with_content_type,
        content_encoding => with_content_encoding, expiration => with_expiration, priority => with_priority,
        delivery_mode => with_delivery_mode, reply_to => with_reply_to, user_id => with_user_id);
    if message.headers.is_empty() { properties } else { properties.with_headers(table(&message.headers)) }
}

fn table(fields: &[(String, Value)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(name.as_str().into(), amqp(value));
    }
    table
}

fn amqp(value: &Value) -> AMQPValue {
    match value {
        Value::Int(n) => AMQPValue::LongLongInt(*n),
        Value::Text(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Double(n) => AMQPValue::Double(*n),
        Value::Decimal => AMQPValue::DecimalValue(DecimalValue { scale: 1, value: 15 }),
        Value::Timestamp(n) => AMQPValue::Timestamp(*n),
        Value::Bytes(bytes) => AMQPValue::ByteArray(bytes.as_slice().into()),
        Value::Void => AMQPValue::Void,
        Value::List(values) => AMQPValue::FieldArray(values.iter().map(amqp).collect::<Vec<_>>().into()),
        Value::Table(fields) => AMQPValue::FieldTable(table(fields)),
    }
}

/// A virtual host of its own with the queues of `unit`, and a client in it.
async fn place() -> Place {
    at(&Node::shared().fresh_vhost()).await
}

async fn at(url: &str) -> Place {
    let place = Place {
        kind: "rabbitmq",
        broker: super::support::broker(url).await,
        hand: Box::new(Client::connect(url.split('?').next().unwrap()).await),
        look: millis(50),
        keep: Box::new(()),
    };
    place.declare().await;
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_handler_can_read_fails_and_is_kept() {
    row::work(&place().await, &bodies::cases()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_fails_unread_and_can_be_put_away() {
    let place = place().await;
    row::work(&place, &bodies::large()).await;
    row::put_away(&place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_headers_are_not_believed_and_harm_nobody() {
    let place = place().await;
    row::work(&place, &headers::cases()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_properties_are_replaced_and_the_job_runs() {
    let place = place().await;
    row::work(&place, &properties::cases()).await;
    row::work(&place, &bodies::labels()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_published_is_refused_and_nothing_is_sent() {
    publishing::refuses(&place().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_used_twice_loses_nothing() {
    publishing::ids_used_twice(&place().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_at_the_end_of_its_range_overflows_nothing() {
    publishing::progress_at_its_end(&place().await).await;
}

async fn notes(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
    cx.state().note(t.n);
    Ok(())
}

fn good(n: u64) -> Foreign {
    Foreign { body: format!("{{\"tid\":\"t\",\"n\":{n}}}").into(), ..Foreign::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rabbitmq_gave_up_is_found_among_the_failed_jobs() {
    let url = Node::shared().fresh_vhost();
    let place = at(&url).await;
    let client = Client::connect(&url).await;
    let text = |text: &str| Value::Text(text.to_owned());
    let forged = vec![
        ("x-first-death-queue".to_owned(), text(QUEUE)),
        ("x-first-death-reason".to_owned(), text("rejected")),
    ];
    // Nobody works the queue, so it expires there.
    let expires = Foreign { amqp: Amqp { expiration: Some("1"), ..Amqp::default() }, ..good(1) };
    place.hand.put(&expires).await.unwrap();
    client.publish("unit", "unit.nobody.serve", &Foreign { headers: forged, ..good(2) }).await.unwrap();
    place.eventually("both failed", async || place.failed().await.len() == 2).await;
    for (n, queue, says) in [
        (1, QUEUE, "RabbitMQ gave it up: expired"),
        (2, "unit.nobody.serve", "the queue `unit.nobody.serve` did not exist when it was due"),
    ] {
        let failed = place.failed().await;
        let kept =
            failed.iter().find(|job| job.body == good(n).body).unwrap_or_else(|| panic!("{n} is lost"));
        let report = kept.report.as_ref().unwrap();
        assert_eq!((report.queue.as_str(), report.gave_up.error.as_str()), (queue, says), "{n}");
        assert_eq!(report.recovery, Recovery::None);
    }
    // What expired is retried as any other failed job.
    let counter = Counter::default();
    let running = place.start(Service::<Unit>::new().task(notes, |p| p), counter.clone()).await;
    let expired = place.failed().await.into_iter().find(|job| job.body == expires.body).unwrap().id;
    let jobs = ponos::FailedJobs::new(Arc::clone(&place.broker), place::app());
    assert!(matches!(jobs.retry(expired).await.unwrap(), ponos::RetryFailed::Retried(_)));
    place.eventually("it ran", async || counter.noted() == [1]).await;
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_table_over_a_frame_ends_its_publishers_connection_alone() {
    let url = Node::shared().fresh_vhost();
    let place = at(&url).await;
    let counter = Counter::default();
    let running = place.start(Service::<Unit>::new().task(notes, |p| p), counter.clone()).await;
    let large = vec![("x-large".to_owned(), Value::Text("x".repeat(200_000)))];
    let client = Client::connect(&url).await;
    let said = client.publish("", QUEUE, &Foreign { headers: large, ..good(1) }).await;
    assert!(said.is_err(), "it was taken");
    running.publisher().create(WorkDo { n: 2 }).await.unwrap();
    place.eventually("the others go on", async || counter.noted() == [2]).await;
    running.shutdown().await;
}

/// On a classic queue nobody counts deliveries, so the count of a message that comes again is its publisher's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_count_of_deliveries_on_a_classic_queue_makes_no_suspect() {
    let url = format!("{}?queue_type=classic", Node::shared().fresh_vhost());
    let place = at(&url).await;
    let forged =
        vec![("x-delivery-count".to_owned(), Value::Int(99)), ("x-ponos-suspect".to_owned(), Value::Int(1))];
    place.hand.put(&Foreign { headers: forged, ..good(1) }).await.unwrap();
    // Delivered once and handed back by a connection that breaks, as when a process dies.
    let other = Client::connect(url.split('?').next().unwrap()).await;
    let channel = other.channel().await;
    let taken = channel.basic_get(QUEUE.into(), lapin::options::BasicGetOptions::default()).await;
    assert!(taken.unwrap().is_some());
    other.0.close(200, "it dies".into()).await.unwrap();
    let counter = Counter::default();
    let running = place.start(Service::<Unit>::new().task(notes, |p| p), counter.clone()).await;
    place.eventually("it ran", async || counter.noted() == [1]).await;
    assert!(place.failed().await.is_empty());
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_missing_at_the_start_is_named() {
    let node = Node::shared();
    let refused =
        ["is not allowed", "give this user what `ponos topology permissions` prints", "exchange 'unit"];
    let undeclared = ["the event `work.done`", "may not declare it", "run `ponos topology apply`"];
    for (name, [configure, write, read], parts) in [
        ("no-configure", ["", ".*", ".*"], undeclared),
        ("no-write", [".*", "", ".*"], refused),
        ("no-read", [".*", ".*", ""], refused),
    ] {
        let vhost = node.fresh_vhost_name();
        let user = format!("{name}-{vhost}");
        node.add_user(&vhost, &user, "s3cret", configure, write, read);
        let broker = Broker::from_url(&node.url_as(&user, "s3cret", &vhost)).unwrap();
        let started = Service::<Unit>::new().task(notes, |p| p).start(Counter::default(), broker).await;
        let Err(StartError::Broker { source, .. }) = started else { panic!("it started with {name}") };
        let text = source.to_string();
        assert_eq!(source.kind(), BrokerErrorKind::Denied, "{name}: {text}");
        for part in parts {
            assert!(text.contains(part), "{name}: no `{part}` in: {text}");
        }
        if parts == refused {
            assert!(
                text.contains(&format!("in vhost '{vhost}' refused for user '{user}'")),
                "{name}: {text}"
            );
        }
        assert!(!text.contains("s3cret"), "{text}");
    }
}

/// The bits of the properties that are there.
const HEADERS: u16 = 1 << 13;
const MESSAGE_ID: u16 = 1 << 7;
const TYPE: u16 = 1 << 5;

/// The client library would end the connection over the first ones, for ever, and the process over the deep ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_library_reads_is_repaired_on_its_way() {
    let node = Node::shared();
    let vhost = node.fresh_vhost_name();
    let place = at(&node.url_of(&vhost)).await;
    let port = node.amqp_port();
    let publishing = tokio::task::spawn_blocking(move || {
        let odd = [
            (MESSAGE_ID, short(b"\xff\xfe")),
            (TYPE, short(b"unit.\xc3")),
            (HEADERS, b"\0\0\0\x05\x02\xff\xfet\x01".to_vec()),
            (HEADERS, nested(300)),
            // As much as a frame holds.
            (HEADERS, nested(18_000)),
        ];
        let mut client = RawClient::connect(port, &vhost);
        for (n, (flags, properties)) in (1..).zip(&odd) {
            let body = format!("{{\"tid\":\"t\",\"n\":{n}}}");
            client.publish("", QUEUE.as_bytes(), (*flags, properties), body.as_bytes());
        }
        // To the failed jobs, by a routing key that is no text.
        client.publish("unit.unroutable", b"\xff\xfe", (0, b""), b"lost");
    });
    publishing.await.unwrap();
    let counter = Counter::default();
    let running = place.start(Service::<Unit>::new().task(notes, |p| p), counter.clone()).await;
    running.publisher().create(WorkDo { n: 100 }).await.unwrap();
    place.eventually("all ran", async || counter.noted() == [1, 2, 3, 4, 5, 100]).await;
    let failed = place.failed().await;
    assert_eq!(failed.iter().map(|job| &job.body[..]).collect::<Vec<_>>(), [b"lost"]);
    running.shutdown().await;
}
