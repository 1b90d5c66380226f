//! The whole system, as the manifests of its applications tell: who emits, hears, creates and performs what.
//!
//! | module | what |
//! | --- | --- |
//! | `model` | manifests united: applications, events, reactions, tasks |
//! | `graph` | the same as nodes and edges; the order in which to walk them |
//! | `cycles` | ways on which a message begets itself, and whether they can end |
//! | `chain` | the longest way that a cascade can take, and where each message stands on it |
//! | `nearest` | the name that was probably meant |
//!
//! What a handler creates with `cx.create`, and what a program creates from outside, is in no manifest: a task without a
//! reaction is taken for one that its own application starts.

mod chain;
mod cycles;
mod graph;
mod model;
mod nearest;

pub(crate) use chain::Depths;
pub(crate) use cycles::Cycle;
pub(crate) use graph::{Graph, Node};
pub(crate) use model::{Emitter, System, Task};
pub(crate) use nearest::nearest;
