//! What processes did to a directory, in order: the file that `shim/shim.c` writes.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

/// The size of a record before its path and its data: two numbers of four bytes and three of eight.
const HEADER: usize = 32;

/// One change below the directory. Files go by the number of their inode, which is used again once a file is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A file was made.
    Create {
        /// Its path below the directory.
        path: String,
        /// Its inode.
        inode: u64,
    },
    /// Bytes were written.
    Write {
        /// The name under which the file was known.
        path: String,
        /// The file.
        inode: u64,
        /// Where in the file.
        offset: u64,
        /// Where in the trace the bytes are; see [`Trace::data`].
        data: Range<usize>,
    },
    /// A file was cut, or extended by zeros.
    Resize {
        /// The name under which the file was known.
        path: String,
        /// The file.
        inode: u64,
        /// Its length from now on.
        length: u64,
    },
    /// A sync of a file or a directory began.
    SyncBegin {
        /// The file or directory; empty for the directory that is watched.
        path: String,
        /// The file.
        inode: u64,
        /// Which sync it is.
        number: u64,
    },
    /// It ended well: everything that was done before it began is safe.
    SyncEnd {
        /// Which sync it is.
        number: u64,
    },
    /// A name was removed, of a file or of an empty directory.
    Remove {
        /// The name.
        path: String,
    },
    /// A file got another name, in the place of whatever had it.
    Rename {
        /// The old name.
        from: String,
        /// The new one.
        to: String,
    },
    /// A directory was made.
    MakeDir {
        /// Its path.
        path: String,
    },
    /// A file was mapped to be written to: nobody sees what is in it from now on.
    Map {
        /// The name under which the file was known.
        path: String,
        /// The file.
        inode: u64,
    },
}

/// A whole trace in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace {
    bytes: Vec<u8>,
    changes: Vec<Change>,
}

impl Trace {
    /// Reads a trace that is no longer written to.
    ///
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Self::parse(fs::read(path)?)
    }

    fn parse(bytes: Vec<u8>) -> io::Result<Self> {
        let mut changes = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (change, next) = record(&bytes, at).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("no trace: what is at byte {at} is no record"),
                )
            })?;
            changes.push(change);
            at = next;
        }
        Ok(Self { bytes, changes })
    }

    /// The changes, in order.
    #[must_use]
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Takes one file out of the trace: what is left, and each write to it, with the number of changes before it.
    #[must_use]
    pub(crate) fn without(mut self, name: &str) -> (Self, Vec<(usize, Vec<u8>)>) {
        let mut writes = Vec::new();
        let mut left = Vec::with_capacity(self.changes.len());
        for change in std::mem::take(&mut self.changes) {
            match &change {
                Change::Write { path, data, .. } if path == name => {
                    writes.push((left.len(), self.bytes[data.clone()].to_vec()));
                }
                Change::Create { path, .. } if path == name => {}
                _ => left.push(change),
            }
        }
        self.changes = left;
        (self, writes)
    }

    /// The bytes of a write.
    #[must_use]
    pub(crate) fn data(&self, data: &Range<usize>) -> &[u8] {
        &self.bytes[data.clone()]
    }
}

/// One record, and where the next one begins.
fn record(bytes: &[u8], at: usize) -> Option<(Change, usize)> {
    let header = bytes.get(at..at + HEADER)?;
    let short = |at: usize| header[at..at + 4].try_into().map(u32::from_ne_bytes).ok();
    let long = |at: usize| header[at..at + 8].try_into().map(u64::from_ne_bytes).ok();
    let (kind, path) = (short(0)?, short(4)? as usize);
    let (inode, offset, data) = (long(8)?, long(16)?, usize::try_from(long(24)?).ok()?);
    let start = at + HEADER + path;
    let end = start.checked_add(data)?;
    let path = String::from_utf8(bytes.get(at + HEADER..start)?.to_vec()).ok()?;
    let content = bytes.get(start..end)?;
    let change = match kind {
        1 => Change::Create { path, inode },
        2 => Change::Write { path, inode, offset, data: start..end },
        3 => Change::Resize { path, inode, length: offset },
        4 => Change::SyncBegin { path, inode, number: offset },
        5 => Change::SyncEnd { number: offset },
        6 => Change::Remove { path },
        7 => Change::Rename { from: path, to: String::from_utf8(content.to_vec()).ok()? },
        8 => Change::MakeDir { path },
        9 => Change::Map { path, inode },
        _ => return None,
    };
    Some((change, end))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Puts a trace together by hand.
    #[derive(Debug, Default)]
    pub(crate) struct Script {
        bytes: Vec<u8>,
        syncs: u64,
    }

    impl Script {
        fn record(mut self, kind: u32, path: &str, inode: u64, offset: u64, data: &[u8]) -> Self {
            self.bytes.extend(kind.to_ne_bytes());
            self.bytes.extend(u32::try_from(path.len()).unwrap().to_ne_bytes());
            for number in [inode, offset, data.len() as u64] {
                self.bytes.extend(number.to_ne_bytes());
            }
            self.bytes.extend(path.as_bytes());
            self.bytes.extend(data);
            self
        }

        pub(crate) fn create(self, path: &str, inode: u64) -> Self {
            self.record(1, path, inode, 0, b"")
        }

        pub(crate) fn write(self, path: &str, inode: u64, offset: u64, data: &[u8]) -> Self {
            self.record(2, path, inode, offset, data)
        }

        pub(crate) fn resize(self, path: &str, inode: u64, length: u64) -> Self {
            self.record(3, path, inode, length, b"")
        }

        pub(crate) fn sync_begin(mut self, path: &str, inode: u64) -> Self {
            self.syncs += 1;
            let number = self.syncs;
            self.record(4, path, inode, number, b"")
        }

        /// Ends the sync that began last.
        pub(crate) fn sync_end(self) -> Self {
            let number = self.syncs;
            self.record(5, "", 0, number, b"")
        }

        pub(crate) fn sync(self, path: &str, inode: u64) -> Self {
            self.sync_begin(path, inode).sync_end()
        }

        pub(crate) fn remove(self, path: &str) -> Self {
            self.record(6, path, 0, 0, b"")
        }

        pub(crate) fn rename(self, from: &str, to: &str) -> Self {
            self.record(7, from, 0, 0, to.as_bytes())
        }

        pub(crate) fn make_dir(self, path: &str) -> Self {
            self.record(8, path, 0, 0, b"")
        }

        pub(crate) fn map(self, path: &str, inode: u64) -> Self {
            self.record(9, path, inode, 0, b"")
        }

        pub(crate) fn trace(self) -> Trace {
            Trace::parse(self.bytes).unwrap()
        }
    }

    #[test]
    fn a_trace_reads_as_it_was_written() {
        let trace = Script::default().create("a", 7).write("a", 7, 3, b"xyz").rename("a", "b").trace();
        let [Change::Create { path, inode: 7 }, Change::Write { inode: 7, offset: 3, data, .. }, renamed] =
            trace.changes()
        else {
            panic!("{trace:?}");
        };
        assert_eq!(path, "a");
        assert_eq!(trace.data(data), b"xyz");
        assert_eq!(*renamed, Change::Rename { from: "a".into(), to: "b".into() });
    }

    #[test]
    fn what_is_cut_off_is_no_trace() {
        let whole = Script::default().write("a", 7, 0, b"xyz").bytes;
        for length in 1..whole.len() {
            assert!(Trace::parse(whole[..length].to_vec()).is_err(), "{length} bytes");
        }
    }
}
