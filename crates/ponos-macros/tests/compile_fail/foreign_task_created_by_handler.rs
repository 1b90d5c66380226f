//! Only the application that owns a task creates it: here `pheidi` tries to charge a card of `billing`.

use ponos::prelude::*;

#[app("billing")]
pub struct Billing;

#[task("billing.card.charge", app = Billing)]
pub struct CardCharge {}

#[app("pheidi")]
pub struct Pheidi;

#[task("pheidi.email.send", app = Pheidi)]
pub struct EmailSend {}

async fn send_email(_: EmailSend, cx: TaskCx<EmailSend>) -> Outcome {
    cx.create(CardCharge {})?;
    Ok(())
}

fn main() {
    let _ = Service::<Pheidi>::new().task(send_email, |p| p);
}
