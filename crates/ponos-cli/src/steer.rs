//! `ponos pause`, `resume`, `rate`, `circuit` and `orders`: standing orders, and what stands.
//!
//! | module | what |
//! | --- | --- |
//! | `target` | what an order is about: a queue, or a dependency of an application |
//! | `give` | giving an order, and the JSON of one |
//! | `pause` | pause and resume |
//! | `rate` | another rate limit for a while |
//! | `circuit` | holding a circuit open, and letting a job through one that is open |
//! | `orders` | all that stand |

mod circuit;
mod give;
mod orders;
mod pause;
mod rate;
mod target;

pub(crate) use self::circuit::{CircuitArgs, RESET_FOR, run as circuit};
pub(crate) use self::give::{OrderJson, plan, whoami};
pub(crate) use self::orders::{OrdersArgs, run as orders, what, when_and_why};
pub(crate) use self::pause::{PauseArgs, ResumeArgs, pause, resume};
pub(crate) use self::rate::{RateArgs, run as rate};
pub(crate) use self::target::{TargetArgs, check_is_worked};
