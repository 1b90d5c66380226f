//! The only way to the standard output and the error output.

use std::io::Write as _;

/// A line of a result; a pipe that nobody reads any more is no error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line about what goes on or went wrong.
pub(crate) fn problem(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
