//! A recovery function gets the task that gave up.

use ponos::prelude::*;

#[app("pheidi")]
pub struct Pheidi;

#[task("pheidi.email.send", app = Pheidi)]
pub struct EmailSend {}

#[task("pheidi.sms.send", app = Pheidi)]
pub struct SmsSend {}

async fn send_email(_: EmailSend, _: TaskCx<EmailSend>) -> Outcome {
    Ok(())
}

async fn flag_sms(_: SmsSend, _: TaskCx<SmsSend>, _: GaveUp) -> Outcome {
    Ok(())
}

fn main() {
    let _ = Service::<Pheidi>::new().task(send_email, |p| p.recover(flag_sms));
}
