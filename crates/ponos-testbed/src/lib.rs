//! Test support: private RabbitMQ nodes, and faults between a client and a server.
//!
//! ```no_run
//! use ponos_testbed::{Node, Relay};
//!
//! let node = Node::shared();
//! let vhost = node.fresh_vhost(); // amqp://guest:guest@127.0.0.1:PORT/t-…
//! let relay = Relay::to(node.amqp_port());
//! // … connect through `relay.url(&vhost)` …
//! relay.half_open(true);
//! ```
//!
//! A node comes from Debian's package `rabbitmq-server`, or from another system that was unpacked into a directory
//! ([`NodeOptions::root`], the environment variable `PONOS_RABBITMQ_ROOT`). It has a directory, ports, a cookie and
//! an epmd of its own, listens on 127.0.0.1 only, and dies with the process that started it, however that ends.
//!
//! Everything blocks. In asynchronous tests the calls that take long (starting, restarting, `rabbitmqctl`) belong into
//! `spawn_blocking`.

mod cluster;
mod http;
mod node;
mod port;
mod relay;

pub use cluster::Cluster;
pub use node::{Node, NodeOptions, Tls};
pub use relay::Relay;

/// Whether `rabbitmq-server` is there to be started: on this machine, or in `PONOS_RABBITMQ_ROOT` if that is set.
#[must_use]
pub fn is_installed() -> bool {
    NodeOptions::default().is_installed()
}
