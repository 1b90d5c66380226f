//! Whether a body has the shape that a service's manifest gives to a payload: required fields and the kinds of values,
//! as deep as the schema tells without alternatives. What it does not understand it lets pass; the service decides.

use serde_json::Value;

/// How deep a schema is followed.
const DEEPEST: usize = 32;

/// What is wrong with a body, or nothing.
pub(super) fn problems(schema: &Value, body: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    check(schema, schema, body, "", DEEPEST, &mut problems);
    problems
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, depth: usize, problems: &mut Vec<String>) {
    let Some(schema) = resolve(root, schema) else { return };
    if depth == 0 {
        return;
    }
    let named = if at.is_empty() { "the body".to_owned() } else { format!("`{at}`") };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is(value, kind)) {
        problems.push(format!("{named} is {} and must be {}", kind_of(value), kinds.join(" or ")));
        return;
    }
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match value {
        Value::Object(fields) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for key in required.filter(|key| !fields.contains_key(*key)) {
                problems.push(format!("`{}` is missing", below(key)));
            }
            let properties = &schema["properties"];
            for (key, value) in fields {
                match properties.get(key) {
                    Some(schema) => check(root, schema, value, &below(key), depth - 1, problems),
                    None if schema["additionalProperties"] == Value::Bool(false) => {
                        problems.push(format!("`{}` is not known", below(key)));
                    }
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                check(root, &schema["items"], item, &below(&n.to_string()), depth - 1, problems);
            }
        }
        _ => {}
    }
}

/// Follows one `$ref` into the same document.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> Option<&'a Value> {
    match schema.get("$ref") {
        None => schema.is_object().then_some(schema),
        Some(reference) => root.pointer(reference.as_str()?.strip_prefix('#')?),
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => true,
    }
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn required_fields_and_kinds_are_checked() {
        let schema = json!({
            "type": "object", "required": ["org", "n"],
            "properties": {"org": {"$ref": "#/$defs/Org"}, "n": {"type": ["integer", "null"]},
                "l": {"type": "array", "items": {"type": "string"}}, "any": {"anyOf": []}},
            "$defs": {"Org": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}}
        });
        let of = |body: Value| problems(&schema, &body);
        assert_eq!(of(json!({"org": {"id": 1}, "n": null, "any": 3, "more": 1})), [""; 0]);
        assert_eq!(
            of(json!({"org": {"id": "1"}})),
            ["`n` is missing", "`org.id` is a text and must be integer"]
        );
        assert_eq!(of(json!({"org": {}, "n": 1.5, "l": ["a", 2]})).len(), 3);
        assert_eq!(of(json!([])), ["the body is an array and must be object"]);
        // A schema that refers to itself ends.
        let own = json!({"$ref": "#"});
        assert_eq!(problems(&own, &json!({})), [""; 0]);
    }
}
