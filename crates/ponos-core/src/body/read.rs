//! Reading a body as a payload, with the transaction id hidden from it.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::CowStrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::{MAX_BODY, MAX_DEPTH};
use crate::id::Tid;

/// Why bytes are not the payload that a handler expects. Waiting does not make them better, so this is never retried.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
pub struct DecodeError {
    kind: DecodeErrorKind,
    problem: String,
}

/// The classes of [`DecodeError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// No byte at all.
    Empty,
    /// More than [`MAX_BODY`] bytes; they were not looked at.
    TooLarge,
    /// Not UTF-8.
    NotUtf8,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// Not JSON, or cut short.
    NotJson,
    /// JSON, but no object.
    NotAnObject,
    /// An object, but not of the payload's shape.
    Schema,
}

impl DecodeError {
    /// Which class of error it is.
    #[must_use]
    pub fn kind(&self) -> DecodeErrorKind {
        self.kind
    }

    fn new(kind: DecodeErrorKind, problem: impl Into<String>) -> Self {
        Self { kind, problem: problem.into() }
    }
}

/// Reads a body as a `T`. Unknown fields are the type's own affair; `tid` is never one of them.
///
/// # Errors
///
/// When the bytes are empty, too large, no UTF-8, too deep, no JSON, no object, or no `T`; see [`DecodeErrorKind`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let text = checked_text(bytes)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(HideTid(&mut json)).and_then(|value| json.end().map(|()| value));
    value.map_err(|error| explain::<T>(text, &error))
}

/// Reads any JSON object, without its `tid`.
///
/// # Errors
///
/// As [`decode`].
pub fn object(bytes: &[u8]) -> Result<serde_json::Map<String, serde_json::Value>, DecodeError> {
    decode(bytes)
}

/// The transaction id that a body carries; `None` when it has none, when it is neither text nor number,
/// or when the body is no object.
#[must_use]
pub fn tid(bytes: &[u8]) -> Option<Tid> {
    #[derive(Deserialize)]
    struct OnlyTid<'a> {
        #[serde(borrow, default)]
        tid: Option<&'a serde_json::value::RawValue>,
    }
    let text = checked_text(bytes).ok()?;
    let raw = serde_json::from_str::<OnlyTid<'_>>(text).ok()?.tid?.get();
    if raw.len() > 16 * crate::id::MAX_TID_LEN {
        // A megabyte is no id; what is left of it after the cut would link strangers.
        return None;
    }
    match serde_json::from_str(raw).ok()? {
        serde_json::Value::String(text) => Tid::from_foreign(&text),
        serde_json::Value::Number(number) => Tid::from_foreign(&number.to_string()),
        _ => None,
    }
}

/// The checks that come before parsing, so that parsing is bounded in memory and stack.
fn checked_text(bytes: &[u8]) -> Result<&str, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::new(
            DecodeErrorKind::Empty,
            "the body is empty, a message is a JSON object such as {}",
        ));
    }
    if bytes.len() > MAX_BODY {
        let problem = format!("the body has {} bytes, the limit is {MAX_BODY}", bytes.len());
        return Err(DecodeError::new(DecodeErrorKind::TooLarge, problem));
    }
    if let Some((kind, problem)) = of_another_kind(bytes) {
        return Err(DecodeError::new(kind, problem));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        DecodeError::new(
            DecodeErrorKind::NotUtf8,
            format!("the body is not UTF-8 from byte {} on", e.valid_up_to()),
        )
    })?;
    if depth_exceeds(bytes, MAX_DEPTH) {
        let problem = format!("the body nests deeper than {MAX_DEPTH} levels");
        return Err(DecodeError::new(DecodeErrorKind::TooDeep, problem));
    }
    Ok(text)
}

/// What a body is that begins as none of ours does. The bytes decide, whatever `content-encoding` says, and nothing is ever
/// unpacked: a small body could become a large one.
fn of_another_kind(bytes: &[u8]) -> Option<(DecodeErrorKind, &'static str)> {
    match bytes {
        [0x1f, 0x8b, ..] => Some((
            DecodeErrorKind::NotUtf8,
            "the body is compressed (gzip), which is not unpacked: publish plain JSON",
        )),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some((
            DecodeErrorKind::NotUtf8,
            "the body is compressed (zstd), which is not unpacked: publish plain JSON",
        )),
        [0xef, 0xbb, 0xbf, ..] => Some((
            DecodeErrorKind::NotJson,
            "the body begins with a byte order mark, which JSON has not (RFC 8259): publish it without",
        )),
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] => Some((
            DecodeErrorKind::NotUtf8,
            "the body is UTF-16, JSON is UTF-8 (RFC 8259): publish it as that",
        )),
        _ => None,
    }
}

/// Whether arrays and objects nest deeper than `limit`. Skipped fields count too, which the parser would not notice.
pub(super) fn depth_exceeds(bytes: &[u8], limit: usize) -> bool {
    // Too few brackets to be deep: the usual case. The two differ in one bit, and a byte can count the brackets of 255
    // others, so this runs at many bytes a cycle.
    let opening = |chunk: &[u8]| usize::from(chunk.iter().map(|b| u8::from(b | 0x20 == b'{')).sum::<u8>());
    if bytes.chunks(255).map(opening).sum::<usize>() <= limit {
        return false;
    }
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Turns a parser's error into one that names the field; the slow path, taken once per bad message.
#[cold]
fn explain<T: DeserializeOwned>(text: &str, error: &serde_json::Error) -> DecodeError {
    match error.classify() {
        serde_json::error::Category::Data => {}
        _ => return DecodeError::new(DecodeErrorKind::NotJson, format!("the body is not JSON: {error}")),
    }
    if !text.trim_start().starts_with('{') {
        return DecodeError::new(DecodeErrorKind::NotAnObject, "the body is JSON but no object");
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let problem = match serde_path_to_error::deserialize::<_, T>(HideTid(&mut json)) {
        Err(e) => {
            let inner = without_values(&e.inner().to_string(), text);
            format!("at `{}`: {}", e.path().to_string().escape_debug(), inner.escape_debug())
        }
        Ok(_) => without_values(&error.to_string(), text).escape_debug().to_string(),
    };
    DecodeError::new(
        DecodeErrorKind::Schema,
        format!("the body does not fit `{}`: {problem}", std::any::type_name::<T>()),
    )
}

/// A parser's message without the values that it quotes out of the body: errors go into logs and records, bodies do not.
///
/// What follows the name of a kind (`string "…"`) is always a value; any other quotation is one if the body holds it.
/// A type's own `Deserialize` may still write a value into its message without quoting it.
fn without_values(message: &str, body: &str) -> String {
    const KINDS: [&str; 8] =
        ["string", "character", "integer", "point", "boolean", "array", "variant", "value"];
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(open) = rest.find(['"', '`']) {
        let quote = if rest.as_bytes()[open] == b'"' { '"' } else { '`' };
        let (before, quoted) = rest.split_at(open + 1);
        // In a quoted text a quotation mark is escaped.
        let mut escaped = false;
        let close = quoted.char_indices().find(|(_, c)| {
            let ends = *c == quote && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let Some((close, _)) = close else {
            // It was cut, or it is no quotation: nobody knows what it is.
            out.push_str(before);
            out.push('…');
            return out;
        };
        let inner = &quoted[..close];
        let said_before = before[..open].trim_end();
        let is_value = KINDS.iter().any(|kind| said_before.ends_with(kind))
            // The name of a field says what is wrong, and is no value.
            || (!said_before.ends_with("field") && body.contains(inner));
        out.push_str(before);
        out.push_str(if is_value { "…" } else { inner });
        out.push(quote);
        rest = &quoted[close + 1..];
    }
    out.push_str(rest);
    out
}

/// A deserializer that leaves the key `tid` out of the top-level object.
struct HideTid<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for HideTid<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Outer(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(AnyObject)?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Reads an object and keeps nothing: a unit struct is `{}` on the wire, and readers skip what they do not know.
struct AnyObject;

impl<'de> Visitor<'de> for AnyObject {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

struct Outer<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Outer<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(WithoutTid(map))
    }
}

struct WithoutTid<A>(A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithoutTid<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        loop {
            let Some(key) = self.0.next_key_seed(Key)? else {
                return Ok(None);
            };
            if key == "tid" {
                self.0.next_value::<IgnoredAny>()?;
                continue;
            }
            return seed.deserialize(CowStrDeserializer::new(key)).map(Some);
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

/// Reads a key without copying it where the input allows.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Self::Value, E> {
        Err(E::custom("a field's name is text"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    #[test]
    fn an_error_quotes_no_value_of_the_body() {
        let body = r#"{"org":"s3cret","cents":"12\"34","kind":77,"x":true,"y":1.5}"#;
        for (message, expected) in [
            ("invalid type: string \"s3cret\", expected u64", "invalid type: string \"…\", expected u64"),
            ("invalid type: string \"12\\\"34\", expected u64", "invalid type: string \"…\", expected u64"),
            (
                "invalid value: integer `77`, expected `a` or `b`",
                "invalid value: integer `…`, expected `a` or `b`",
            ),
            ("unknown variant `s3cret`, expected `Small`", "unknown variant `…`, expected `Small`"),
            ("unknown field `org`, expected `name`", "unknown field `org`, expected `name`"),
            ("missing field `amount` at line 1", "missing field `amount` at line 1"),
            ("no such plan: `s3cret`", "no such plan: `…`"),
            ("invalid type: floating point `1.5`, cut \"s3cr", "invalid type: floating point `…`, cut \"…"),
        ] {
            assert_eq!(without_values(message, body), expected);
        }
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        org: String,
        cents: u64,
    }

    #[derive(Debug, Deserialize, Serialize, PartialEq)]
    struct Nothing;

    #[derive(Debug, Deserialize)]
    struct Loose {
        #[serde(default)]
        x: u8,
    }

    fn kind<T: DeserializeOwned + fmt::Debug>(body: &[u8]) -> DecodeErrorKind {
        decode::<T>(body).unwrap_err().kind()
    }

    #[test]
    fn the_tid_is_hidden_wherever_it_stands() {
        for body in [
            r#"{"tid":"t","org":"a","cents":1}"#,
            r#"{"org":"a","cents":1,"tid":{"x":[1]}}"#,
            r#"{"org":"a","cents":1}"#,
        ] {
            assert_eq!(
                decode::<Strict>(body.as_bytes()).unwrap(),
                Strict { org: "a".into(), cents: 1 },
                "{body}"
            );
        }
        assert_eq!(object(br#"{"tid":"t","a":1}"#).unwrap().len(), 1);
        assert_eq!(decode::<Nothing>(br#"{"tid":"t","more":[1,{}]}"#).unwrap(), Nothing);
        assert_eq!(decode::<Nothing>(b"{}").unwrap(), Nothing);
    }

    #[test]
    fn each_bad_body_has_its_own_error() {
        assert_eq!(kind::<Strict>(b""), DecodeErrorKind::Empty);
        assert_eq!(kind::<Strict>(b"{\"org\":\"\xff\"}"), DecodeErrorKind::NotUtf8);
        assert_eq!(kind::<Strict>(b"{\"org\":"), DecodeErrorKind::NotJson);
        assert_eq!(kind::<Strict>(b"hello"), DecodeErrorKind::NotJson);
        assert_eq!(kind::<Strict>(b"{} trailing"), DecodeErrorKind::Schema);
        assert_eq!(kind::<Loose>(b"{} trailing"), DecodeErrorKind::NotJson);
        assert_eq!(kind::<Strict>(b"[1]"), DecodeErrorKind::NotAnObject);
        assert_eq!(kind::<Strict>(b"7"), DecodeErrorKind::NotAnObject);
        assert_eq!(kind::<Nothing>(b"null"), DecodeErrorKind::NotAnObject);
        assert_eq!(kind::<Strict>(&vec![b' '; MAX_BODY + 1]), DecodeErrorKind::TooLarge);
        let error = decode::<Strict>(br#"{"org":"a","cents":"x"}"#).unwrap_err();
        assert_eq!(error.kind(), DecodeErrorKind::Schema);
        assert!(error.to_string().contains("at `cents`"), "{error}");
        assert_eq!(kind::<Strict>(br#"{"org":"a","cents":1,"more":1}"#), DecodeErrorKind::Schema);
    }

    #[test]
    fn what_is_no_plain_utf_8_is_named_and_not_unpacked() {
        for (body, says) in [
            (&b"\x1f\x8b\x08\x00"[..], "(gzip)"),
            (b"\x28\xb5\x2f\xfd\x00", "(zstd)"),
            (b"\xef\xbb\xbf{}", "byte order mark"),
            (b"\xff\xfe{\x00}\x00", "UTF-16"),
            (b"\xfe\xff\x00{\x00}", "UTF-16"),
        ] {
            let error = decode::<Nothing>(body).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert_eq!(tid(body), None);
        }
    }

    #[test]
    fn depth_is_limited_even_in_a_field_nobody_reads() {
        let nested = |n: usize| format!("{{\"y\":{}1{}}}", "[".repeat(n), "]".repeat(n));
        assert_eq!(kind::<Loose>(nested(10_000).as_bytes()), DecodeErrorKind::TooDeep);
        assert_eq!(kind::<Loose>(nested(MAX_DEPTH).as_bytes()), DecodeErrorKind::TooDeep);
        assert_eq!(decode::<Loose>(nested(MAX_DEPTH - 1).as_bytes()).unwrap().x, 0);
        let flat = format!("{{\"y\":{:?}}}", "[".repeat(10_000));
        assert!(decode::<Loose>(flat.as_bytes()).is_ok(), "brackets in a text are no depth");
    }

    #[test]
    fn the_tid_of_a_foreign_body_is_read_with_care() {
        assert_eq!(tid(br#"{"a":1,"tid":"t-9"}"#).unwrap().to_string(), "t-9");
        assert_eq!(tid(br#"{"tid":12}"#).unwrap().to_string(), "12");
        let huge = format!(r#"{{"tid":"{}"}}"#, "x".repeat(1_000_000));
        for body in [r#"{"tid":{}}"#, r#"{"tid":""}"#, r#"{"tid":null}"#, "{}", "[]", "nope", &huge] {
            assert_eq!(tid(body.as_bytes()), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(org in ".*", cents in any::<u64>()) {
            let payload = Strict { org, cents };
            let id = Tid::from_foreign("t-1").unwrap();
            let bytes = crate::body::encode(&id, &payload).unwrap();
            prop_assert_eq!(decode::<Strict>(&bytes).unwrap(), payload);
            prop_assert_eq!(tid(&bytes), Some(id));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode::<Strict>(&bytes);
            let _ = tid(&bytes);
        }
    }
}
