//! Faults of the broker's only node: it ends, and comes back with what was on its disk.

use std::time::Duration;

use ponos_testbed::Node;

use crate::ledger::{Scope, Step};
use crate::system::System;

/// How many jobs must have come through each level of the delay ladder before a node is killed.
const WARM: usize = 5;

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// SIGKILL.
    Killed,
    /// SIGTERM: it closes its connections and its files.
    Stopped,
}

impl Ending {
    /// One in so many ends in order, the others by SIGKILL.
    pub(crate) fn by_chance(chance: &mut fastrand::Rng, in_order: u32) -> Self {
        if chance.u32(..in_order) == 0 { Self::Stopped } else { Self::Killed }
    }

    /// The fault's kind in the ledger.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Killed => "node-kill",
            Self::Stopped => "node-stop",
        }
    }

    /// Ends the node; it is gone afterwards.
    pub(crate) fn of(self, node: &Node) {
        match self {
            Self::Killed => node.kill(),
            Self::Stopped => node.stop(),
        }
    }
}

/// Waits until jobs have come through the delay ladder, and everything that was declared is on the disk.
///
/// A queue whose declaration a SIGKILL cuts may never elect a leader on RabbitMQ 3.10.8, and then takes nothing: that is
/// not what is tried here (docs/rabbitmq.md, "When things go wrong").
pub(crate) fn warm(system: &System, node: &Node) -> anyhow::Result<()> {
    // Even jobs wait for the backoff, odd ones for what they ask: two levels.
    system.until("second attempts", |book| {
        let second = || book.runs.keys().filter(|call| call.step == Step::Make && call.attempt > 1);
        let even = second().filter(|call| call.job.is_multiple_of(2)).count();
        even >= WARM && second().count() - even >= WARM
    })?;
    node.sync_declarations();
    // Also the state of queues that were declared just now.
    std::thread::sleep(Duration::from_secs(2));
    Ok(())
}

/// Ends the only node, and starts it again.
pub(crate) fn restart(system: &mut System, ending: Ending) -> anyhow::Result<()> {
    let node = system.site.node()?;
    let fault = system.fault(ending.kind(), Scope::All, "");
    ending.of(node);
    node.start_again();
    system.over(fault);
    Ok(())
}
