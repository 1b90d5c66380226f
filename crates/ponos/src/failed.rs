//! The queues of failed and of discarded jobs, for tools: look without consuming, retry, edit, discard, restore.
//!
//! | module | what |
//! | --- | --- |
//! | `look` | lists and single jobs, which stay where they are |
//! | `bulk`, `settle` | one operation on many jobs: picked over one subscription, settled side by side, paced |
//! | `retry` | back into their queues, with a mark |
//! | `edit` | a corrected copy instead |
//! | `discard` | away, and back again |
//!
//! `{app}.failed` is an ordinary durable queue, so whatever is done to a job is a settlement: the copy is there before
//! the original is gone. A tool that is killed loses nothing; on a broker without transactions it may leave a job in
//! both places.

mod bulk;
mod discard;
mod edit;
mod look;
mod retry;
mod settle;

use std::sync::Arc;

use ponos_core::broker::Broker;
use ponos_core::id::Timestamp;
use ponos_core::name::{AppName, QueueName};

pub use bulk::{Bulk, BulkEnd, CircuitGate, Gate, Moved, MovedTo};
pub use discard::DISCARDED_FOR;
pub use edit::Edited;
pub use retry::RetryFailed;

/// The failed jobs of one application.
#[derive(Debug)]
pub struct FailedJobs {
    broker: Arc<dyn Broker>,
    app: AppName,
}

/// What somebody does to failed jobs: what is done in one operation has one mark.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// `op-` and eight hexadecimal digits.
    pub id: String,
    /// Who does it; may be empty.
    pub by: String,
    /// When it was begun.
    pub at: Timestamp,
}

impl Operation {
    /// A new operation, begun now.
    #[must_use]
    pub fn begun_by(by: impl Into<String>) -> Self {
        Self {
            id: format!("op-{:08x}", fastrand::u32(..)),
            by: by.into(),
            at: std::time::SystemTime::now().into(),
        }
    }
}

impl FailedJobs {
    /// The failed jobs of `app` on this broker.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, app: AppName) -> Self {
        Self { broker, app }
    }

    fn failed(&self) -> QueueName {
        QueueName::failed(&self.app)
    }

    fn discarded(&self) -> QueueName {
        QueueName::discarded(&self.app)
    }
}
