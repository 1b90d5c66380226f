#![allow(missing_debug_implementations, dead_code, reason = "types of tests are there for their schemas")]

use std::collections::BTreeMap;

use ponos::Payload;
use ponos::prelude::*;
use serde_json::{Value, json};

use super::misfits;

fn told(writer: &Value, reader: &Value) -> Vec<String> {
    let found = misfits(writer, reader);
    found.iter().map(|m| format!("{:?} {}: {}", m.weight, m.field, m.what)).collect()
}

/// An object with one field, required on both sides.
fn field(schema: &Value) -> Value {
    json!({ "title": "T", "type": "object", "properties": { "f": schema }, "required": ["f"] })
}

#[track_caller]
fn fits(writer: Value, reader: Value) {
    assert_eq!(told(&field(&writer), &field(&reader)), [""; 0]);
}

#[track_caller]
fn misfit(writer: Value, reader: Value, told_as: &str) {
    assert_eq!(told(&field(&writer), &field(&reader)), [told_as]);
}

#[test]
fn types_are_told_apart() {
    let (text, int, float) = (json!({"type":"string"}), json!({"type":"integer"}), json!({"type":"number"}));
    misfit(text.clone(), int.clone(), "Breaking f: string is sent, integer is read");
    misfit(float.clone(), int.clone(), "Breaking f: number is sent, integer is read");
    fits(int.clone(), float);
    fits(int.clone(), json!({}));
    fits(int.clone(), json!(true));
    misfit(json!({}), int.clone(), "Breaking f: anything may be sent, integer is read");
    fits(json!({"const": 7}), int.clone());
    misfit(json!({"const": "7"}), int, "Breaking f: string is sent, integer is read");
    fits(json!({"enum": ["a"]}), text);
}

#[test]
fn null_has_to_be_read() {
    let (nullable, text) = (json!({"type":["string","null"]}), json!({"type":"string"}));
    misfit(nullable.clone(), text.clone(), "Breaking f: it may be null, and that is not read");
    fits(text, nullable.clone());
    fits(nullable.clone(), json!({"anyOf":[{"type":"string"},{"type":"null"}]}));
    fits(json!({"type":"null"}), nullable);
}

#[test]
fn values_of_enums_are_known_or_not() {
    let (two, three) =
        (json!({"enum":["a","b"]}), json!({"oneOf":[{"const":"a"},{"const":"b"},{"const":"c"}]}));
    fits(two.clone(), three.clone());
    misfit(three, two.clone(), "Breaking f: `c` may be sent, only `a`, `b` is known");
    misfit(json!({"type":"string"}), two, "Breaking f: any text may be sent, only `a`, `b` is known");
}

#[test]
fn numbers_and_texts_have_limits() {
    let int = |format: &str| json!({"type":"integer","format":format});
    fits(int("uint32"), int("int64"));
    misfit(
        int("uint32"),
        int("uint8"),
        "Narrowing f: integers from 0 to 4294967295 are sent, from 0 to 255 are read",
    );
    let (text, time) = (json!({"type":"string"}), json!({"type":"string","format":"date-time"}));
    misfit(
        text.clone(),
        time.clone(),
        "Narrowing f: any text is sent, a text in the form `date-time` is read",
    );
    fits(time, text);
}

#[test]
fn lists_are_compared_by_their_elements() {
    let list = |items: Value| json!({"type":"array","items":items});
    misfit(
        list(json!({"type":"string"})),
        list(json!({"type":"integer"})),
        "Breaking f[]: string is sent, integer is read",
    );
    let pair = |second: &str| json!({"type":"array","prefixItems":[{"type":"string"},{"type":second}],"minItems":2,"maxItems":2});
    fits(pair("integer"), pair("integer"));
    misfit(pair("integer"), pair("string"), "Breaking f[1]: integer is sent, string is read");
    misfit(
        list(json!({"type":"string"})),
        json!({"type":"array","items":{"type":"string"},"minItems":2,"maxItems":2}),
        "Breaking f: any number of elements may be sent, 2 are read",
    );
}

#[test]
fn fields_may_be_more_and_not_fewer() {
    let object = |fields: &[&str], required: &[&str]| {
        let fields: BTreeMap<_, _> = fields.iter().map(|f| (*f, json!({"type":"string"}))).collect();
        json!({"title":"T","type":"object","properties":fields,"required":required})
    };
    assert_eq!(told(&object(&["a", "b"], &["a", "b"]), &object(&["a"], &["a"])), [""; 0]);
    assert_eq!(
        told(&object(&["a"], &["a"]), &object(&["a", "b"], &["a", "b"])),
        ["Breaking b: it is not sent, and it is required"]
    );
    assert_eq!(
        told(&object(&["a"], &[]), &object(&["a"], &["a"])),
        ["Breaking a: it may be missing, and it is required"]
    );
    assert_eq!(
        told(&object(&["a"], &["a"]), &object(&["a", "b"], &["a"])),
        ["Lost b: it is not sent, and is read where it is there"]
    );
    let mut strict = object(&["a"], &["a"]);
    strict["additionalProperties"] = false.into();
    assert_eq!(
        told(&object(&["a", "b"], &["a", "b"]), &strict),
        ["Breaking b: it is sent, and unknown fields are refused"]
    );
    let map = json!({"title":"T","type":"object","additionalProperties":{"type":"integer"}});
    assert_eq!(told(&object(&["a"], &["a"]), &map), ["Breaking a: string is sent, integer is read"]);
    assert_eq!(told(&map, &object(&["a"], &["a"])), [""; 0], "a map may have it");
    assert_eq!(told(&json!({"type":"object"}), &object(&["a"], &["a"])), [""; 0], "nothing is told of it");
}

#[test]
fn a_type_that_holds_itself_ends_and_a_reference_into_nothing_is_anything() {
    let tree = |leaf: &str| {
        json!({"title":"T","type":"object","required":["tree"],"properties":{"tree":{"$ref":"#/$defs/Tree"}},
               "$defs":{"Tree":{"type":"object","required":["leaf","below"],"properties":{
                   "leaf":{"type":leaf},"below":{"type":"array","items":{"$ref":"#/$defs/Tree"}}}}}})
    };
    assert_eq!(told(&tree("string"), &tree("string")), [""; 0]);
    assert_eq!(
        told(&tree("string"), &tree("integer")),
        ["Breaking tree.leaf: string is sent, integer is read"]
    );
    fits(json!({"type":"string"}), json!({"$ref":"https://elsewhere.example/schema"}));
    let endless = json!({"title":"T","type":"object","properties":{"f":{"$ref":"#/properties/f"}}});
    assert_eq!(told(&endless, &endless), [""; 0]);
}

/// A schema of another's making must not keep the check busy for ever.
#[test]
fn a_schema_that_branches_without_end_ends() {
    let many: Vec<Value> = (0..16).map(|_| json!({"$ref":"#/$defs/A"})).collect();
    let bomb = |kind: &str| {
        json!({"title":"T","type":"object","properties":{"f":{"$ref":"#/$defs/A"}},
               "$defs":{"A":{"anyOf":[{"type":"object","properties":{"x":{"anyOf":many},"y":{"anyOf":many},"k":{"type":kind}}}]}}})
    };
    let started = std::time::Instant::now();
    let _ = misfits(&bomb("string"), &bomb("integer"));
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

mod now {
    use super::*;

    #[data]
    pub(super) struct Line {
        pub cents: i64,
        pub note: Option<String>,
    }

    #[data]
    pub(super) enum Kind {
        /// Money comes.
        Debit,
        /// Money goes.
        Credit,
        Other(String),
    }

    #[data]
    #[serde(tag = "by", rename_all = "lowercase")]
    pub(super) enum Payer {
        Card { number: String },
        Cash { cents: u32 },
    }

    #[event("ledger.entry.booked")]
    pub(super) struct Booked {
        pub lines: Vec<Line>,
        pub kind: Kind,
        pub payer: Payer,
        pub main: Option<Line>,
        #[serde(default)]
        pub tags: Vec<String>,
        pub sums: BTreeMap<String, u64>,
        pub place: (f64, f64),
    }
}

mod before {
    use super::*;

    #[data]
    pub(super) struct Line {
        pub cents: i64,
    }

    #[data]
    pub(super) enum Kind {
        Debit,
        Credit,
    }

    #[data]
    #[serde(tag = "by", rename_all = "lowercase")]
    pub(super) enum Payer {
        Card { number: String },
    }

    #[event("ledger.entry.booked")]
    pub(super) struct Booked {
        pub lines: Vec<Line>,
        pub kind: Kind,
        pub payer: Payer,
        pub main: Line,
        pub sums: BTreeMap<String, u64>,
        pub place: (f64, f64),
    }
}

#[test]
fn schemas_as_the_derives_write_them_are_understood() {
    let (now, before) = (now::Booked::schema(), before::Booked::schema());
    assert_eq!(told(&now, &now), [""; 0]);
    assert_eq!(told(&before, &before), [""; 0]);
    let found = told(&now, &before);
    let breaking: Vec<&String> = found.iter().filter(|misfit| misfit.starts_with("Breaking")).collect();
    assert_eq!(
        breaking,
        [
            "Breaking kind: object is sent, string is read",
            "Breaking main: it may be missing, and it is required",
            "Breaking main: it may be null, and that is not read",
            "Breaking payer.by: `cash` may be sent, only `card` is known",
            "Breaking payer.number: it is not sent, and it is required",
        ]
    );
    // The other way round everything is read but what may be missing anyway.
    assert!(told(&before, &now).iter().all(|misfit| misfit.starts_with("Lost")), "{:?}", told(&before, &now));
}
