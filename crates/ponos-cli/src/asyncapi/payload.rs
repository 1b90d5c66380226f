//! Schemas of payloads, from JSON Schema 2020-12, which `schemars` writes, to AsyncAPI's, which is draft-07's.

use serde_json::{Map, Value, json};

/// Keys that hold a schema, a list of schemas, and schemas by name.
const ONE: &[&str] =
    &["additionalProperties", "items", "not", "if", "then", "else", "contains", "propertyNames"];
const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
const NAMED: &[&str] = &["properties", "patternProperties"];

/// Puts a message's schema, and whatever it defines, among the components under names that begin with `key`.
pub(super) fn add(schema: &Value, key: &str, components: &mut Map<String, Value>) {
    let mut payload = convert(schema, key);
    if let Value::Object(payload) = &mut payload {
        // The body carries it beside the fields; a handler never sees it.
        let tid = json!({ "type": "string", "description": "The transaction id." });
        if let Value::Object(properties) = payload.entry("properties").or_insert_with(|| json!({})) {
            properties.insert("tid".to_owned(), tid);
        }
    }
    components.insert(key.to_owned(), payload);
    for (name, definition) in schema.get("$defs").and_then(Value::as_object).into_iter().flatten() {
        components.insert(definition_key(key, name), convert(definition, key));
    }
}

fn definition_key(key: &str, name: &str) -> String {
    format!("{key}.{}", super::document::component_key(name))
}

fn convert(schema: &Value, key: &str) -> Value {
    let Value::Object(from) = schema else { return schema.clone() };
    let mut to = Map::new();
    for (name, value) in from {
        let word = name.as_str();
        let value = match (word, value) {
            // Each stands among the components; which version of JSON Schema it is, AsyncAPI says.
            ("$defs" | "$schema" | "$id" | "unevaluatedProperties", _) => continue,
            ("$ref", Value::String(target)) => json!(reference(target, key)),
            ("items", items) if from.contains_key("prefixItems") => {
                to.insert("additionalItems".to_owned(), convert(items, key));
                continue;
            }
            (word, Value::Array(schemas)) if LIST.contains(&word) => {
                schemas.iter().map(|schema| convert(schema, key)).collect()
            }
            (word, Value::Object(schemas)) if NAMED.contains(&word) => {
                schemas.iter().map(|(name, schema)| (name.clone(), convert(schema, key))).collect()
            }
            (word, schema) if ONE.contains(&word) => convert(schema, key),
            (_, value) => value.clone(),
        };
        to.insert(if word == "prefixItems" { "items".to_owned() } else { name.clone() }, value);
    }
    Value::Object(to)
}

/// Where a reference points in the document.
fn reference(target: &str, key: &str) -> String {
    let name = match target.strip_prefix("#/$defs/") {
        // A reference is a pointer within a URI: what it escapes is a name again.
        Some(name) => definition_key(key, &name.replace("~1", "/").replace("~0", "~")),
        None if target == "#" => key.to_owned(),
        None => return target.to_owned(),
    };
    format!("#/components/schemas/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_move_and_fields_that_are_called_like_keys_stay() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "$defs": { "Pair": { "type": "array", "prefixItems": [{ "type": "string" }, { "$ref": "#" }], "items": false } },
            "properties": { "$ref": { "$ref": "#/$defs/Pair" }, "prefixItems": { "type": "integer" } },
            "examples": [{ "$ref": "#/$defs/Pair" }]
        });
        let mut components = Map::new();
        add(&schema, "a.happened", &mut components);
        assert_eq!(
            Value::Object(components),
            json!({
                "a.happened": {
                    "type": "object",
                    "properties": { "$ref": { "$ref": "#/components/schemas/a.happened.Pair" },
                                    "prefixItems": { "type": "integer" },
                                    "tid": { "type": "string", "description": "The transaction id." } },
                    "examples": [{ "$ref": "#/$defs/Pair" }]
                },
                "a.happened.Pair": {
                    "type": "array", "additionalItems": false,
                    "items": [{ "type": "string" }, { "$ref": "#/components/schemas/a.happened" }]
                }
            })
        );
    }
}
