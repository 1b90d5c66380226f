//! A row of the embedded broker's table of messages: whatever stands in it, it is delivered.

use ponos_sqlite::fuzzing::{Row, decode};

use super::source::{Source, is_within_limits};

/// Decisions: numbers, an id of any length, a head, and the rest as body.
pub fn check(data: &[u8]) {
    let mut source = Source::new(data);
    let queue = source.queue();
    let row = Row {
        id: source.big().cast_signed(),
        fence: source.big().cast_signed(),
        ready_at: source.big().cast_signed(),
        losses: source.big().cast_signed(),
        message_id: if source.flag() { source.id().to_vec() } else { source.bytes().to_vec() },
        head: source.bytes().to_vec(),
        body: source.rest().to_vec(),
    };
    let delivery = decode(&row, &queue).expect("a row of the table's types is read");
    assert_eq!(delivery.queue, queue);
    assert_eq!(delivery.envelope.body, row.body, "the body is kept byte for byte");
    if row.message_id.len() == 16 {
        assert_eq!(delivery.envelope.id.as_bytes()[..], row.message_id);
    }
    is_within_limits(&delivery.envelope);
    let again = decode(&row, &queue).expect("a row is read twice");
    assert_eq!(again.envelope, delivery.envelope, "the same row is the same message");

    // A settlement writes the head anew; the message stays what it is.
    let rewritten = Row {
        head: ponos_core::wire::encode(&delivery.envelope),
        message_id: delivery.envelope.id.as_bytes().to_vec(),
        ..row
    };
    let again = decode(&rewritten, &queue).expect("a row is read again");
    assert_eq!(again.envelope, delivery.envelope);
}
