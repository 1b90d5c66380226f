//! The suite that every broker passes.

use std::sync::Arc;

use ponos::Broker;
use ponos::testing::conformance::{self, Guarantee, Subject};
use ponos_testbed::Node;

/// A virtual host of its own for each case.
fn rabbitmq() -> Subject {
    let url = Node::shared().fresh_vhost();
    Subject::new(Guarantee::AtLeastOnce, move || {
        let broker = Broker::from_url(&url).expect("a URL");
        async move { Arc::clone(&broker.connect().await.expect("connects")) }
    })
}

conformance::tests!(rabbitmq, super::rabbitmq());
