//! The rules of names against names that people really chose, and against everything else.

use std::collections::HashSet;

use ponos_core::name::{
    AppName, EventName, NameErrorKind, QueueName, TaskName, check_app, check_event,
    check_event_unchecked_verb, check_queue, check_task, check_task_unchecked_verb,
};
use proptest::prelude::*;

/// Event names from the production of Runnable, who made the first Ponos: repository `CodeNow/arithmancy`.
const RUNNABLE: &str = include_str!("data/runnable-event-names.txt");

#[test]
fn the_names_of_the_first_ponos_are_good_but_for_two() {
    let names: Vec<&str> = RUNNABLE.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(names.len(), 20);
    let refused: Vec<String> =
        names.iter().filter_map(|name| check_event(name).err()).map(|error| error.to_string()).collect();
    assert_eq!(
        refused,
        [
            "event name `dock.unresponsive` does not end in a past-tense verb: an event says what has happened, for \
             example `dock.unresponsive-reported` or `dock.became-unresponsive`; if the word is right, write \
             `verb = unchecked`",
            "event name `organization.trial.ending` does not end in a past-tense verb: an event says what has \
             happened, for example `organization.trial.ended`; if the word is right, write `verb = unchecked`",
        ]
    );
    for name in names {
        assert_eq!(EventName::unchecked_verb(name).map(|name| name.to_string()).as_deref(), Ok(name));
    }
}

#[test]
fn the_examples_of_the_wire_are_good() {
    for name in [
        "org.payment.processed",
        "github.pull-request.review-requested",
        "github.pull-request.converted-to-draft",
        "dock.lost",
        "password.reset",
    ] {
        assert_eq!(check_event(name), Ok(()));
    }
    for name in [
        "pheidi.email.send",
        "api.user.authorize",
        "organization.plan.start-trial",
        "order.item.mark-completed",
        "api.password.reset",
    ] {
        assert_eq!(check_task(name), Ok(()));
    }
}

#[test]
fn the_tense_is_the_only_rule_that_can_be_switched_off() {
    assert_eq!(check_task("api.user.created").unwrap_err().kind(), NameErrorKind::TaskPast);
    assert_eq!(check_task_unchecked_verb("api.user.created"), Ok(()));
    assert_eq!(check_event("user.create").unwrap_err().kind(), NameErrorKind::EventNotPast);
    assert_eq!(check_event_unchecked_verb("user.create"), Ok(()));
    for (name, kind) in [
        ("", NameErrorKind::Empty),
        ("user", NameErrorKind::SegmentCount),
        ("user.Create", NameErrorKind::Malformed),
        ("retry.create", NameErrorKind::Reserved),
        ("user.7", NameErrorKind::NumericVerb),
    ] {
        assert_eq!(check_event_unchecked_verb(name).unwrap_err().kind(), kind, "{name}");
    }
}

/// The grammar once more, in another way.
fn is_well_formed(name: &str) -> bool {
    let word =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.split('.').all(|segment| segment.split('-').all(word))
}

/// Near enough to a name to reach every rule.
fn near_name() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => "[a-z0-9]{0,6}",
        4 => prop::sample::select(vec![
            "amq", "ponos", "retry", "failed", "control", "unroutable", "discarded", "sent", "send", "create",
            "created", "reset", "ending", "User", "7", "up",
        ])
        .prop_map(str::to_owned),
        1 => "[A-Za-z_\u{e9}\u{1f600}\n ]{1,3}",
    ];
    (prop::collection::vec((word, prop::sample::select(vec![".", ".", ".", "-", "_"])), 1..7))
        .prop_map(|parts| parts.iter().flat_map(|(word, sep)| [word.as_str(), sep]).collect::<String>())
        .prop_map(|mut name| {
            name.pop();
            name
        })
}

proptest! {
    #[test]
    fn only_well_formed_names_pass_and_every_refusal_is_one_plain_line(
        name in prop_oneof![near_name(), any::<String>()]
    ) {
        for check in [
            check_app, check_event, check_event_unchecked_verb, check_task, check_task_unchecked_verb, check_queue,
        ] {
            match check(&name) {
                Ok(()) => prop_assert!(is_well_formed(&name) && name.len() <= 255),
                Err(error) => {
                    let message = error.to_string();
                    prop_assert!(message.bytes().all(|b| (b' '..=b'~').contains(&b)), "{message}");
                    prop_assert!(message.len() < 500, "{message}");
                    if let Some(suggestion) = error.suggestion() {
                        prop_assert_eq!(check(suggestion), Ok(()));
                        prop_assert_ne!(suggestion, &name);
                    }
                }
            }
        }
    }

    #[test]
    fn whatever_is_strictly_good_is_good_without_the_tense_and_survives_serde(name in near_name()) {
        if let Ok(event) = EventName::parse(&name) {
            prop_assert_eq!(EventName::unchecked_verb(&name), Ok(event.clone()));
            let json = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(serde_json::from_str::<EventName>(&json).unwrap(), event);
        }
        if let Ok(task) = TaskName::parse(&name) {
            prop_assert_eq!(TaskName::unchecked_verb(&name), Ok(task.clone()));
            prop_assert_eq!(check_app(task.app().as_str()), Ok(()));
        }
    }

    #[test]
    fn no_work_queue_and_no_event_takes_a_name_of_the_framework(
        app in "[a-z]{1,3}",
        name in near_name(),
        ms in any::<u32>(),
    ) {
        let Ok(app) = AppName::parse(&app) else { return Ok(()) };
        let own: HashSet<String> = [
            format!("{app}.failed"),
            format!("{app}.discarded"),
            format!("{app}.unroutable"),
            format!("{app}.control.state"),
            format!("{app}.retry.{ms}"),
        ]
        .into();
        let numbered = format!("retry.{ms}");
        for name in [name.as_str(), "control.state", "failed", numbered.as_str()] {
            if let Ok(event) = EventName::unchecked_verb(name) {
                let queue = QueueName::subscription(&app, &event);
                prop_assert!(!own.contains(queue.as_str()));
                prop_assert_eq!(check_queue(queue.as_str()), Ok(()));
            }
            if let Ok(task) = TaskName::unchecked_verb(&format!("{app}.{name}")) {
                prop_assert!(!own.contains(QueueName::task(&task).as_str()));
            }
        }
        // Exchanges: events are named without an application in front.
        for exchange in [format!("{app}.unroutable"), format!("{app}.retry.{ms}"), "ponos.lifecycle".into()] {
            prop_assert!(EventName::unchecked_verb(&exchange).is_err());
        }
    }

    #[test]
    fn order_and_equality_are_those_of_the_text(a in "[a-c]{1,3}\\.sent", b in "[a-c]{1,3}\\.sent") {
        let (x, y) = (EventName::parse(&a).unwrap(), EventName::parse(&b).unwrap());
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        prop_assert_eq!(x == y, a == b);
    }
}
