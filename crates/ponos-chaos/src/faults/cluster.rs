//! Faults of a cluster: its nodes end one at a time, so that a majority is always up.

use std::time::{Duration, Instant};

use anyhow::bail;
use ponos_testbed::Cluster;

use super::node::Ending;
use crate::ledger::Scope;
use crate::system::System;

/// How long a node may take until every queue has it back.
const BACK: Duration = Duration::from_secs(120);

/// Ends a node, starts it again, and waits until any other node could be spared.
pub(crate) fn restart(system: &mut System, index: usize, ending: Ending) -> anyhow::Result<()> {
    let fault = system.fault(ending.kind(), Scope::All, format!("node {}", index + 1));
    let cluster = system.site.cluster()?;
    ending.of(&cluster.nodes()[index]);
    cluster.start_again(index);
    until_in_quorum(cluster, index)?;
    system.over(fault);
    Ok(())
}

/// Waits until every queue could do without any of the other nodes, because this one is a member again.
fn until_in_quorum(cluster: &Cluster, index: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    for (other, node) in cluster.nodes().iter().enumerate().filter(|(other, _)| *other != index) {
        loop {
            let answer = node.try_http("GET", "/api/health/checks/node-is-quorum-critical", None);
            if matches!(answer, Ok((200, _))) {
                break;
            }
            if started.elapsed() > BACK {
                bail!("node {} cannot be spared {BACK:?} after another came back: {answer:?}", other + 1);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}
