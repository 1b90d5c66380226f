//! What a reaction returns says which tasks it makes; a reaction without a task could only have a side effect.

use ponos::prelude::*;

#[event("org.payment.processed")]
pub struct OrgPaymentProcessed {}

#[app("pheidi")]
pub struct Pheidi;

fn log(_: OrgPaymentProcessed) {}

fn forward(event: OrgPaymentProcessed) -> OrgPaymentProcessed {
    event
}

fn main() {
    let _ = Service::<Pheidi>::new().on(log);
    let _ = Service::<Pheidi>::new().on(forward);
}
