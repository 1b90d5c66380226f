//! What the macros' output needs. Not for people: it changes without notice.

pub use ponos_core::body::EncodeError;
pub use schemars;
pub use serde;
pub use serde_json;

pub use crate::message::TaskSink;
use crate::message::{App, EmittedBy, EventInfo, Task};

/// The JSON Schema of a payload.
#[must_use]
pub fn schema_of<T: schemars::JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(T).to_value()
}

/// What is known of an event that `By` declares. The bound is met by what the attribute writes for `E`, so a type
/// that is no event is reported there alone.
#[must_use]
pub fn event_info<E: EmittedBy<By>, By>() -> EventInfo {
    E::info()
}

/// What can be inside a message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of a message",
    label = "not data",
    note = "put `#[data]` on the struct or enum, so that it can be read, written and described; a type of another crate needs its support of serde and schemars, often a feature, or `#[serde(with = ...)]` and `#[schemars(with = ...)]` on the field"
)]
pub trait Data {}

// Without the attribute the compiler would name what is missing below, and not `#[data]`.
#[diagnostic::do_not_recommend]
impl<T: serde::Serialize + serde::de::DeserializeOwned + schemars::JsonSchema> Data for T {}

/// Shows the text above for the type of a field.
pub const fn assert_data<T: Data>() {}

/// Checks that a task's name starts with its application's.
///
/// # Panics
///
/// At compile time, when it does not. The compiler shows the place of the call, the name in the attribute.
#[track_caller]
pub const fn assert_owner<T: Task>() {
    let (app, task) = (<T::App as App>::NAME.as_bytes(), T::NAME.as_bytes());
    let mut first = 0;
    while first < task.len() && task[first] != b'.' {
        first += 1;
    }
    let (owner, rest) = task.split_at(first);
    // An application without a name has been reported.
    if equal(owner, app) || app.is_empty() {
        return;
    }
    let text = Text::new()
        .and(b"task `")
        .and(task)
        .and(b"` is not named after its application, which is called `")
        .and(app)
        .and(b"`: write `")
        .and(app)
        .and(rest)
        .and(b"`, or give the application that owns the task as `app = ...`");
    panic!("{}", text.as_str());
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// A text that is put together at compile time, where nothing can be allocated.
struct Text {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl Text {
    /// Three names of the greatest length, and the words between them.
    const ROOM: usize = 1024;

    const fn new() -> Self {
        Self { bytes: [0; Self::ROOM], len: 0 }
    }

    const fn and(mut self, bytes: &[u8]) -> Self {
        let mut i = 0;
        while i < bytes.len() && self.len < Self::ROOM {
            self.bytes[self.len] = bytes[i];
            self.len += 1;
            i += 1;
        }
        self
    }

    const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "the name of a task begins with the name of its application",
        }
    }
}
