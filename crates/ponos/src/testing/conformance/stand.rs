//! What a case holds in its hands: the broker, and calls with a deadline.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::{
    Broker, BrokerError, Delivery, Inspect, Inspection, Outgoing, Published, QueueStats, SettleError,
    Settlement, SubscribeOptions, Subscription, Verdict,
};
use ponos_core::envelope::Envelope;
use ponos_core::id::MessageId;
use ponos_core::name::QueueName;

use super::messages::topologies;
use super::{Guarantee, Subject};

/// How long what must come may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long nothing must come where nothing may.
const QUIET: Duration = Duration::from_millis(40);

/// How often figures are looked at that must come to something.
const LOOK: Duration = Duration::from_millis(2);

/// Ready, delayed and unsettled.
pub(super) type Counts = (u64, Option<u64>, Option<u64>);

/// A broker on which the queues of the suite exist.
pub struct Stand {
    subject: Subject,
    pub(super) broker: Arc<dyn Broker>,
}

impl std::fmt::Debug for Stand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stand").field("broker", &self.broker).finish_non_exhaustive()
    }
}

/// Awaits what must come.
pub(super) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let result = tokio::time::timeout(DEADLINE, future).await;
    result.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

impl Stand {
    pub(super) async fn new(subject: Subject) -> Self {
        let broker = (subject.open)().await;
        let stand = Self { subject, broker };
        for topology in topologies() {
            stand.until("declare", || stand.broker.declare(&topology)).await;
        }
        stand
    }

    pub(super) fn is_exactly_once(&self) -> bool {
        self.subject.guarantee == Guarantee::ExactlyOnce
    }

    /// What is said of an event that so many queues hear: a broker of a network only tells some from none.
    pub(super) fn heard_by(&self, queues: u32) -> Published {
        Published::Confirmed { queues: if self.is_exactly_once() { queues } else { queues.min(1) } }
    }

    /// Another handle to the same messages.
    pub(super) async fn another_handle(&self) -> Arc<dyn Broker> {
        (self.subject.open)().await
    }

    /// Breaks the connections of who consumes a queue; `false` where the subject cannot.
    pub(super) fn sever(&self, queue: &QueueName) -> bool {
        self.subject.sever.as_ref().map(|sever| sever(queue)).is_some()
    }

    /// Calls until it succeeds or fails for good.
    pub(super) async fn until<T, Fut>(&self, what: &str, mut call: impl FnMut() -> Fut) -> T
    where
        Fut: Future<Output = Result<T, BrokerError>>,
    {
        let calls = async {
            loop {
                match call().await {
                    Ok(answer) => return answer,
                    Err(error) => assert!(error.is_temporary(), "{what}: {error}"),
                }
                tokio::task::yield_now().await;
            }
        };
        within(what, calls).await
    }

    /// Publishes under the same ids until all are confirmed.
    pub(super) async fn publish(&self, mut messages: Vec<Outgoing>) {
        let calls = async {
            while !messages.is_empty() {
                let outcomes = self.broker.publish(messages.clone()).await;
                assert_eq!(outcomes.len(), messages.len(), "one outcome per message");
                let mut outcomes = outcomes.into_iter();
                messages.retain(|_| match outcomes.next() {
                    Some(Published::Refused(error)) if !error.is_temporary() => panic!("refused: {error}"),
                    Some(Published::Returned) => panic!("returned"),
                    outcome => !outcome.is_some_and(|outcome| outcome.is_confirmed()),
                });
                tokio::task::yield_now().await;
            }
        };
        within("publish", calls).await;
    }

    /// Publishes once.
    pub(super) async fn publish_once(&self, messages: Vec<Outgoing>) -> Vec<Published> {
        within("publish", self.broker.publish(messages)).await
    }

    pub(super) async fn consume(&self, queue: &QueueName, prefetch: u32) -> Consumer {
        self.consume_as(queue, SubscribeOptions::prefetch(prefetch)).await
    }

    pub(super) async fn consume_as(&self, queue: &QueueName, options: SubscribeOptions) -> Consumer {
        Consumer(self.until("subscribe", || self.broker.subscribe(queue, options.clone())).await)
    }

    pub(super) async fn settle(
        &self,
        delivery: &Delivery,
        send: Vec<Outgoing>,
        verdict: Verdict,
    ) -> Result<Vec<Published>, SettleError> {
        within("settle", self.broker.settle(delivery, Settlement { send, verdict })).await
    }

    /// Settles a delivery that is ours.
    pub(super) async fn end(&self, delivery: &Delivery, verdict: Verdict) {
        let settled = self.settle(delivery, Vec::new(), verdict).await;
        settled.unwrap_or_else(|error| panic!("settle: {error}"));
    }

    pub(super) async fn done(&self, delivery: &Delivery) {
        self.end(delivery, Verdict::Done).await;
    }

    pub(super) async fn inspect(&self, query: Inspect) -> Inspection {
        self.until("inspect", || self.broker.inspect(query.clone())).await
    }

    pub(super) async fn stats(&self, queue: &QueueName) -> QueueStats {
        let all = self.inspect(Inspect::Queues(Some(queue.app()))).await.into_queues();
        let found = all.into_iter().find(|stats| stats.queue == *queue);
        found.unwrap_or_else(|| panic!("no figures of `{queue}`"))
    }

    /// Ready, delayed and unsettled messages of a queue, as far as the broker tells.
    pub(super) async fn counts(&self, queue: &QueueName) -> Counts {
        let stats = self.stats(queue).await;
        (stats.ready, stats.delayed, stats.unsettled)
    }

    /// A queue has these figures: at once where a settlement is a transaction and its answer the end of it.
    pub(super) async fn has(&self, queue: &QueueName, counts: (u64, u64, u64)) {
        if self.is_exactly_once() {
            let (ready, delayed, unsettled) = counts;
            assert_eq!(self.counts(queue).await, (ready, Some(delayed), Some(unsettled)), "{queue}");
        } else {
            self.comes_to(queue, counts).await;
        }
    }

    /// Waits for these figures: what a dropped subscription held returns in the background.
    pub(super) async fn comes_to(&self, queue: &QueueName, counts: (u64, u64, u64)) {
        let mut last = (0, None, None);
        let looking = async {
            loop {
                last = self.counts(queue).await;
                let told = (last.0, last.1.unwrap_or(counts.1), last.2.unwrap_or(counts.2));
                if told == counts {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let result = tokio::time::timeout(DEADLINE, looking).await;
        assert!(result.is_ok(), "ready, delayed and unsettled of `{queue}` are {last:?} and not {counts:?}");
    }

    /// Up to `limit` messages of a queue after one of them.
    pub(super) async fn page(
        &self,
        queue: &QueueName,
        limit: usize,
        after: Option<MessageId>,
    ) -> Vec<Envelope> {
        self.inspect(Inspect::Messages { queue: queue.clone(), limit, after }).await.into_messages()
    }

    /// All messages of a queue.
    pub(super) async fn messages(&self, queue: &QueueName) -> Vec<Envelope> {
        self.page(queue, 100_000, None).await
    }
}

/// An open queue.
pub(super) struct Consumer(pub(super) Box<dyn Subscription>);

impl Consumer {
    /// At least one delivery and at most `max`.
    pub(super) async fn next(&mut self, max: usize) -> Vec<Delivery> {
        let mut out = Vec::new();
        let polled = within("a delivery", poll_fn(|cx| self.0.poll_next(cx, max, &mut out))).await;
        polled.unwrap_or_else(|lost| panic!("{lost}"));
        assert!((1..=max).contains(&out.len()), "{} deliveries, 1 to {max} were asked for", out.len());
        out
    }

    /// Exactly so many deliveries.
    pub(super) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut out = Vec::new();
        while out.len() < count {
            out.extend(self.next(count - out.len()).await);
        }
        out
    }

    pub(super) async fn one(&mut self) -> Delivery {
        self.next(1).await.remove(0)
    }

    /// Nothing comes.
    pub(super) async fn is_quiet(&mut self) {
        let mut out = Vec::new();
        let polled = tokio::time::timeout(QUIET, poll_fn(|cx| self.0.poll_next(cx, 100, &mut out))).await;
        assert!(polled.is_err(), "something came: {polled:?} {out:?}");
    }
}

pub(super) fn ids(deliveries: &[Delivery]) -> Vec<MessageId> {
    deliveries.iter().map(|delivery| delivery.envelope.id).collect()
}

pub(super) fn ids_of(messages: &[Outgoing]) -> Vec<MessageId> {
    messages.iter().map(|message| message.envelope.id).collect()
}
