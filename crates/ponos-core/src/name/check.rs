//! The rules, as plain functions: the macros call them at compile time, foreign input meets them at run time.

use super::error::NameError;
use super::tense::{self, Tense};

/// The longest event or task name.
pub const MAX_NAME_BYTES: usize = 200;

/// The longest application name: with a dot and the longest event it fills [`MAX_QUEUE_BYTES`] exactly, so
/// that no subscription's queue can turn out too long.
pub const MAX_APP_BYTES: usize = MAX_QUEUE_BYTES - 1 - MAX_NAME_BYTES;

/// The longest queue name: a short string of AMQP 0-9-1.
pub const MAX_QUEUE_BYTES: usize = 255;

/// First models that nobody may use: directly behind an application they begin the names of Ponos's own queues
/// and exchanges (`{app}.failed`, `{app}.retry.{ms}`, `{app}.control.state`), and that is where a task and a
/// subscription (`{app}.{event}`) put theirs. Elsewhere they are free: `order.retry.scheduled` and
/// `payment.failed` meet nothing of ours.
const RESERVED_MODELS: &[&str] = &["control", "discarded", "failed", "retry", "unroutable"];

/// Checks an application's name.
///
/// # Errors
///
/// [`NameError`] says which rule is broken and how to mend it.
pub fn check_app(name: &str) -> Result<(), NameError> {
    check(name, What::App, Verb::Checked)
}

/// Checks an event's name.
///
/// # Errors
///
/// [`NameError`] says which rule is broken and how to mend it.
pub fn check_event(name: &str) -> Result<(), NameError> {
    check(name, What::Event, Verb::Checked)
}

/// Checks an event's name, except for the tense of its verb.
///
/// # Errors
///
/// [`NameError`] says which rule is broken and how to mend it.
pub fn check_event_unchecked_verb(name: &str) -> Result<(), NameError> {
    check(name, What::Event, Verb::Unchecked)
}

/// Checks a task's name.
///
/// # Errors
///
/// [`NameError`] says which rule is broken and how to mend it.
pub fn check_task(name: &str) -> Result<(), NameError> {
    check(name, What::Task, Verb::Checked)
}

/// Checks a task's name, except for the tense of its verb.
///
/// # Errors
///
/// [`NameError`] says which rule is broken and how to mend it.
pub fn check_task_unchecked_verb(name: &str) -> Result<(), NameError> {
    check(name, What::Task, Verb::Unchecked)
}

/// Checks a queue's name: any well-formed dotted name whose first segment can be an application.
///
/// # Errors
///
/// [`NameError`] says which rule is broken and how to mend it.
pub fn check_queue(name: &str) -> Result<(), NameError> {
    check(name, What::Queue, Verb::Checked)
}

/// What a name is to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    App,
    Event,
    Task,
    Queue,
}

/// Whether the tense rule applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Checked,
    Unchecked,
}

/// The rule that a name breaks. Finding it allocates nothing; the message is made later, from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    TooLong,
    /// The application in front is longer than an application's name may be.
    AppTooLong,
    Malformed,
    Segments(usize),
    /// `amq` in front.
    Broker,
    /// `ponos` in front.
    Framework,
    ReservedModel,
    /// An event `{app}.unroutable` would share an exchange with an application.
    Unroutable,
    NumericVerb,
    NotPast,
    Past,
}

impl What {
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::App => "application name",
            Self::Event => "event name",
            Self::Task => "task name",
            Self::Queue => "queue name",
        }
    }

    pub(super) const fn max_bytes(self) -> usize {
        match self {
            Self::App => MAX_APP_BYTES,
            Self::Event | Self::Task => MAX_NAME_BYTES,
            Self::Queue => MAX_QUEUE_BYTES,
        }
    }

    const fn takes(self, segments: usize) -> bool {
        match self {
            Self::App => segments == 1,
            Self::Event | Self::Queue => segments >= 2,
            Self::Task => segments >= 3,
        }
    }
}

pub(super) fn check(name: &str, what: What, verb: Verb) -> Result<(), NameError> {
    diagnose(name, what, verb).map_err(|fault| NameError::new(name, what, verb, fault))
}

/// Finds the first broken rule.
pub(super) fn diagnose(name: &str, what: What, verb: Verb) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::Empty);
    }
    if name.len() > what.max_bytes() {
        return Err(Fault::TooLong);
    }
    match count_segments(name) {
        0 => return Err(Fault::Malformed),
        n if !what.takes(n) => return Err(Fault::Segments(n)),
        _ => {}
    }
    let first = first_segment(name);
    match first {
        // The broker refuses `amq.`, and an application `amq` would own queues that begin so.
        "amq" => return Err(Fault::Broker),
        // Exchanges of the framework: `ponos.control`, `ponos.lifecycle`.
        "ponos" => return Err(Fault::Framework),
        _ => {}
    }
    let model = match what {
        What::App => return Ok(()),
        What::Event => first,
        What::Task | What::Queue if first.len() > MAX_APP_BYTES => return Err(Fault::AppTooLong),
        What::Queue => return Ok(()),
        What::Task => first_segment(&name[first.len() + 1..]),
    };
    if RESERVED_MODELS.contains(&model) {
        return Err(Fault::ReservedModel);
    }
    let last = last_segment(name);
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::NumericVerb);
    }
    if what == What::Event && last == "unroutable" && first.len() + 1 + last.len() == name.len() {
        return Err(Fault::Unroutable);
    }
    match (verb, what) {
        (Verb::Unchecked, _) => Ok(()),
        (Verb::Checked, What::Event) => {
            let past = last.split('-').any(|word| tense::of(word) != Tense::Other);
            if past { Ok(()) } else { Err(Fault::NotPast) }
        }
        (Verb::Checked, _) => {
            let word = last.split('-').next().unwrap_or(last);
            if tense::of(word) == Tense::Past { Err(Fault::Past) } else { Ok(()) }
        }
    }
}

/// Whether the length, the characters and the number of segments are right.
pub(super) const fn has_form(name: &str, what: What) -> bool {
    name.len() <= what.max_bytes() && what.takes(count_segments(name))
}

/// How many segments a well-formed name has; 0 if it is malformed or empty.
pub(super) const fn count_segments(name: &str) -> usize {
    let bytes = name.as_bytes();
    let mut segments = 1;
    // A word has begun and has no letter yet, so neither a hyphen nor a dot nor the end may follow.
    let mut fresh = true;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'a'..=b'z' | b'0'..=b'9' => fresh = false,
            b'-' | b'.' if fresh => return 0,
            b'-' => fresh = true,
            b'.' => {
                fresh = true;
                segments += 1;
            }
            _ => return 0,
        }
        i += 1;
    }
    if fresh { 0 } else { segments }
}

pub(super) fn first_segment(name: &str) -> &str {
    name.split_once('.').map_or(name, |(first, _)| first)
}

pub(super) fn last_segment(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str) -> Result<(), Fault> {
        diagnose(name, What::Event, Verb::Checked)
    }

    fn task(name: &str) -> Result<(), Fault> {
        diagnose(name, What::Task, Verb::Checked)
    }

    fn app(name: &str) -> Result<(), Fault> {
        diagnose(name, What::App, Verb::Checked)
    }

    #[test]
    fn malformed_names_are_refused() {
        for name in [
            "a..died",
            ".a.died",
            "a.died.",
            "-a.died",
            "a-.died",
            "a--b.died",
            "A.died",
            "a_b.died",
            "a.died\n",
            "a .died",
            "a.d\u{456}ed",
            "a.died\u{1f600}",
            "a.*",
            "a.#",
            "a-.-died",
            ".",
            "-",
        ] {
            assert_eq!(event(name), Err(Fault::Malformed), "{name}");
        }
        assert_eq!(event(""), Err(Fault::Empty));
    }

    #[test]
    fn each_sort_has_its_number_of_segments() {
        assert_eq!(event("died"), Err(Fault::Segments(1)));
        assert_eq!(task("user.create"), Err(Fault::Segments(2)));
        assert_eq!(app("my.app"), Err(Fault::Segments(2)));
        assert_eq!(diagnose("pheidi", What::Queue, Verb::Checked), Err(Fault::Segments(1)));
    }

    #[test]
    fn the_limit_of_length_is_exact() {
        let tail = ".died";
        let longest = "a".repeat(MAX_NAME_BYTES - tail.len()) + tail;
        assert_eq!(event(&longest), Ok(()));
        assert_eq!(event(&format!("a{longest}")), Err(Fault::TooLong));
        assert_eq!(app(&"a".repeat(MAX_APP_BYTES)), Ok(()));
        assert_eq!(app(&"a".repeat(MAX_APP_BYTES + 1)), Err(Fault::TooLong));
        let task_of_long_app = "a".repeat(MAX_APP_BYTES + 1) + ".user.create";
        assert_eq!(task(&task_of_long_app), Err(Fault::AppTooLong));
    }

    #[test]
    fn what_belongs_to_the_broker_or_the_framework_is_refused_everywhere() {
        for what in [What::App, What::Event, What::Task, What::Queue] {
            let tail = if what == What::App { "" } else { ".user.died" };
            for verb in [Verb::Checked, Verb::Unchecked] {
                assert_eq!(diagnose(&format!("amq{tail}"), what, verb), Err(Fault::Broker));
                assert_eq!(diagnose(&format!("ponos{tail}"), what, verb), Err(Fault::Framework));
            }
        }
        assert_eq!(event("amqp.connection.lost"), Ok(()));
        assert_eq!(task("api.ponos.start"), Ok(()));
    }

    #[test]
    fn reserved_models_are_refused_where_they_would_meet_our_own_queues() {
        for model in RESERVED_MODELS {
            assert_eq!(event(&format!("{model}.died")), Err(Fault::ReservedModel));
            assert_eq!(event(&format!("{model}.order.died")), Err(Fault::ReservedModel));
            assert_eq!(task(&format!("api.{model}.start")), Err(Fault::ReservedModel));
            assert_eq!(event(&format!("order.{model}.died")), Ok(()));
            assert_eq!(task(&format!("api.order.{model}.start")), Ok(()));
        }
        // Two-segment events share no namespace with two-segment queues …
        assert_eq!(event("payment.failed"), Ok(()));
        assert_eq!(event("draft.discarded"), Ok(()));
        assert_eq!(task("api.job.retry"), Ok(()));
        // … but with the exchanges `{app}.unroutable` and `{app}.retry.{ms}`.
        assert_eq!(diagnose("api.unroutable", What::Event, Verb::Unchecked), Err(Fault::Unroutable));
        assert_eq!(diagnose("api.retry.250", What::Event, Verb::Unchecked), Err(Fault::NumericVerb));
        assert_eq!(diagnose("mail.letter.unroutable", What::Event, Verb::Unchecked), Ok(()));
    }

    #[test]
    fn a_verb_is_not_a_mere_number() {
        assert_eq!(event("user.created.2"), Err(Fault::NumericVerb));
        assert_eq!(task("api.user.404"), Err(Fault::NumericVerb));
        assert_eq!(event("user.2-created"), Ok(()));
    }

    #[test]
    fn the_tense_tells_events_from_tasks() {
        for name in ["org.payment.processed", "github.pull-request.converted-to-draft", "password.reset"] {
            assert_eq!(event(name), Ok(()), "{name}");
        }
        for name in ["user.create", "organization.trial.ending", "email.send", "news.feed", "row.embed"] {
            assert_eq!(event(name), Err(Fault::NotPast), "{name}");
        }
        for name in ["api.user.authorize", "organization.plan.start-trial", "order.item.mark-completed"] {
            assert_eq!(task(name), Ok(()), "{name}");
        }
        assert_eq!(task("api.user.created"), Err(Fault::Past));
        assert_eq!(task("api.email.sent-again"), Err(Fault::Past));
        assert_eq!(task("api.password.reset"), Ok(()));
    }
}
