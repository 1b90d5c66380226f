//! A task's name begins with the name of the application that owns it.

use ponos::prelude::*;

#[app("pheidi")]
pub struct Pheidi;

#[task("billing.email.send", app = Pheidi)]
pub struct EmailSend {}

#[task("pheidippides.email.send", app = Pheidi)]
pub struct EmailSend2 {}

fn main() {}
