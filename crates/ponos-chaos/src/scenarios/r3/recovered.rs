//! What a broker finds after a power cut, against what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use ponos::core::broker::{Broker, BrokerErrorKind, Inspect, Settlement, SubscribeOptions, Verdict};
use ponos::core::name::QueueName;
use ponos_sqlite::{SqliteBroker, SqliteOptions};
use rusqlite::Connection;

use super::marks::{Promises, State};
use super::work;

/// More than any run publishes.
const ALL: usize = 1_000_000;

/// How long the jobs of a broker may take to come, those of the process included whose power was cut.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is wrong with what a cut left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Jobs that were confirmed and are not there, or are as they were before something that was confirmed.
    pub(super) lost: BTreeSet<u32>,
    /// The same or half of something twice, something that was never published, a database that is not whole.
    pub(super) damage: Vec<String>,
}

/// Opens the broker in `dir` and compares every job with its promise; with `drain`, takes every job too.
pub(super) async fn compare(dir: &Path, promises: &Promises, drain: bool) -> Recovered {
    let mut recovered = Recovered::default();
    if let Err(error) = look(dir, promises, drain, &mut recovered).await {
        recovered.damage.push(format!("{error:#}"));
    }
    recovered
}

async fn look(dir: &Path, promises: &Promises, drain: bool, recovered: &mut Recovered) -> anyhow::Result<()> {
    let file = dir.join(work::DATABASE);
    let options = SqliteOptions::new().lease(Duration::from_millis(100));
    let opened = {
        let file = file.clone();
        tokio::task::spawn_blocking(move || SqliteBroker::open(file, options)).await?
    };
    let broker = opened.context("the broker does not open its file")?;
    for file in [file.clone(), dir.join(format!("{}.journal", work::DATABASE))] {
        let check = tokio::task::spawn_blocking(move || integrity(&file)).await?;
        recovered.damage.extend(check?);
    }
    broker.declare(&work::topology()).await.context("the broker does not declare")?;
    let found = Found::by(&broker).await?;
    found.compare(promises, recovered);
    if drain {
        found.drain(&broker, recovered).await?;
    }
    broker.close().await.context("the broker does not close")
}

/// What SQLite itself finds wrong.
fn integrity(file: &Path) -> anyhow::Result<Vec<String>> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    let mut check = connection.prepare("PRAGMA integrity_check")?;
    let lines = check.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Ok(lines.into_iter().filter(|line| line != "ok").map(|line| format!("{name}: {line}")).collect())
}

/// Every message of every queue, by the job that it is of.
#[derive(Debug, Default)]
struct Found {
    jobs: BTreeMap<u32, Vec<u32>>,
    failed: BTreeMap<u32, Vec<u32>>,
    heard: [BTreeMap<u32, Vec<u32>>; 2],
}

impl Found {
    async fn by(broker: &SqliteBroker) -> anyhow::Result<Self> {
        let [shop, store] = work::hearers();
        Ok(Self {
            jobs: by_job(broker, work::jobs()).await?,
            failed: by_job(broker, work::failed()).await?,
            heard: [by_job(broker, shop).await?, by_job(broker, store).await?],
        })
    }

    /// The state of a job, if it is in one.
    fn state(&self, job: u32) -> Option<State> {
        let attempts = self.jobs.get(&job).map_or(&[][..], Vec::as_slice);
        let count = |of: &BTreeMap<u32, Vec<u32>>| of.get(&job).map_or(0, Vec::len);
        match (attempts, count(&self.failed), count(&self.heard[0]), count(&self.heard[1])) {
            ([], 0, 0, 0) => Some(State::Absent),
            ([attempt], 0, 0, 0) => Some(State::Waits(*attempt)),
            ([], 1, 0, 0) => Some(State::Failed),
            ([], 0, 1, 1) => Some(State::Done),
            _ => None,
        }
    }

    fn compare(&self, promises: &Promises, recovered: &mut Recovered) {
        let mut all: BTreeSet<u32> = promises.jobs().collect();
        for found in [&self.jobs, &self.failed, &self.heard[0], &self.heard[1]] {
            all.extend(found.keys());
        }
        for job in all {
            let promise = promises.of(job);
            match self.state(job) {
                Some(state) if promise.allows(state) => {}
                Some(state) if state < promise.sure => {
                    recovered.lost.insert(job);
                }
                state => recovered.damage.push(format!("job {job} is {state:?} and should be {promise:?}")),
            }
        }
    }

    /// Takes every job that was seen, once, and no other.
    async fn drain(&self, broker: &SqliteBroker, recovered: &mut Recovered) -> anyhow::Result<()> {
        let mut subscription = broker.subscribe(&work::jobs(), SubscribeOptions::prefetch(100)).await?;
        let mut left: BTreeSet<u32> = self.jobs.keys().copied().collect();
        let mut deliveries = Vec::new();
        while !left.is_empty() {
            let next = poll_fn(|cx| subscription.poll_next(cx, 100, &mut deliveries));
            let Ok(next) = tokio::time::timeout(PATIENCE, next).await else {
                recovered.damage.push(format!("{} jobs are there and do not come: {left:?}", left.len()));
                return Ok(());
            };
            next?;
            for delivery in deliveries.drain(..) {
                let job = work::number(&delivery.envelope)?;
                if !left.remove(&job) {
                    recovered.damage.push(format!("job {job} came and was not seen, or came twice"));
                }
                broker.settle(&delivery, Settlement::just(Verdict::Done)).await?;
            }
        }
        Ok(())
    }
}

async fn by_job(broker: &SqliteBroker, queue: QueueName) -> anyhow::Result<BTreeMap<u32, Vec<u32>>> {
    let messages = match broker.inspect(Inspect::Messages { queue, limit: ALL, after: None }).await {
        Ok(messages) => messages.into_messages(),
        // The queue of failed jobs comes with the first one.
        Err(error) if error.kind() == BrokerErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for message in &messages {
        found.entry(work::number(message)?).or_default().push(message.progress.attempt);
    }
    Ok(found)
}
