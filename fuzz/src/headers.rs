//! AMQP's properties and header table, as bytes from a foreign client, to a message and back.

use ponos_core::Bytes;
use ponos_core::id::Timestamp;
use ponos_core::wire::{self, HeaderValue, Reading};
use ponos_rabbitmq::fuzzing;

use super::source::{Source, is_within_limits};

/// The first byte chooses the queue, the rest is what a content header frame has behind its flags.
pub fn check(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let Some(read) = fuzzing::read(rest) else {
        return;
    };
    // What RabbitMQ itself writes is looked up in whatever a client wrote there.
    for name in ["x-delivery-count", "x-death", "x-stream-offset", "x-ponos-attempt"] {
        let _ = fuzzing::broker_header(rest, name);
    }
    let queue = Source::new(&[*first]).queue();
    let reading = Reading { queue: &queue, now: Timestamp::from_millis(1_700_000_000_000), random: [7; 10] };
    let (envelope, _) = wire::assemble(&read, Bytes::from_static(b"{}"), reading);
    is_within_limits(&envelope);
    let parts = wire::parts(&envelope);
    assert!(
        parts.headers.keys().all(|name| !is_brokers(name)),
        "what only a broker may say is not passed on"
    );

    let written = fuzzing::write(&parts);
    assert!(written.len() < 128 * 1024, "{} bytes do not fit into a frame", written.len());
    let again = fuzzing::read(&written).expect("what was written is read");
    assert_eq!(again, parts, "the message is what it was");

    // What a client wrote survives too, as far as it is carried.
    let mut carried = read;
    carried.headers.retain(|_, value| !matches!(value, HeaderValue::Other(_)));
    assert_eq!(fuzzing::read(&fuzzing::write(&carried)).expect("what was written is read"), carried);
}

fn is_brokers(name: &str) -> bool {
    name.starts_with("x-death")
        || name.starts_with("x-first-death")
        || name.starts_with("x-last-death")
        || ["x-delivery-count", "CC", "BCC", "x-delay"].contains(&name)
}
