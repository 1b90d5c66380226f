//! RabbitMQ against the small reference of `tests/model/`, with connections that are cut.
#![allow(dead_code, reason = "the other brokers need more of it")]

#[path = "../model/agreement.rs"]
mod agreement;
#[path = "../model/commands.rs"]
mod commands;
#[path = "../model/driver.rs"]
mod driver;
#[path = "../model/reference.rs"]
mod reference;
#[path = "../model/runs.rs"]
mod runs;

use std::sync::Arc;

use ponos::core::broker::Broker;
use ponos::core::name::QueueName;
use ponos::{RabbitBroker, RabbitOptions};
use ponos_testbed::{Node, Relay};

use self::driver::{Severed, Subject};
use self::reference::Promises;

/// A virtual host of its own. The second handle's connections go through a relay.
struct Rabbit {
    url: String,
    relay: Relay,
}

impl Rabbit {
    fn new() -> Self {
        Self { url: Node::shared().fresh_vhost(), relay: Relay::to(Node::shared().amqp_port()) }
    }
}

impl Subject for Rabbit {
    fn promises(&self) -> Promises {
        Promises {
            exactly_once: false,
            keeps_places: false,
            recognises_repeats: false,
            counts: false,
            shows_all: false,
            fetches_ahead: true,
            keeps_asking: false,
            at_once: false,
            is_rough: false,
        }
    }

    async fn open(&self, handle: usize) -> Arc<dyn Broker> {
        super::support::show_logs();
        let url = if handle == 0 { self.url.clone() } else { self.relay.url(&self.url) };
        let options = RabbitOptions::from_url(&url).unwrap();
        Arc::new(RabbitBroker::connect(options).await.unwrap())
    }

    fn sever(&self, _handle: usize, _queue: &QueueName) -> Severed {
        self.relay.cut();
        Severed::Handle(1)
    }
}

#[test]
fn in_rabbitmq() {
    let _started = Node::shared();
    runs::check("in RabbitMQ", 12, 20, |_| Rabbit::new());
}
