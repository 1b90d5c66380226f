//! Services on a broker that fails: thousands of seeds, each a run of its own.
//!
//! `PONOS_SEEDS=10000` runs more of them, `PONOS_SEED=17 cargo test -p ponos --test simulation replay -- --nocapture`
//! replays one and prints its whole history.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::print_stdout, reason = "a replayed seed is there to be read")]

mod faulty;
mod world;

use ponos::testing::simulation::{Explored, explore};

/// How many seeds there are where nothing is said.
const SEEDS: u64 = 500;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is `{value}`: give a number")))
}

fn command(seed: u64) -> String {
    let optimised = if cfg!(debug_assertions) { "" } else { "--release " };
    format!("PONOS_SEED={seed} cargo test {optimised}-p ponos --test simulation replay -- --nocapture")
}

#[test]
fn every_seed_keeps_the_invariants() {
    world::panics_are_quiet();
    let first = number("PONOS_FIRST_SEED").unwrap_or(0);
    let seeds = first..first + number("PONOS_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let explored = explore(seeds, threads, command, world::simulation);
    let Explored { seeds, steps, simulated, took, .. } =
        explored.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{seeds} seeds, {steps} steps, {simulated:.0?} simulated in {took:.1?}: no violation");
}

/// Replays the seed of `PONOS_SEED`; without one there is nothing to replay.
#[test]
fn replay() {
    world::panics_are_quiet();
    let Some(seed) = number("PONOS_SEED") else {
        println!("no seed is given: PONOS_SEED=17 replays that one");
        return;
    };
    let run = world::simulation(seed).run();
    println!("{}", run.history);
    assert!(run.violations.is_empty(), "{run}");
}

#[test]
fn the_same_seed_gives_the_same_history_and_another_seed_another() {
    world::panics_are_quiet();
    let hash = |seed| world::simulation(seed).run().history.hash();
    let first: Vec<_> = (0..12).map(hash).collect();
    // In another order and on another thread, with other hash maps.
    let again = std::thread::spawn(move || (0..12).rev().map(hash).collect::<Vec<_>>());
    let mut again = again.join().unwrap();
    again.reverse();
    assert_eq!(first, again);
    let distinct: std::collections::BTreeSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), first.len(), "each seed has a history of its own");
}
