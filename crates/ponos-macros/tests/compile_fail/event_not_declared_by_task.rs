//! A handler emits what its task declares, and nothing else.

use ponos::prelude::*;

#[event("email.sent")]
pub struct EmailSent {}

#[event("email.bounced")]
pub struct EmailBounced {}

#[app("pheidi", emits(EmailBounced))]
pub struct Pheidi;

#[task("pheidi.email.send", app = Pheidi, emits(EmailSent))]
pub struct EmailSend {}

async fn send_email(_: EmailSend, cx: TaskCx<EmailSend>) -> Outcome {
    cx.emit(EmailSent {})?;
    cx.emit(EmailBounced {})?;
    Ok(())
}

fn main() {
    let _ = Service::<Pheidi>::new().task(send_email, |p| p);
}
