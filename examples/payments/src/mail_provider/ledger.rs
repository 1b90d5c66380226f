use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::Message;

/// A mail that was delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// What the sender named it.
    pub key: String,
    /// Whom it went to.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// What it says.
    pub text: String,
    /// The transaction that the request belonged to, if it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<String>,
}

/// What became of one request. The number counts deliveries from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    New(usize),
    Repeated(usize),
    /// The key is known for another mail.
    Differs,
}

/// All deliveries, one for each key.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    deliveries: Vec<Delivery>,
    /// The place of each key.
    places: HashMap<String, usize>,
    repeated: u64,
    file: Option<File>,
}

impl Ledger {
    /// An empty one, or what is in the file.
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let mut ledger = Self::default();
        let Some(path) = path else { return Ok(ledger) };
        let open = || {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            if !text.is_empty() && !text.ends_with('\n') {
                file.write_all(b"\n")?;
            }
            Ok::<_, io::Error>((file, text))
        };
        let (file, text) = open().with_context(|| format!("cannot use the ledger {}", path.display()))?;
        for line in text.lines() {
            // The last line is half a line when the process was killed while it wrote: that mail was not answered.
            if let Ok(delivery) = serde_json::from_str(line) {
                ledger.add(delivery);
            }
        }
        ledger.file = Some(file);
        Ok(ledger)
    }

    /// Delivers a mail, unless its key is known.
    ///
    /// # Errors
    ///
    /// When it cannot be written; it is not delivered then.
    pub(super) fn deliver(
        &mut self,
        key: String,
        message: Message,
        tid: Option<String>,
    ) -> io::Result<Entry> {
        let Message { to, subject, text } = message;
        if let Some(&place) = self.places.get(&key) {
            let first = &self.deliveries[place];
            if (&first.to, &first.subject, &first.text) != (&to, &subject, &text) {
                return Ok(Entry::Differs);
            }
            self.repeated += 1;
            return Ok(Entry::Repeated(place + 1));
        }
        let delivery = Delivery { key, to, subject, text, tid };
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_string(&delivery)?;
            line.push('\n');
            file.write_all(line.as_bytes())?;
        }
        self.add(delivery);
        Ok(Entry::New(self.deliveries.len()))
    }

    fn add(&mut self, delivery: Delivery) {
        self.places.insert(delivery.key.clone(), self.deliveries.len());
        self.deliveries.push(delivery);
    }

    pub(super) fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message { to: "a@b".into(), subject: "s".into(), text: text.into() }
    }

    #[test]
    fn a_repeated_key_is_recognised_after_a_restart_and_after_half_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = Ledger::open(Some(&path)).unwrap();
        assert_eq!(ledger.deliver("k".into(), message("x"), None).unwrap(), Entry::New(1));
        assert_eq!(ledger.deliver("k".into(), message("x"), None).unwrap(), Entry::Repeated(1));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"key\":\"hal").unwrap();

        let mut ledger = Ledger::open(Some(&path)).unwrap();
        assert_eq!(ledger.deliver("k".into(), message("x"), None).unwrap(), Entry::Repeated(1));
        assert_eq!(ledger.deliver("k".into(), message("y"), None).unwrap(), Entry::Differs);
        assert_eq!(ledger.deliver("l".into(), message("y"), None).unwrap(), Entry::New(2));
        assert_eq!(Ledger::open(Some(&path)).unwrap().deliveries(), ledger.deliveries());
    }
}
