//! SQLite's and the operating system's errors in the words of the broker trait.

use std::io;
use std::path::Path;

use ponos_core::broker::{BrokerError, BrokerErrorKind};
use rusqlite::{Error, ErrorCode};

/// What went wrong with a statement on `file`, and what to do about it.
pub(crate) fn of_sqlite(file: &str, error: &Error) -> BrokerError {
    let (kind, advice) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (BrokerErrorKind::Blocked, "the disk is full: free some space"),
        Some(ErrorCode::OutOfMemory) => (BrokerErrorKind::Unavailable, "memory ran out"),
        Some(ErrorCode::SystemIoFailure) => {
            (BrokerErrorKind::Unavailable, "the disk reports an error: look at the system's log")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            BrokerErrorKind::Unavailable,
            "another program holds a lock on it: is it open in a SQLite shell?",
        ),
        Some(ErrorCode::DatabaseCorrupt) => (
            BrokerErrorKind::Unusable,
            "it is damaged: restore a backup, or rescue it with `sqlite3 FILE .recover`",
        ),
        Some(ErrorCode::NotADatabase) => {
            (BrokerErrorKind::Unusable, "it is no SQLite database: give another path, or move the file away")
        }
        Some(
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied,
        ) => (
            BrokerErrorKind::Denied,
            "it may not be written: give this user write access to it and its directory",
        ),
        Some(ErrorCode::CannotOpen) => (
            BrokerErrorKind::Denied,
            "it cannot be opened: check the path and this user's access to it and its directory",
        ),
        _ => (BrokerErrorKind::Unavailable, "SQLite did not do it"),
    };
    BrokerError::new(kind, format!("`{file}`: {advice} ({error})"))
}

/// What went wrong with a file beside the database.
pub(crate) fn of_io(doing: &str, path: &Path, error: &io::Error) -> BrokerError {
    let shown = path.display();
    let (kind, advice) = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (BrokerErrorKind::Denied, ": give this user write access to the directory")
        }
        io::ErrorKind::NotFound => (BrokerErrorKind::Unusable, ": create the directory first"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (BrokerErrorKind::Blocked, ": free some space")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            (BrokerErrorKind::Unusable, ": give the path of a file in a directory that exists")
        }
        _ => (BrokerErrorKind::Unavailable, ""),
    };
    BrokerError::new(kind, format!("cannot {doing} `{shown}` ({error}){advice}"))
}

/// The answer to whatever comes after [`close`](ponos_core::broker::Broker::close).
pub(crate) fn closed(file: &str) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Closed, format!("`{file}` was closed by this process"))
}
