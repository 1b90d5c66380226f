//! The management plugin of a real RabbitMQ: what it counts, what it takes, what pruning leaves behind.

#![cfg(feature = "management")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

use std::time::{Duration, Instant};

use ponos_core::broker::{
    Broker as _, BrokerErrorKind, Destination, Inspect, Outgoing, SubscribeOptions, Topology,
};
use ponos_core::envelope::{Envelope, MessageName, Progress};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::name::{AppName, EventName, QueueName, TaskName};
use ponos_rabbitmq::management::Management;
use ponos_rabbitmq::prune::{Pruned, prune};
use ponos_rabbitmq::topology::{BindingSpec, Plan};
use ponos_rabbitmq::{QueueType, RabbitBroker, RabbitOptions, policies};
use ponos_testbed::Node;
use serde_json::{Value, json};

/// How long something may take that happens elsewhere.
const DEADLINE: Duration = Duration::from_secs(30);

struct Place {
    node: &'static Node,
    vhost: String,
    options: RabbitOptions,
    management: Management,
}

impl Place {
    fn new() -> Self {
        let node = Node::shared();
        let vhost = node.fresh_vhost_name();
        let port = node.management_port().unwrap();
        let url = format!("{}?management=http://127.0.0.1:{port}", node.url_of(&vhost));
        let options = RabbitOptions::from_url(&url).unwrap();
        let management = Management::new(&options).unwrap();
        Self { node, vhost, options, management }
    }

    async fn broker(&self) -> RabbitBroker {
        RabbitBroker::connect(self.options.clone()).await.unwrap()
    }

    fn http(&self, method: &str, what: &str, rest: &str, body: &Value) -> String {
        let path = format!("/api/{what}/{}{rest}", self.vhost);
        let (status, answer) = self.node.http(method, &path, Some(&body.to_string()));
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// Whether a message found a queue.
    fn publish(&self, exchange: &str, key: &str, properties: &Value) -> bool {
        let body = json!({ "routing_key": key, "payload": "{}", "payload_encoding": "string", "properties": properties });
        self.http("POST", "exchanges", &format!("/{exchange}/publish"), &body).contains("true")
    }
}

fn app() -> AppName {
    AppName::from_checked("unit")
}

fn topology() -> Topology {
    let event = EventName::from_checked("thing.happened");
    Topology {
        app: Some(app()),
        events: vec![event.clone()],
        subscriptions: vec![(QueueName::subscription(&app(), &event), event)],
        tasks: vec![QueueName::task(&TaskName::from_checked("unit.job.do"))],
        ..Topology::default()
    }
}

fn job() -> Outgoing {
    let at = Timestamp::from(std::time::SystemTime::now());
    let envelope = Envelope {
        id: MessageId::new(at, [1; 10]),
        name: MessageName::Task(TaskName::from_checked("unit.job.do")),
        tid: Tid::new(at, [2; 10]),
        cause: None,
        app: Some(app()),
        publisher: None,
        published_at: at,
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body: (&b"{}"[..]).into(),
    };
    Outgoing { to: Destination::Queue(QueueName::from_checked("unit.job.do")), envelope }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_as_a_dead_letter_is_counted() {
    let place = Place::new();
    let arguments = json!({
        "x-queue-type": "quorum", "x-dead-letter-exchange": "unit.nowhere",
        "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"
    });
    place.http("PUT", "queues", "/unit.job.do", &json!({ "durable": true, "arguments": arguments }));
    assert!(place.publish("amq.default", "unit.job.do", &json!({ "expiration": "1" })));
    let started = Instant::now();
    loop {
        let totals = place.management.totals().await.unwrap()["unit.job.do"];
        if (totals.messages, totals.ready, totals.dead_lettering()) == (1, 0, 1) {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{totals:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let broker = place.broker().await;
    let pruned = prune(&broker, &place.management, &app(), "unit.job.do", Duration::ZERO).await.unwrap();
    assert_eq!(pruned, Pruned::Busy { messages: 1, consumers: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_does_not_become_empty_is_bound_as_it_was() {
    let place = Place::new();
    let broker = place.broker().await;
    broker.declare(&topology()).await.unwrap();
    let queue = "unit.thing.happened";
    let other = BindingSpec { exchange: "amq.topic".into(), queue: queue.into(), routing_key: "a.*".into() };
    place.management.bind(&other).await.unwrap();
    let bindings = || async {
        let mut bindings = place.management.bindings_of(queue).await.unwrap();
        bindings.sort();
        bindings
    };
    let before = bindings().await;
    assert_eq!(before.len(), 3);
    let heard = QueueName::from_checked("unit.thing.happened");
    let held = broker.subscribe(&heard, SubscribeOptions::prefetch(1)).await.unwrap();
    let pruned = prune(&broker, &place.management, &app(), queue, Duration::ZERO).await.unwrap();
    assert_eq!(pruned, Pruned::Busy { messages: 0, consumers: 1 });
    assert_eq!(bindings().await, before);
    drop(held);

    // What every application has, and what is another's, is never taken away.
    for name in ["unit.failed", "unit.retry.1000", "unit.control.state", "unit", "units.job.do", "other"] {
        let error = prune(&broker, &place.management, &app(), name, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), BrokerErrorKind::Invalid, "{name}");
    }
    let gone = prune(&broker, &place.management, &app(), "unit.no.queue", Duration::ZERO).await.unwrap();
    assert_eq!(gone, Pruned::Gone);
    place.management.unbind(&other).await.unwrap();
    assert_eq!(bindings().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policies_that_are_proposed_are_taken_and_lose_no_job() {
    let place = Place::new();
    let broker = place.broker().await;
    let plan = Plan::service(&topology(), QueueType::Quorum);
    broker.carry_out(&plan).await.unwrap();
    let held = [(QueueName::from_checked("unit.job.do"), Duration::from_secs(3600))];
    let policies = policies::of(&app(), &topology(), QueueType::Quorum, &held);
    let version: Value = serde_json::from_str(&place.node.http("GET", "/api/overview", None).1).unwrap();
    let version = version["rabbitmq_version"].as_str().unwrap();
    for policy in &policies {
        if !policy.operator && version.starts_with("3.10.") {
            assert!(policy.why.contains("needs RabbitMQ 3.12"), "{policy:?}");
            continue;
        }
        let verb = if policy.operator { "set_operator_policy" } else { "set_policy" };
        let args = [
            verb,
            "-p",
            &place.vhost,
            &policy.name,
            &policy.pattern,
            &policy.definition,
            "--apply-to",
            "queues",
        ]
        .map(str::to_owned);
        let node = place.node;
        let set = tokio::task::spawn_blocking(move || node.ctl(&args.each_ref().map(String::as_str)));
        set.await.unwrap().unwrap();
    }
    let set = place.management.operator_policies().await.unwrap();
    assert_eq!(set, ["ponos-unit-guard"]);

    // A full queue refuses; it drops nothing.
    let small = json!({
        "pattern": policies.last().unwrap().pattern, "definition": { "max-length-bytes": 1 }, "apply-to": "queues"
    });
    place.http("PUT", "operator-policies", "/ponos-unit-guard", &small);
    let message = job();
    let started = Instant::now();
    let mut confirmed = 0_u64;
    loop {
        let published = broker.publish(vec![message.clone()]).await.pop().unwrap();
        if !published.is_confirmed() {
            break;
        }
        confirmed += 1;
        assert!(started.elapsed() < DEADLINE, "it takes everything");
    }
    let there = || async {
        let queues = broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues();
        queues.iter().find(|stats| stats.queue == "unit.job.do").map(|stats| stats.ready)
    };
    assert_eq!(there().await, Some(confirmed));
}
