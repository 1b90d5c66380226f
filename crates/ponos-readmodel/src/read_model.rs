//! Opening a directory, taking entries, and reading its segments.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ponos_core::id::Timestamp;
use ponos_core::journal::{Entry, From, Journal, JournalReader, Position};

use crate::central::Central;
use crate::directory::{self, Directory, Held};
use crate::error::{ReadModelError, is_damage};
use crate::facts::is_kept;
use crate::options::ReadModelOptions;
use crate::segment::Segment;
use crate::slot::Slot;

/// How many entries one transaction takes.
const PAGE: usize = 32 * 1024;

/// By how much an entry's clock may be ahead; what is further ahead is kept with what is new now.
const AHEAD_MS: u64 = 3_600_000;

/// What a journal says, in files that answer questions; see the [crate](crate).
///
/// It blocks: a server gives it a thread of its own. Each process, and each thread that asks, may open its own.
#[derive(Debug)]
pub struct ReadModel {
    pub(crate) options: ReadModelOptions,
    pub(crate) directory: Directory,
    pub(crate) central: RefCell<Central>,
    /// Files that were opened before, because opening one costs more than asking it.
    segments: RefCell<BTreeMap<Slot, Segment>>,
    /// Since a file was lost and until somebody asks where to read from: places of readers that were opened before are
    /// not stored, as what the file had would never be read again.
    again: Cell<bool>,
}

/// What a look at the log brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CaughtUp {
    /// Entries that were read.
    pub read: u64,
    /// Those of them that were not known.
    pub new: u64,
}

impl ReadModel {
    /// Opens the read model of a directory, which is made if there is none. Damaged files, and those of an older
    /// version, are made anew, and the log is read again as far as it goes back.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written to, or a later version has written to it.
    pub fn open(directory: impl AsRef<Path>, options: ReadModelOptions) -> Result<Self, ReadModelError> {
        let directory = Directory::open(directory.as_ref())?;
        let path = directory.model();
        let (central, fresh) = {
            let held = directory.lock()?;
            Central::open(&path, &held)?
        };
        let model = Self {
            options,
            directory,
            central: RefCell::new(central),
            segments: RefCell::default(),
            again: Cell::new(false),
        };
        if fresh {
            model.count_segments()?;
        }
        Ok(model)
    }

    /// Where its files lie.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.directory.model()
    }

    /// Reads a journal to its end. What was read before is passed over; other processes may do the same at once.
    ///
    /// # Errors
    ///
    /// When the log cannot be read or the files not be written. What was taken until then stays.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost or counted twice when it is dropped: the next call goes on behind what was written.
    pub async fn catch_up(&mut self, journal: &dyn Journal) -> Result<CaughtUp, ReadModelError> {
        let mut reader = journal.open(self.read_from()?).await?;
        self.follow(&mut *reader).await
    }

    /// Where a reader has to begin that [`follow`](Self::follow) is given.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn read_from(&self) -> Result<From, ReadModelError> {
        self.again.set(false);
        Ok(self.position()?.map_or(From::Start, From::After))
    }

    /// Takes what a reader has until it has no more for now, for those who keep one open.
    ///
    /// # Errors
    ///
    /// Like [`catch_up`](Self::catch_up); and when the reader is ahead of what was written, because a call was dropped or
    /// a file was lost. Open another one then.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when it is dropped, but its reader is of no more use.
    pub async fn follow(&mut self, reader: &mut dyn JournalReader) -> Result<CaughtUp, ReadModelError> {
        let is_ahead =
            |read: Position, stored: Position| stored.log != read.log || stored.offset < read.offset;
        let stored = self.position()?;
        if reader.position().is_some_and(|read| stored.is_none_or(|stored| is_ahead(read, stored))) {
            return Err(ReadModelError::ahead());
        }
        let mut caught_up = CaughtUp::default();
        let mut page = Vec::new();
        loop {
            let entries = reader.next().await?;
            let end = entries.is_empty();
            caught_up.read += entries.len() as u64;
            page.extend(entries);
            if let Some(began) = reader.began() {
                self.on_central(|central| central.began(began.as_millis()))?;
            }
            // The lock is taken for what is at hand, and never while a broker is waited for.
            let position = reader.position();
            if page.len() >= PAGE || end && (!page.is_empty() || position > self.position()?) {
                caught_up.new += self.ingest(&page, position)?;
                page.clear();
            }
            if end {
                self.on_central(|central| central.read_to_end((self.options.clock)().as_millis()))?;
                self.retain()?;
                return Ok(caught_up);
            }
        }
    }

    /// Takes entries that were read up to a place in the log; how many of them were new.
    ///
    /// Entries may come in any order and any number of times.
    ///
    /// # Errors
    ///
    /// When the files cannot be written.
    pub fn ingest(&mut self, entries: &[Entry], read_to: Option<Position>) -> Result<u64, ReadModelError> {
        let held = self.directory.lock()?;
        self.refresh(&held)?;
        let now = (self.options.clock)();
        let ahead = Timestamp::from_millis(now.as_millis().saturating_add(AHEAD_MS));
        let mut by_slot: BTreeMap<Slot, Vec<&Entry>> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| is_kept(&entry.said)) {
            let at = entry.said.at();
            by_slot.entry(Slot::of(if at > ahead { now } else { at })).or_default().push(entry);
        }
        let mut next = self.highest(Some(&held))? + 1;
        for (slot, entries) in by_slot {
            self.write_segment(slot, &entries, &mut next, &held)?;
        }
        // Last, so that a place is stored only for what was written: what is read again is recognised.
        let read_to = read_to.filter(|_| !self.again.get());
        let new = self.on_central(|central| central.take(entries, read_to))?;
        Ok(new as u64)
    }

    /// How far the log was read; `None` before the first time.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn position(&self) -> Result<Option<Position>, ReadModelError> {
        self.on_central(|central| central.position())
    }

    /// The highest number that an entry has.
    pub(crate) fn highest(&self, held: Option<&Held<'_>>) -> Result<i64, ReadModelError> {
        let mut highest = 0;
        self.each_segment_held(self.directory.slots()?, held, |_, segment| {
            highest = highest.max(segment.highest()?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(highest)
    }

    pub(crate) fn on_central<T>(
        &self,
        ask: impl FnOnce(&mut Central) -> rusqlite::Result<T>,
    ) -> Result<T, ReadModelError> {
        ask(&mut self.central.borrow_mut())
            .map_err(|error| ReadModelError::of_sqlite(&self.directory.model(), error))
    }

    /// Asks segments in this order. Those that are gone are passed over, and so are damaged ones, which are removed.
    pub(crate) fn each_segment(
        &self,
        slots: impl IntoIterator<Item = Slot>,
        ask: impl FnMut(Slot, &Segment) -> rusqlite::Result<ControlFlow<()>>,
    ) -> Result<(), ReadModelError> {
        self.each_segment_held(slots, None, ask)
    }

    /// The same for those who may hold the lock already: whoever takes it twice frees it too early.
    fn each_segment_held(
        &self,
        slots: impl IntoIterator<Item = Slot>,
        held: Option<&Held<'_>>,
        mut ask: impl FnMut(Slot, &Segment) -> rusqlite::Result<ControlFlow<()>>,
    ) -> Result<(), ReadModelError> {
        for slot in slots {
            let path = self.directory.segment(slot);
            let asked = match self.segment(slot, &path)? {
                Err(why) => Err(why),
                Ok(false) => continue,
                Ok(true) => match self.segments.borrow().get(&slot).map(|segment| ask(slot, segment)) {
                    None => continue,
                    Some(Ok(flow)) => Ok(flow),
                    Some(Err(error)) if is_damage(&error) => Err(error.to_string()),
                    Some(Err(error)) => return Err(ReadModelError::of_sqlite(&path, error)),
                },
            };
            match asked {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(why) => match held {
                    Some(held) => self.remove_damaged(slot, &why, held)?,
                    None => self.remove_damaged(slot, &why, &self.directory.lock()?)?,
                },
            }
        }
        Ok(())
    }

    /// Opens a segment if that is still to be done; whether there is one, or why it cannot be used.
    fn segment(&self, slot: Slot, path: &Path) -> Result<Result<bool, String>, ReadModelError> {
        let mut segments = self.segments.borrow_mut();
        if segments.get(&slot).is_some_and(|segment| segment.identity == directory::identity(path)) {
            return Ok(Ok(true));
        }
        segments.remove(&slot);
        Ok(Segment::open(path)?
            .map(|segment| segment.map(|segment| segments.insert(slot, segment)).is_some()))
    }

    fn write_segment(
        &self,
        slot: Slot,
        entries: &[&Entry],
        next: &mut i64,
        held: &Held<'_>,
    ) -> Result<(), ReadModelError> {
        let path = self.directory.segment(slot);
        let mut segments = self.segments.borrow_mut();
        for again in [true, false] {
            if segments.get(&slot).is_none_or(|segment| segment.identity != directory::identity(&path)) {
                segments.remove(&slot);
                match Segment::create(&path)? {
                    Ok(segment) => drop(segments.insert(slot, segment)),
                    Err(why) => {
                        self.start_again(&path, &why, held)?;
                        continue;
                    }
                }
            }
            let Some(segment) = segments.get_mut(&slot) else {
                break;
            };
            match segment.write(entries, next) {
                Ok(_) => return Ok(()),
                Err(error) if again && is_damage(&error) => {
                    segments.remove(&slot);
                    self.start_again(&path, &error.to_string(), held)?;
                }
                Err(error) => return Err(ReadModelError::of_sqlite(&path, error)),
            }
        }
        Err(ReadModelError::vanished(&path))
    }

    /// Deletes a file that cannot be used. The log is read again, as it may still have what the file had.
    fn start_again(&self, path: &Path, why: &str, held: &Held<'_>) -> Result<(), ReadModelError> {
        tracing::warn!(file = %path.display(), why, "entries are read again from the log as far as it goes back");
        directory::delete(path, held)?;
        self.again.set(true);
        self.on_central(|central| central.forget_position())
    }

    fn remove_damaged(&self, slot: Slot, why: &str, held: &Held<'_>) -> Result<(), ReadModelError> {
        self.segments.borrow_mut().remove(&slot);
        let path = self.directory.segment(slot);
        // Another process may have replaced it, or it was read while it was being replaced.
        match Segment::open(&path)? {
            Ok(Some(segment)) if segment.is_sound() => Ok(()),
            Ok(None) => Ok(()),
            _ => self.start_again(&path, why, held),
        }
    }

    /// Opens `model.db` anew if another process has replaced it.
    fn refresh(&self, held: &Held<'_>) -> Result<(), ReadModelError> {
        let path = self.directory.model();
        let mut central = self.central.borrow_mut();
        if central.identity != directory::identity(&path) {
            *central = Central::open(&path, held)?.0;
        }
        Ok(())
    }

    /// Counts again what segments say, for a `model.db` that was made anew beside them.
    fn count_segments(&self) -> Result<(), ReadModelError> {
        for slot in self.directory.slots()? {
            let mut after = 0;
            loop {
                let mut page = Vec::new();
                self.each_segment([slot], |_, segment| {
                    page = segment.entries_after(after, PAGE)?;
                    Ok(ControlFlow::Continue(()))
                })?;
                let Some((last, _)) = page.last() else {
                    break;
                };
                after = *last;
                let entries: Vec<Entry> = page.into_iter().map(|(_, entry)| entry).collect();
                let _held = self.directory.lock()?;
                self.on_central(|central| central.take(&entries, None))?;
            }
        }
        // Beats are in no segment, so their numbers are missing and were not lost.
        self.on_central(|central| central.forget_gaps())
    }

    pub(crate) fn forget_segment(&self, slot: Slot) {
        self.segments.borrow_mut().remove(&slot);
    }
}
