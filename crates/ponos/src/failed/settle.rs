//! One settlement of an operation: tried again while that may help.

use std::time::Duration;

use ponos_core::broker::{
    Broker, BrokerError, BrokerErrorKind, Delivery, Outgoing, Published, SettleError, Settlement, Verdict,
};
use ponos_core::name::QueueName;
use tokio::time::{sleep, timeout};

/// How long one settlement may take, and how often it is tried.
const DEADLINE: Duration = Duration::from_secs(30);
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What became of a settlement.
pub(super) enum Settled {
    Done,
    Both,
    /// It comes again.
    Lost,
    Refused(BrokerError),
    /// The broker is not to be reached.
    Broken(BrokerError),
}

/// Sends, and then acknowledges the delivery.
pub(super) async fn settle(
    broker: &dyn Broker,
    delivery: &Delivery,
    send: &[Outgoing],
    to: Option<&QueueName>,
) -> Settled {
    let mut tried = 0;
    loop {
        tried += 1;
        let settlement = Settlement { send: send.to_vec(), verdict: Verdict::Done };
        let error = match timeout(DEADLINE, broker.settle(delivery, settlement)).await {
            Ok(Ok(_)) => return Settled::Done,
            Ok(Err(SettleError::Lost { sent: true })) => return Settled::Both,
            Ok(Err(SettleError::Lost { sent: false })) => return Settled::Lost,
            Ok(Err(SettleError::Unavailable(error))) if !error.is_temporary() => {
                return Settled::Refused(error);
            }
            Ok(Err(SettleError::Unavailable(error))) => error,
            Ok(Err(SettleError::NotSent(outcomes))) => match not_sent(outcomes, to) {
                error if error.is_temporary() => error,
                error => return Settled::Refused(error),
            },
            Ok(Err(error)) => BrokerError::new(BrokerErrorKind::Unavailable, error.to_string()),
            Err(_) => BrokerError::new(
                BrokerErrorKind::Unavailable,
                format!("{}: no answer within {} seconds", broker.name(), DEADLINE.as_secs()),
            ),
        };
        if tried == TRIES {
            return Settled::Broken(error);
        }
        sleep(PAUSE).await;
    }
}

/// Why a settlement's messages were not sent.
fn not_sent(outcomes: Vec<Published>, to: Option<&QueueName>) -> BrokerError {
    let mut outcomes: Vec<_> = outcomes.into_iter().filter(|outcome| !outcome.is_confirmed()).collect();
    if outcomes.contains(&Published::Returned) {
        let queue = to.map(ToString::to_string).unwrap_or_default();
        return BrokerError::new(
            BrokerErrorKind::NotFound,
            format!(
                "the queue `{queue}` does not exist: start the service that owns it once, it declares its queues"
            ),
        );
    }
    // What is refused for good says why; the others were only held back with it.
    outcomes.sort_by_key(|outcome| match outcome {
        Published::Refused(error) => error.is_temporary(),
        _ => true,
    });
    match outcomes.into_iter().next() {
        Some(Published::Refused(error) | Published::Unknown(error)) => error,
        _ => BrokerError::new(
            BrokerErrorKind::Unavailable,
            "a message was not sent, and the broker does not say why",
        ),
    }
}
