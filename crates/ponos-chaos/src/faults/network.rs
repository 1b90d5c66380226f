//! Faults of the network between the processes and the broker, by the testbed's relay.

use std::time::Duration;

use ponos_testbed::Relay;

use crate::ledger::Scope;
use crate::system::System;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// All connections end (FIN), and none can be made for so long.
    Cut(Duration),
    /// All connections end by RST; new ones are taken at once.
    Reset,
    /// No byte arrives for so long, and no end learns of it. Then what was sent meanwhile arrives.
    BlackHole(Duration),
    /// The same, and then the connections are cut: what was sent meanwhile is lost.
    LostBytes(Duration),
    /// What clients send arrives, what the server answers does not, for so long; then the connections are cut, and so
    /// the answers to what arrived are lost.
    LostAnswers(Duration),
    /// Each way takes so much longer, for so long.
    Latency(Duration, Duration),
}

/// How many kinds there are.
const KINDS: u32 = 6;

impl Fault {
    /// Each kind in turn; those that last take between a quarter of `longest` and all of it.
    pub(crate) fn by_chance(chance: &mut fastrand::Rng, number: u32, longest: Duration) -> Self {
        let lasting = longest.mul_f64(0.25 + 0.75 * chance.f64());
        match number % KINDS {
            0 => Self::Cut(lasting),
            1 => Self::Reset,
            2 => Self::LostAnswers(lasting),
            3 => Self::BlackHole(lasting),
            4 => Self::LostBytes(lasting),
            _ => Self::Latency(Duration::from_millis(chance.u64(100..=500)), lasting),
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Cut(_) => "cut",
            Self::Reset => "reset",
            Self::BlackHole(_) => "black-hole",
            Self::LostBytes(_) => "lost-bytes",
            Self::LostAnswers(_) => "lost-answers",
            Self::Latency(..) => "latency",
        }
    }

    fn what(self) -> String {
        match self {
            Self::Reset => String::new(),
            Self::Latency(latency, lasting) => format!("{latency:?} each way for {lasting:.1?}"),
            Self::Cut(lasting)
            | Self::BlackHole(lasting)
            | Self::LostBytes(lasting)
            | Self::LostAnswers(lasting) => {
                format!("for {lasting:.1?}")
            }
        }
    }

    /// Comes back when the network is whole again.
    fn on(self, relay: &Relay) {
        match self {
            Self::Cut(lasting) => {
                relay.refuse(true);
                relay.cut();
                std::thread::sleep(lasting);
            }
            Self::Reset => relay.reset(),
            Self::BlackHole(lasting) => {
                relay.half_open(true);
                std::thread::sleep(lasting);
            }
            Self::LostBytes(lasting) => {
                relay.half_open(true);
                std::thread::sleep(lasting);
                relay.cut();
            }
            Self::LostAnswers(lasting) => {
                relay.hold_answers(true);
                std::thread::sleep(lasting);
                relay.cut();
            }
            Self::Latency(latency, lasting) => {
                relay.delay(latency);
                std::thread::sleep(lasting);
            }
        }
        relay.heal();
    }
}

/// Does it to every connection that goes through the relay.
pub(crate) fn strike(system: &mut System, fault: Fault) -> anyhow::Result<()> {
    let number = system.fault(fault.kind(), Scope::All, fault.what());
    fault.on(system.relay()?);
    system.over(number);
    Ok(())
}
