//! A message is a JSON object, the same for every reader.

use ponos::prelude::*;

#[event("card.added")]
pub struct Tuple(u64, String);

#[event("card.changed")]
pub enum Untagged {
    Renewed { until: String },
    Locked,
}

#[event("card.moved")]
#[serde(tag = "kind", content = "data")]
pub enum Adjacent {
    Home { street: String },
}

#[event("card.lost")]
pub struct Generic<T> {
    pub what: T,
}

#[event("card.found")]
pub struct Borrowed<'a> {
    pub place: &'a str,
}

#[event("card.burnt")]
#[serde(transparent)]
pub struct Transparent {
    pub place: String,
}

#[event("card.cut")]
pub union Either {
    pub number: u64,
    pub bytes: [u8; 8],
}

#[event("card.eaten")]
fn eaten() {}

#[app("billing")]
pub struct Billing {
    pub database: String,
}

fn main() {}
