//! Looking: nothing is consumed.

use ponos_core::broker::{BrokerError, BrokerErrorKind, Inspect};
use ponos_core::envelope::Envelope;
use ponos_core::id::MessageId;
use ponos_core::name::QueueName;

use super::FailedJobs;

impl FailedJobs {
    /// Up to `limit` failed jobs, oldest first, after the one that a page before ended with.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached, or the application has never been there.
    pub async fn list(&self, limit: usize, after: Option<MessageId>) -> Result<Vec<Envelope>, BrokerError> {
        self.page(self.failed(), limit, after).await
    }

    /// One failed job.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn show(&self, id: MessageId) -> Result<Option<Envelope>, BrokerError> {
        self.one(self.failed(), id).await
    }

    /// Up to `limit` discarded jobs, oldest first, after the one that a page before ended with.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached.
    pub async fn list_discarded(
        &self,
        limit: usize,
        after: Option<MessageId>,
    ) -> Result<Vec<Envelope>, BrokerError> {
        match self.page(self.discarded(), limit, after).await {
            // Its queue comes to be when something is discarded.
            Err(error) if error.kind() == BrokerErrorKind::NotFound && after.is_none() => Ok(Vec::new()),
            page => page,
        }
    }

    /// One discarded job.
    ///
    /// # Errors
    ///
    /// As [`list_discarded`](Self::list_discarded).
    pub async fn show_discarded(&self, id: MessageId) -> Result<Option<Envelope>, BrokerError> {
        match self.one(self.discarded(), id).await {
            Err(error) if error.kind() == BrokerErrorKind::NotFound => Ok(None),
            one => one,
        }
    }

    async fn page(
        &self,
        queue: QueueName,
        limit: usize,
        after: Option<MessageId>,
    ) -> Result<Vec<Envelope>, BrokerError> {
        Ok(self.broker.inspect(Inspect::Messages { queue, limit, after }).await?.into_messages())
    }

    pub(super) async fn one(&self, queue: QueueName, id: MessageId) -> Result<Option<Envelope>, BrokerError> {
        Ok(self.broker.inspect(Inspect::Message { queue, id }).await?.into_messages().into_iter().next())
    }
}
