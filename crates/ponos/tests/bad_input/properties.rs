//! Properties: transaction ids, message ids, times, and what only AMQP has.

use super::place::{Amqp, Foreign};
use super::row::{Case, Then};

fn odd(number: u8, input: &'static str, n: u64, message: Foreign) -> Case {
    let body =
        if message.body.is_empty() { format!("{{\"tid\":\"t\",\"n\":{n}}}").into() } else { message.body };
    let message = Foreign { body, ..message };
    let then = Then::Ran(if n >= 1000 { 2 } else { 1 });
    Case { number, input, message, then, tid: None, note: "", rabbitmq: false }
}

/// A message whose `tid` in the body is this.
fn tid(number: u8, input: &'static str, n: u64, tid: &str, under: Option<&'static str>) -> Case {
    let body = if tid.is_empty() { format!("{{\"n\":{n}}}") } else { format!("{{\"tid\":{tid},\"n\":{n}}}") };
    let case = odd(number, input, n, Foreign { body: body.into(), ..Foreign::default() });
    Case { tid: under, note: if under.is_none() { "under a new one" } else { "" }, ..case }
}

pub fn cases() -> Vec<Case> {
    let none = Foreign::default;
    let megabyte = format!("\"{}\"", "x".repeat(1_000_000));
    let text = |text: &str| Some(text.to_owned());
    let in_property =
        Foreign { correlation: text("from-the-property"), body: "{\"n\":222}".into(), ..none() };
    let mut cases = vec![
        tid(22, "no `tid`", 221, "", None),
        Case {
            tid: Some("from-the-property"),
            ..odd(22, "`tid` in `correlation_id` alone", 222, in_property)
        },
        tid(23, "`tid` is a number", 231, "17", Some("17")),
        tid(23, "`tid` is null", 232, "null", None),
        tid(23, "`tid` is an object", 233, "{\"a\":[1]}", None),
        tid(23, "`tid` is `true`", 234, "true", None),
        tid(24, "`tid` of a megabyte", 241, &megabyte, None),
        tid(24, "`tid` of spaces", 242, "\"   \"", None),
        tid(
            24,
            "`tid` with line ends and a sequence that clears the screen",
            243,
            "\"a\\r\\nERROR b\\u001b[2J\\u0000\"",
            Some("aERRORb2J"),
        ),
        tid(
            24,
            "`tid` of 200 characters",
            244,
            &format!("\"{}\"", "0123456789".repeat(20)),
            Some(
                "01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
            ),
        ),
        odd(25, "no `message_id`", 251, none()),
        odd(25, "`message_id` is no UUID", 252, Foreign { id: text("order 7 / \u{1b}[2J"), ..none() }),
        odd(25, "`message_id` is empty", 253, Foreign { id: text(""), ..none() }),
        odd(7, "the type of another queue", 254, Foreign { kind: text("other.note.write"), ..none() }),
        odd(7, "a type that is no name", 255, Foreign { kind: text("../../etc/passwd"), ..none() }),
        odd(7, "an `app_id` that is no name", 256, Foreign { app: text("A B\u{1}"), ..none() }),
        odd(36, "`timestamp` of 1970", 1361, Foreign { timestamp: Some(0), ..none() }),
        odd(
            36,
            "`timestamp` of the year 2999",
            1362,
            Foreign { timestamp: Some(32_472_144_000_000), ..none() },
        ),
        odd(36, "`timestamp` of −1 (2⁶⁴−1)", 1363, Foreign { timestamp: Some(u64::MAX), ..none() }),
    ];
    for case in cases.iter_mut().filter(|case| case.number == 36) {
        case.note = "no delay, no age and no order is computed from it";
    }
    for case in cases.iter_mut().filter(|case| case.number == 7) {
        case.note = "the queue decides, and its name";
    }
    for case in cases.iter_mut().filter(|case| case.number == 25) {
        case.note = "under an id of its own, which stays with it";
    }
    cases.extend(only_amqp());
    cases
}

fn only_amqp() -> Vec<Case> {
    let none = Amqp::default;
    let amqp = |number, input, n, amqp| Case {
        rabbitmq: true,
        ..odd(number, input, n, Foreign { amqp, ..Foreign::default() })
    };
    let refused = |says, case: Case| Case { then: Then::Refused(says), ..case };
    vec![
        refused(
            "PRECONDITION_FAILED",
            amqp(33, "`expiration` is empty", 331, Amqp { expiration: Some(""), ..none() }),
        ),
        refused(
            "PRECONDITION_FAILED",
            amqp(33, "`expiration` is `abc`", 332, Amqp { expiration: Some("abc"), ..none() }),
        ),
        refused(
            "PRECONDITION_FAILED",
            amqp(33, "`expiration` is −1", 333, Amqp { expiration: Some("-1"), ..none() }),
        ),
        amqp(34, "`delivery_mode` 1", 1341, Amqp { delivery_mode: Some(1), ..none() }),
        amqp(34, "no `delivery_mode`", 1342, none()),
        amqp(35, "`reply_to` of somebody", 351, Amqp { reply_to: Some("amq.rabbitmq.reply-to.x"), ..none() }),
        refused(
            "PRECONDITION_FAILED",
            amqp(35, "`user_id` of somebody else", 352, Amqp { user_id: Some("root"), ..none() }),
        ),
        amqp(42, "`priority` 255", 1421, Amqp { priority: Some(255), ..none() }),
    ]
    .into_iter()
    .map(|case| Case {
        note: match case.number {
            34 => "what is sent on is on disk again",
            35 if matches!(case.then, Then::Ran(_)) => "we never answer",
            42 => "there are no priorities",
            _ => case.note,
        },
        ..case
    })
    .collect()
}
