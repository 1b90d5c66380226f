//! The makers' own example: five small programs around payments, mail, webhooks and builds.
//!
//! | program | owns | hears | emits |
//! | --- | --- | --- | --- |
//! | [`cream`] | payments, the name on the card | | `org.payment.processed`, `org.payment.failed` |
//! | [`pheidi`] | mail | `org.payment.processed` | `email.sent` |
//! | [`hooks`] | GitHub's webhooks | | `github.pushed`, `github.pull-request.opened`, … |
//! | [`deploy`] | builds | `github.pushed` | `build.completed` |
//! | [`mail_provider`] | nothing of Ponos: somebody else's HTTP server, which can be told to fail | | |
//!
//! Each service is one module with its events, tasks, handlers, policies and state. It keeps its tasks to itself, and a
//! subscriber declares its own struct of an event with the fields that it reads, so the services share no types but
//! [`Org`]. What is common to them and has nothing to do with messages is in [`http`] and [`process`].
//!
//! The binaries start one service each; `ponos demo` starts all of them in one process.

pub mod cream;
pub mod deploy;
pub mod hooks;
pub mod http;
pub mod mail_provider;
mod org;
mod pace;
pub mod pheidi;
pub mod process;
mod served;

pub use org::{InvalidOrg, Org};
pub use pace::Pace;
pub use served::Served;
