//! Handlers serve tasks. An event is heard by a reaction, which makes a task of it.

use ponos::prelude::*;

#[event("org.payment.processed")]
pub struct OrgPaymentProcessed {}

#[app("pheidi")]
pub struct Pheidi;

async fn send_email(_: OrgPaymentProcessed, _: TaskCx<OrgPaymentProcessed>) -> Outcome {
    Ok(())
}

fn main() {
    let _ = Service::<Pheidi>::new().task(send_email, |p| p);
}
