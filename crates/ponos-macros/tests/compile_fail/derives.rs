//! The attributes derive what a message needs; a second derive would be an error without a way out.

use ponos::prelude::*;

#[event("card.added")]
#[derive(Debug, Serialize, serde::Deserialize)]
pub struct CardAdded {}

#[data]
#[derive(Clone, schemars::JsonSchema)]
pub struct Card {}

fn main() {}
