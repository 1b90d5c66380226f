//! Bad input that other tests show already, and what the tests on a real RabbitMQ beside this one show.

use super::row::{Comes, Row};

/// Number, input, where it comes in, outcome, texts that the test asserts, file and test.
type Reference = (u8, &'static str, Comes, &'static str, &'static [&'static str], &'static str, &'static str);

const RABBITMQ: &str = "crates/ponos/tests/rabbitmq/bad_input.rs";
const ERRORS: &str = "crates/ponos/tests/rabbitmq/errors.rs";
const CLOCK: &str = "crates/ponos-sqlite/src/clock.rs";
const FILES: &str = "crates/ponos-sqlite/tests/files.rs";

const REFERENCES: &[Reference] = &[
    (
        27,
        "all header texts as large as they are read, at once",
        Comes::FromOthers,
        "each is cut to what we write ourselves, so that the job can be sent on",
        &[],
        "crates/ponos-core/src/wire/tests.rs",
        "whatever_was_forged_can_be_sent_on",
    ),
    (
        31,
        "`x-first-death-queue` among the failed jobs, of another queue than the message was sent to",
        Comes::FromOthers,
        "ignored: where it was sent to decides",
        &["the queue `unit.nobody.serve` did not exist when it was due"],
        RABBITMQ,
        "what_rabbitmq_gave_up_is_found_among_the_failed_jobs",
    ),
    (
        33,
        "an `expiration` that passes before somebody works the queue",
        Comes::FromOthers,
        "failed: RabbitMQ takes it out of its queue, and it is found among the failed jobs",
        &["RabbitMQ gave it up: expired"],
        RABBITMQ,
        "what_rabbitmq_gave_up_is_found_among_the_failed_jobs",
    ),
    (
        37,
        "the clock is set back an hour",
        Comes::Running,
        "time limits are monotonic; in a file, time goes on from where it was",
        &[],
        CLOCK,
        "a_clock_that_was_set_back_neither_hides_nor_hastens",
    ),
    (
        37,
        "the clock of another process on the file is ahead",
        Comes::Running,
        "the later one counts for both",
        &[],
        CLOCK,
        "what_another_process_saw_counts",
    ),
    (
        38,
        "a header table of 200 kB",
        Comes::FromOthers,
        "refused by RabbitMQ, which closes that publisher's connection (a frame has 128 KiB)",
        &[],
        RABBITMQ,
        "a_header_table_over_a_frame_ends_its_publishers_connection_alone",
    ),
    (
        39,
        "tables in one another, 18,000 deep: as much as a frame holds",
        Comes::FromOthers,
        "runs: deeper than 16 they are replaced before the client library reads them, whose stack would overflow",
        &[],
        RABBITMQ,
        "what_no_library_reads_is_repaired_on_its_way",
    ),
    (
        40,
        "a `message_id`, a type, a header's name, a routing key that are no UTF-8",
        Comes::FromOthers,
        "runs: `?` stands for what is no UTF-8; the client library would end its connection, again and again",
        &[],
        RABBITMQ,
        "what_no_library_reads_is_repaired_on_its_way",
    ),
    (
        44,
        "a queue of ours with another `x-delivery-limit`",
        Comes::Start,
        "used as it is, with a warning and counted: only another type would be fatal",
        &[],
        ERRORS,
        "another_argument_is_used_as_it_is_and_counted",
    ),
    (
        46,
        "`WORKER_TIMEOUT=0`, the npm package's",
        Comes::Start,
        "no time limit, as there",
        &[],
        "crates/ponos/src/service/policy.rs",
        "the_npm_packages_variables_keep_their_meaning",
    ),
    (
        46,
        "`WORKER_TIMEOUT=-1`",
        Comes::Start,
        "does not start",
        &["the variable WORKER_TIMEOUT is `-1`: expected a whole number, or nothing"],
        "crates/ponos/tests/definition.rs",
        "the_npm_packages_variables_are_fallbacks_with_its_meaning",
    ),
    (
        48,
        "a reaction panics",
        Comes::Running,
        "failed at once: a pure function does not get better by waiting",
        &[],
        "crates/ponos/tests/worker.rs",
        "a_reaction_that_panics_fails_its_message_at_once",
    ),
    (
        48,
        "a handler aborts its process (`panic = \"abort\"`)",
        Comes::Running,
        "it runs alone after the third death, and fails after three more; its neighbours run",
        &[],
        "crates/ponos/tests/rabbitmq/poison.rs",
        "a_job_that_kills_its_process_fails_alone",
    ),
    (
        49,
        "a blocking handler returns after its time",
        Comes::Running,
        "what it returns and emits is dropped",
        &["the attempt was not done within 50ms"],
        "crates/ponos/tests/definition.rs",
        "a_blocking_handler_works_and_is_timed_out",
    ),
    (
        51,
        "the queue exists as a classic one",
        Comes::Start,
        "does not start, with both types and the way out",
        &["?queue_type=classic"],
        ERRORS,
        "another_type_is_an_error_at_start_that_says_what_to_do",
    ),
    (
        51,
        "the queue exists with other arguments",
        Comes::Start,
        "used as it is, with a warning: a refusal would stop a fleet over a detail",
        &[],
        ERRORS,
        "another_argument_is_used_as_it_is_and_counted",
    ),
    (
        52,
        "the event's exchange exists as a topic",
        Comes::Start,
        "does not start, with both types and the way out",
        &["delete it"],
        ERRORS,
        "another_type_is_an_error_at_start_that_says_what_to_do",
    ),
    (
        53,
        "no permission to configure, to write or to read, at the start",
        Comes::Start,
        "does not start; the error names resource, virtual host and user",
        &["is not allowed", "give this user what `ponos topology permissions` prints"],
        RABBITMQ,
        "a_permission_that_is_missing_at_the_start_is_named",
    ),
    (
        53,
        "no permission to write, for one message",
        Comes::Running,
        "that job gives up, the others go on",
        &["not allowed"],
        ERRORS,
        "a_refused_permission_fails_its_own_message_alone",
    ),
    (
        54,
        "a wrong password, a virtual host that is not there, or not this user's",
        Comes::Start,
        "does not start, is not tried again, names no password",
        &["add_vhost", "set_permissions"],
        ERRORS,
        "what_cannot_get_better_is_said_at_once_without_the_password",
    ),
    (
        56,
        "a file on NFS, CIFS, 9p and the like",
        Comes::Start,
        "does not start",
        &["is on a network file system"],
        "crates/ponos-sqlite/src/location.rs",
        "network_file_systems_are_found_by_the_deepest_mount",
    ),
    (
        56,
        "a file that is damaged while it is in use",
        Comes::Running,
        "what is asked of it fails and says so; the process lives",
        &["damaged"],
        FILES,
        "a_damaged_file_is_reported_and_ends_the_subscriptions",
    ),
    (
        57,
        "an older version on the same file, at the same time",
        Comes::Start,
        "both work: within an epoch changes only add",
        &[],
        FILES,
        "this_version_joins_a_file_of_minor_0_in_use",
    ),
    (
        57,
        "a later version on the same file, at the same time",
        Comes::Start,
        "both work: within an epoch changes only add",
        &[],
        FILES,
        "a_later_minor_is_used_as_it_is",
    ),
];

pub fn rows() -> Vec<Row> {
    let row = |&(number, input, comes, outcome, says, file, test): &Reference| Row {
        number,
        input: input.to_owned(),
        comes,
        outcome: outcome.to_owned(),
        says: says.join(" … "),
        shown_by: (file, test),
    };
    REFERENCES.iter().map(row).collect()
}

/// What the document says of a test's texts stands in that test's file.
#[test]
fn what_other_tests_are_said_to_assert_stands_in_them() {
    for (number, input, .., says, file, _) in REFERENCES {
        let source = super::document::source(file);
        for text in *says {
            assert!(source.contains(text), "{number}, {input}: `{text}` is not in {file}");
        }
    }
}
