//! What keeps everything else away while a suspect is looked at.
//!
//! A suspect's count is only its own if nothing else could have killed the process that held it. So before one is taken the
//! gate closes: the subscriptions of this process deliver nothing more, and what they have delivered is waited for. It
//! opens when the suspect is settled.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Waker};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The gate of one process.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The right to hold a suspect: one at a time.
    right: Arc<Semaphore>,
    closed: RwLock<bool>,
    /// Who asked while it was closed.
    waiting: Mutex<Vec<Waker>>,
}

/// The right to hold a suspect. The gate is closed for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Arc<Gate>,
    _right: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { right: Arc::new(Semaphore::new(1)), closed: RwLock::default(), waiting: Mutex::default() }
    }

    fn set(&self, closed: bool) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = closed;
    }

    /// Closes it, once nobody else keeps it closed.
    pub(crate) async fn close(self: &Arc<Self>) -> Option<Place> {
        let right = Arc::clone(&self.right).acquire_owned().await.ok()?;
        // Waits for those who pass at this moment.
        self.set(true);
        Some(Place { gate: Arc::clone(self), _right: right })
    }

    /// Lets the caller deliver for as long as it keeps what is returned; who gets nothing is woken when the gate opens.
    pub(crate) fn pass(&self, cx: &Context<'_>) -> Option<RwLockReadGuard<'_, bool>> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if !*closed {
            return Some(closed);
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.set(false);
        let waiting = std::mem::take(&mut *self.gate.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_closed_by_one_at_a_time_and_wakes_who_waited() {
        let gate = Arc::new(Gate::new());
        let open = async |gate: &Gate| {
            std::future::poll_fn(|cx| std::task::Poll::Ready(gate.pass(cx).is_some())).await
        };
        assert!(open(&gate).await);
        let place = gate.close().await.unwrap();
        assert!(!open(&gate).await);
        let second = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.close().await }
        });
        let waits = tokio::spawn({
            let gate = Arc::clone(&gate);
            std::future::poll_fn(move |cx| match gate.pass(cx) {
                Some(_) => std::task::Poll::Ready(()),
                None => std::task::Poll::Pending,
            })
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished() && !waits.is_finished());
        drop(place);
        drop(second.await.unwrap());
        waits.await.unwrap();
        assert!(open(&gate).await);
    }
}
