//! Names that break a rule: none gets as far as a broker.

use ponos::core::name::{AppName, EventName, NameError, TaskName};

use super::row::{Comes, Row};

#[derive(Clone, Copy)]
enum Of {
    App,
    Event,
    Task,
}

fn parse(of: Of, name: &str) -> Result<String, NameError> {
    match of {
        Of::App => AppName::parse(name).map(|name| name.to_string()),
        Of::Event => EventName::parse(name).map(|name| name.to_string()),
        Of::Task => TaskName::parse(name).map(|name| name.to_string()),
    }
}

fn cases() -> Vec<(u8, &'static str, Of, String)> {
    let long = |bytes: usize| format!("order.{}.placed", "x".repeat(bytes - "order..placed".len()));
    let case = |number, input, of, name: &str| (number, input, of, name.to_owned());
    vec![
        case(1, "an event without a name", Of::Event, ""),
        case(1, "a task without a name", Of::Task, ""),
        case(1, "an event of spaces", Of::Event, "   "),
        (2, "an event of 201 bytes", Of::Event, long(201)),
        (2, "an application of 55 bytes", Of::App, "x".repeat(55)),
        case(3, "a line end after the name, which RabbitMQ strips", Of::Event, "order.placed\r\n"),
        case(3, "a line end within", Of::Event, "order\n.placed"),
        case(3, "a NUL", Of::Task, "shop.order\0.place"),
        case(4, "`amq.` in front, which is RabbitMQ's", Of::Event, "amq.order.placed"),
        case(4, "the application `amq`", Of::App, "amq"),
        case(4, "`ponos.` in front, which is ours", Of::Task, "ponos.order.place"),
        case(5, "upper case", Of::Event, "Order.Placed"),
        case(5, "camel case", Of::Task, "shop.purchaseOrder.place"),
        case(5, "letters beyond ASCII", Of::Event, "größe.measured"),
        case(5, "a letter of another script that looks like ours", Of::Event, "оrder.placed"),
        case(5, "an emoji", Of::Event, "order.💥.placed"),
        case(5, "a space", Of::Event, "order placed"),
        case(5, "an underscore", Of::Event, "purchase_order.placed"),
        case(
            5,
            "an event that is no fact (a real one, of the makers)",
            Of::Event,
            "organization.trial.ending",
        ),
        case(5, "an event without a verb (a real one, of the makers)", Of::Event, "dock.unresponsive"),
        case(5, "a task that is a fact", Of::Task, "shop.order.placed"),
        case(6, "an application without a name", Of::App, ""),
        case(
            6,
            "a dot in an application's name: `a.b` and `c.done` would share the queue of `a` and `b.c.done`",
            Of::App,
            "a.b",
        ),
    ]
}

pub fn rows() -> Vec<Row> {
    let row = |(number, input, of, name): (u8, &str, Of, String)| Row {
        number,
        input: input.to_owned(),
        comes: Comes::Definition,
        outcome: "does not compile; at run time, from text: an error".to_owned(),
        says: parse(of, &name).expect_err(input).to_string(),
        shown_by: (
            "crates/ponos/tests/bad_input/names.rs",
            "no_bad_name_is_taken_and_each_error_is_one_line_of_ascii",
        ),
    };
    cases().into_iter().map(row).collect()
}

#[test]
fn no_bad_name_is_taken_and_each_error_is_one_line_of_ascii() {
    for (_, input, of, name) in cases() {
        let error = parse(of, &name).expect_err(input);
        let text = error.to_string();
        assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{input}: {text}");
        assert!(text.len() < 400, "{input}: {text}");
        if let Some(better) = error.suggestion() {
            assert!(parse(of, better).is_ok(), "{input}: `{better}` is no better");
        }
    }
}
