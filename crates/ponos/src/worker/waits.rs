//! What the loop of a queue's worker waits for: each waits for ever when there is nothing to wait for.

use ponos_core::broker::{Delivery, Subscription};
use tokio::sync::watch;

use crate::clock::Sleep;

/// Takes up to `want` deliveries; returns why the subscription was lost, if it was. Waits for ever when nothing is wanted.
pub(super) async fn take(
    intake: &mut Option<(Box<dyn Subscription>, u32)>,
    want: usize,
    incoming: &mut Vec<Delivery>,
) -> Option<String> {
    match intake {
        Some((subscription, _)) if want > 0 => {
            std::future::poll_fn(|cx| subscription.poll_next(cx, want, incoming))
                .await
                .err()
                .map(|lost| lost.reason)
        }
        _ => std::future::pending().await,
    }
}

/// A receiver's value has changed.
pub(super) async fn changed<T>(receiver: Option<&mut watch::Receiver<T>>) {
    // A sender that is gone will tell nothing more.
    if let Some(receiver) = receiver
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// A timer is over.
pub(super) async fn timer_or_never(timer: Option<Sleep>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
