//! Reactions hear events. A task is served, by its handler.

use ponos::prelude::*;

#[app("pheidi")]
pub struct Pheidi;

#[task("pheidi.email.send", app = Pheidi)]
pub struct EmailSend {}

fn again(task: EmailSend) -> EmailSend {
    task
}

fn main() {
    let _ = Service::<Pheidi>::new().on(again);
}
