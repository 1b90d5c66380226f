//! Handlers with their types forgotten: what the worker calls.

use std::future::Future;
use std::sync::Arc;

use ponos_core::body::{self, EncodeError};
use ponos_core::broker::BoxFuture;
use ponos_core::envelope::GaveUp;

use crate::context::{Job, TaskCx};
use crate::message::{App, ErasedPayload, Event, IntoTasks, Task, TaskSink};
use crate::outcome::{Fail, Outcome};
use crate::worker::{RunFn, Started};

/// A task handler that still needs its application's state.
pub(crate) type TaskFn<A> = Arc<dyn Fn(Arc<Job>, Arc<<A as App>::State>) -> Started + Send + Sync>;

/// A recovery function that still needs its application's state.
pub(crate) type RecoverFn<A> = Arc<dyn Fn(Arc<Job>, Arc<<A as App>::State>, GaveUp) -> Started + Send + Sync>;

/// Asks whether a dependency is healthy.
pub(crate) type HealthCheck<A> =
    Arc<dyn Fn(Arc<<A as App>::State>) -> BoxFuture<'static, bool> + Send + Sync>;

pub(crate) fn task_fn<T, F, Fut>(handler: F) -> TaskFn<T::App>
where
    T: Task,
    F: Fn(T, TaskCx<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    Arc::new(move |job, state| {
        let task = body::decode::<T>(&job.envelope.body)?;
        Ok(Box::pin(handler(task, TaskCx::new(job, state))))
    })
}

pub(crate) fn health_fn<A, F, Fut, E>(check: F) -> HealthCheck<A>
where
    A: App,
    F: Fn(Arc<A::State>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: 'static,
{
    Arc::new(move |state| {
        let check = check(state);
        Box::pin(async move { check.await.is_ok() })
    })
}

/// A handler that blocks runs on the runtime's pool for blocking work, where it disturbs nobody.
pub(crate) fn blocking_fn<T, F>(handler: F) -> TaskFn<T::App>
where
    T: Task,
    F: Fn(T, TaskCx<T>) -> Outcome + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |job, state| {
        let task = body::decode::<T>(&job.envelope.body)?;
        let handler = Arc::clone(&handler);
        let span = tracing::Span::current();
        Ok(Box::pin(async move {
            let work = tokio::task::spawn_blocking(move || {
                let _ended = BlockingEnd(Arc::clone(&job));
                span.in_scope(|| handler(task, TaskCx::new(job, state)))
            });
            match work.await {
                Ok(outcome) => outcome,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(error) => Err(error.into()),
            }
        }))
    })
}

/// Tells that blocking work has ended, also by a panic.
struct BlockingEnd(Arc<Job>);

impl Drop for BlockingEnd {
    fn drop(&mut self) {
        self.0.blocking_has_ended();
    }
}

pub(crate) fn recover_fn<T, F, Fut>(recover: F) -> RecoverFn<T::App>
where
    T: Task,
    F: Fn(T, TaskCx<T>, GaveUp) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    Arc::new(move |job, state, why| {
        let task = body::decode::<T>(&job.envelope.body)?;
        Ok(Box::pin(recover(task, TaskCx::new(job, state), why)))
    })
}

pub(crate) fn reaction_fn<A, E, R>(reaction: fn(E) -> R) -> RunFn
where
    A: App,
    E: Event,
    R: IntoTasks<A> + 'static,
{
    Arc::new(move |job| {
        let event = body::decode::<E>(&job.envelope.body)?;
        Ok(Box::pin(async move {
            let mut sink = Created(&job);
            reaction(event).each(&mut sink).map_err(Fail::stop)
        }))
    })
}

/// Buffers the tasks that a reaction returns.
struct Created<'a>(&'a Job);

impl TaskSink for Created<'_> {
    fn take(&mut self, name: &'static str, payload: &dyn ErasedPayload) -> Result<(), EncodeError> {
        self.0.create(name, payload.body(&self.0.envelope.tid)?);
        Ok(())
    }
}
