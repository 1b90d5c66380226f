//! One import for a service: `use ponos::prelude::*;`.

pub use crate::{App, Event, Task};
pub use crate::{
    Backoff, BreakerConfig, Broker, FailExt, GaveUp, MaxRetries, Outcome, Publisher, RateExt, Running,
    Service, TaskCx, millis, mins, secs, snooze,
};
#[cfg(feature = "macros")]
pub use crate::{app, data, event, task};
