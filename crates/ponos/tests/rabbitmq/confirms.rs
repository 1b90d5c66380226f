//! Whose confirm it is: many tasks publish over one channel, and each must hear what became of its own message.

use std::sync::Arc;

use ponos::core::broker::{Broker as _, Published, Topology};
use ponos::core::name::QueueName;
use ponos::prelude::*;
use ponos::{RabbitBroker, RabbitOptions};
use ponos_testbed::Node;
use tokio::task::JoinSet;

use super::messages;

#[app("depot")]
pub struct Depot;

#[task("depot.crate.store", app = Depot)]
pub struct CrateStore {
    pub n: u32,
}

#[task("depot.crate.refuse", app = Depot)]
pub struct CrateRefuse {
    pub n: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_message_that_a_queue_did_not_take_is_never_confirmed_by_a_neighbours_confirm() {
    let (node, vhost) = (Node::shared(), Node::shared().fresh_vhost_name());
    let options = RabbitOptions::from_url(&node.url_of(&vhost)).unwrap();
    let broker = Arc::new(RabbitBroker::connect(options).await.unwrap());
    let tasks = ["depot.crate.store", "depot.crate.refuse"].map(|name| QueueName::parse(name).unwrap());
    let app = Some(tasks[0].app());
    broker.declare(&Topology { app, tasks: tasks.to_vec(), ..Topology::default() }).await.unwrap();
    let full = r#"{"pattern":"^depot.crate.refuse$","definition":{"max-length":1},"apply-to":"queues"}"#;
    let (status, answer) = node.http("PUT", &format!("/api/policies/{vhost}/full"), Some(full));
    assert!((200..300).contains(&status), "{status} {answer}");
    // The bound is a soft one: it holds for a channel once the queue has told it.
    let mut refused = 0;
    for n in 0.. {
        assert!(n < 10_000, "the queue takes everything");
        let answer = broker.publish(vec![messages::task(&CrateRefuse { n }, None)]).await.remove(0);
        refused = if answer.is_confirmed() { 0 } else { refused + 1 };
        if refused == 20 {
            break;
        }
    }
    let mut all = JoinSet::new();
    for publisher in 0..16 {
        let broker = Arc::clone(&broker);
        all.spawn(async move {
            let mut wrong = Vec::new();
            for n in 0..500 {
                let stored = (publisher + n) % 2 == 0;
                let message = if stored {
                    messages::task(&CrateStore { n }, None)
                } else {
                    messages::task(&CrateRefuse { n }, None)
                };
                let answer = broker.publish(vec![message]).await.remove(0);
                if stored != matches!(answer, Published::Confirmed { .. }) {
                    wrong.push((stored, answer));
                }
            }
            wrong
        });
    }
    let wrong = all.join_all().await.concat();
    broker.close().await.unwrap();
    assert!(wrong.is_empty(), "{} of 8,000 heard another one's answer: {:?}", wrong.len(), wrong[0]);
}
