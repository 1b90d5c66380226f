//! What became of one transaction, as a tree; and whether the books of many balance.
//!
//! A [`Cascade`] is built from journal records by message ids, never by time: clocks of different machines
//! disagree, ids do not. Records may come in any order, twice, or not at all. What has no record is not shown; where
//! something must be missing, the tree says so.
//!
//! ```text
//! ▸ cream.payment.process — done
//! └ ◇ org.payment.processed
//!   └ pheidi → on org.payment.processed — done
//!     └ ▸ pheidi.email.send — done, attempt 3 (timeout, error)
//!       └ ◇ email.sent — nobody listens
//! ```
//!
//! That is the cascade's `Display`: without ids and times, and siblings by name, so that a test can compare it.
//! [`Cascade::render`] is for terminals, [`Cascade::to_json`] for programs, and [`Balance`] counts jobs over any
//! number of transactions.

#[cfg(test)]
mod around_tests;
mod balance;
mod build;
mod cascade;
mod details;
mod diff;
mod future;
mod job;
mod json;
mod lines;
mod mermaid;
mod surroundings;
mod terminal;
#[cfg(test)]
mod tests;

pub use self::balance::Balance;
pub use self::cascade::{Cascade, CascadeOutcome, Job, Jobs, Kind, Node, Nodes, Origin, Tally};
pub use self::diff::{Diff, Difference, Side};
pub use self::job::JobState;
pub use self::lines::duration;
pub use self::surroundings::{Gap, Hold, InFlight, Listener, Surroundings};
pub use self::terminal::RenderOptions;
