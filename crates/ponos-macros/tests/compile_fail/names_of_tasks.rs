//! A task is an action: `app.model.verb`, the verb in the present tense.

use ponos::prelude::*;

#[app("pheidi")]
pub struct Pheidi;

#[task("pheidi.email.sent", app = Pheidi)]
pub struct EmailSent {}

#[task("email.send", app = Pheidi)]
pub struct EmailSend {}

#[task("pheidi.email.Send", app = Pheidi)]
pub struct EmailSend2 {}

#[task("pheidi.email..send", app = Pheidi)]
pub struct EmailSend3 {}

#[task(app = Pheidi)]
pub struct SmsSend {}

#[task("pheidi.letter.send")]
pub struct LetterSend {}

#[task]
pub struct FaxSend {}

fn main() {}
