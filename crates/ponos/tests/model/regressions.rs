//! Runs that once failed, each made as short as it could be, and named for what must hold.

use super::commands::Command::{self, Publish, Settle, Subscribe, Take};
use super::commands::{Delay, End, Message, To};
use super::driver::Subject;
use super::runs::replay;
use super::subjects::{Memory, Sqlite};

fn message(to: To) -> Message {
    Message { to, delay: Delay::None, again: None }
}

fn holds(commands: &[Command], subject: &impl Subject) {
    replay(subject, commands).unwrap_or_else(|why| panic!("{why}"));
}

/// The embedded broker looked at the messages first, and said of a delivery that was gone that it is still there.
#[test]
fn a_settlement_that_is_too_large_does_not_make_a_delivery_ours_again() {
    let commands = [
        Publish { by: 0, messages: vec![message(To::Jobs)] },
        Subscribe { by: 0, queue: 4, prefetch: 1, only: None },
        Take { consumer: 0, max: 1 },
        Settle { delivery: 0, late: false, send: vec![], verdict: End::Done },
        Settle { delivery: 0, late: true, send: vec![message(To::TooLarge)], verdict: End::Done },
    ];
    holds(&commands, &Sqlite::new());
    holds(&commands, &Memory::calm());
}
