//! What every fuzz target checks, as plain functions of bytes.
//!
//! `fuzz_targets/` hands them to libFuzzer. The workspace's own tests include this file too and run every input that is
//! kept in `corpus/` and `regressions/`, with the stable compiler, so nothing that was found once comes back.

pub mod body;
pub mod envelope;
pub mod headers;
pub mod manifest;
pub mod names;
pub mod records;
pub mod source;
pub mod sqlite_row;

/// A target: its name, and what it demands of an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 7] = [
    ("body", body::check),
    ("envelope", envelope::check),
    ("headers", headers::check),
    ("manifest", manifest::check),
    ("names", names::check),
    ("records", records::check),
    ("sqlite_row", sqlite_row::check),
];
