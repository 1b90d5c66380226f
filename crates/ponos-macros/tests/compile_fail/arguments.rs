//! What an attribute does not know it refuses, and says what it knows.

use ponos::prelude::*;

#[event("card.added", app = Billing)]
pub struct CardAdded {}

#[event("card.lost", verb = any)]
pub struct CardLost {}

#[event("card.found", "card.seen")]
pub struct CardFound {}

#[event(name = "card.burnt")]
pub struct CardBurnt {}

#[app("billing", state = "Database")]
pub struct Billing;

#[app("mailer", database = Database)]
pub struct Mailer;

#[app("poster", emits = CardAdded)]
pub struct Poster;

#[task("billing.card.charge", app = "billing")]
pub struct CardCharge {}

#[task("billing.card.renew", app = Billing, emits("card.added"))]
pub struct CardRenew {}

#[task("billing.card.block", app = Billing, emits(CardAdded, CardAdded))]
pub struct CardBlock {}

#[task("billing.card.check", app = Billing, app = Billing, retries = 5)]
pub struct CardCheck {}

#[data("card")]
pub struct Card {}

fn main() {}
