//! A node without memory, or without disk: it reads nothing any more from who publishes.

use std::time::Duration;

use crate::ledger::Scope;
use crate::system::System;

/// What runs short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// Its limit is set to one byte.
    Memory,
    /// More than any disk has must be free.
    Disk,
}

impl Short {
    /// The fault's kind in the ledger.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Memory => "memory-alarm",
            Self::Disk => "disk-alarm",
        }
    }
}

/// Raises the alarm for so long. In the ledger stands the time in which it was certainly in force.
pub(crate) fn strike(system: &mut System, short: Short, lasting: Duration) -> anyhow::Result<()> {
    let node = system.site.node()?;
    let set = |on| match short {
        Short::Memory => node.memory_alarm(on),
        Short::Disk => node.disk_alarm(on),
    };
    set(true);
    let fault = system.fault(short.kind(), Scope::All, format!("for {lasting:.1?}"));
    std::thread::sleep(lasting);
    system.over(fault);
    set(false);
    Ok(())
}
