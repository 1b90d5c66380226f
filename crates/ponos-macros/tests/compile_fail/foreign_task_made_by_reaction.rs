//! A reaction makes tasks of its own application, alone or among others.

use ponos::prelude::*;

#[event("org.payment.processed")]
pub struct OrgPaymentProcessed {}

#[app("billing")]
pub struct Billing;

#[task("billing.card.charge", app = Billing)]
pub struct CardCharge {}

#[app("pheidi")]
pub struct Pheidi;

#[task("pheidi.email.send", app = Pheidi)]
pub struct EmailSend {}

fn charge(_: OrgPaymentProcessed) -> CardCharge {
    CardCharge {}
}

fn charge_and_send(_: OrgPaymentProcessed) -> (EmailSend, Vec<CardCharge>) {
    (EmailSend {}, vec![CardCharge {}])
}

fn main() {
    let _ = Service::<Pheidi>::new().on(charge);
    let _ = Service::<Pheidi>::new().on(charge_and_send);
}
