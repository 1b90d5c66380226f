//! The distributed broker of Ponos: RabbitMQ 3.10 to 4.x, no plugin needed.
//!
//! [`RabbitBroker`] implements [`Broker`](ponos_core::broker::Broker) over two connections: one that publishes and one
//! that consumes, because during an alarm RabbitMQ stops reading the first while the acknowledgements on the second
//! must go on. Each subscription has a channel of its own on either, so what fails one disturbs no other.
//!
//! | module | what |
//! | --- | --- |
//! | [`options`] | the URL: several nodes, TLS, how to reach the management plugin |
//! | [`topology`] | exchanges, queues and bindings as data: constants of the wire's version |
//! | [`diff`], [`permissions`], [`policies`] | what tools say of it: differences, who needs which rights, what is an operator's to set |
//! | `management`, `prune` | the management plugin (feature `management`), and taking away what nobody names |
//! | `link` | a connection that is kept up: node rotation, jittered backoff, alarms |
//! | `declare` | makes a topology exist; what exists and differs is told from what cannot be used |
//! | `publish` | pipelined confirms, `mandatory`, attribution of channel errors |
//! | `subscription`, `acks` | consuming, and acknowledging in ranges on the channel that delivered |
//! | `settle` | a verdict as copies that are confirmed before the original is acknowledged |
//! | `suspects` | jobs that may kill their process, one by one |
//! | `scan` | looking into a queue, and picking from it, without consuming |
//! | `stream`, `orders`, `journal` | standing orders and records, in bounded streams |
//!
//! # What is promised
//!
//! At least once. A message whose publish was confirmed is on the disks of a majority of its queue's nodes; it is
//! delivered until it is acknowledged, and it is acknowledged only after everything that its settlement sends has been
//! confirmed. A crash between the two leaves a duplicate under the same id.

mod acks;
mod broker;
mod convert;
mod declare;
pub mod diff;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod guard;
mod inspect;
mod journal;
mod link;
#[cfg(feature = "management")]
pub mod management;
mod memory;
pub mod options;
mod orders;
pub mod permissions;
pub mod policies;
#[cfg(feature = "management")]
pub mod prune;
mod publish;
mod repair;
mod scan;
mod settle;
mod stream;
mod subscription;
mod suspects;
pub mod topology;

pub use broker::{RabbitBroker, Stats};
pub use options::{QueueType, RabbitOptions};
