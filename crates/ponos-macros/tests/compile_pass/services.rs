//! What may be in a service: every form of a reaction, handlers that are functions or closures, recovery.

#![deny(warnings)]

use ponos::prelude::*;

#[event("org.payment.processed")]
pub struct OrgPaymentProcessed {
    pub org: String,
}

#[event("email.sent")]
pub struct EmailSent {}

#[app("pheidi", state = String, emits(OrgPaymentProcessed))]
pub struct Pheidi;

#[task("pheidi.email.send", app = Pheidi, emits(EmailSent))]
pub struct EmailSend {
    pub org: String,
}

#[task("pheidi.sms.send", app = Pheidi)]
pub struct SmsSend;

fn one(e: OrgPaymentProcessed) -> EmailSend {
    EmailSend { org: e.org }
}

fn perhaps(e: EmailSent) -> Option<SmsSend> {
    let EmailSent {} = e;
    None
}

async fn send_email(task: EmailSend, cx: TaskCx<EmailSend>) -> Outcome {
    if task.org.is_empty() {
        Err("no organisation")?;
    }
    let _: &String = cx.state();
    cx.emit(EmailSent {})?;
    cx.create(SmsSend)?;
    Ok(())
}

async fn flag(_: EmailSend, cx: TaskCx<EmailSend>, _: GaveUp) -> Outcome {
    cx.emit(EmailSent {})?;
    Ok(())
}

pub async fn publish(publisher: Publisher<Pheidi>) {
    let _ = publisher.emit(OrgPaymentProcessed { org: String::new() }).await;
    let _ = publisher.create(SmsSend).await;
}

fn main() {
    let _ = Service::<Pheidi>::new()
        .on(one)
        .on(perhaps)
        .task(send_email, |p| p.recover(flag))
        .task(|_: SmsSend, _| async { Ok(()) }, |p| p);
    // A closure that captures nothing is a plain function too; so is what makes several tasks.
    let _ = Service::<Pheidi>::new()
        .on(|e: OrgPaymentProcessed| vec![EmailSend { org: e.org }])
        .on(|_: EmailSent| (SmsSend, Some(SmsSend), Vec::<EmailSend>::new()));
}
