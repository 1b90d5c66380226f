//! Putting failed jobs away, and back.

use std::time::Duration;

use ponos_core::broker::{BrokerError, Destination, Outgoing, Topology};
use ponos_core::envelope::{Discarded, Envelope};
use ponos_core::id::MessageId;
use ponos_core::name::QueueName;

use super::bulk::{Bulk, BulkEnd, Sending, Work};
use super::{FailedJobs, Operation};

/// How long discarded jobs are kept. RabbitMQ keeps to it by itself.
pub const DISCARDED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

impl FailedJobs {
    /// Takes a failed job out of the list. It is kept among the discarded ones. `false` when it is not there.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached or does not take it; the job then is still among the failed ones.
    pub async fn discard(&self, id: MessageId) -> Result<bool, BrokerError> {
        self.declare_discarded().await?;
        let operation = Operation::begun_by("");
        let work = away(self.discarded(), operation.clone(), String::new());
        Ok(self.carry_out_one(&self.failed(), id, work, operation).await?.is_some())
    }

    /// Takes failed jobs out of the list, as one operation: they are kept among the discarded ones for
    /// [`DISCARDED_FOR`], with their reports as they are, and with who discarded them and why.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached or does not answer. What was told before is done; all others are still among
    /// the failed jobs.
    pub async fn discard_many(
        &self,
        ids: Vec<MessageId>,
        reason: &str,
        bulk: Bulk<'_>,
    ) -> Result<BulkEnd, BrokerError> {
        self.declare_discarded().await?;
        let work = away(self.discarded(), bulk.operation.clone(), reason.to_owned());
        self.carry_out(&self.failed(), ids, work, bulk).await
    }

    /// Puts discarded jobs back among the failed ones, as they were.
    ///
    /// # Errors
    ///
    /// As [`discard_many`](Self::discard_many); jobs of which nothing was told are still among the discarded ones.
    pub async fn restore_many(&self, ids: Vec<MessageId>, bulk: Bulk<'_>) -> Result<BulkEnd, BrokerError> {
        let failed = self.failed();
        let send: Sending = Box::new(move |envelope| {
            let mut envelope = envelope.clone();
            envelope.progress.discarded = None;
            Ok(vec![Outgoing { to: Destination::Queue(failed.clone()), envelope }])
        });
        let work = Work { verb: Some("restored"), reason: None, send };
        self.carry_out(&self.discarded(), ids, work, bulk).await
    }

    /// Lets go of discarded jobs for good.
    ///
    /// # Errors
    ///
    /// As [`discard_many`](Self::discard_many); jobs of which nothing was told are still among the discarded ones.
    pub async fn forget_many(&self, ids: Vec<MessageId>, bulk: Bulk<'_>) -> Result<BulkEnd, BrokerError> {
        let work = Work { verb: None, reason: None, send: Box::new(|_| Ok(Vec::new())) };
        self.carry_out(&self.discarded(), ids, work, bulk).await
    }

    pub(super) async fn declare_discarded(&self) -> Result<(), BrokerError> {
        let tasks = vec![self.discarded()];
        self.broker.declare(&Topology { app: Some(self.app.clone()), tasks, ..Topology::default() }).await
    }
}

fn away(to: QueueName, operation: Operation, reason: String) -> Work {
    Work {
        verb: Some("discarded"),
        reason: Some(reason.as_str()).filter(|reason| !reason.is_empty()).map(Into::into),
        send: Box::new(move |envelope| Ok(vec![put_away(envelope, &to, &operation, &reason)])),
    }
}

/// A failed job on its way to the discarded ones.
pub(super) fn put_away(failed: &Envelope, to: &QueueName, operation: &Operation, reason: &str) -> Outgoing {
    let mut envelope = failed.clone();
    envelope.progress.discarded = Some(Box::new(Discarded {
        op: operation.id.clone(),
        at: operation.at,
        by: operation.by.clone(),
        reason: reason.to_owned(),
    }));
    Outgoing { to: Destination::Queue(to.clone()), envelope }
}
