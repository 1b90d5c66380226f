//! Where two documents differ.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// One place.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Difference {
    /// A JSON pointer (RFC 6901).
    pub(super) at: String,
    pub(super) committed: Option<Value>,
    pub(super) now: Option<Value>,
}

/// Every place, as deep as both have it.
pub(super) fn between(committed: &Value, now: &Value) -> Vec<Difference> {
    let mut differences = Vec::new();
    compare(Some(committed), Some(now), "", &mut differences);
    differences
}

fn compare(committed: Option<&Value>, now: Option<&Value>, at: &str, into: &mut Vec<Difference>) {
    match (committed, now) {
        (one, another) if one == another => {}
        (Some(Value::Object(one)), Some(Value::Object(another))) => {
            let more = another.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(more) {
                let step = key.replace('~', "~0").replace('/', "~1");
                compare(one.get(key), another.get(key), &format!("{at}/{step}"), into);
            }
        }
        (one, another) => {
            into.push(Difference { at: at.to_owned(), committed: one.cloned(), now: another.cloned() });
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.committed, &self.now) {
            (None, Some(_)) => write!(f, "+ {}", self.at),
            (Some(_), None) => write!(f, "- {}", self.at),
            (Some(committed), Some(now)) => write!(f, "~ {}: {committed} is now {now}", self.at),
            (None, None) => f.write_str(&self.at),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::between;

    #[test]
    fn every_place_is_told_once() {
        let committed = json!({ "a": { "b/c": 1, "gone": [] }, "same": true });
        let now = json!({ "a": { "b/c": 2, "new": {} }, "same": true });
        let told: Vec<String> = between(&committed, &now).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["~ /a/b~1c: 1 is now 2", "- /a/gone", "+ /a/new"]);
        assert_eq!(between(&now, &now), []);
    }
}
