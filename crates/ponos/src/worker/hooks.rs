//! What a service tells whoever wants to know: error reporters, alarms, narrators.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ponos_core::Bytes;
use ponos_core::envelope::ErrorClass;
use ponos_core::id::{MessageId, Tid};
use ponos_core::name::QueueName;

use super::CircuitChange;

/// An attempt that failed, for an error reporter.
#[derive(Debug, Clone)]
pub struct ErrorReport<'a> {
    /// The queue.
    pub queue: &'a QueueName,
    /// The transaction.
    pub tid: &'a Tid,
    /// The job.
    pub message: MessageId,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How it ended.
    pub class: ErrorClass,
    /// The error with its causes, one a line.
    pub error: &'a str,
    /// Whether the handler is not tried again.
    pub gave_up: bool,
    /// Whether it was the recovery function that failed.
    pub recovery: bool,
}

/// A message that no handler can read, with its bytes. It is in the queue of failed jobs too.
#[derive(Debug, Clone)]
pub struct Undecodable<'a> {
    /// The queue.
    pub queue: &'a QueueName,
    /// The transaction.
    pub tid: &'a Tid,
    /// The message.
    pub message: MessageId,
    /// The body as it came.
    pub body: &'a Bytes,
    /// What is wrong with it.
    pub error: &'a str,
}

pub(crate) type ErrorHook = Arc<dyn Fn(&ErrorReport<'_>) + Send + Sync>;
pub(crate) type UndecodableHook = Arc<dyn Fn(&Undecodable<'_>) + Send + Sync>;
pub(crate) type CircuitHook = Arc<dyn Fn(&CircuitChange) + Send + Sync>;

/// The functions that a service was given to call.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) error: Option<ErrorHook>,
    pub(crate) undecodable: Option<UndecodableHook>,
    pub(crate) circuit: Option<CircuitHook>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

impl Hooks {
    pub(crate) fn error(&self, report: &ErrorReport<'_>) {
        call(self.error.as_deref(), report, "on_error");
    }

    pub(crate) fn undecodable(&self, message: &Undecodable<'_>) {
        call(self.undecodable.as_deref(), message, "on_undecodable");
    }

    pub(crate) fn circuit(&self, change: &CircuitChange) {
        call(self.circuit.as_deref(), change, "on_circuit");
    }
}

/// Calls a hook; one that panics must not take a job with it.
fn call<T: ?Sized, F: Fn(&T) + ?Sized>(hook: Option<&F>, argument: &T, name: &str) {
    if let Some(hook) = hook
        && catch_unwind(AssertUnwindSafe(|| hook(argument))).is_err()
    {
        tracing::error!(hook = name, "a hook panicked; the job goes on");
    }
}

/// Whether the npm package's event `worker.errored` is emitted when a job fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErroredEvents {
    /// It is not.
    #[default]
    Off,
    /// It is, without the job's payload, which may hold what not every listener should see.
    WithoutPayload,
    /// It is, with the job's payload.
    WithPayload,
}
