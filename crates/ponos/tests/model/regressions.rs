//! Runs that once failed, each made as short as it could be, and named for what must hold.

#[allow(unused_imports)]
use super::commands::Command::{self, *};
use super::commands::{Delay, End, Message, To};
use super::runs::replay;
use super::subjects::{Memory, Sqlite};
