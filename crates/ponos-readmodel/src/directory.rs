//! Where the files lie, and the lock that those who write to them take turns by.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::ReadModelError;
use crate::slot::Slot;

/// The directory of a read model: `model.db`, `segments/*.db`, `writer.lock`.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    lock: File,
}

/// Holding it is being the only one who writes.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a File);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // It cannot fail for a lock that is held; if it did, closing the file frees it.
        let _ = self.0.unlock();
    }
}

impl Directory {
    /// Opens it, or makes it for its owner alone.
    pub(crate) fn open(root: &Path) -> Result<Self, ReadModelError> {
        for path in [root.to_owned(), root.join("segments")] {
            private_directory(&path)
                .map_err(|error| ReadModelError::of_io("make the directory", &path, error))?;
            if everybody_may_write(&path) {
                return Err(ReadModelError::open_to_all(&path));
            }
        }
        let path = root.join("writer.lock");
        let lock = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .open(&path)
            .map_err(|error| ReadModelError::of_io("open", &path, error))?;
        Ok(Self { root: root.to_owned(), lock })
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.root.join("model.db")
    }

    pub(crate) fn segment(&self, slot: Slot) -> PathBuf {
        self.root.join("segments").join(slot.name()).with_extension("db")
    }

    /// Waits for its turn to write. The kernel frees the lock when its holder dies.
    pub(crate) fn lock(&self) -> Result<Held<'_>, ReadModelError> {
        loop {
            match self.lock.lock() {
                Ok(()) => return Ok(Held(&self.lock)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(ReadModelError::of_io("lock", &self.root.join("writer.lock"), error));
                }
            }
        }
    }

    /// The segments that there are, the oldest first.
    pub(crate) fn slots(&self) -> Result<Vec<Slot>, ReadModelError> {
        let path = self.root.join("segments");
        let mut slots = Vec::new();
        let listed = fs::read_dir(&path).map_err(|error| ReadModelError::of_io("list", &path, error))?;
        for file in listed {
            let file = file.map_err(|error| ReadModelError::of_io("list", &path, error))?;
            let name = file.file_name();
            slots.extend(name.to_str().and_then(|name| name.strip_suffix(".db")).and_then(Slot::parse));
        }
        slots.sort_unstable();
        Ok(slots)
    }
}

/// The bytes of a database, its log included.
pub(crate) fn bytes(database: &Path) -> u64 {
    [database.to_owned(), beside(database, "-wal")]
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Deletes a database. Whoever has it open goes on reading what was deleted. The lock must be held.
pub(crate) fn delete(database: &Path, _held: &Held<'_>) -> Result<(), ReadModelError> {
    for path in [database.to_owned(), beside(database, "-wal"), beside(database, "-shm")] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ReadModelError::of_io("delete", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes a file for its owner alone if there is none. SQLite gives its companions the same mode.
pub(crate) fn create(path: &Path) -> Result<(), ReadModelError> {
    // Only a file that is new is ever opened: closing a descriptor of a database drops the process's locks on it.
    match private(OpenOptions::new().write(true).create_new(true)).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(ReadModelError::of_io("create", path, error))
        }
        _ => Ok(()),
    }
}

/// Which file it is, so that one that was replaced under the same name is noticed; 0 where there is none.
pub(crate) fn identity(path: &Path) -> u64 {
    #[cfg(unix)]
    let identity = fs::metadata(path).map_or(0, |metadata| std::os::unix::fs::MetadataExt::ino(&metadata));
    #[cfg(not(unix))]
    let identity = u64::from(path.exists());
    identity
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn private_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Whoever can write there decides what its owner is told.
#[cfg(unix)]
fn everybody_may_write(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| std::os::unix::fs::MetadataExt::mode(&found) & 0o002 != 0)
}

#[cfg(not(unix))]
fn everybody_may_write(_: &Path) -> bool {
    false
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}
