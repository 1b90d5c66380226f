//! The queue of failed jobs, for tools: look without consuming, retry, discard.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ponos_core::broker::{
    Broker, BrokerError, BrokerErrorKind, Delivery, Destination, Inspect, Outgoing, SettleError, Settlement,
    SubscribeOptions, Topology, Verdict,
};
use ponos_core::envelope::{Envelope, Progress};
use ponos_core::id::MessageId;
use ponos_core::name::{AppName, QueueName};

/// How long a tool waits for a job that another one may hold.
const PICK_DEADLINE: Duration = Duration::from_secs(5);

/// The failed jobs of one application.
#[derive(Debug)]
pub struct FailedJobs {
    broker: Arc<dyn Broker>,
    app: AppName,
}

/// What became of a job that was to be retried.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryFailed {
    /// It is in its queue again, with all its attempts before it.
    Retried(QueueName),
    /// It is not among the failed jobs (any more), or another tool holds it.
    NotThere,
}

impl FailedJobs {
    /// The failed jobs of `app` on this broker.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, app: AppName) -> Self {
        Self { broker, app }
    }

    fn queue(&self) -> QueueName {
        QueueName::failed(&self.app)
    }

    /// Up to `limit` failed jobs, oldest first, after the one that a page before ended with.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached, or the application has never been there.
    pub async fn list(&self, limit: usize, after: Option<MessageId>) -> Result<Vec<Envelope>, BrokerError> {
        let query = Inspect::Messages { queue: self.queue(), limit, after };
        Ok(self.broker.inspect(query).await?.into_messages())
    }

    /// One failed job.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn show(&self, id: MessageId) -> Result<Option<Envelope>, BrokerError> {
        let query = Inspect::Message { queue: self.queue(), id };
        Ok(self.broker.inspect(query).await?.into_messages().into_iter().next())
    }

    /// Puts a failed job back into its queue, as a new job with the same identity: all its attempts are before it.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached or does not take it; the job then is still among the failed ones.
    pub async fn retry(&self, id: MessageId) -> Result<RetryFailed, BrokerError> {
        let Some((delivery, _held)) = self.pick(id).await? else {
            return Ok(RetryFailed::NotThere);
        };
        let Some(report) = &delivery.envelope.report else {
            let problem = format!(
                "the job {id} has no report, so its queue is not known: discard it, or publish it anew by hand"
            );
            return Err(BrokerError::new(BrokerErrorKind::Invalid, problem));
        };
        let queue = report.queue.clone();
        let mut envelope = (*delivery.envelope).clone();
        envelope.report = None;
        // Due now: told from the first delivery under this id, which may have been given up by this very process.
        envelope.progress = Progress { due: Some(SystemTime::now().into()), ..Progress::default() };
        self.settle(&delivery, &queue, envelope).await?;
        Ok(RetryFailed::Retried(queue))
    }

    /// Takes a failed job out of the list. It is kept among the discarded ones. `false` when it is not there.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached or does not take it; the job then is still among the failed ones.
    pub async fn discard(&self, id: MessageId) -> Result<bool, BrokerError> {
        let discarded = QueueName::discarded(&self.app);
        let tasks = vec![discarded.clone()];
        self.broker.declare(&Topology { app: Some(self.app.clone()), tasks, ..Topology::default() }).await?;
        let Some((delivery, _held)) = self.pick(id).await? else {
            return Ok(false);
        };
        let envelope = (*delivery.envelope).clone();
        self.settle(&delivery, &discarded, envelope).await?;
        Ok(true)
    }

    /// Takes one job out of the queue; it is held for as long as the second value lives.
    async fn pick(&self, id: MessageId) -> Result<Option<(Delivery, impl Sized + use<>)>, BrokerError> {
        if self.show(id).await?.is_none() {
            return Ok(None);
        }
        let options = SubscribeOptions { prefetch: 1, only: Some(vec![id]) };
        let mut subscription = self.broker.subscribe(&self.queue(), options).await?;
        let mut found = Vec::new();
        let picked = tokio::time::timeout(
            PICK_DEADLINE,
            std::future::poll_fn(|cx| subscription.poll_next(cx, 1, &mut found)),
        );
        match picked.await {
            Err(_) => Ok(None),
            Ok(Err(lost)) => Err(BrokerError::new(BrokerErrorKind::Unavailable, lost.to_string())),
            Ok(Ok(())) => Ok(found.pop().map(|delivery| (delivery, subscription))),
        }
    }

    async fn settle(
        &self,
        delivery: &Delivery,
        to: &QueueName,
        envelope: Envelope,
    ) -> Result<(), BrokerError> {
        let send = vec![Outgoing { to: Destination::Queue(to.clone()), envelope }];
        match self.broker.settle(delivery, Settlement { send, verdict: Verdict::Done }).await {
            Ok(_) => Ok(()),
            Err(SettleError::Unavailable(error)) => Err(error),
            Err(SettleError::NotSent(_)) => Err(BrokerError::new(
                BrokerErrorKind::NotFound,
                format!(
                    "the queue `{to}` does not exist: start the service that owns it once, it declares its queues"
                ),
            )),
            Err(error) => Err(BrokerError::new(BrokerErrorKind::Unavailable, error.to_string())),
        }
    }
}
