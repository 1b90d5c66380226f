//! A publisher: asks the broker for the jobs that it is given on its standard input, and writes down the answers.

use std::sync::Arc;

use ponos::{PublishError, Publisher};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::Place;
use crate::ledger::{Answer, Entry, Ledger};
use crate::load::{Forge, Kind, PieceMake, PieceWanted};

/// Publishes until its input ends and every publish has its answer. A line holds jobs as `number:kind`.
pub(crate) async fn publish(place: Place, open: usize) -> anyhow::Result<()> {
    let ledger = Ledger::connect(&place.dir, place.number)?;
    let broker = place.broker().await?;
    let publisher = Publisher::<Forge>::connect(Arc::clone(&broker)).await?;
    ledger.write(Entry::Up { role: "publisher".to_owned() });
    let places = Arc::new(Semaphore::new(open));
    let mut publishes = JoinSet::new();
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        for word in line.split(' ') {
            let Some((job, kind)) = word.split_once(':') else { continue };
            let (job, kind) = (job.parse()?, kind.parse()?);
            let place = Arc::clone(&places).acquire_owned().await?;
            let (publisher, ledger) = (publisher.clone(), ledger.clone());
            publishes.spawn(async move {
                one(&publisher, &ledger, job, kind).await;
                drop(place);
            });
            while publishes.try_join_next().is_some() {}
        }
    }
    publishes.join_all().await;
    broker.close().await?;
    Ok(())
}

/// The lines of the standard input. A thread of its own reads them, which nobody has to wait for at the end.
fn lines() -> mpsc::Receiver<String> {
    let (to, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if to.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

async fn one(publisher: &Publisher<Forge>, ledger: &Ledger, job: u32, kind: Kind) {
    ledger.write(Entry::Asked { job, kind });
    let sent = if kind.begins_as_event() {
        publisher.emit(PieceWanted { job, kind: kind.bits() }).await
    } else {
        publisher.create(PieceMake { job, kind: kind.bits() }).await
    };
    let (answer, tid) = match sent {
        Ok(receipt) => (Answer::Confirmed, receipt.tid.to_string()),
        Err(error @ PublishError::Unknown { .. }) => (Answer::Unknown, error.to_string()),
        Err(error) => (Answer::Refused, error.to_string()),
    };
    ledger.write(Entry::Answered { job, answer, tid });
}
