//! Many seeds, and the command that replays the one that failed.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Run, Simulation};

/// What many seeds came to.
#[derive(Debug, Clone, Default)]
pub struct Explored {
    /// How many seeds there were.
    pub seeds: u64,
    /// How many entries their histories have in all.
    pub steps: u64,
    /// How much virtual time they took.
    pub simulated: Duration,
    /// How much real time.
    pub took: Duration,
}

/// A seed that failed.
#[derive(Debug)]
pub struct Failure {
    /// The command that replays it.
    pub command: String,
    /// What became of it.
    pub run: Run,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nreplay it with:\n\n    {}\n", self.run, self.command)
    }
}

impl std::error::Error for Failure {}

/// Runs a simulation for each seed, on up to `threads` threads. `command` names the command that replays a seed.
///
/// ```no_run
/// # use ponos::testing::{Simulation, simulation::explore};
/// # fn shop(seed: u64) -> Simulation { Simulation::seeded(seed) }
/// #[test]
/// fn the_shop_keeps_its_promises() {
///     let command = |seed| format!("SEED={seed} cargo test the_shop_replays -- --nocapture");
///     explore(0..500, 2, command, shop).unwrap_or_else(|failure| panic!("{failure}"));
/// }
/// ```
///
/// # Errors
///
/// With the lowest of the seeds that failed before all threads had stopped.
pub fn explore(
    seeds: Range<u64>,
    threads: usize,
    command: impl Fn(u64) -> String,
    simulation: impl Fn(u64) -> Simulation + Sync,
) -> Result<Explored, Box<Failure>> {
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((Explored::default(), None::<Run>));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let run = simulation(seed).run();
            let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            found.0.seeds += 1;
            found.0.steps += run.history.len() as u64;
            found.0.simulated += run.elapsed;
            if !run.violations.is_empty() {
                // Nobody begins another one.
                next.store(seeds.end, Ordering::Relaxed);
                if found.1.as_ref().is_none_or(|other| run.seed < other.seed) {
                    found.1 = Some(run);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let (mut explored, failed) = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    explored.took = started.elapsed();
    match failed {
        None => Ok(explored),
        Some(run) => Err(Box::new(Failure { command: command(run.seed), run })),
    }
}
