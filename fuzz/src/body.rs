//! The JSON body: limits are checked before parsing, `tid` is hidden, and no error quotes a value.

use ponos_core::body::{self, DecodeErrorKind, MAX_BODY, MAX_DEPTH};
use ponos_core::id::Tid;
use serde_json::{Map, Value};

use super::source::Source;

/// A value that no error may quote.
const SECRET: &str = "s3cr3t-v4lue";

/// An even first byte: the rest is a body. An odd one: decisions that make a nested or a nearly fitting one.
pub fn check(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    match first % 4 {
        0 | 2 => bytes(rest),
        1 => {
            let mut source = Source::new(rest);
            let depth = usize::from(source.byte());
            let (open, close) = source.of(&[(r#"{"a":"#, "}"), ("[", "]"), (r#"{"a":[{"b":"#, "}]}")]);
            let inner = source.of(&["1", "\"[[[[\"", "null", "\"\\\"\""]);
            let body =
                format!("{{\"tid\":\"t\",\"x\":{}{inner}{}}}", open.repeat(depth), close.repeat(depth));
            bytes(body.as_bytes());
        }
        _ => typed(&mut Source::new(rest)),
    }
}

fn bytes(bytes: &[u8]) {
    let tid = body::tid(bytes);
    match body::object(bytes) {
        Ok(object) => {
            assert!(bytes.len() <= MAX_BODY);
            assert!(!object.contains_key("tid"));
            assert!(depth(&object) <= MAX_DEPTH);
            let tid = tid.unwrap_or_else(|| Tid::from_foreign("t-1").expect("it has letters"));
            round_trip(&tid, &object);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
            if error.kind() == DecodeErrorKind::TooDeep {
                assert_eq!(tid, None, "what is too deep is not parsed for its id either");
            }
        }
    }
}

fn round_trip(tid: &Tid, object: &Map<String, Value>) {
    // Escapes may make it longer than it came.
    let Ok(written) = body::encode(tid, object) else {
        return;
    };
    assert!(written.len() <= MAX_BODY);
    assert!(written.starts_with(b"{\"tid\":"));
    assert_eq!(body::tid(&written).as_ref(), Some(tid));
    assert_eq!(&body::object(&written).expect("what was written is read"), object);
}

fn depth(object: &Map<String, Value>) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(of).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(of).max().unwrap_or(0),
            _ => 0,
        }
    }
    1 + object.values().map(of).max().unwrap_or(0)
}

/// A payload with most of what payloads have.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "a payload of this test")]
pub struct Payload {
    name: String,
    count: u32,
    #[serde(default)]
    state: Option<State>,
    #[serde(default)]
    lines: Vec<(u8, String)>,
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Open,
    Closed,
}

fn typed(source: &mut Source<'_>) {
    let mut object = Map::new();
    for _ in 0..source.byte() % 8 {
        let key = source.of(&["name", "count", "state", "lines", "tid", "other"]);
        object.insert(key.to_owned(), value(source, 3));
    }
    let written = serde_json::to_vec(&object).expect("it is JSON");
    match body::decode::<Payload>(&written) {
        Ok(payload) => {
            let tid = Tid::from_foreign("t-1").expect("it has letters");
            let again = body::encode(&tid, &payload).expect("it is an object without `tid`");
            assert_eq!(body::decode::<Payload>(&again).expect("what was written is read"), payload);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains(SECRET), "{text}");
        }
    }
}

fn value(source: &mut Source<'_>, depth: u32) -> Value {
    match source.byte() % if depth == 0 { 7 } else { 9 } {
        0 => Value::Null,
        1 => source.flag().into(),
        2 => source.big().into(),
        3 => u64::from(source.byte()).into(),
        4 => source.real().into(),
        5 => source.of(&["open", "closed", "later"]).into(),
        6 => SECRET.into(),
        7 => source.few(|source| value(source, depth - 1)).into(),
        _ => Value::Object(
            source.few(|source| (source.text().to_owned(), value(source, depth - 1))).into_iter().collect(),
        ),
    }
}
