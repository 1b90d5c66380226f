//! `app` is an application, and what is emitted is an event.

use ponos::prelude::*;

#[app("billing")]
pub struct Billing;

pub struct Database;

#[task("billing.card.charge", app = Database)]
pub struct CardCharge {}

#[task("billing.card.renew", app = Billing, emits(CardCharge))]
pub struct CardRenew {}

fn main() {}
