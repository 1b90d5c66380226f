//! Following the ledger while it grows.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use super::record::Record;

/// A place in the ledger's file.
#[derive(Debug)]
pub(crate) struct Tail {
    file: File,
    /// What was read of a line whose end is not there yet.
    rest: Vec<u8>,
}

impl Tail {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = super::file(dir);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { file, rest: Vec::new() })
    }

    /// What was appended since the last call.
    pub(crate) fn read(&mut self) -> anyhow::Result<Vec<Record>> {
        self.file.read_to_end(&mut self.rest).context("reading the ledger")?;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        let text = std::str::from_utf8(&whole).context("the ledger is text")?;
        text.lines().map(str::parse).collect()
    }
}
