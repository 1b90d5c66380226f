//! A handler's future moves between threads, so what it holds across an `.await` must be `Send`.

use std::rc::Rc;

use ponos::prelude::*;

#[app("pheidi")]
pub struct Pheidi;

#[task("pheidi.email.send", app = Pheidi)]
pub struct EmailSend {}

async fn connect() {}

async fn send_email(_: EmailSend, _: TaskCx<EmailSend>) -> Outcome {
    let template = Rc::new("receipt");
    connect().await;
    drop(template);
    Ok(())
}

fn main() {
    let _ = Service::<Pheidi>::new().task(send_email, |p| p);
}
