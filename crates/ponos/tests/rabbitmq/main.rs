//! Ponos on real RabbitMQ nodes, which `ponos-testbed` starts and ends.

#[path = "conformance.rs"]
mod conformance;
