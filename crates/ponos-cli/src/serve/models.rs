//! Files that answer questions: a few openings of the read model, each for one question at a time, on threads that may
//! wait for a disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::problem::{Kind, Problem};
use crate::broker::Session;
use crate::error::CliError;
use crate::view::View;

/// How many questions are answered at once.
const MODELS: usize = 4;

/// How long a question may take, and how long it may wait for its turn.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Models {
    session: Arc<Session>,
    turns: Arc<Semaphore>,
    /// Those that are open and not being asked.
    idle: Arc<Mutex<Vec<View>>>,
}

impl Models {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { session, turns: Arc::new(Semaphore::new(MODELS)), idle: Arc::default() }
    }

    /// Asks the files. What is asked may ask the broker too, with the handle of the runtime.
    ///
    /// # Errors
    ///
    /// When the answer is an error, or does not come in time.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View, &Session, &Handle) -> Result<T, CliError> + Send + 'static,
    ) -> Result<T, Problem> {
        self.ask_for(move |view, session, handle| question(view, session, handle).map_err(Problem::from))
            .await
    }

    /// The same for questions whose answer may be a problem of the request.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub(super) async fn ask_for<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View, &Session, &Handle) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let turns = Arc::clone(&self.turns);
        let (session, idle) = (Arc::clone(&self.session), Arc::clone(&self.idle));
        let asked = async {
            // Held until the thread is done, also when nobody waits for its answer any more.
            let Ok(turn) = turns.acquire_owned().await else { return Err(late()) };
            let thread = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let view = match known {
                    Some(view) => view,
                    None => View::of(&session)?,
                };
                let answer = question(&view, &session, &Handle::current());
                // One that has failed is opened anew.
                if !answer.as_ref().is_err_and(|problem| problem.kind() == Kind::Unavailable) {
                    idle.lock().unwrap_or_else(PoisonError::into_inner).push(view);
                }
                answer
            });
            thread.await.unwrap_or_else(|_| {
                Err(Problem::new(Kind::Broken, "a question ended without an answer: please report it"))
            })
        };
        tokio::time::timeout(DEADLINE, asked).await.unwrap_or_else(|_| Err(late()))
    }
}

fn late() -> Problem {
    let seconds = DEADLINE.as_secs();
    Problem::new(Kind::Busy, format!("no answer within {seconds} seconds: ask for less, or again later"))
}
