//! Faults below a process.

pub mod disk;
pub mod shim;
pub mod trace;
