//! The embedded broker of Ponos: one SQLite file, many processes, nothing to install.
//!
//! ```no_run
//! # async fn example() -> Result<(), ponos_core::broker::BrokerError> {
//! use ponos_core::broker::{Broker, SubscribeOptions, Topology};
//! use ponos_core::name::QueueName;
//! use ponos_sqlite::{SqliteBroker, SqliteOptions};
//!
//! let broker = SqliteBroker::open("ponos.db", SqliteOptions::new())?;
//! let queue = QueueName::parse("pheidi.email.send").expect("a queue's name");
//! broker.declare(&Topology { tasks: vec![queue.clone()], ..Topology::default() }).await?;
//! let jobs = broker.subscribe(&queue, SubscribeOptions::prefetch(20)).await?;
//! # drop(jobs);
//! broker.close().await
//! # }
//! ```
//!
//! # What it promises
//!
//! | | |
//! | --- | --- |
//! | durability | a confirmed message is on the disk: write-ahead log, `synchronous=FULL`, one commit for all that came meanwhile |
//! | fan-out, settlement | each one transaction: an event reaches every queue or none; what a handler sends and its verdict happen together |
//! | dead processes | noticed by a lock that the kernel frees: their jobs are back within half a second, each with a loss more |
//! | processes that stand still | lose their jobs after the lease (60 s); what they settle later has no effect |
//! | wake-up | at once in one process, within about 2 ms from another while there is traffic, within 25 ms after a pause |
//! | delays | never early, whatever is done to the wall clock short of setting it forward |
//! | repeated publishes | a message that is still in the queue is confirmed and not doubled |
//!
//! One machine only: network file systems are refused. Every file is for its owner alone (mode 0600).
//!
//! # Code map
//!
//! | module | what |
//! | --- | --- |
//! | `broker` | the handle; opening a file |
//! | `writer`, `store`, `transaction` | the one thread that writes: groups, the connection, what an operation sees |
//! | `publish`, `settle`, `declare`, `claim`, `chores` | what is done in a transaction |
//! | `subscription` | what a consumer asked for, got and holds |
//! | `poller`, `process` | other processes: their commits, and whether they live |
//! | `inspect` | the thread that only reads |
//! | `journal` | the records, in a file of their own |
//! | `schema`, `location`, `access`, `file_lock`, `clock`, `error` | the file's version and place, who else may use it, the writers' lock, time that never goes back |
//!
//! Architecture invariant: only the writer thread writes, and only under `FILE.writer.lock`. Nothing but SQLite opens
//! the database, its log or its shared memory: closing any descriptor of them would drop the process's locks.

mod access;
mod broker;
mod chores;
mod claim;
mod clock;
mod declare;
mod error;
mod file_lock;
#[doc(hidden)]
pub mod fuzzing;
mod inspect;
mod journal;
mod location;
mod options;
mod poller;
mod process;
mod prototype;
mod publish;
mod schema;
mod settle;
mod shared;
mod stats;
mod store;
mod subscription;
mod suspects;
mod transaction;
mod writer;

pub use broker::SqliteBroker;
pub use options::{DEFAULT_JOURNAL_RECORDS, Durability, SqliteOptions};
pub use stats::Stats;
