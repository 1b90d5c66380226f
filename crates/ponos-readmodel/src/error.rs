//! What can go wrong between a log and its read model.

use std::io;
use std::path::Path;

use ponos_core::broker::BrokerError;

/// Why a read model could not be read or brought up to date. Nothing is lost by it: it is a copy of a log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ReadModelError {
    kind: ReadModelErrorKind,
    message: String,
    #[source]
    source: Option<Cause>,
}

/// The classes of [`ReadModelError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadModelErrorKind {
    /// A file or its directory cannot be read or written.
    Files,
    /// A file was written by a later version of this program.
    Newer,
    /// A file is damaged and could not be replaced.
    Damaged,
    /// The log cannot be read.
    Log,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl ReadModelError {
    /// Which class of error it is.
    #[must_use]
    pub const fn kind(&self) -> ReadModelErrorKind {
        self.kind
    }

    pub(crate) fn of_io(what: &str, path: &Path, error: io::Error) -> Self {
        let message = format!(
            "cannot {what} `{}`: {error}: make it writable for this user, or choose another directory",
            path.display()
        );
        Self { kind: ReadModelErrorKind::Files, message, source: Some(error.into()) }
    }

    pub(crate) fn of_sqlite(path: &Path, error: rusqlite::Error) -> Self {
        let shown = path.display();
        let (kind, message) = if is_damage(&error) {
            (
                ReadModelErrorKind::Damaged,
                format!("`{shown}` is damaged: delete it, it is made anew from the log"),
            )
        } else if is_full(&error) {
            (
                ReadModelErrorKind::Files,
                format!("no space for `{shown}`: make room on its disk, nothing was lost so far"),
            )
        } else {
            (
                ReadModelErrorKind::Files,
                format!("cannot use `{shown}`: {error}: it may be deleted, it is made anew from the log"),
            )
        };
        Self { kind, message, source: Some(error.into()) }
    }

    pub(crate) fn open_to_all(path: &Path) -> Self {
        let shown = path.display();
        let message = format!(
            "everybody may write to `{shown}`, and so decide what is read there: `chmod o-w {shown}`, or choose another directory"
        );
        Self { kind: ReadModelErrorKind::Files, message, source: None }
    }

    pub(crate) fn vanished(path: &Path) -> Self {
        let message = format!(
            "`{}` went away while it was made: does another program clean up its directory?",
            path.display()
        );
        Self { kind: ReadModelErrorKind::Files, message, source: None }
    }

    pub(crate) fn ahead() -> Self {
        let message = "the journal's reader is ahead of what was written: open another one".to_owned();
        Self { kind: ReadModelErrorKind::Log, message, source: None }
    }

    pub(crate) fn newer(path: &Path) -> Self {
        let message = format!(
            "`{}` was written by a later version of this program: update it, or give it another directory",
            path.display()
        );
        Self { kind: ReadModelErrorKind::Newer, message, source: None }
    }
}

impl From<BrokerError> for ReadModelError {
    fn from(error: BrokerError) -> Self {
        Self {
            kind: ReadModelErrorKind::Log,
            message: format!("the journal cannot be read: {error}"),
            source: Some(error.into()),
        }
    }
}

/// Whether the file itself is at fault.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull))
}
