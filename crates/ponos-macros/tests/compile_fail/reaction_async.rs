//! A reaction is not async: work is done in a task's handler, where it is retried.

use ponos::prelude::*;

#[event("org.payment.processed")]
pub struct OrgPaymentProcessed {}

#[app("pheidi")]
pub struct Pheidi;

#[task("pheidi.email.send", app = Pheidi)]
pub struct EmailSend {}

async fn thank_the_payer(_: OrgPaymentProcessed) -> EmailSend {
    EmailSend {}
}

fn main() {
    let _ = Service::<Pheidi>::new().on(thank_the_payer);
}
