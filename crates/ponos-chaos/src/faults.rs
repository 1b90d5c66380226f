//! Faults below a process.

pub(crate) mod disk;
pub(crate) mod shim;
pub(crate) mod trace;
