//! Prototypes on RabbitMQ: the arguments of their queues, and what becomes of what is too much.

use ponos::StartError;
use ponos::core::broker::{BrokerErrorKind, Inspect, Topology};
use ponos::core::name::{AppName, QueueName};
use ponos::prelude::*;
use ponos_testbed::Node;
use serde_json::{Value, json};

use crate::peer::DEADLINE;

#[event("order.placed")]
struct OrderPlaced {
    id: u64,
}

#[app("shop", emits(OrderPlaced))]
struct Shop;

#[app("lab", state = tokio::sync::mpsc::UnboundedSender<u64>)]
struct Lab;

#[task("lab.order.score", app = Lab)]
struct OrderScore {
    id: u64,
}

fn score_it(e: OrderPlaced) -> OrderScore {
    OrderScore { id: e.id }
}

async fn score(t: OrderScore, cx: TaskCx<OrderScore>) -> Outcome {
    cx.state().send(t.id)?;
    Ok(())
}

fn prototype() -> Service<Lab> {
    Service::new().on_prototype(score_it).task(score, |p| p)
}

const QUEUE: &str = "lab.order.placed";

fn shown(node: &Node, vhost: &str, queue: &str) -> Value {
    let (status, answer) = node.http("GET", &format!("/api/queues/{vhost}/{queue}"), None);
    assert_eq!(status, 200, "{queue}: {answer}");
    serde_json::from_str(&answer).expect("JSON")
}

/// How many messages RabbitMQ has dropped over a length, on the whole node: what its Prometheus plugin calls
/// `rabbitmq_global_messages_dead_lettered_maxlen_total{queue_type="rabbit_quorum_queue",dead_letter_strategy="disabled"}`.
fn dropped(node: &Node) -> u64 {
    let counters = "maps:get(messages_dead_lettered_maxlen_total, maps:get([{queue_type, rabbit_quorum_queue}, \
                    {dead_letter_strategy, disabled}], rabbit_global_counters:overview())).";
    let answer = node.ctl(&["eval", counters]).expect("a number");
    answer.trim().parse().unwrap_or_else(|_| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prototypes_queue_is_bounded_and_what_it_drops_is_counted() {
    let node = Node::shared();
    let vhost = node.fresh_vhost_name();
    let broker = || Broker::from_url(&node.url_of(&vhost)).expect("a URL");
    let (log, mut scored) = tokio::sync::mpsc::unbounded_channel();
    let running = prototype().start(log.clone(), broker()).await.expect("starts");
    let arguments = &shown(node, &vhost, QUEUE)["arguments"];
    assert_eq!(
        (&arguments["x-expires"], &arguments["x-max-length"], &arguments["x-overflow"]),
        (&json!(604_800_000), &json!(100_000), &json!("drop-head"))
    );
    assert_eq!(arguments["x-queue-type"], "quorum");
    assert!(
        arguments.get("x-dead-letter-exchange").is_none(),
        "what is dropped fills no other queue: {arguments}"
    );
    let task = &shown(node, &vhost, "lab.order.score")["arguments"];
    assert!(task.get("x-expires").is_none() && task["x-overflow"] == "reject-publish", "{task}");
    let shop = Publisher::<Shop>::connect(broker()).await.expect("connects");
    shop.emit(OrderPlaced { id: 0 }).await.expect("published");
    let first = tokio::time::timeout(DEADLINE, scored.recv()).await.expect("it works as any reaction");
    assert_eq!(first, Some(0));
    running.shutdown().await;

    // Forgotten. A policy stands in for a hundred thousand messages: the lower limit counts.
    let policy = r#"{"pattern":"^lab\\.order\\.placed$","definition":{"max-length":5},"apply-to":"queues"}"#;
    let (status, answer) = node.http("PUT", &format!("/api/policies/{vhost}/short"), Some(policy));
    assert!((200..300).contains(&status), "{answer}");
    let deadline = std::time::Instant::now() + DEADLINE;
    while shown(node, &vhost, QUEUE)["effective_policy_definition"]["max-length"] != 5 {
        assert!(std::time::Instant::now() < deadline, "the policy is not applied");
    }
    let before = dropped(node);
    for id in 1..=20 {
        shop.emit(OrderPlaced { id }).await.expect("a full prototype is in no publisher's way");
    }
    let looking = broker().connect().await.expect("connects");
    let query =
        Inspect::Messages { queue: QueueName::parse(QUEUE).expect("a name"), limit: 100, after: None };
    let kept = looking.inspect(query).await.expect("an answer").into_messages();
    let bodies: Vec<_> = kept.iter().map(|e| String::from_utf8_lossy(&e.body).into_owned()).collect();
    assert_eq!(kept.len(), 5, "{bodies:?}");
    for (body, id) in bodies.iter().zip(16..) {
        assert!(body.ends_with(&format!("\"id\":{id}}}")), "the newest: {bodies:?}");
    }
    assert!(dropped(node) >= before + 15, "counted");

    // Only a subscription may drop messages.
    let app = AppName::parse("lab").expect("a name");
    let task = QueueName::parse("lab.order.score").expect("a name");
    let wrong =
        Topology { app: Some(app), tasks: vec![task.clone()], prototypes: vec![task], ..Topology::default() };
    assert_eq!(looking.declare(&wrong).await.expect_err("refused").kind(), BrokerErrorKind::Invalid);
    looking.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_reaction_does_not_start_on_a_queue_that_drops_messages() {
    let node = Node::shared();
    let vhost = node.fresh_vhost_name();
    let broker = |more: &str| Broker::from_url(&format!("{}{more}", node.url_of(&vhost))).expect("a URL");
    let (log, _scored) = tokio::sync::mpsc::unbounded_channel();
    prototype().start(log.clone(), broker("")).await.expect("starts").shutdown().await;
    for more in ["", "?queue_type=classic"] {
        let ordinary = Service::<Lab>::new().on(score_it).task(score, |p| p);
        let refused = ordinary.start(log.clone(), broker(more)).await.expect_err("it would lose jobs");
        assert!(matches!(refused, StartError::Broker { .. }), "{refused:?}");
        let said = refused.to_string();
        for part in ["`lab.order.placed`", "drops messages", "delete", "`.prototype()`"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    prototype().start(log.clone(), broker("")).await.expect("starts again").shutdown().await;
    // The other way round nothing can be lost: it starts, with a warning.
    let vhost = node.fresh_vhost_name();
    let broker = || Broker::from_url(&node.url_of(&vhost)).expect("a URL");
    Service::<Lab>::new()
        .on(score_it)
        .task(score, |p| p)
        .start(log.clone(), broker())
        .await
        .expect("starts")
        .shutdown()
        .await;
    prototype().start(log, broker()).await.expect("starts on the ordinary queue").shutdown().await;
    assert!(shown(node, &vhost, QUEUE)["arguments"].get("x-expires").is_none());
}
