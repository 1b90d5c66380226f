//! Faults of processes: SIGKILL and SIGSTOP.

use std::time::Duration;

use crate::ledger::{Scope, now};
use crate::system::System;

/// Kills processes at once with SIGKILL, waits until the kernel has taken them away, and forgets them.
/// Gives how many of them were in the middle of a call or of a publish.
pub(crate) fn kill(system: &mut System, victims: &[u32]) -> anyhow::Result<u32> {
    let mut faults = Vec::new();
    for victim in victims {
        let sent = now();
        system.process(*victim)?.kill()?;
        faults.push(system.fault_at(sent, "kill", Scope::Process(*victim), ""));
    }
    for (victim, fault) in victims.iter().zip(faults) {
        system.process(*victim)?.reap()?;
        system.over(fault);
        system.forget(*victim);
    }
    // What they wrote at last must have come to the ledger before anybody counts.
    std::thread::sleep(Duration::from_millis(50));
    let book = system.book();
    let was_busy = |victim: u32| book.running(victim) > 0 || book.publishing(victim) > 0;
    let cut = victims.iter().filter(|victim| was_busy(**victim)).count();
    Ok(u32::try_from(cut).unwrap_or(u32::MAX))
}

/// Stops a process with SIGSTOP for a time and lets it go on.
pub(crate) fn pause(system: &mut System, victim: u32, time: Duration) -> anyhow::Result<()> {
    let fault = system.fault("stop", Scope::Process(victim), format!("for {time:?}"));
    system.process(victim)?.stop()?;
    std::thread::sleep(time);
    system.process(victim)?.go_on()?;
    system.over(fault);
    Ok(())
}
