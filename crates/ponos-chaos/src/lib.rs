//! Faults for Ponos, and whether it stood them.

pub mod faults;
