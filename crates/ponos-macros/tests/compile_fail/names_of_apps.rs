//! An application's name is one segment.

use ponos::prelude::*;

#[app("Pheidi")]
pub struct Pheidi;

#[app("my.mailer")]
pub struct MyMailer;

#[app("ponos")]
pub struct Ponos;

#[app]
pub struct LinkShortener;

fn main() {}
