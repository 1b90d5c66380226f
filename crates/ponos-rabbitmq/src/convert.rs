//! Between the wire's parts and AMQP's properties and header table.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use ponos_core::wire::{HeaderValue, Headers, Ignored, Parts, Properties};

use crate::topology::{Argument, Arguments};

/// AMQP's number for "on disk".
const PERSISTENT: u8 = 2;

pub(crate) fn to_amqp(parts: &Parts) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in &parts.headers {
        let value = match value {
            HeaderValue::Int(n) => AMQPValue::LongLongInt(*n),
            HeaderValue::Text(text) => AMQPValue::LongString(text.as_bytes().into()),
            HeaderValue::Other(Ignored) => continue,
        };
        if let Some(name) = short(name) {
            headers.insert(name, value);
        }
    }
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    let own = &parts.properties;
    if let Some(id) = own.message_id.as_deref().and_then(short) {
        properties = properties.with_message_id(id);
    }
    if let Some(tid) = own.correlation_id.as_deref().and_then(short) {
        properties = properties.with_correlation_id(tid);
    }
    if let Some(kind) = own.kind.as_deref().and_then(short) {
        properties = properties.with_type(kind);
    }
    if let Some(app) = own.app_id.as_deref().and_then(short) {
        properties = properties.with_app_id(app);
    }
    if let Some(timestamp) = own.timestamp {
        properties = properties.with_timestamp(timestamp);
    }
    properties
}

/// Adds a header that is not the envelope's.
pub(crate) fn with_int(properties: BasicProperties, name: &'static str, value: i64) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(name.into(), AMQPValue::LongLongInt(value));
    properties.with_headers(headers)
}

fn short(text: &str) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

pub(crate) fn from_amqp(properties: &BasicProperties) -> Parts {
    let text = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
    let headers = properties.headers().as_ref().map_or_else(Headers::new, |table| {
        table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), header(value))).collect()
    });
    Parts {
        properties: Properties {
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            kind: text(properties.kind()),
            app_id: text(properties.app_id()),
            timestamp: *properties.timestamp(),
        },
        headers,
    }
}

fn header(value: &AMQPValue) -> HeaderValue {
    match value {
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => HeaderValue::Text(text.to_owned()),
            Err(_) => HeaderValue::Other(Ignored),
        },
        AMQPValue::ShortString(text) => HeaderValue::Text(text.as_str().to_owned()),
        other => int(other).map_or(HeaderValue::Other(Ignored), HeaderValue::Int),
    }
}

/// Any integer of the protocol.
pub(crate) fn int(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some((*n).into()),
        AMQPValue::ShortShortUInt(n) => Some((*n).into()),
        AMQPValue::ShortInt(n) => Some((*n).into()),
        AMQPValue::ShortUInt(n) => Some((*n).into()),
        AMQPValue::LongInt(n) => Some((*n).into()),
        AMQPValue::LongUInt(n) => Some((*n).into()),
        AMQPValue::LongLongInt(n) => Some(*n),
        AMQPValue::Timestamp(n) => i64::try_from(*n).ok(),
        _ => None,
    }
}

/// A header that RabbitMQ itself writes, as a number.
pub(crate) fn broker_int(properties: &BasicProperties, name: &str) -> Option<i64> {
    properties.headers().as_ref()?.inner().get(name).and_then(int)
}

/// A header that RabbitMQ itself writes, as a text.
pub(crate) fn broker_text<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a str> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

pub(crate) fn table(arguments: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Int(n) => AMQPValue::LongLongInt(*n),
        };
        table.insert((*name).into(), value);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_the_way_there_and_back() {
        let parts = Parts {
            properties: Properties {
                message_id: Some("m".into()),
                correlation_id: Some("t".into()),
                kind: Some("unit.job.do".into()),
                app_id: Some("unit".into()),
                timestamp: Some(1_700_000_000_000),
            },
            headers: [
                ("x-ponos-attempt".to_owned(), HeaderValue::Int(3)),
                ("publisherWorkerName".to_owned(), HeaderValue::Text("unit.α".into())),
            ]
            .into(),
        };
        assert_eq!(from_amqp(&to_amqp(&parts)), parts);
    }

    #[test]
    fn what_is_no_number_and_no_text_is_present_and_not_believed() {
        let mut table = FieldTable::default();
        table.insert("x-ponos-attempt".into(), AMQPValue::Boolean(true));
        table.insert("x-death".into(), AMQPValue::LongString(vec![0xff].into()));
        let parts = from_amqp(&BasicProperties::default().with_headers(table));
        assert!(parts.headers.values().all(|value| *value == HeaderValue::Other(Ignored)));
    }
}
