//! The primitives of the binary form: integers of variable length, texts and ids from a dictionary, framed values.
//!
//! Integers are LEB128; signed ones are folded first so that small ones stay short (ZigZag, as in Protocol Buffers).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::name::QueueName;

/// The most texts of a dictionary, and the most ids: those of [`MAX_ENTRIES`](super::codec::MAX_ENTRIES) are fewer.
const MAX_SHARED: usize = 1 << 18;

/// What could not be read; the codec turns it into an error or skips the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// Writes values, and gathers the texts and ids that they share.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: Vec<u8>,
    texts: Dictionary<Arc<str>>,
    ids: Dictionary<[u8; 16]>,
}

#[derive(Debug)]
struct Dictionary<K> {
    known: HashMap<K, u64>,
    in_order: Vec<K>,
}

impl<K> Default for Dictionary<K> {
    fn default() -> Self {
        Self { known: HashMap::new(), in_order: Vec::new() }
    }
}

impl<K: Eq + std::hash::Hash + Clone> Dictionary<K> {
    fn place<Q: Eq + std::hash::Hash + ?Sized>(&mut self, key: &Q, owned: impl FnOnce() -> K) -> u64
    where
        K: std::borrow::Borrow<Q>,
    {
        if let Some(place) = self.known.get(key) {
            return *place;
        }
        let place = self.in_order.len() as u64;
        let key = owned();
        self.known.insert(key.clone(), place);
        self.in_order.push(key);
        place
    }
}

impl Writer {
    pub(super) fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    pub(super) fn unsigned(&mut self, value: u64) {
        unsigned(&mut self.out, value);
    }

    pub(super) fn signed(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// A text, as its place in the dictionary.
    pub(super) fn text(&mut self, text: &str) {
        let place = self.texts.place(text, || Arc::from(text));
        self.unsigned(place);
    }

    /// A text or nothing: 0, or its place and one.
    pub(super) fn maybe_text(&mut self, text: Option<&str>) {
        match text {
            None => self.unsigned(0),
            Some(text) => {
                let place = self.texts.place(text, || Arc::from(text));
                self.unsigned(place + 1);
            }
        }
    }

    /// An id, as its place in the dictionary.
    pub(super) fn id(&mut self, id: &[u8; 16]) {
        let place = self.ids.place(id, || *id);
        self.unsigned(place);
    }

    /// An id or nothing: 0, or its place and one.
    pub(super) fn maybe_id(&mut self, id: Option<&[u8; 16]>) {
        match id {
            None => self.unsigned(0),
            Some(id) => {
                let place = self.ids.place(id, || *id);
                self.unsigned(place + 1);
            }
        }
    }

    /// Writes a value with its length before it, so that a reader can skip what it does not know.
    pub(super) fn framed(&mut self, write: impl FnOnce(&mut Self)) {
        let before = self.out.len();
        write(self);
        let body = self.out.split_off(before);
        self.unsigned(body.len() as u64);
        self.out.extend_from_slice(&body);
    }

    /// The dictionary, then what was written.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.out.len() + 64 * self.texts.in_order.len());
        unsigned(&mut out, self.texts.in_order.len() as u64);
        for text in &self.texts.in_order {
            unsigned(&mut out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        unsigned(&mut out, self.ids.in_order.len() as u64);
        for id in &self.ids.in_order {
            out.extend_from_slice(id);
        }
        out.extend_from_slice(&self.out);
        out
    }
}

fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Reads what a [`Writer`] wrote. Every length is checked against what is there before anything is taken for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
    dictionary: &'a Texts,
}

/// The dictionary of a batch.
#[derive(Debug, Default)]
pub(super) struct Texts {
    texts: Vec<Shared>,
    ids: Vec<[u8; 16]>,
}

/// A text of the dictionary. As a queue's name it is checked and allocated once, however often it stands in the batch.
#[derive(Debug)]
struct Shared {
    text: Arc<str>,
    queue: OnceLock<QueueName>,
}

impl Texts {
    /// Reads the dictionary; what follows it is returned.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Damaged> {
        static NONE: Texts = Texts { texts: Vec::new(), ids: Vec::new() };
        let mut reader = Reader { left: bytes, dictionary: &NONE };
        let mut read = Self::default();
        for _ in 0..reader.count_up_to(MAX_SHARED, 1)? {
            let text = std::str::from_utf8(reader.take_framed()?).map_err(|_| Damaged)?.into();
            read.texts.push(Shared { text, queue: OnceLock::new() });
        }
        for _ in 0..reader.count_up_to(MAX_SHARED, 16)? {
            let id = reader.take(16)?;
            read.ids.push(id.try_into().map_err(|_| Damaged)?);
        }
        let left = reader.left;
        Ok((read, left))
    }

    pub(super) const fn reader<'a>(&'a self, bytes: &'a [u8]) -> Reader<'a> {
        Reader { left: bytes, dictionary: self }
    }
}

impl<'a> Reader<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (taken, left) = self.left.split_at_checked(count).ok_or(Damaged)?;
        self.left = left;
        Ok(taken)
    }

    fn take_framed(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.unsigned()?;
        self.take(usize::try_from(length).map_err(|_| Damaged)?)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Damaged> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(Damaged);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damaged)
    }

    pub(super) fn small(&mut self) -> Result<u32, Damaged> {
        u32::try_from(self.unsigned()?).map_err(|_| Damaged)
    }

    pub(super) fn signed(&mut self) -> Result<i64, Damaged> {
        let folded = self.unsigned()?;
        Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    /// A number of things of at least so many bytes each, which must fit into what is left.
    pub(super) fn count(&mut self, at_least: usize) -> Result<usize, Damaged> {
        let count = usize::try_from(self.unsigned()?).map_err(|_| Damaged)?;
        if count.checked_mul(at_least).is_none_or(|bytes| bytes > self.left.len()) {
            return Err(Damaged);
        }
        Ok(count)
    }

    fn count_up_to(&mut self, max: usize, at_least: usize) -> Result<usize, Damaged> {
        self.count(at_least).and_then(|count| if count > max { Err(Damaged) } else { Ok(count) })
    }

    fn shared(&mut self) -> Result<&'a Shared, Damaged> {
        let place = usize::try_from(self.unsigned()?).map_err(|_| Damaged)?;
        self.dictionary.texts.get(place).ok_or(Damaged)
    }

    pub(super) fn text(&mut self) -> Result<Arc<str>, Damaged> {
        self.shared().map(|shared| Arc::clone(&shared.text))
    }

    pub(super) fn queue(&mut self) -> Result<QueueName, Damaged> {
        let shared = self.shared()?;
        if let Some(queue) = shared.queue.get() {
            return Ok(queue.clone());
        }
        let queue = QueueName::parse(&shared.text).map_err(|_| Damaged)?;
        Ok(shared.queue.get_or_init(|| queue).clone())
    }

    pub(super) fn maybe_text(&mut self) -> Result<Option<Arc<str>>, Damaged> {
        match usize::try_from(self.unsigned()?).map_err(|_| Damaged)? {
            0 => Ok(None),
            place => {
                let shared = self.dictionary.texts.get(place - 1).ok_or(Damaged)?;
                Ok(Some(Arc::clone(&shared.text)))
            }
        }
    }

    pub(super) fn id(&mut self) -> Result<[u8; 16], Damaged> {
        let place = usize::try_from(self.unsigned()?).map_err(|_| Damaged)?;
        self.dictionary.ids.get(place).copied().ok_or(Damaged)
    }

    pub(super) fn maybe_id(&mut self) -> Result<Option<[u8; 16]>, Damaged> {
        match usize::try_from(self.unsigned()?).map_err(|_| Damaged)? {
            0 => Ok(None),
            place => self.dictionary.ids.get(place - 1).copied().map(Some).ok_or(Damaged),
        }
    }

    /// A reader of a value that was written with its length.
    pub(super) fn framed(&mut self) -> Result<Self, Damaged> {
        let dictionary = self.dictionary;
        Ok(Reader { left: self.take_framed()?, dictionary })
    }
}
