//! Doing it, beside the request: it goes on when nobody waits for the answer, and stops between two jobs when the server
//! ends.

use std::sync::Arc;

use tokio::sync::watch;

use super::super::problem::Problem;
use super::super::state::{State, stopped};
use super::book::{Entry, Stage};
use super::request::{Task, What};
use crate::error::CliError;
use crate::failed::asked::{Chosen, Stop};
use crate::steer;

pub(super) async fn run(state: Arc<State>, entry: Arc<Entry>, task: Task) {
    let Task { what, reason, dry_run, .. } = task;
    match what {
        What::Failed(deed, wish) => match Chosen::find(deed, &wish, &state.session).await {
            Err(error) => refuse(&state, &entry, &error),
            Ok(chosen) => failed(&state, &entry, Arc::new(chosen), dry_run).await,
        },
        What::Order(target, action, time) => {
            let given = async {
                let given = steer::plan(target, action, (reason, time), &state.session).await?;
                if dry_run { Ok(given) } else { given.carry_out(&state.session).await }
            };
            match given.await {
                Err(error) => refuse(&state, &entry, &error),
                Ok(given) => {
                    entry.ordered(given.document());
                    entry.end(Stage::Finished, None);
                }
            }
        }
    }
}

fn refuse(state: &State, entry: &Arc<Entry>, error: &CliError) {
    state.book.refuse(entry, Problem::of(error).kind(), error.in_one_line());
}

async fn failed(state: &State, entry: &Entry, chosen: Arc<Chosen>, dry_run: bool) {
    entry.planned(&chosen);
    if dry_run || chosen.is_empty() {
        entry.end(Stage::Finished, None);
        return;
    }
    let mut stop = Stopping(state.stopping.clone());
    let done = chosen.carry_out(entry.mark(), &state.session, &mut stop, |job| entry.settled(job)).await;
    match done {
        Ok(()) => entry.end(Stage::Finished, None),
        Err(error) => {
            let stage = if *state.stopping.borrow() { Stage::Stopped } else { Stage::Failed };
            entry.end(stage, Some(error.in_one_line()));
        }
    }
}

/// The server ends.
struct Stopping(watch::Receiver<bool>);

impl Stop for Stopping {
    fn stopped(&mut self) -> impl Future<Output = ()> + Send {
        stopped(self.0.clone())
    }
}
