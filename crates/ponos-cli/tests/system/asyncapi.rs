//! `ponos asyncapi`.

use serde_json::{Value, json};

use super::set::{Set, command, finish, manifest, object, reaction, task};

/// What the specification's own schema has against a document.
fn faults(document: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(include_str!("asyncapi-spec/3.0.0.json")).unwrap();
    let validator = jsonschema::draft7::new(&schema).unwrap();
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn document(set: &Set, options: &[&str]) -> Value {
    serde_json::from_str(&set.run(&["asyncapi"], options).ends(0).out).unwrap()
}

#[test]
fn the_document_is_valid_by_the_specification_itself() {
    for set in [Set::clean(), Set::shown()] {
        let whole = document(&set, &[]);
        assert_eq!(faults(&whole), [""; 0]);
        for name in set.0.keys() {
            let app = name.trim_end_matches(".json");
            let one = document(&set, &["--app", app]);
            assert_eq!(faults(&one), [""; 0], "{app}");
            assert_eq!(one["info"]["title"], app);
        }
    }
}

#[test]
fn the_specification_would_tell_what_is_wrong() {
    let good = document(&Set::shown(), &[]);
    let spoiled = |path: &str, value: Value| {
        let mut document = good.clone();
        *document.pointer_mut(path).unwrap() = value;
        faults(&document).len()
    };
    assert!(spoiled("/channels/email.sent/bindings/amqp/is", json!("fanout")) > 0);
    assert!(spoiled("/operations/pheidi.emit.email.sent/action", json!("publish")) > 0);
    assert!(spoiled("/components/messages/email.sent/correlationId", json!({ "location": "tid" })) > 0);
}

#[test]
fn every_reference_points_at_something() {
    let document = document(&Set::clean(), &[]);
    let mut open = vec![&document];
    let mut references = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(keys) => {
                if let Some(Value::String(target)) = keys.get("$ref") {
                    assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                    references += 1;
                }
                open.extend(keys.values());
            }
            Value::Array(values) => open.extend(values),
            _ => {}
        }
    }
    assert!(references > 100, "{references}");
}

#[test]
fn an_application_sends_and_receives_what_its_manifest_says() {
    let document = document(&Set::shown(), &["--app", "pheidi"]);
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(
        document["info"],
        json!({ "title": "pheidi", "version": "1.0.0", "tags": [{ "name": "pheidi" }] })
    );
    let operations: Vec<&str> =
        document["operations"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        operations,
        [
            "pheidi.create.pheidi.email.send",
            "pheidi.emit.email.sent",
            "pheidi.on.org.payment.failed",
            "pheidi.on.org.payment.processed",
            "pheidi.perform.pheidi.email.send",
        ]
    );
    assert_eq!(
        document["channels"]["org.payment.processed"],
        json!({
            "address": "org.payment.processed",
            "messages": { "org.payment.processed": { "$ref": "#/components/messages/org.payment.processed" } },
            "bindings": { "amqp": {
                "is": "routingKey", "bindingVersion": "0.3.0",
                "exchange": { "name": "org.payment.processed", "type": "fanout", "durable": true, "autoDelete": false, "vhost": "/" }
            } }
        })
    );
    let on = &document["operations"]["pheidi.on.org.payment.processed"];
    assert_eq!(
        (&on["action"], &on["x-ponos"]["queue"]),
        (&json!("receive"), &json!("pheidi.org.payment.processed"))
    );
    let payload = &document["components"]["schemas"]["org.payment.processed"];
    assert_eq!(payload["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["org", "tid"]);
    let out = Set::shown().run(&["asyncapi"], &["--app", "phedi"]).ends(1);
    assert!(out.err.contains("did you mean `pheidi`?"), "{out:?}");
}

#[test]
fn a_committed_document_that_drifts_is_told() {
    let mut set = Set::shown();
    let folder = set.folder();
    let run = |options: &[&str], set: &Set| {
        let mut command = command(&folder);
        command.arg("asyncapi").args(set.0.keys()).args(options);
        finish(command)
    };
    assert_eq!(run(&["--out", "committed"], &set).ends(0).out, "");
    assert_eq!(run(&["--check", "committed"], &set).ends(0).out, "committed is what the manifests say\n");
    // Another machine has other cores; the layout of the file is nobody's business.
    set.app("pheidi")["tasks"][0]["policy"]["concurrency"] = 99.into();
    let text = std::fs::read_to_string(folder.path().join("committed")).unwrap();
    let compact = serde_json::from_str::<Value>(&text).unwrap().to_string();
    std::fs::write(folder.path().join("committed"), compact).unwrap();
    let save = |set: &Set| {
        for (name, manifest) in &set.0 {
            std::fs::write(folder.path().join(name), manifest.to_string()).unwrap();
        }
    };
    save(&set);
    run(&["--check", "committed"], &set).ends(0);

    set.app("cream")["events"]["org.payment.processed"]["schema"]["properties"]["amount"] =
        json!({ "type": "string" });
    set.app("pheidi")["tasks"][0]["emits"] = json!([]);
    save(&set);
    let ran = run(&["--check", "committed"], &set).ends(1);
    assert!(ran.out.starts_with("committed differs from the manifests in "), "{ran:?}");
    let changed =
        "~ /components/schemas/org.payment.processed/properties/amount/type: \"integer\" is now \"string\"\n";
    assert!(ran.out.contains(changed), "{ran:?}");
    assert!(ran.out.contains("- /operations/pheidi.emit.email.sent\n"), "{ran:?}");
    let json = run(&["--check", "committed", "--json"], &set).ends(1).json();
    assert!(json["drift"].as_array().unwrap().iter().any(|place| place["now"] == "string"), "{json:#}");
    assert!(run(&["--check", "nowhere"], &set).ends(1).err.contains("--out nowhere"));
}

#[test]
fn names_that_are_none_still_make_a_valid_document() {
    let evil = "a/~b \"<x>|\u{1b}[2J\u{202e}";
    let set = Set::shown().with(|set| {
        let hostile = manifest(
            evil,
            &[(evil, object(evil, &[(evil, "string")]))],
            &[reaction(evil, evil, &[evil])],
            &[task(evil, &[evil])],
        );
        set.add("evil", hostile);
    });
    let ran = set.run(&["asyncapi"], &[]).ends(0);
    assert!(!ran.out.chars().any(|c| matches!(c, '\u{1b}' | '\u{202e}')), "{ran:?}");
    assert_eq!(faults(&serde_json::from_str(&ran.out).unwrap()), [""; 0]);
}
