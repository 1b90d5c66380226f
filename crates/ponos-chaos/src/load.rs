//! What runs: two services, and the kinds of jobs that they get.

mod kind;
mod services;

pub(crate) use kind::{Kind, Mix};
pub(crate) use services::{Bench, Forge, PieceMake, PieceShelve, PieceWanted, forge, shop, switch};

/// How often a failing job is tried again.
pub(crate) const MAX_RETRIES: u32 = 8;

/// The shortest wait before the second attempt.
pub(crate) const FIRST_DELAY: std::time::Duration = std::time::Duration::from_millis(200);
