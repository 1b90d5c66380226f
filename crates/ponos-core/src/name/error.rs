//! What is wrong with a name, and the way out.

use std::fmt::Write as _;

use super::check::{Fault, MAX_APP_BYTES, Verb, What, first_segment};
use super::suggest;

/// How much of a refused name a message quotes, in characters as printed.
const QUOTED_CHARS: usize = 60;

/// A name that breaks a rule.
///
/// The message is one line of printable ASCII, whatever the name holds: all else is escaped, and a long name
/// is cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NameError {
    kind: NameErrorKind,
    message: Box<str>,
    suggestion: Option<Box<str>>,
}

/// The rule that a name breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameErrorKind {
    /// There is no name.
    Empty,
    /// The name, or the application in front of it, is too long.
    TooLong,
    /// A character, a hyphen or a dot that must not stand there.
    Malformed,
    /// Too few segments, or too many.
    SegmentCount,
    /// The name belongs to the broker or to Ponos itself.
    Reserved,
    /// The verb is a mere number.
    NumericVerb,
    /// An event's verb is not in the past tense.
    EventNotPast,
    /// A task's verb is in the past tense.
    TaskPast,
}

impl NameError {
    pub(super) fn new(name: &str, what: What, verb: Verb, fault: Fault) -> Self {
        let suggestions = suggest::names(name, what, verb, fault);
        Self {
            kind: kind(fault),
            message: message(name, what, fault, &suggestions).into(),
            suggestion: suggestions.into_iter().next().map(String::into_boxed_str),
        }
    }

    /// Which rule is broken.
    #[must_use]
    pub fn kind(&self) -> NameErrorKind {
        self.kind
    }

    /// A name near the refused one that passes the same check, where one can be derived. It is a guess.
    #[must_use]
    pub fn suggestion(&self) -> Option<&str> {
        self.suggestion.as_deref()
    }
}

fn kind(fault: Fault) -> NameErrorKind {
    match fault {
        Fault::Empty => NameErrorKind::Empty,
        Fault::TooLong | Fault::AppTooLong => NameErrorKind::TooLong,
        Fault::Malformed => NameErrorKind::Malformed,
        Fault::Segments(_) => NameErrorKind::SegmentCount,
        Fault::Broker | Fault::Framework | Fault::ReservedModel | Fault::Unroutable => {
            NameErrorKind::Reserved
        }
        Fault::NumericVerb => NameErrorKind::NumericVerb,
        Fault::NotPast => NameErrorKind::EventNotPast,
        Fault::Past => NameErrorKind::TaskPast,
    }
}

fn message(name: &str, what: What, fault: Fault, suggestions: &[String]) -> String {
    let subject = format!("{} `{}`", what.noun(), quote(name));
    let example = example(suggestions);
    match fault {
        Fault::Empty => format!("{} is empty: {}", what.noun(), form(what)),
        Fault::TooLong => format!(
            "{subject} has {} bytes, at most {} are allowed: shorten it",
            name.len(),
            what.max_bytes()
        ),
        Fault::AppTooLong => format!(
            "{subject} begins with an application name of {} bytes, at most {MAX_APP_BYTES} are allowed: shorten it",
            first_segment(name).len()
        ),
        Fault::Malformed => {
            let flaw = flaw(name);
            let way_out = example.map_or_else(
                || {
                    "use lowercase letters and digits, single hyphens between words, single dots between segments"
                        .to_owned()
                },
                |example| format!("write {example}"),
            );
            format!("{subject} {flaw}: {way_out}")
        }
        Fault::Segments(count) => {
            let plural = if count == 1 { "" } else { "s" };
            let way_out = example.map_or_else(|| form(what).to_owned(), |example| format!("write {example}"));
            format!("{subject} has {count} segment{plural}: {way_out}")
        }
        Fault::Broker => {
            format!("{subject} begins with `amq`, which belongs to RabbitMQ: choose another first segment")
        }
        Fault::Framework => {
            format!(
                "{subject} begins with `ponos`, which belongs to the framework: choose another first segment"
            )
        }
        Fault::ReservedModel => {
            let model = first_segment(match what {
                What::Task => &name[first_segment(name).len() + 1..],
                What::App | What::Event | What::Queue => name,
            });
            format!(
                "{subject} uses `{model}` as its model, where Ponos keeps queues of its own: say what it belongs to, \
                 for example `order-{model}`"
            )
        }
        Fault::Unroutable => format!(
            "{subject} is what Ponos calls an exchange of an application `{app}`: put a model in between, for example \
             `{app}.message.unroutable`",
            app = quote(first_segment(name))
        ),
        Fault::NumericVerb => {
            let way_out = example.map_or_else(String::new, |example| format!(", for example {example}"));
            format!("{subject} ends in a mere number: end it in a verb{way_out}")
        }
        Fault::NotPast => {
            let way_out = example.map_or_else(String::new, |example| format!(", for example {example}"));
            format!(
                "{subject} does not end in a past-tense verb: an event says what has happened{way_out}; if the word is \
                 right, write `verb = unchecked`"
            )
        }
        Fault::Past => {
            let way_out = example.map_or_else(
                || ", in the present tense".to_owned(),
                |example| format!(", for example {example}"),
            );
            format!(
                "{subject} puts its verb in the past tense: a task says what is to be done{way_out}; if the word is \
                 right, write `verb = unchecked`"
            )
        }
    }
}

/// The suggestions as a list to print, unless they are too long to help.
fn example(suggestions: &[String]) -> Option<String> {
    let short: Vec<_> = suggestions.iter().filter(|s| s.len() <= 80).map(|s| format!("`{s}`")).collect();
    (!short.is_empty()).then(|| short.join(" or "))
}

fn form(what: What) -> &'static str {
    match what {
        What::App => "an application is one segment, for example `billing`",
        What::Event => "an event is `model.verb`, for example `order.created`",
        What::Task => "a task is `app.model.verb`, for example `billing.invoice.send`",
        What::Queue => "a queue is `app.event` or a task's name, for example `billing.order.created`",
    }
}

/// Says what is malformed: the first forbidden character, else the misplaced hyphen or dot.
fn flaw(name: &str) -> String {
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.');
    match name.chars().find(|c| !allowed(*c)) {
        Some('A'..='Z') => "has an uppercase letter".to_owned(),
        Some('_') => "has an underscore".to_owned(),
        Some(' ') => "has a space".to_owned(),
        Some(c @ '!'..='~') => format!("has a character `{c}`"),
        Some(c) => format!("has a character U+{:04X}", u32::from(c)),
        None if name.split('.').any(str::is_empty) => "has an empty segment".to_owned(),
        None => "has a hyphen that does not stand between two words".to_owned(),
    }
}

/// The name for a message: everything but printable ASCII escaped, cut to [`QUOTED_CHARS`].
fn quote(name: &str) -> String {
    let mut quoted = String::new();
    for c in name.chars() {
        if quoted.len() >= QUOTED_CHARS {
            quoted.push_str("...");
            break;
        }
        match c {
            // A backtick would end the quotation.
            '`' => quoted.extend(c.escape_unicode()),
            ' '..='~' if c != '\\' => quoted.push(c),
            // Not `escape_debug`, which leaves emoji and look-alike letters as they are.
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "{}", c.escape_default());
            }
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use crate::name::{NameErrorKind, check_app, check_event, check_queue, check_task};

    fn event(name: &str) -> String {
        check_event(name).unwrap_err().to_string()
    }

    fn task(name: &str) -> String {
        check_task(name).unwrap_err().to_string()
    }

    #[test]
    fn a_message_names_the_name_and_the_way_out() {
        assert_eq!(
            event("dock.unresponsive"),
            "event name `dock.unresponsive` does not end in a past-tense verb: an event says what has happened, for \
             example `dock.unresponsive-reported` or `dock.became-unresponsive`; if the word is right, write \
             `verb = unchecked`"
        );
        assert_eq!(
            task("api.user.created"),
            "task name `api.user.created` puts its verb in the past tense: a task says what is to be done, for example \
             `api.user.create`; if the word is right, write `verb = unchecked`"
        );
        assert_eq!(
            task("api.user_created.send"),
            "task name `api.user_created.send` has an underscore: write `api.user-created.send`"
        );
        assert_eq!(
            event("died"),
            "event name `died` has 1 segment: an event is `model.verb`, for example `order.created`"
        );
        assert_eq!(event(""), "event name is empty: an event is `model.verb`, for example `order.created`");
        assert_eq!(
            event("retry.scheduled"),
            "event name `retry.scheduled` uses `retry` as its model, where Ponos keeps queues of its own: say what it \
             belongs to, for example `order-retry`"
        );
        assert_eq!(
            event("user.created.2"),
            "event name `user.created.2` ends in a mere number: end it in a verb, for example `user.created-2`"
        );
        assert_eq!(
            check_app("my.app").unwrap_err().to_string(),
            "application name `my.app` has 2 segments: write `my-app`"
        );
        assert_eq!(
            check_app("ponos").unwrap_err().to_string(),
            "application name `ponos` begins with `ponos`, which belongs to the framework: choose another first segment"
        );
        assert_eq!(check_queue("amq.gen-1").unwrap_err().kind(), NameErrorKind::Reserved);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(
            event("user.\u{1b}[31mdied\n\u{1f600}`"),
            "event name `user.\\u{1b}[31mdied\\n\\u{1f600}\\u{60}` has a character U+001B: use lowercase letters and \
             digits, single hyphens between words, single dots between segments"
        );
        assert_eq!(
            event("user.died\n"),
            "event name `user.died\\n` has a character U+000A: write `user.died`"
        );
    }

    #[test]
    fn a_long_name_is_cut() {
        let message = event(&"x".repeat(10_000));
        let cut = "x".repeat(60);
        assert_eq!(
            message,
            format!("event name `{cut}...` has 10000 bytes, at most 200 are allowed: shorten it")
        );
    }
}
