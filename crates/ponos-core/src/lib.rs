//! The vocabulary of Ponos: what two processes, two brokers and two versions must agree on.
//!
//! Everything here is a value or a pure state machine. There is no I/O, no runtime, no clock and no
//! randomness in this crate: time and random bits are passed in, so each rule can be tested by the million.
//!
//! | module | what |
//! | --- | --- |
//! | [`name`] | names of applications, events, tasks and queues, and the tense rule |
//! | [`id`] | transaction ids, message ids, timestamps |
//! | [`envelope`] | a message in memory: identity, causation, progress, body |
//! | [`body`] | the JSON body: `tid` first when written, hidden when read |
//! | [`wire`] | the envelope as properties and headers, and its versioned encoding |
//! | [`policy`] | backoff, retry decision, breaker, rate limit, deduplication |
//! | [`broker`] | the trait that every broker implements |
//! | [`journal`] | records of what was published and how each attempt ended |
//! | [`manifest`] | a service's definition as versioned JSON |
//! | [`Secret`] | a text that is shown to nobody |

pub mod body;
pub mod broker;
pub mod envelope;
pub mod id;
pub mod journal;
pub mod manifest;
pub mod name;
pub mod policy;
mod secret;
pub mod wire;

pub use bytes::Bytes;
pub use secret::Secret;
