//! What a scenario changes while a run goes on, beside its faults.

use std::time::Duration;

use anyhow::Context as _;
use ponos_testbed::Relay;

use super::System;
use super::feed::Load;

/// How long an orderly end of a process may take: a publisher outwaits the deadline of a publish.
const ORDERLY: Duration = Duration::from_secs(120);

impl System {
    /// Changes how fast jobs come, and which.
    pub(crate) fn set_load(&self, change: impl FnOnce(&mut Load)) {
        self.feed.set(change);
    }

    /// Puts a relay between the broker's node and the processes that are started from now on; `query` is added to the
    /// URL's.
    pub(crate) fn through_relay(&mut self, query: &str) -> anyhow::Result<()> {
        let relay = Relay::to(self.site.node()?.amqp_port());
        let url = relay.url(&self.site.url());
        self.url = format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' });
        self.relay = Some(relay);
        Ok(())
    }

    pub(crate) fn relay(&self) -> anyhow::Result<&Relay> {
        self.relay.as_ref().context("no relay was put before the broker")
    }

    /// Ends a worker in order (SIGTERM), and waits until it has.
    pub(crate) fn retire(&mut self, worker: u32) -> anyhow::Result<()> {
        let process = self.process(worker)?;
        process.terminate()?;
        process.ended_within(ORDERLY)?;
        self.forget(worker);
        Ok(())
    }

    /// Gives no jobs any more, and waits until the publishers have all their answers and have ended.
    pub(crate) fn retire_publishers(&mut self) -> anyhow::Result<()> {
        for publisher in self.publishers() {
            self.feed.remove(publisher);
        }
        self.fleet.await_publishers(ORDERLY)
    }
}
