//! The end of a run: everything comes to its end, and what the broker still holds is written down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ponos::FailedJobs;
use ponos::core::body;
use ponos::core::broker::{Broker, Inspect};
use ponos::core::name::AppName;

use super::System;
use crate::ledger::{Entry, Step};
use crate::load::{PieceMake, PieceShelve};

/// How long a message that the ledger knows nothing of may still be on its way.
const QUEUES: Duration = Duration::from_secs(45);

/// How long an orderly end of a process may take: a publisher outwaits the deadline of a publish.
const ORDERLY: Duration = Duration::from_secs(120);

/// How many failed jobs are asked for at once.
const PAGE: usize = 100_000;

impl System {
    /// Lets everything come to its end and closes the ledger; gives the run's directory.
    ///
    /// What does not come to its end is no error here: the checker says what is missing.
    pub(crate) fn end(mut self) -> anyhow::Result<PathBuf> {
        self.feed.close();
        self.note("the publishers' end", |system| system.fleet.await_publishers(ORDERLY));
        self.note("the rest of the jobs", |system| system.until("the rest", |book| book.unfinished == 0));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (url, lease) = (self.site.url(), self.worker.lease);
        let broker = runtime.block_on(crate::role::connect(&url, lease))?;
        self.note("empty queues", |system| {
            let left = runtime.block_on(system.drained(&broker))?;
            left.into_iter().for_each(|entry| system.ledger.write(entry));
            Ok(())
        });
        self.note("the failed jobs", |system| {
            let failed = runtime.block_on(failed(&broker))?;
            failed.into_iter().for_each(|entry| system.ledger.write(entry));
            Ok(())
        });
        runtime.block_on(broker.close())?;
        drop(runtime);
        self.note("the workers' end", |system| system.fleet.end_workers(ORDERLY));
        let dir = self.dir();
        let Self { ledger, mut fleet, feed, .. } = self;
        drop((ledger, feed));
        fleet.end_ledger()?;
        Ok(dir)
    }

    /// What cannot be done is written down, for who looks into a failure.
    fn note(&mut self, what: &str, act: impl FnOnce(&mut Self) -> anyhow::Result<()>) {
        if let Err(error) = act(self) {
            self.ledger.note(format!("problem: {what}: {error:#}"));
        }
    }

    /// What lies in the queues once they are empty, or after a while.
    async fn drained(&self, broker: &Arc<dyn Broker>) -> anyhow::Result<Vec<Entry>> {
        let deadline = Instant::now() + QUEUES;
        loop {
            let queues = broker.inspect(Inspect::Queues(None)).await?.into_queues();
            let work = queues.iter().filter(|stats| !stats.queue.as_str().ends_with(".failed"));
            let left: Vec<Entry> = work
                .map(|stats| Entry::Left { queue: stats.queue.to_string(), messages: stats.messages() })
                .collect();
            let is_empty = left.iter().all(|entry| matches!(entry, Entry::Left { messages: 0, .. }));
            if is_empty || Instant::now() > deadline {
                return Ok(left);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The failed jobs of both services.
async fn failed(broker: &Arc<dyn Broker>) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for app in ["forge", "shop"] {
        let jobs = FailedJobs::new(Arc::clone(broker), AppName::parse(app)?).list(PAGE, None).await?;
        for envelope in jobs {
            let (job, step) = match app {
                "forge" => {
                    (body::decode::<PieceMake>(&envelope.body).context("a failed job")?.job, Step::Make)
                }
                _ => (body::decode::<PieceShelve>(&envelope.body).context("a failed job")?.job, Step::Shelve),
            };
            let report = envelope.report.as_deref();
            let recovered =
                report.is_some_and(|report| report.recovery == ponos::core::envelope::Recovery::Done);
            let reason = report.map_or("none", |report| report.gave_up.reason.as_str()).to_owned();
            entries.push(Entry::Failed { job, step, recovered, reason });
        }
    }
    Ok(entries)
}
