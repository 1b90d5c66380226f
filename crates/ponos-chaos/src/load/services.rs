//! The two services. Each call writes to the ledger when it begins and before it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ponos::prelude::*;
use ponos::{CircuitState, Fail, TaskPolicy};

use super::{FIRST_DELAY, Kind, MAX_RETRIES};
use crate::ledger::{Call, Ending, Entry, Ledger, Step};

/// What the handlers of a process know.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) ledger: Ledger,
    /// The run's directory, where the dependency's switch is.
    pub(crate) dir: Arc<PathBuf>,
}

#[app("forge", state = Bench, emits(PieceWanted))]
pub(crate) struct Forge;

/// How an eighth of the jobs begin.
#[event("piece.wanted")]
pub(crate) struct PieceWanted {
    pub(crate) job: u32,
    pub(crate) kind: u32,
}

/// What a quarter of the jobs emit, for the second service.
#[event("piece.made")]
pub(crate) struct PieceMade {
    pub(crate) job: u32,
}

#[task("forge.piece.make", app = Forge, emits(PieceMade))]
pub(crate) struct PieceMake {
    pub(crate) job: u32,
    pub(crate) kind: u32,
}

#[app("shop", state = Bench)]
pub(crate) struct Shop;

#[task("shop.piece.shelve", app = Shop)]
pub(crate) struct PieceShelve {
    pub(crate) job: u32,
}

fn take_order(e: PieceWanted) -> PieceMake {
    PieceMake { job: e.job, kind: e.kind }
}

async fn make(t: PieceMake, cx: TaskCx<PieceMake>) -> Outcome {
    let (kind, bench) = (Kind::from_bits(t.kind), cx.state().clone());
    let call = Call { job: t.job, step: Step::Make, attempt: cx.attempt() };
    let run = bench.ledger.started(call, cx.id().to_string(), cx.tid().to_string());
    cx.sleep(Duration::from_millis(u64::from(kind.millis()))).await;
    if kind.is_deadly() {
        bench.ledger.write(Entry::Dying);
        std::process::abort();
    }
    // What fails emits too: nothing of it may arrive.
    if kind.emits() {
        cx.emit(PieceMade { job: t.job })?;
    }
    if kind.is_doomed() {
        bench.ledger.ended(run, Ending::GaveUp);
        return Err("never").stop();
    }
    let is_down = kind.calls() && is_down(&bench.dir);
    if is_down || kind.fails_once() && cx.attempt() == 1 {
        // Every other one names its delay, the rest leaves it to the backoff; neither may be shorter.
        let delay = if t.job.is_multiple_of(2) { FIRST_DELAY } else { FIRST_DELAY * 2 };
        bench.ledger.ended(run, Ending::Again(u64::try_from(delay.as_micros()).unwrap_or(0)));
        let why = if is_down { "the dependency is down" } else { "not at the first try" };
        return match t.job.is_multiple_of(2) {
            true => Err(why.into()),
            false => Err(Fail::retry_after(why, delay)),
        };
    }
    bench.ledger.ended(run, Ending::Succeeded);
    Ok(())
}

async fn write_off(t: PieceMake, cx: TaskCx<PieceMake>, _: GaveUp) -> Outcome {
    let call = Call { job: t.job, step: Step::WriteOff, attempt: cx.attempt() };
    let run = cx.state().ledger.started(call, cx.id().to_string(), cx.tid().to_string());
    cx.state().ledger.ended(run, Ending::Succeeded);
    Ok(())
}

fn unpack(e: PieceMade) -> PieceShelve {
    PieceShelve { job: e.job }
}

async fn shelve(t: PieceShelve, cx: TaskCx<PieceShelve>) -> Outcome {
    let call = Call { job: t.job, step: Step::Shelve, attempt: cx.attempt() };
    let run = cx.state().ledger.started(call, cx.id().to_string(), cx.tid().to_string());
    cx.state().ledger.ended(run, Ending::Succeeded);
    Ok(())
}

/// The service that makes pieces. Its circuit breaker is on only where a dependency can be down: a job that fails by
/// plan says nothing about anybody's health.
pub(crate) fn forge(
    ledger: &Ledger,
    concurrency: u32,
    prefetch: u32,
    breaker: Option<BreakerConfig>,
) -> Service<Forge> {
    let backoff = Backoff::exponential(FIRST_DELAY).max(secs(1));
    let circuits = ledger.clone();
    Service::new()
        .on(take_order)
        .task(make, move |p| {
            let p = p
                .retry(backoff)
                .max_retries(MAX_RETRIES)
                .recover(write_off)
                .concurrency(concurrency)
                .prefetch(prefetch);
            match breaker {
                Some(breaker) => p.breaker(breaker),
                None => p.no_breaker(),
            }
        })
        .on_circuit(move |change| {
            let state = match change.state {
                CircuitState::Closed => "closed",
                CircuitState::Open { .. } => "open",
                CircuitState::HalfOpen => "half_open",
                _ => "unknown",
            };
            circuits.write(Entry::Circuit { state: state.to_owned() });
        })
}

/// The service that hears of what was made.
pub(crate) fn shop() -> Service<Shop> {
    Service::new().on(unpack).task(shelve, TaskPolicy::no_breaker)
}

/// Whether the dependency that jobs call is down.
pub(crate) fn is_down(dir: &Path) -> bool {
    dir.join("dependency.down").exists()
}

/// Takes the dependency down, or brings it back.
pub(crate) fn switch(dir: &Path, down: bool) -> std::io::Result<()> {
    let path = dir.join("dependency.down");
    if down { std::fs::write(path, "") } else { std::fs::remove_file(path) }
}
