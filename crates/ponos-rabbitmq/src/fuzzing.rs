//! Properties and headers as the bytes of a content header frame, for the fuzz targets. No part of the interface.

use lapin::protocol::basic::{gen_properties, parse_properties};
use ponos_core::wire::Parts;

use crate::convert;

/// What a message's content header says; `None` for bytes that the protocol does not allow.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Parts> {
    let (_, properties) = parse_properties(bytes).ok()?;
    Some(convert::from_amqp(&properties))
}

/// A header that RabbitMQ itself writes, as the number and the text that it is taken for.
#[must_use]
pub fn broker_header(bytes: &[u8], name: &str) -> Option<(Option<i64>, Option<String>)> {
    let (_, properties) = parse_properties(bytes).ok()?;
    let text = convert::broker_text(&properties, name).map(str::to_owned);
    Some((convert::broker_int(&properties, name), text))
}

/// The bytes of a content header.
///
/// # Panics
///
/// Never: a buffer in memory takes what is written.
#[must_use]
pub fn write(parts: &Parts) -> Vec<u8> {
    let properties = convert::to_amqp(parts);
    let written =
        gen_properties(&properties)(Vec::new().into()).expect("a buffer in memory takes everything");
    written.write
}
