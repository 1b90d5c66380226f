//! Only the application that owns a task serves it.

use ponos::prelude::*;

#[app("billing")]
pub struct Billing;

#[task("billing.card.charge", app = Billing)]
pub struct CardCharge {}

#[app("pheidi")]
pub struct Pheidi;

async fn charge(_: CardCharge, _: TaskCx<CardCharge>) -> Outcome {
    Ok(())
}

fn main() {
    let _ = Service::<Pheidi>::new().task(charge, |p| p);
}
