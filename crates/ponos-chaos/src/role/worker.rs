//! A worker: both services on one broker, until SIGTERM.

use std::io::Read as _;
use std::sync::Arc;

use ponos::{BreakerConfig, millis};
use tokio::signal::unix::{SignalKind, signal};

use super::Place;
use crate::ledger::{Entry, Ledger};
use crate::load::{Bench, forge, shop};

pub(crate) async fn work(
    place: Place,
    concurrency: u32,
    prefetch: u32,
    breaker: Option<u64>,
) -> anyhow::Result<()> {
    let ledger = Ledger::connect(&place.dir, place.number)?;
    let mut terminate = signal(SignalKind::terminate())?;
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        // The driver is gone: nobody judges any more.
        std::process::exit(3);
    });
    let broker = place.broker().await?;
    let bench = Bench { ledger: ledger.clone(), dir: Arc::new(place.dir.clone()) };
    let breaker = breaker.map(|open| BreakerConfig::default().open_initial(millis(open)));
    let shop = shop().start(bench.clone(), Arc::clone(&broker)).await?;
    let forge = forge(&ledger, concurrency, prefetch, breaker).start(bench, Arc::clone(&broker)).await?;
    ledger.write(Entry::Up { role: "worker".to_owned() });
    terminate.recv().await;
    forge.shutdown().await;
    shop.shutdown().await;
    broker.close().await?;
    Ok(())
}
