//! Every broker against one small reference: the same commands, drawn at random, must give the same answers.
//!
//! `reference.rs` is what a broker must do, as plain data. `commands.rs` draws runs, `driver.rs` takes broker and
//! reference through one, `agreement.rs` compares what they show, `runs.rs` makes many and shortens what fails. RabbitMQ's
//! runs live with its other tests, which share a node. `docs/testing.md` says how to run and replay.
#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(unreachable_pub, reason = "modules of a test binary")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::print_stdout, reason = "the seed of a run")]

#[path = "agreement.rs"]
mod agreement;
#[path = "../another_process/mod.rs"]
mod another_process;
#[path = "commands.rs"]
mod commands;
#[path = "driver.rs"]
mod driver;
#[path = "reference.rs"]
mod reference;
#[path = "regressions.rs"]
mod regressions;
#[path = "runs.rs"]
mod runs;
#[path = "subjects.rs"]
mod subjects;

use ponos::Rough;

use self::another_process::Role;
use self::runs::check;
use self::subjects::{HOLD, Memory, Sqlite, hold};

#[test]
fn in_memory() {
    check("in memory", 200, 60, |_| Memory::calm());
}

#[test]
fn in_memory_rough() {
    check("in memory, rough", 200, 60, |chance| Memory::rough(Rough::seeded(chance.into()).per_mille(60)));
}

#[test]
fn in_sqlite() {
    check("in SQLite", 60, 40, |_| Sqlite::new());
}

/// What a child does; nothing in the parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process() {
    let Some(role) = Role::of_this_process() else { return };
    let queue = role.name.strip_prefix(HOLD).expect("the only role").trim();
    hold(&role.file, queue, role.number as usize).await;
}
