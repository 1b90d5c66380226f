//! Entries as they are read, as server-sent events.
//!
//! A watcher that reads slowly is told how many it has missed, and holds up nobody: what waits for it is bounded, here
//! and in the channel that all watchers share.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State as Given;
use clap::ValueEnum as _;
use futures_core::Stream;
use ponos::core::journal::Entry;
use ponos::core::name::AppName;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

use super::answer::{self, Answer, Asked};
use super::problem::{Kind, Problem};
use super::state::{Shared, stopped};
use crate::json;
use crate::tail::{EntryJson, Filter, Word};

/// The media type.
pub(super) const TYPE: &str = "text/event-stream";

/// A comment that keeps the connection from being taken for dead.
const ALIVE: Duration = Duration::from_secs(15);

/// How many events wait for one watcher outside of the shared channel.
const WAITING: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    /// Patterns with commas between.
    name: Option<String>,
    /// Words with commas between.
    outcome: Option<String>,
    app: Option<AppName>,
    /// The end of a transaction's id.
    tid: Option<String>,
}

impl Watch {
    fn filter(self) -> Result<Filter, Problem> {
        let names: Vec<String> =
            self.name.iter().flat_map(|names| names.split(',')).map(str::to_owned).collect();
        let words = self.outcome.iter().flat_map(|words| words.split(','));
        let words: Result<Vec<Word>, Problem> = words
            .map(|word| {
                Word::from_str(word, false).map_err(|_| {
                    let known: Vec<_> = Word::value_variants().iter().map(|word| word.as_str()).collect();
                    Problem::bad(format!("outcome: each word is one of {}", known.join(", ")))
                })
            })
            .collect();
        Ok(Filter::new(&names, words?, self.app, self.tid, false)?)
    }
}

pub(super) async fn stream(Given(state): Shared, Asked(query): Asked<Watch>) -> Answer {
    let filter = query.filter()?;
    let Ok(place) = Arc::clone(&state.watchers).try_acquire_owned() else {
        return Err(Problem::new(Kind::Busy, "too many watch already: end one of the streams first"));
    };
    let (entries, stopping) = (state.collector.watch(), state.stopping.clone());
    let (events, waiting) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        tell(entries, &filter, &events, stopping).await;
        drop(place);
    });
    Ok(answer::of(TYPE, Body::from_stream(Events(waiting))))
}

async fn tell(
    mut entries: broadcast::Receiver<Arc<Entry>>,
    filter: &Filter,
    events: &mpsc::Sender<Bytes>,
    stopping: watch::Receiver<bool>,
) {
    let mut stopped = std::pin::pin!(stopped(stopping));
    let mut alive = tokio::time::interval(ALIVE);
    loop {
        let event = tokio::select! {
            read = entries.recv() => match read {
                Ok(entry) if filter.wants(&entry) => event(&entry),
                Ok(_) => continue,
                Err(RecvError::Lagged(skipped)) => {
                    format!("event: skipped\ndata: {{\"version\":{},\"skipped\":{skipped}}}\n\n", json::VERSION)
                }
                Err(RecvError::Closed) => return,
            },
            // The first one at once: it says that entries are told from here on.
            _ = alive.tick() => ": alive\n\n".to_owned(),
            () = &mut stopped => return,
        };
        tokio::select! {
            // While it waits here, what comes waits in the shared channel, up to its end.
            sent = events.send(event.into()) => if sent.is_err() { return },
            () = &mut stopped => return,
        }
    }
}

fn event(entry: &Entry) -> String {
    let (origin, seq) = (entry.origin.id, entry.seq);
    format!("id: {origin:016x}-{seq}\nevent: entry\ndata: {}\n\n", json::to_line(&EntryJson::of(entry)))
}

/// What waits, as the body of an answer.
#[derive(Debug)]
struct Events(mpsc::Receiver<Bytes>);

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|event| event.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use ponos::core::journal::{Notice, Origin, Said};

    use super::*;

    fn entry(seq: u64) -> Arc<Entry> {
        let at = crate::text::now();
        let app = AppName::parse("shop").unwrap();
        let origin = Origin { id: 1, app, version: None, host: "host/1".into(), started: at };
        Arc::new(Entry { origin: Arc::new(origin), seq, said: Said::Notice(at, Notice::Bye) })
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_it_has_missed_and_goes_on() {
        let (told, entries) = broadcast::channel(4);
        let (events, mut waiting) = mpsc::channel(1);
        let (stop, stopping) = watch::channel(false);
        for seq in 0..10 {
            told.send(entry(seq)).unwrap();
        }
        let filter = Filter::new(&[], Vec::new(), None, None, false).unwrap();
        let telling = tokio::spawn(async move { tell(entries, &filter, &events, stopping).await });
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let event = String::from_utf8(waiting.recv().await.unwrap().to_vec()).unwrap();
            if !event.starts_with(':') {
                seen.push(event);
            }
        }
        assert_eq!(seen[0], "event: skipped\ndata: {\"version\":1,\"skipped\":6}\n\n");
        for (event, seq) in seen[1..].iter().zip(6..) {
            assert!(
                event.starts_with(&format!("id: 0000000000000001-{seq}\nevent: entry\ndata: {{")),
                "{event}"
            );
        }
        // It ends with the server.
        stop.send(true).unwrap();
        telling.await.unwrap();
    }
}
