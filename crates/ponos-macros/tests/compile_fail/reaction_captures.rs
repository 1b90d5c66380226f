//! A reaction captures nothing: what it needs is in the event, or is looked up in the task's handler.

use ponos::prelude::*;

#[event("org.payment.processed")]
pub struct OrgPaymentProcessed {}

#[app("pheidi")]
pub struct Pheidi;

#[task("pheidi.email.send", app = Pheidi)]
pub struct EmailSend {
    pub template: String,
}

fn main() {
    let template = String::from("receipt");
    let _ = Service::<Pheidi>::new().on(|_: OrgPaymentProcessed| EmailSend { template: template.clone() });
}
