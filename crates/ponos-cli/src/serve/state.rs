//! What handlers share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::collector::Collector;
use super::metrics::Counted;
use super::models::Models;
use super::operations::Book;
use super::token::Token;
use crate::broker::Session;

/// How many requests are answered at once.
const REQUESTS: usize = 32;

/// How many streams there are at once.
const WATCHERS: usize = 16;

#[derive(Debug)]
pub(super) struct State {
    pub(super) session: Arc<Session>,
    pub(super) token: Token,
    pub(super) address: SocketAddr,
    pub(super) collector: Collector,
    pub(super) models: Models,
    pub(super) book: Book,
    pub(super) failed: Counted,
    pub(super) requests: Semaphore,
    pub(super) watchers: Arc<Semaphore>,
    /// True when it is ending.
    pub(super) stopping: watch::Receiver<bool>,
}

/// What handlers are given.
pub(super) type Shared = axum::extract::State<Arc<State>>;

impl State {
    pub(super) fn new(
        session: Arc<Session>,
        token: Token,
        address: SocketAddr,
        collector: Collector,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            models: Models::new(Arc::clone(&session)),
            session,
            token,
            address,
            collector,
            book: Book::default(),
            failed: Counted::default(),
            requests: Semaphore::new(REQUESTS),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            stopping,
        }
    }

    /// Waits for what still runs, but not for ever.
    pub(super) async fn end(&self, deadline: Duration) {
        self.book.end(deadline).await;
        self.collector.end(deadline).await;
    }
}

/// Waits until it is ending.
pub(super) async fn stopped(mut stopping: watch::Receiver<bool>) {
    // Who would say it being gone means the same.
    let _ = stopping.wait_for(|stop| *stop).await;
}
