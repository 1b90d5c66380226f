//! A reaction takes the event and nothing else.

use ponos::prelude::*;

pub struct Mailer;

#[event("org.payment.processed")]
pub struct OrgPaymentProcessed {}

#[app("pheidi", state = Mailer)]
pub struct Pheidi;

#[task("pheidi.email.send", app = Pheidi)]
pub struct EmailSend {}

fn thank_the_payer(_: OrgPaymentProcessed, _: &Mailer) -> EmailSend {
    EmailSend {}
}

fn main() {
    let _ = Service::<Pheidi>::new().on(thank_the_payer);
}
