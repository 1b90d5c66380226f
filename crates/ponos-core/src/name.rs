//! Names of applications, events, tasks and queues, and the rules that they keep.
//!
//! | what | form | example |
//! | --- | --- | --- |
//! | [`AppName`] | one segment | `pheidi` |
//! | [`EventName`] | `model(.submodel)*.verb`, some word of the verb in the past tense | `org.payment.processed` |
//! | [`TaskName`] | `app.model(.submodel)*.verb`, the verb's first word not in the past tense | `pheidi.email.send` |
//! | [`QueueName`] | an application, then what it works on | `pheidi.org.payment.processed` |
//!
//! Segments are `[a-z0-9]+(-[a-z0-9]+)*` joined by dots. [`parse`](EventName::parse) applies every rule and is
//! for names that somebody writes. A name that is *read* (by serde, or [`EventName::unchecked_verb`]) need only
//! be well-formed: the tense rule teaches whoever chooses a name, and a message must not be lost for it.
//!
//! ```
//! use ponos_core::name::{AppName, EventName, QueueName, TaskName};
//!
//! let event = EventName::parse("org.payment.processed")?;
//! let task = TaskName::parse("pheidi.email.send")?;
//! assert_eq!(QueueName::subscription(&task.app(), &event), "pheidi.org.payment.processed");
//!
//! let error = EventName::parse("user.create").unwrap_err();
//! assert_eq!(error.suggestion(), Some("user.created"));
//! # Ok::<(), ponos_core::name::NameError>(())
//! ```

mod check;
mod error;
mod suggest;
mod tense;
mod text;
mod words;

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::check::{Verb, What};
use self::text::{Text, TextVisitor};

pub use self::check::{
    MAX_APP_BYTES, MAX_NAME_BYTES, MAX_QUEUE_BYTES, check_app, check_event, check_event_unchecked_verb,
    check_queue, check_task, check_task_unchecked_verb,
};
pub use self::error::{NameError, NameErrorKind};

/// The parts that the four names share; what only one of them has stands in its own `impl` below.
macro_rules! name_type {
    ($(#[$doc:meta])* $Name:ident, $what:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $Name(Text);

        impl $Name {
            /// Takes a name that somebody wrote, by all rules.
            ///
            /// # Errors
            ///
            /// [`NameError`] says which rule is broken and how to mend it.
            pub fn parse(name: &str) -> Result<Self, NameError> {
                check::check(name, $what, Verb::Checked)?;
                Ok(Self(Text::shared(name)))
            }

            /// Like [`parse`](Self::parse), without allocating.
            ///
            /// # Errors
            ///
            /// [`NameError`] says which rule is broken and how to mend it.
            pub fn from_static(name: &'static str) -> Result<Self, NameError> {
                check::check(name, $what, Verb::Checked)?;
                Ok(Self(Text::Static(name)))
            }

            /// For the macros' output, which has been checked at compile time: free in a `const`.
            ///
            /// # Panics
            ///
            /// If the characters, the length or the number of segments are wrong. Reserved words and tenses
            /// are not looked at.
            #[doc(hidden)]
            #[must_use]
            pub const fn from_checked(name: &'static str) -> Self {
                assert!(check::has_form(name, $what), "not a well-formed Ponos name");
                Self(Text::Static(name))
            }

            /// The name's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($Name)).field(&self.as_str()).finish()
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl AsRef<str> for $Name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        /// Equality, order and hash are the text's, so a map with this key can be asked with a `&str`.
        impl Borrow<str> for $Name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl PartialEq<str> for $Name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $Name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl FromStr for $Name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }

        impl TryFrom<&str> for $Name {
            type Error = NameError;

            fn try_from(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }

        impl Serialize for $Name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        /// A foreign name need only be well-formed: the tense rule is not applied.
        impl<'de> Deserialize<'de> for $Name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor($what)).map(Self)
            }
        }
    };
}

name_type! {
    /// An application: one segment of at most [`MAX_APP_BYTES`] bytes, neither `ponos` nor `amq`.
    AppName, What::App
}

name_type! {
    /// An event, a fact: `model(.submodel)*.verb`. Some hyphen-word of the verb is in the past tense.
    EventName, What::Event
}

name_type! {
    /// A task, an action of one application: `app.model(.submodel)*.verb`. The verb's first hyphen-word is not
    /// in the past tense.
    TaskName, What::Task
}

name_type! {
    /// A queue: its first segment is the application that owns it. At most [`MAX_QUEUE_BYTES`] bytes.
    QueueName, What::Queue
}

impl EventName {
    /// Skips the tense rule, and only that: for names that are right although the word lists refuse them.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the name is not well-formed or uses what is reserved.
    pub fn unchecked_verb(name: &str) -> Result<Self, NameError> {
        check::check(name, What::Event, Verb::Unchecked)?;
        Ok(Self(Text::shared(name)))
    }

    /// What stands between the dots, at least two.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.as_str().split('.')
    }

    /// The last segment: `review-requested` of `github.pull-request.review-requested`.
    #[must_use]
    pub fn verb(&self) -> &str {
        check::last_segment(self.as_str())
    }
}

impl TaskName {
    /// Skips the tense rule, and only that: for names that are right although the word lists refuse them.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the name is not well-formed or uses what is reserved.
    pub fn unchecked_verb(name: &str) -> Result<Self, NameError> {
        check::check(name, What::Task, Verb::Unchecked)?;
        Ok(Self(Text::shared(name)))
    }

    /// The application that owns the task, its first segment.
    #[must_use]
    pub fn app(&self) -> AppName {
        AppName(self.0.first_segment())
    }

    /// The last segment: `start-trial` of `organization.plan.start-trial`.
    #[must_use]
    pub fn verb(&self) -> &str {
        check::last_segment(self.as_str())
    }
}

impl QueueName {
    /// The queue of a task: its name.
    #[must_use]
    pub fn task(task: &TaskName) -> Self {
        Self(task.0.clone())
    }

    /// The queue in which an application hears an event: `{app}.{event}`.
    #[must_use]
    pub fn subscription(app: &AppName, event: &EventName) -> Self {
        Self::of(app, event.as_str())
    }

    /// Where an application's jobs lie that gave up: `{app}.failed`.
    #[must_use]
    pub fn failed(app: &AppName) -> Self {
        Self::of(app, "failed")
    }

    /// Where failed jobs go that somebody discarded: `{app}.discarded`.
    #[must_use]
    pub fn discarded(app: &AppName) -> Self {
        Self::of(app, "discarded")
    }

    /// What no queue of the application took: `{app}.unroutable`.
    #[must_use]
    pub fn unroutable(app: &AppName) -> Self {
        Self::of(app, "unroutable")
    }

    /// The application that owns the queue, its first segment.
    #[must_use]
    pub fn app(&self) -> AppName {
        AppName(self.0.first_segment())
    }

    /// Never longer than [`MAX_QUEUE_BYTES`]: the limits of the parts add up to it.
    fn of(app: &AppName, rest: &str) -> Self {
        Self(Text::shared(&format!("{app}.{rest}")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const EVENT: EventName = EventName::from_checked("org.payment.processed");

    #[test]
    fn a_static_and_a_shared_name_are_equal_in_every_way() {
        let shared = EventName::parse("org.payment.processed").unwrap();
        assert_eq!(EVENT, shared);
        assert_eq!(EVENT.cmp(&shared), std::cmp::Ordering::Equal);
        let map = HashMap::from([(EVENT, 1)]);
        assert_eq!(map.get(&shared), Some(&1));
        assert_eq!(map.get("org.payment.processed"), Some(&1));
    }

    #[test]
    fn names_print_as_their_text() {
        assert_eq!(EVENT.to_string(), "org.payment.processed");
        assert_eq!(format!("{EVENT:>23}"), "  org.payment.processed");
        assert_eq!(format!("{EVENT:?}"), "EventName(\"org.payment.processed\")");
    }

    #[test]
    fn a_name_gives_its_parts() {
        assert_eq!(EVENT.segments().rev().collect::<Vec<_>>(), ["processed", "payment", "org"]);
        assert_eq!(EVENT.verb(), "processed");
        for task in [
            TaskName::parse("organization.plan.start-trial").unwrap(),
            TaskName::from_static("organization.plan.start-trial").unwrap(),
        ] {
            assert_eq!(task.app(), "organization");
            assert_eq!(task.verb(), "start-trial");
            assert_eq!(QueueName::task(&task), "organization.plan.start-trial");
        }
    }

    #[test]
    fn queue_names_begin_with_their_application() {
        let app = AppName::parse("pheidi").unwrap();
        for (queue, text) in [
            (QueueName::subscription(&app, &EVENT), "pheidi.org.payment.processed"),
            (QueueName::failed(&app), "pheidi.failed"),
            (QueueName::discarded(&app), "pheidi.discarded"),
            (QueueName::unroutable(&app), "pheidi.unroutable"),
        ] {
            assert_eq!(queue, text);
            assert_eq!(queue.app(), app);
            assert_eq!(QueueName::parse(text), Ok(queue));
        }
        assert!(QueueName::parse("pheidi.retry.131072000").is_ok());
    }

    #[test]
    fn the_longest_parts_make_a_queue_name_that_rabbitmq_takes() {
        let app = AppName::parse(&"a".repeat(MAX_APP_BYTES)).unwrap();
        let event = format!("{}.sent", "e".repeat(MAX_NAME_BYTES - 5));
        let queue = QueueName::subscription(&app, &EventName::parse(&event).unwrap());
        assert_eq!(queue.as_str().len(), MAX_QUEUE_BYTES);
        assert_eq!(QueueName::parse(queue.as_str()), Ok(queue));
    }

    #[test]
    fn serde_reads_any_well_formed_name_and_no_other() {
        let json = serde_json::to_string(&EVENT).unwrap();
        assert_eq!(json, "\"org.payment.processed\"");
        assert_eq!(serde_json::from_str::<EventName>(&json).unwrap(), EVENT);
        assert_eq!(
            serde_json::from_str::<EventName>("\"dock.unresponsive\"").unwrap(),
            EventName::unchecked_verb("dock.unresponsive").unwrap()
        );
        assert!(serde_json::from_str::<TaskName>("\"api.user.created\"").is_ok());
        let error = serde_json::from_str::<EventName>("\"Dock.lost\"").unwrap_err().to_string();
        assert!(
            error.contains("event name `Dock.lost` has an uppercase letter: write `dock.lost`"),
            "{error}"
        );
        assert!(serde_json::from_str::<EventName>("7").is_err());
        assert!(serde_json::from_str::<AppName>("\"ponos\"").is_err());
    }

    #[test]
    #[should_panic(expected = "not a well-formed")]
    fn an_unchecked_constant_still_needs_the_form() {
        let _ = TaskName::from_checked("user.create");
    }
}
