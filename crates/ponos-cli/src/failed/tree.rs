//! Bodies as trees that keep the order of their keys and every digit of their numbers.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What stands for a secret, and for one that differs from what it was.
pub(super) const REDACTED: &str = "‹redacted›";
const REDACTED_ANEW: &str = "‹redacted, changed›";

/// Words in a key whose value nobody needs to see; written small, in the singular.
const SECRET_WORDS: &[&str] = &[
    "auth",
    "authorization",
    "card",
    "cookie",
    "credential",
    "cvc",
    "cvv",
    "email",
    "iban",
    "passphrase",
    "passwd",
    "password",
    "phone",
    "pin",
    "pwd",
    "secret",
    "ssn",
    "token",
];

/// The same inside of longer words, and over several.
const SECRET_PARTS: &[&str] = &[
    "apikey",
    "authorization",
    "cardnumber",
    "creditcard",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "token",
];

/// A JSON value.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    /// A text, a number, `true`, `false` or `null`, as it was written.
    Scalar(Box<RawValue>),
}

impl Tree {
    /// The value, if the text is one of a depth that people and parsers can follow.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        crate::json::valid(json).and_then(Self::of)
    }

    fn of(json: &str) -> Option<Self> {
        Some(match json.trim_start().bytes().next()? {
            b'{' => {
                let pairs = serde_json::from_str::<Pairs<'_>>(json).ok()?.0;
                let pairs = pairs.into_iter().map(|(key, value)| Some((key, Self::of(value.get())?)));
                Self::Object(pairs.collect::<Option<_>>()?)
            }
            b'[' => {
                let items = serde_json::from_str::<Vec<&RawValue>>(json).ok()?;
                Self::Array(items.into_iter().map(|item| Self::of(item.get())).collect::<Option<_>>()?)
            }
            _ => Self::Scalar(serde_json::from_str(json).ok()?),
        })
    }

    pub(super) fn text(text: &str) -> Self {
        let json = serde_json::to_string(text).expect("a text is always JSON");
        Self::Scalar(RawValue::from_string(json).expect("it is JSON"))
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a tree of JSON is always JSON")
    }

    /// The value of a key of an object.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(pairs) => pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Takes a key out of an object.
    pub(super) fn remove(&mut self, key: &str) -> Option<Self> {
        match self {
            Self::Object(pairs) => {
                let at = pairs.iter().position(|(name, _)| name == key)?;
                Some(pairs.remove(at).1)
            }
            _ => None,
        }
    }

    /// Puts a value at a path of keys and numbers with dots between; the last key may be new.
    ///
    /// # Errors
    ///
    /// When the way there does not exist.
    pub(super) fn set(&mut self, path: &str, value: Self) -> Result<(), String> {
        let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
        if head.is_empty() {
            return Err(format!("`{path}` is no path of keys with dots between"));
        }
        let slot = match self {
            Self::Object(pairs) => match pairs.iter().position(|(name, _)| name == head) {
                Some(at) => &mut pairs[at].1,
                None if rest.is_none() => {
                    pairs.push((head.to_owned(), value));
                    return Ok(());
                }
                None => return Err(format!("there is no `{head}`")),
            },
            Self::Array(items) => {
                let length = items.len();
                head.parse()
                    .ok()
                    .and_then(|at: usize| items.get_mut(at))
                    .ok_or_else(|| format!("`{head}` is no place in an array of {length}"))?
            }
            Self::Scalar(_) => {
                return Err(format!("`{head}` is to be inside of what is no object and no array"));
            }
        };
        match rest {
            Some(rest) => slot.set(rest, value),
            None => {
                *slot = value;
                Ok(())
            }
        }
    }

    /// Applies a merge patch (RFC 7396): objects are merged, `null` removes, all else replaces.
    pub(super) fn merge(&mut self, patch: Self) {
        let Self::Object(patch) = patch else {
            *self = patch;
            return;
        };
        if !matches!(self, Self::Object(_)) {
            *self = Self::Object(Vec::new());
        }
        for (key, value) in patch {
            if matches!(&value, Self::Scalar(raw) if raw.get() == "null") {
                self.remove(&key);
                continue;
            }
            let Self::Object(pairs) = self else { return };
            match pairs.iter_mut().find(|(name, _)| *name == key) {
                Some((_, old)) => old.merge(value),
                None => {
                    let mut new = Self::Object(Vec::new());
                    new.merge(value);
                    pairs.push((key, new));
                }
            }
        }
    }

    /// The same with what looks like a secret masked; what differs from `before` says so.
    pub(super) fn redacted(&self, before: Option<&Self>) -> Self {
        match self {
            Self::Object(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| {
                    let was = before.and_then(|before| before.get(key));
                    let value = if !is_secret(key) {
                        value.redacted(was)
                    } else if before.is_some() && was.map(Self::to_json) != Some(value.to_json()) {
                        Self::text(REDACTED_ANEW)
                    } else {
                        Self::text(REDACTED)
                    };
                    (key.clone(), value)
                });
                Self::Object(pairs.collect())
            }
            Self::Array(items) => {
                let was = |n: usize| match before {
                    Some(Self::Array(items)) => items.get(n),
                    _ => None,
                };
                Self::Array(items.iter().enumerate().map(|(n, item)| item.redacted(was(n))).collect())
            }
            Self::Scalar(_) => self.clone(),
        }
    }
}

/// Whether a key's value is not to be seen.
fn is_secret(key: &str) -> bool {
    let mut words: Vec<String> = vec![String::new()];
    let mut before_was_small = false;
    for c in key.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && before_was_small) {
            words.push(String::new());
        }
        before_was_small = c.is_lowercase() || c.is_numeric();
        if c.is_alphanumeric() {
            words.last_mut().expect("there is always one").extend(c.to_lowercase());
        }
    }
    let secret = |word: &String| {
        let word = word.trim_end_matches(|c: char| c.is_numeric());
        SECRET_WORDS.contains(&word) || word.strip_suffix('s').is_some_and(|one| SECRET_WORDS.contains(&one))
    };
    let joined = words.concat();
    words.iter().any(secret) || SECRET_PARTS.iter().any(|part| joined.contains(part))
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                for (key, value) in pairs {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Self::Array(items) => items.serialize(serializer),
            Self::Scalar(raw) => raw.serialize(serializer),
        }
    }
}

/// An object's keys and values in their order.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Reading).map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn order_and_digits_are_kept() {
        let json =
            r#"{"z":1.10,"a":{"big":123456789012345678901234567890,"s":"x\"\u00e9"},"l":[1,{},[],null]}"#;
        assert_eq!(tree(json).to_json(), json);
        assert!(Tree::parse(b"{").is_none() && Tree::parse(&[b'['; 500]).is_none());
    }

    #[test]
    fn a_path_leads_to_a_value() {
        let mut body = tree(r#"{"org":{"id":1},"items":[{"n":1},2]}"#);
        body.set("org.id", tree("2")).unwrap();
        body.set("org.name", Tree::text("a")).unwrap();
        body.set("items.0.n", tree("[]")).unwrap();
        body.set("items.1", tree("null")).unwrap();
        assert_eq!(body.to_json(), r#"{"org":{"id":2,"name":"a"},"items":[{"n":[]},null]}"#);
        for path in ["", "org.", "nobody.id", "items.2", "items.x", "org.id.deep"] {
            assert!(body.set(path, tree("1")).is_err(), "{path}");
        }
    }

    #[test]
    fn a_merge_patch_is_that_of_its_rfc() {
        for (body, patch, result) in [
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":{"b":"c","x":1}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d","x":1}}"#),
            (r#"{"a":[1]}"#, r#"{"a":[2,3],"n":{"x":{"y":null}}}"#, r#"{"a":[2,3],"n":{"x":{}}}"#),
        ] {
            let mut body = tree(body);
            body.merge(tree(patch));
            assert_eq!(body.to_json(), result);
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_masked_wherever_it_is() {
        for key in [
            "password",
            "userPassword",
            "access_token",
            "Authorization",
            "card",
            "cardNumber",
            "CVV2",
            "emails",
            "api-key",
            "apiKey",
            "clientsecret",
        ] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["discard", "template", "amount_cents", "author", "pinned", "org", "cardinality"] {
            assert!(!is_secret(key), "{key}");
        }
        let body = tree(r#"{"org":1,"users":[{"email":"a@b","n":{"token":{"deep":[1]}}}]}"#);
        let masked = body.redacted(None).to_json();
        assert_eq!(masked, r#"{"org":1,"users":[{"email":"‹redacted›","n":{"token":"‹redacted›"}}]}"#);
        let mut other = body.clone();
        other.set("users.0.email", Tree::text("c@d")).unwrap();
        assert!(
            other
                .redacted(Some(&body))
                .to_json()
                .contains(r#""email":"‹redacted, changed›","n":{"token":"‹redacted›"#)
        );
    }
}
