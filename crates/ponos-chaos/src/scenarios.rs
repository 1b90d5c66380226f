//! What is done to a system.

pub(crate) mod power_cut;
