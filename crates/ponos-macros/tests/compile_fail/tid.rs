//! The transaction id is not the payload's: Ponos writes it into each body and reads it from there.

use ponos::prelude::*;

#[event("card.added")]
pub struct Field {
    pub tid: String,
}

#[event("card.changed")]
pub struct Renamed {
    #[serde(rename = "tid")]
    pub transaction: String,
}

#[event("card.lost")]
#[serde(tag = "kind")]
pub enum Variant {
    Stolen { r#tid: String },
}

#[event("card.found")]
#[serde(tag = "tid")]
pub enum Tag {
    Home { street: String },
}

fn main() {}
