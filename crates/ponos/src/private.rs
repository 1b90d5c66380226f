//! What the macros' output needs. Not for people: it changes without notice.

pub use schemars;
pub use serde;
pub use serde_json;

/// The JSON Schema of a payload.
#[must_use]
pub fn schema_of<T: schemars::JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(T).to_value()
}

/// Checks that a task's name starts with its application's.
///
/// # Panics
///
/// At compile time, when it does not.
pub const fn assert_owner(app: &str, task: &str) {
    let (app, task) = (app.as_bytes(), task.as_bytes());
    let mut same = task.len() > app.len() && task[app.len()] == b'.';
    let mut i = 0;
    while same && i < app.len() {
        same = app[i] == task[i];
        i += 1;
    }
    assert!(
        same,
        "a task's name starts with the name of the application that owns it: rename the task to `app.model.verb`, or give it to the application that it names"
    );
}
