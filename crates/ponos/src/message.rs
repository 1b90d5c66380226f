//! What applications, events and tasks are to the compiler.
//!
//! The attributes [`#[app]`](macro@crate::app), [`#[event]`](macro@crate::event) and [`#[task]`](macro@crate::task)
//! implement these traits; nobody writes them by hand. The traits point from the message to who may send it
//! (`E: EmittedBy<T>`, `T: OwnedBy<A>`), because then the compiler shows the texts below when a rule is broken.

use ponos_core::body::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An application: the owner of tasks and of the state that they change.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an application",
    label = "not an application",
    note = "declare it: `#[app(\"name\", state = State)] pub struct {Self};`"
)]
pub trait App: Send + Sync + 'static {
    /// The application's name, one segment.
    const NAME: &'static str;

    /// What its task handlers reach through `cx.state()`.
    type State: Send + Sync + 'static;

    /// The events that it emits outside its tasks.
    fn emits() -> Vec<EventInfo>;
}

/// What a message carries: a JSON object with a schema.
pub trait Payload: Serialize + DeserializeOwned + Send + 'static {
    /// The JSON Schema (2020-12) of the payload.
    fn schema() -> serde_json::Value;
}

/// A fact: something has happened. Anyone may subscribe; it never changes state.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "an event is declared with `#[event(\"model.verb-in-the-past\")]`; to have work done, create a task of your own application"
)]
pub trait Event: Payload {
    /// The event's name.
    const NAME: &'static str;

    /// The name and the schema, for manifests.
    fn info() -> EventInfo {
        EventInfo { name: Self::NAME, schema: Self::schema }
    }
}

/// An action of one application. It changes state; only its application creates and serves it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "not a task",
    note = "a task is declared with `#[task(\"app.model.verb\", app = App)]`; to act on an event, make a task of it in a reaction: `.on(reaction)`"
)]
pub trait Task: Payload {
    /// The task's name, which is also its queue's.
    const NAME: &'static str;

    /// The application that owns it.
    type App: App;

    /// The events that its handler may emit.
    fn emits() -> Vec<EventInfo>;
}

/// The event may be emitted by `By`, which is a task or an application.
#[diagnostic::on_unimplemented(
    message = "`{By}` does not declare that it emits `{Self}`",
    label = "this event is not in its `emits(…)`",
    note = "add `emits({Self})` to the `#[task]` or `#[app]` attribute of `{By}`: what is declared can be drawn, checked and traced"
)]
pub trait EmittedBy<By: ?Sized>: Event {}

/// The task belongs to the application `A`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task of the application `{A}`",
    label = "a task of another application, or no task",
    note = "only the application that owns a task creates and serves it: emit an event, and let the owner react to it with a task of its own"
)]
pub trait OwnedBy<A>: Task<App = A> {}

/// What a reaction of the application `A` may return: a task, or an `Option`, a `Vec` or a tuple of tasks.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what a reaction of `{A}` can return",
    label = "a reaction returns tasks of `{A}`",
    note = "a reaction is a plain `fn(Event) -> Task` (or `Option`, `Vec`, a tuple of tasks of `{A}`): it is not async, has no state and publishes nothing; do the work in the task's handler",
    note = "what another application is to do, that application makes of the same event, in a reaction of its own"
)]
pub trait IntoTasks<A: ?Sized> {
    /// The names of the tasks that it can be.
    fn names() -> Vec<&'static str>;

    /// Whether it may be none at all, as an `Option` or a `Vec` may. A tuple may if all of its parts may.
    fn conditional() -> bool {
        false
    }

    /// Hands each task to `sink`.
    ///
    /// # Errors
    ///
    /// The first error of `sink`.
    fn each(self, sink: &mut dyn TaskSink) -> Result<(), EncodeError>;
}

/// Takes the tasks that a reaction returns.
pub trait TaskSink {
    /// Takes one task, as its name and its payload.
    ///
    /// # Errors
    ///
    /// When the payload cannot be a message body.
    fn take(&mut self, name: &'static str, payload: &dyn ErasedPayload) -> Result<(), EncodeError>;
}

/// A payload whose type is forgotten but for its body.
pub trait ErasedPayload {
    /// The body for this transaction.
    ///
    /// # Errors
    ///
    /// When the payload cannot be a message body.
    fn body(&self, tid: &ponos_core::id::Tid) -> Result<ponos_core::Bytes, EncodeError>;
}

impl<T: Serialize> ErasedPayload for T {
    fn body(&self, tid: &ponos_core::id::Tid) -> Result<ponos_core::Bytes, EncodeError> {
        ponos_core::body::encode(tid, self)
    }
}

impl<A: ?Sized, T: IntoTasks<A>> IntoTasks<A> for Option<T> {
    fn names() -> Vec<&'static str> {
        T::names()
    }

    fn conditional() -> bool {
        true
    }

    fn each(self, sink: &mut dyn TaskSink) -> Result<(), EncodeError> {
        self.map_or(Ok(()), |task| task.each(sink))
    }
}

impl<A: ?Sized, T: IntoTasks<A>> IntoTasks<A> for Vec<T> {
    fn names() -> Vec<&'static str> {
        T::names()
    }

    fn conditional() -> bool {
        true
    }

    fn each(self, sink: &mut dyn TaskSink) -> Result<(), EncodeError> {
        self.into_iter().try_for_each(|task| task.each(sink))
    }
}

macro_rules! tuples {
    ($($name:ident)+) => {
        impl<A: ?Sized, $($name: IntoTasks<A>),+> IntoTasks<A> for ($($name,)+) {
            fn names() -> Vec<&'static str> {
                let mut names = Vec::new();
                $(names.extend($name::names());)+
                names
            }

            fn conditional() -> bool {
                $($name::conditional())&&+
            }

            #[expect(non_snake_case, reason = "the type parameters' names serve as the variables'")]
            fn each(self, sink: &mut dyn TaskSink) -> Result<(), EncodeError> {
                let ($($name,)+) = self;
                $($name.each(sink)?;)+
                Ok(())
            }
        }
    };
}

tuples!(T1);
tuples!(T1 T2);
tuples!(T1 T2 T3);
tuples!(T1 T2 T3 T4);
tuples!(T1 T2 T3 T4 T5);
tuples!(T1 T2 T3 T4 T5 T6);

/// An event's name and schema.
#[derive(Debug, Clone, Copy)]
pub struct EventInfo {
    /// The event's name.
    pub name: &'static str,
    /// Makes the JSON Schema of its payload.
    pub schema: fn() -> serde_json::Value,
}
