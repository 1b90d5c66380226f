//! The processes of a run: this program again, told which part to play.
//!
//! Each of them ends when its standard input does, so that nobody is left over when the driver goes away.

mod ledger;
mod publisher;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use ponos::core::broker::Broker;
use ponos_sqlite::{SqliteBroker, SqliteOptions};

use crate::scenarios::power::{self, Work};

/// Which part.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Appends to the ledger what the others say.
    Ledger {
        /// The run's directory.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Publishes the jobs that it is given.
    Publisher {
        #[command(flatten)]
        place: Place,
        /// How many publishes may be without an answer.
        #[arg(long)]
        open: usize,
    },
    /// Works on a file under a trace; see R3.
    Power(Work),
    /// Recovers what a power cut left.
    PowerAgain {
        /// The directory that is watched.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Works.
    Worker {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        concurrency: u32,
        #[arg(long)]
        prefetch: u32,
        /// With a circuit breaker for the dependency that jobs call, which opens for so many milliseconds first.
        #[arg(long)]
        breaker: Option<u64>,
    },
}

/// Where a process is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// The run's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The number of the process in the ledger.
    #[arg(long)]
    pub(crate) number: u32,
    /// The broker.
    #[arg(long)]
    pub(crate) url: String,
    /// After how many milliseconds SQLite's processes take the jobs of one that stands still.
    #[arg(long)]
    pub(crate) lease: u64,
}

impl Role {
    pub(crate) fn play(self) -> anyhow::Result<()> {
        if let Self::Ledger { dir } = self {
            return ledger::keep(&dir);
        }
        // Into this process's file in the run's directory.
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .init();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        match self {
            Self::Publisher { place, open } => runtime.block_on(publisher::publish(place, open)),
            Self::Worker { place, concurrency, prefetch, breaker } => {
                runtime.block_on(worker::work(place, concurrency, prefetch, breaker))
            }
            Self::Power(work) => runtime.block_on(power::work(work)),
            Self::PowerAgain { dir } => runtime.block_on(power::resume(&dir)),
            Self::Ledger { .. } => Ok(()),
        }
    }
}

impl Place {
    /// A broker of this process.
    pub(crate) async fn broker(&self) -> anyhow::Result<Arc<dyn Broker>> {
        connect(&self.url, Duration::from_millis(self.lease)).await
    }
}

/// Connects to the broker at this URL. SQLite's lease is the run's, because 60 s are longer than a run waits.
pub(crate) async fn connect(url: &str, lease: Duration) -> anyhow::Result<Arc<dyn Broker>> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = Path::new(path).to_owned();
        let options = SqliteOptions::new().lease(lease).heartbeat(lease / 10);
        let opened = tokio::task::spawn_blocking(move || SqliteBroker::open(path, options)).await?;
        return Ok(Arc::new(opened.context("opening the broker's file")?));
    }
    ponos::Broker::from_url(url)?.connect().await.context("connecting to the broker")
}
