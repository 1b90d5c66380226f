//! A schema as the forms that a value can have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

/// How deep references and alternatives are followed, and how many forms are told apart.
const DEPTH: usize = 32;
const FORMS: usize = 256;

/// One form.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape<'a> {
    Any,
    Null,
    Boolean,
    Number,
    Integer(Range),
    /// A text, with its format where one is told.
    Text(Option<&'a str>),
    /// Exactly this value.
    Constant(&'a Value),
    List(List<'a>),
    Object(Object<'a>),
}

/// From … to …, both included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range(i128, i128);

/// An array: the first elements one by one, and all that follow.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct List<'a> {
    first: Vec<&'a Value>,
    rest: Option<&'a Value>,
    length: Option<u64>,
}

/// An object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object<'a> {
    pub(super) properties: BTreeMap<&'a str, &'a Value>,
    pub(super) required: BTreeSet<&'a str>,
    pub(super) rest: Rest<'a>,
}

/// What becomes of fields that are not named.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rest<'a> {
    Ignored,
    Refused,
    /// It is a map: they are values.
    Map(&'a Value),
}

/// The forms that a schema allows. What is not understood is [`Shape::Any`].
pub(super) fn shapes<'a>(root: &'a Value, schema: &'a Value) -> Vec<Shape<'a>> {
    let mut forms = Vec::new();
    collect(root, schema, DEPTH, &mut forms);
    if forms.len() > FORMS { vec![Shape::Any] } else { forms }
}

/// What a schema refers to, or itself. Only what the schema itself defines is found.
pub(super) fn target<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut at = schema;
    for _ in 0..DEPTH {
        let pointer =
            at.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
        match pointer.and_then(|pointer| root.pointer(pointer)) {
            Some(next) => at = next,
            None => break,
        }
    }
    at
}

fn collect<'a>(root: &'a Value, schema: &'a Value, depth: usize, into: &mut Vec<Shape<'a>>) {
    let keys = match schema {
        Value::Bool(false) => return,
        Value::Object(keys) if depth > 0 && into.len() <= FORMS => keys,
        _ => return into.push(Shape::Any),
    };
    if keys.contains_key("$ref") {
        let target = target(root, schema);
        return if std::ptr::eq(target, schema) {
            into.push(Shape::Any);
        } else {
            collect(root, target, depth - 1, into);
        };
    }
    if let Some(value) = keys.get("const") {
        return into.push(Shape::Constant(value));
    }
    if let Some(values) = keys.get("enum").and_then(Value::as_array) {
        return into.extend(values.iter().map(Shape::Constant));
    }
    if let Some(alternatives) = ["oneOf", "anyOf"].iter().find_map(|key| keys.get(*key)?.as_array()) {
        let start = into.len();
        for alternative in alternatives {
            collect(root, alternative, depth - 1, into);
        }
        // What stands beside them holds for each: a struct with a flattened enum.
        if keys.contains_key("properties") {
            let base = Object::of(keys);
            for form in &mut into[start..] {
                if let Shape::Object(object) = form {
                    object.join(&base);
                }
            }
        }
        return;
    }
    if let Some(parts) = keys.get("allOf").and_then(Value::as_array) {
        return into.push(all_of(root, keys, parts, depth));
    }
    match keys.get("type") {
        Some(Value::String(kind)) => into.push(of_type(kind, keys)),
        Some(Value::Array(kinds)) => {
            into.extend(kinds.iter().filter_map(Value::as_str).map(|kind| of_type(kind, keys)));
        }
        _ if keys.contains_key("properties") => into.push(of_type("object", keys)),
        _ => into.push(Shape::Any),
    }
}

/// All parts at once: objects are joined, of anything else the first that says something counts.
fn all_of<'a>(root: &'a Value, keys: &'a Map<String, Value>, parts: &'a [Value], depth: usize) -> Shape<'a> {
    let mut joined = keys.contains_key("properties").then(|| Object::of(keys));
    for part in parts {
        let mut forms = Vec::new();
        collect(root, part, depth - 1, &mut forms);
        match (forms.into_iter().next(), &mut joined) {
            (Some(Shape::Object(object)), Some(joined)) => joined.join(&object),
            (Some(Shape::Object(object)), none) => *none = Some(object),
            (Some(Shape::Any) | None, _) => {}
            (Some(other), None) => return other,
            (Some(_), Some(_)) => return Shape::Any,
        }
    }
    joined.map_or(Shape::Any, Shape::Object)
}

fn of_type<'a>(kind: &str, keys: &'a Map<String, Value>) -> Shape<'a> {
    match kind {
        "null" => Shape::Null,
        "boolean" => Shape::Boolean,
        "number" => Shape::Number,
        "integer" => Shape::Integer(Range::of(keys)),
        "string" => Shape::Text(keys.get("format").and_then(Value::as_str)),
        "array" => Shape::List(List::of(keys)),
        "object" => Shape::Object(Object::of(keys)),
        _ => Shape::Any,
    }
}

impl<'a> Shape<'a> {
    /// The type's name in JSON Schema.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Any => "anything",
            Self::Null | Self::Constant(Value::Null) => "null",
            Self::Boolean | Self::Constant(Value::Bool(_)) => "boolean",
            Self::Integer(_) => "integer",
            Self::Constant(Value::Number(number)) if !number.is_f64() => "integer",
            Self::Number | Self::Constant(Value::Number(_)) => "number",
            Self::Text(_) | Self::Constant(Value::String(_)) => "string",
            Self::List(_) | Self::Constant(Value::Array(_)) => "array",
            Self::Object(_) | Self::Constant(Value::Object(_)) => "object",
        }
    }

    pub(super) fn as_list(&self) -> Option<&List<'a>> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    pub(super) fn as_object(&self) -> Option<&Object<'a>> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }
}

impl Range {
    /// By the format that `schemars` writes for Rust's integers, and by limits that are told.
    fn of(keys: &Map<String, Value>) -> Self {
        let (from, to) = match keys.get("format").and_then(Value::as_str) {
            Some("int8") => (i8::MIN.into(), i8::MAX.into()),
            Some("int16") => (i16::MIN.into(), i16::MAX.into()),
            Some("int32") => (i32::MIN.into(), i32::MAX.into()),
            Some("int64" | "int") => (i64::MIN.into(), i64::MAX.into()),
            Some("uint8") => (0, u8::MAX.into()),
            Some("uint16") => (0, u16::MAX.into()),
            Some("uint32") => (0, u32::MAX.into()),
            Some("uint64" | "uint") => (0, u64::MAX.into()),
            _ => (i128::MIN, i128::MAX),
        };
        let limit = |key: &str| {
            let value = keys.get(key)?;
            value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
        };
        Self(limit("minimum").map_or(from, |n| n.max(from)), limit("maximum").map_or(to, |n| n.min(to)))
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        self.0 <= other.0 && other.1 <= self.1
    }

    pub(super) fn holds(&self, value: i128) -> bool {
        self.0 <= value && value <= self.1
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (i128::MIN, i128::MAX) => f.write_str("of any size"),
            (from, i128::MAX) => write!(f, "from {from}"),
            (i128::MIN, to) => write!(f, "up to {to}"),
            (from, to) => write!(f, "from {from} to {to}"),
        }
    }
}

impl<'a> List<'a> {
    fn of(keys: &'a Map<String, Value>) -> Self {
        let first: Vec<_> = keys.get("prefixItems").and_then(Value::as_array).into_iter().flatten().collect();
        let rest = keys.get("items").filter(|items| items.as_bool() != Some(false));
        let least = keys.get("minItems").and_then(Value::as_u64);
        let length = least.filter(|least| keys.get("maxItems").and_then(Value::as_u64) == Some(*least));
        Self { first, rest, length }
    }

    /// How many elements it has, where that is fixed.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The elements by which two lists have to be compared: their place, and the schema of each.
    pub(super) fn pairs(&self, other: &Self) -> Vec<(Option<usize>, &'a Value, &'a Value)> {
        let places = self.first.len().max(other.first.len());
        let mut pairs: Vec<_> =
            (0..places).filter_map(|place| Some((Some(place), self.at(place)?, other.at(place)?))).collect();
        if let (Some(one), Some(another)) = (self.rest, other.rest) {
            pairs.push((None, one, another));
        }
        pairs
    }

    fn at(&self, place: usize) -> Option<&'a Value> {
        self.first.get(place).copied().or(self.rest)
    }
}

impl<'a> Object<'a> {
    fn of(keys: &'a Map<String, Value>) -> Self {
        let properties = keys.get("properties").and_then(Value::as_object);
        let properties =
            properties.into_iter().flatten().map(|(name, schema)| (name.as_str(), schema)).collect();
        let required = keys.get("required").and_then(Value::as_array);
        let required = required.into_iter().flatten().filter_map(Value::as_str).collect();
        let rest = ["additionalProperties", "unevaluatedProperties"].iter().find_map(|key| keys.get(*key));
        let rest = match rest {
            None => Rest::Ignored,
            Some(Value::Bool(false)) => Rest::Refused,
            Some(values) => Rest::Map(values),
        };
        Self { properties, required, rest }
    }

    fn join(&mut self, other: &Self) {
        self.properties.extend(other.properties.iter().map(|(name, schema)| (*name, *schema)));
        self.required.extend(other.required.iter());
        if self.rest == Rest::Ignored {
            self.rest = other.rest;
        }
    }
}
