//! `docs/bad-input.md`, which is written from the tables and compared with them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::row::{Case, Row};
use super::{
    bodies, connecting, files, handlers, headers, names, options, properties, publishing, references,
};

const HEAD: &str = "\
# Bad input

What Ponos does with what should not be there: names that break a rule, messages that nobody can read, forged headers,
definitions and files that cannot work. The numbers are those of the list that the design began with; every line is a case
of a test, which the last column names. Messages of others go through the embedded broker, where a foreign hand writes
them into the file, and through a real RabbitMQ, where a foreign client publishes them; behind each stands a good job,
which must run.

Four things hold throughout:

* Nothing is lost silently. What a handler cannot read is found among the failed jobs, byte for byte, with the reason.
* What is refused is refused by name, before anything is sent, with the way out in the error.
* Neighbours go on: one bad message fails itself alone.
* Properties and headers of others are never believed beyond what they can say about their own message; what is odd
  is replaced by its default, logged at the level `debug`, and not sent on.

This file is written from the tests' tables: `PONOS_BLESS=1 cargo test -p ponos --test bad_input document` does it anew.

";

const TAIL: &str = "
## Where this differs from the list, and why

| | the list | Ponos | why |
| --- | --- | --- | --- |
| 7 | a task that a queue is not for is stopped | the queue's handler decides: what fits its type runs | a label must not fail a job that can be done |
| 19 | an unsupported `content-encoding` is stopped | the bytes decide: gzip and zstd are named and not unpacked, plain JSON runs | as 20; and nothing can be unpacked to a bomb that is never unpacked |
| 26 | treated as a duplicate | both run | who uses one id for different messages would lose all but the first |
| 27 | a metric of bogus headers | a line of the log at `debug` | one bad publisher would be a metric of every service that hears it |
| 33 | a warning on our own API | our API has no expiration, and none is needed: what expires is among the failed jobs | |
| 40 | preserved or dropped | dropped when the message is sent on | only what Ponos reads is carried, so nothing forged is passed on |
| 43 | unknown queue options are refused, `raw_args` escapes | there are no options of queues | what is declared is a constant of the wire's version; what should be changeable is a policy (`ponos topology plan`) |
| 44, 51 | another argument is an error | used as it is, with a warning; another type is an error | the next release would stop every fleet with 406 |
| 46 | a timeout of 0 means none | an error that names `.no_timeout()`; `WORKER_TIMEOUT=0` means none | a 0 that was computed must not mean no limit |

## What remains

* Whoever may write to a virtual host may publish in the name of anybody there: forged `x-ponos-*` headers are bounded, and
  not refused. Permissions are RabbitMQ's: `ponos topology permissions` prints the least that each application needs.
* RabbitMQ itself dead-letters a message as it came. A forged `x-death` in one that expires in its queue reaches the
  broker's own code, which on 3.10 can end the queue's dead-lettering; Ponos's own copies never carry it.
* With the log level `TRACE` of the client library, frames are logged before anything is judged.
";

/// Where messages of others are tried, on brokers that need nothing installed and on RabbitMQ. Tests of one name share a table.
const HERE: &str = "crates/ponos/tests/bad_input/main.rs";
const RABBITMQ: &str = "crates/ponos/tests/rabbitmq/bad_input.rs";

/// The tables of messages of others, with the test that each is for.
fn of_others() -> [(Vec<Case>, &'static str); 5] {
    [
        (bodies::cases(), "what_no_handler_can_read_fails_and_is_kept"),
        (bodies::large(), "a_body_over_the_limit_fails_unread_and_can_be_put_away"),
        (headers::cases(), "forged_headers_are_not_believed_and_harm_nobody"),
        (properties::cases(), "odd_properties_are_replaced_and_the_job_runs"),
        (bodies::labels(), "odd_properties_are_replaced_and_the_job_runs"),
    ]
}

/// The whole list.
async fn rows() -> Vec<Row> {
    let mut rows = names::rows();
    for (cases, test) in of_others() {
        rows.extend(cases.iter().map(|case| case.row((if case.rabbitmq { RABBITMQ } else { HERE }, test))));
    }
    rows.extend(publishing::rows());
    rows.extend(options::rows().await);
    rows.extend(handlers::rows());
    rows.extend(files::rows());
    rows.extend(connecting::rows());
    rows.extend(references::rows());
    rows.sort_by_key(|row| row.number);
    rows
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of a file of the workspace.
pub fn source(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A text as a table's cell takes it.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// A text that is shown as it is: between more backticks than it has.
fn literal(text: &str) -> String {
    match cell(text) {
        text if text.is_empty() => text,
        text if text.contains('`') => format!("`` {text} ``"),
        text => format!("`{text}`"),
    }
}

fn document(rows: &[Row]) -> String {
    let mut out = HEAD.to_owned();
    out.push_str("| # | input | where | what happens | what is said | shown by |\n| --- | --- | --- | --- | --- | --- |\n");
    for row in rows {
        let Row { number, input, comes, outcome, says, shown_by: (file, test) } = row;
        let (input, outcome, says) = (cell(input), cell(outcome), literal(says));
        let comes = comes.as_str();
        writeln!(out, "| {number} | {input} | {comes} | {outcome} | {says} | [`{test}`](../{file}) |")
            .unwrap();
    }
    out.push_str(TAIL);
    out
}

#[tokio::test]
async fn every_number_of_the_list_has_a_row() {
    let rows = rows().await;
    let numbers: BTreeSet<u8> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=57).collect(), "some number has no row, or there is one too many");
    let inputs: BTreeSet<_> = rows.iter().map(|row| (row.number, row.input.as_str())).collect();
    assert_eq!(inputs.len(), rows.len(), "two rows say the same");
}

#[tokio::test]
async fn every_row_names_a_test_that_there_is() {
    let is_there = |file: &str, test: &str| source(file).contains(&format!("fn {test}("));
    for Row { number, input, shown_by: (file, test), .. } in rows().await {
        assert!(is_there(file, test), "{number}, {input}: there is no `{test}` in {file}");
        if file == HERE {
            assert!(is_there(RABBITMQ, test), "{number}, {input}: there is no `{test}` in {RABBITMQ}");
        }
    }
}

#[tokio::test]
async fn the_document_says_what_the_tables_say() {
    let written = document(&rows().await);
    let path = root().join("docs/bad-input.md");
    if std::env::var_os("PONOS_BLESS").is_some() {
        std::fs::write(path, written).unwrap();
        return;
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    for (line, (there, written)) in (1..).zip(there.lines().zip(written.lines())) {
        assert_eq!(there, written, "docs/bad-input.md, line {line}: PONOS_BLESS=1 writes it anew");
    }
    assert!(there == written, "docs/bad-input.md has another length: PONOS_BLESS=1 writes it anew");
}
