//! Only the application that owns a task creates it, outside of handlers too.

use ponos::prelude::*;

#[app("billing")]
pub struct Billing;

#[task("billing.card.charge", app = Billing)]
pub struct CardCharge {}

#[app("hooks")]
pub struct Hooks;

async fn webhook(publisher: Publisher<Hooks>) {
    let _ = publisher.create(CardCharge {}).await;
}

fn main() {
    let _ = webhook;
}
