//! What a journal says, in SQLite files that answer questions.
//!
//! A journal is a log: to find one transaction in it is to read all of it. A [`ReadModel`] reads a log once, whichever
//! broker keeps it, and answers from indexes. It is a cache: all of it may be deleted, and what the log still has comes
//! back with the next [`catch_up`](ReadModel::catch_up).
//!
//! ```no_run
//! # async fn example(journal: &dyn ponos_core::journal::Journal) -> Result<(), ponos_readmodel::ReadModelError> {
//! use ponos_readmodel::{ReadModel, ReadModelOptions};
//!
//! let mut model = ReadModel::open("/var/lib/ponos/model", ReadModelOptions::new())?;
//! model.catch_up(journal).await?;
//! for found in model.find("4e2a9d17")? {
//!     let trace = model.trace(&found.tid)?;
//!     assert!(!trace.records.is_empty());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Files
//!
//! | file | what | kept |
//! | --- | --- | --- |
//! | `model.db` | the place in the log, instances, gaps, manifests, notices, figures by the hour | 90 days |
//! | `segments/2026-11-23T06.db` | the entries of six hours | 72 hours or 2 GiB; dropped by the file |
//! | `writer.lock` | who may write | |
//!
//! All are for their owner alone. Several processes may use one directory at once: those that write take turns by a lock,
//! for as long as one page of entries takes, and those that ask need none.
//!
//! Transactions in which a job failed are kept no longer than others.
//!
//! # Exactly once
//!
//! Segments are committed first, `model.db` with the place in the log last. What a crash makes come again is recognised by
//! its origin and number: in a segment by an index, in `model.db` by the numbers that are missing. After a power cut,
//! unlike after a crash, the latest entries may be missing from a segment whose place in the log was kept.
//!
//! # Code map
//!
//! | module | what |
//! | --- | --- |
//! | `read_model`, `retention` | opening, taking entries, forgetting them |
//! | `central`, `segment` | the two kinds of files |
//! | `facts`, `rollup`, `histogram` | what is counted of an entry |
//! | `trace`, `history`, `gap`, `instance`, `figures`, `following`, `storage` | the questions |
//! | `tail`, `slot` | an id backwards; six hours |
//! | `database`, `directory`, `error`, `options` | versions of files, their places and modes, the writers' lock |

mod central;
mod database;
mod directory;
mod error;
mod facts;
mod figures;
mod following;
mod gap;
mod histogram;
mod history;
mod instance;
mod options;
mod read_model;
mod retention;
mod rollup;
mod segment;
mod slot;
mod storage;
mod tail;
mod trace;

pub use error::{ReadModelError, ReadModelErrorKind};
pub use figures::{Edge, NameFigures, SourceFigures};
pub use following::{Follower, Following};
pub use gap::Gap;
pub use histogram::Histogram;
pub use history::{EntryCursor, EntryFilter, EntryPage, Since};
pub use instance::{Instance, KnownManifest};
pub use options::ReadModelOptions;
pub use read_model::{CaughtUp, ReadModel};
pub use rollup::QueueCounts;
pub use storage::Storage;
pub use trace::{
    MAX_FOUND, NoCursor, Trace, TraceCursor, TraceFilter, TraceOutcome, TracePage, TraceSummary,
};
