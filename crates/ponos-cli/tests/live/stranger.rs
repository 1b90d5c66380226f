//! Entries in the journal that no service of these tests has written.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::journal::{Entry, Notice, Origin, PublishedRecord, Record, Said, What};
use ponos::core::name::AppName;

use crate::place::Place;

/// Somebody who writes what it likes.
pub(crate) struct Stranger {
    origin: Arc<Origin>,
    entries: Vec<Entry>,
    at: Timestamp,
}

impl Stranger {
    pub(crate) fn new(app: &str, ago: Duration) -> Self {
        let at = Timestamp::from(SystemTime::now() - ago);
        let origin = Origin {
            id: 7 + at.as_millis(),
            app: AppName::parse(app).unwrap(),
            version: Some("0.9.0".into()),
            host: "elsewhere/1".into(),
            started: at,
        };
        Self { origin: Arc::new(origin), entries: Vec::new(), at }
    }

    fn says(mut self, said: Said) -> Self {
        let seq = self.entries.len() as u64;
        self.entries.push(Entry { origin: Arc::clone(&self.origin), seq, said });
        self
    }

    pub(crate) fn notice(self, notice: Notice) -> Self {
        let at = self.at;
        self.says(Said::Notice(at, notice))
    }

    pub(crate) fn published(self, name: &str, event: bool, by: Option<&str>) -> Self {
        let number = u8::try_from(self.entries.len()).unwrap();
        let what = PublishedRecord {
            name: name.into(),
            event,
            app: Some(self.origin.app.clone()),
            cause: None,
            by: by.map(Into::into),
            queues: 1,
            hops: 0,
            size: 10,
        };
        let (tid, message) = (Tid::new(self.at, [number; 10]), MessageId::new(self.at, [number; 10]));
        let at = self.at;
        self.says(Said::Record(Record { at, tid, message, what: What::Published(what) }))
    }

    /// Writes it all.
    pub(crate) async fn write(self, place: &Place) {
        let broker = place.broker().connect().await.unwrap();
        let journal = broker.journal().unwrap();
        for entry in self.entries {
            journal.append(entry);
        }
        broker.close().await.unwrap();
    }
}
