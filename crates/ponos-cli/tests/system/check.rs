//! `ponos check`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::set::{Set, manifest, object, reaction, task};

/// The codes that a check finds.
fn codes(report: &Value) -> Vec<String> {
    report["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn check(set: &Set) -> Value {
    let ran = set.run(&["check"], &["--json"]);
    let report = ran.json();
    ran.ends(i32::from(report["errors"] != 0));
    report
}

#[track_caller]
fn against(set: &Set, old: &Set) -> Value {
    let ran = set.run_against(&["check"], &["--json"], Some(old));
    let report = ran.json();
    ran.ends(i32::from(report["errors"] != 0));
    report
}

fn property<'a>(set: &'a mut Set, app: &str, event: &str, field: &str) -> &'a mut Value {
    &mut set.app(app)["events"][event]["schema"]["properties"][field]
}

/// A fault: what it is called, how it is found, and how it comes to be.
type Fault = (&'static str, fn(&mut Set));

#[test]
fn check_finds_each_of_twelve_planted_faults_and_is_silent_on_the_clean_set() {
    let clean = Set::clean();
    assert!(clean.0.len() >= 5);
    let report = check(&clean);
    assert_eq!(report["findings"], json!([]), "{report:#}");
    clean.run(&["check"], &["--deny-warnings"]).ends(0);

    let faults: [Fault; 12] = [
        ("schema-breaking", |set| {
            *property(set, "cream", "org.payment.processed", "amount_cents") = json!({ "type": "string" });
        }),
        ("schema-narrowing", |set| {
            *property(set, "ledger", "org.payment.processed", "amount_cents") =
                json!({ "type": "integer", "format": "uint32", "minimum": 0 });
        }),
        ("event-unheard", |set| {
            set.app("cream")["tasks"][0]["emits"].as_array_mut().unwrap().push("org.card.charged".into());
        }),
        ("event-unpublished", |set| {
            let stray = reaction("ledger", "org.payment.procesed", &["ledger.entry.book"]);
            set.app("ledger")["reactions"].as_array_mut().unwrap().push(stray);
        }),
        ("task-unowned", |set| {
            set.app("pheidi")["reactions"][0]["creates"] = json!(["pheidi.email.send", "pheidi.emial.send"]);
        }),
        ("task-foreign", |set| {
            set.app("deploy")["reactions"][0]["creates"] = json!(["deploy.build.start", "ledger.entry.book"]);
        }),
        ("task-two-owners", |set| {
            set.app("deploy")["tasks"].as_array_mut().unwrap().push(task("ledger.entry.book", &[]));
        }),
        ("app-conflict", |set| {
            let mut twin = set.app("ledger").clone();
            twin["tasks"][0]["policy"]["retry"]["max_retries"] = 3.into();
            set.add("ledger-twin", twin);
        }),
        ("queue-collision", |set| {
            let dunning = set.app("dunning");
            dunning["tasks"]
                .as_array_mut()
                .unwrap()
                .push(task("dunning.password.reset", &["password.reset"]));
            dunning["reactions"].as_array_mut().unwrap().push(reaction(
                "dunning",
                "password.reset",
                &["dunning.reminder.send"],
            ));
        }),
        ("cycle-unguarded", |set| {
            set.app("dunning")["reactions"][1]["conditional"] = false.into();
        }),
        ("policy-contradiction", |set| {
            set.app("ledger")["tasks"][0]["policy"]["retry"]["max_ms"] = 10.into();
        }),
        ("hop-limit", |set| {
            set.app("report")["hop_limit"] = 4.into();
        }),
    ];
    let told: BTreeSet<&str> = faults.iter().map(|(code, _)| *code).collect();
    assert_eq!(told.len(), faults.len(), "each fault is another");
    for (code, plant) in faults {
        let report = check(&clean.with(plant));
        assert_eq!(codes(&report), [code], "{report:#}");
    }
}

#[test]
fn check_finds_what_else_can_be_wrong_and_nothing_besides() {
    let clean = Set::clean();
    let faults: [Fault; 10] = [
        ("name-invalid", |set| rename(set, "dunning.reminder.send", "dunning.Reminder.send")),
        ("name-tense", |set| rename(set, "org.reminder.sent", "org.reminder.sending")),
        ("timeout-too-long", |set| {
            set.app("ledger")["tasks"][0]["policy"]["timeout_ms"] = (25 * 60_000).into();
        }),
        ("timeout-too-long", |set| {
            set.app("ledger")["tasks"][0]["policy"]["timeout_ms"] = Value::Null;
        }),
        ("retries-cut-short", |set| {
            set.app("ledger")["tasks"][0]["policy"]["retry"]["max_age_ms"] = 60_000.into();
        }),
        ("policy-contradiction", |set| {
            set.app("ledger")["tasks"][0]["policy"]["rate_limit"] =
                json!({ "count": 1, "period_ms": 700_000_000 });
        }),
        ("policy-contradiction", |set| {
            set.app("cream")["tasks"][0]["policy"]["breaker"]["failure_ratio"] = 1.5.into();
        }),
        ("policy-contradiction", |set| set.app("cream")["hop_limit"] = 0.into()),
        ("task-foreign", |set| {
            set.app("deploy")["tasks"].as_array_mut().unwrap().push(task("elsewhere.thing.do", &[]));
        }),
        ("app-conflict", |set| {
            let mut twin = set.app("report").clone();
            twin["hop_limit"] = 15.into();
            set.add("report-twin", twin);
        }),
    ];
    for (code, plant) in faults {
        let report = check(&clean.with(plant));
        assert_eq!(codes(&report), [code], "{report:#}");
    }
}

/// Wherever it stands.
fn rename(set: &mut Set, from: &str, to: &str) {
    for manifest in set.0.values_mut() {
        *manifest = serde_json::from_str(&manifest.to_string().replace(from, to)).unwrap();
    }
}

#[test]
fn programs_and_versions_of_one_application_are_one_owner() {
    let set = Set::clean().with(|set| {
        let mut next = set.app("ledger").clone();
        next["version"] = "1.1.0".into();
        next["tasks"][0]["policy"]["retry"]["max_retries"] = 3.into();
        set.add("ledger-next", next);
        let twin = set.app("cream").clone();
        set.add("cream-from-another-machine", twin);
        set.app("cream-from-another-machine")["tasks"][0]["policy"]["concurrency"] = 99.into();
    });
    assert_eq!(codes(&check(&set)), [""; 0]);
}

#[test]
fn a_change_is_told_with_the_applications_that_read_the_field() {
    let old = Set::shown();
    let quiet = ["event-unheard", "event-unheard"].map(str::to_owned);
    assert_eq!(codes(&against(&old, &old)), quiet, "nothing changed");

    // `pheidi` does not read the amount.
    let set = old.with(|set| {
        *property(set, "cream", "org.payment.processed", "amount") = json!({ "type": "string" });
    });
    let report = against(&set, &old);
    assert_eq!(codes(&report)[..1], ["schema-breaking"]);
    let found = &report["findings"][0];
    assert_eq!(found["breaks"], json!(["big-poppa"]), "{found:#}");
    assert_eq!(found["subject"], "org.payment.processed");
    assert_eq!(
        found["message"],
        "field `amount`: string is sent, integer is read (sent by `cream`, read by 1 of 2)"
    );

    // A field that nobody reads may go, one that is read may not.
    let mut removed = old.clone();
    removed.app("pheidi")["reactions"].as_array_mut().unwrap().remove(1);
    let removed = removed.with(|set| {
        let schema = &mut set.app("cream")["events"]["org.payment.processed"]["schema"];
        schema["properties"].as_object_mut().unwrap().remove("org");
        schema["required"] = json!(["amount"]);
    });
    let report = against(&removed, &old);
    assert_eq!(report["findings"][0]["breaks"], json!(["big-poppa", "pheidi"]), "{report:#}");
    assert!(
        report["findings"][0]["message"].as_str().unwrap().contains("it is not sent, and it is required")
    );
}

#[test]
fn a_change_that_fits_in_the_end_still_breaks_on_the_way() {
    let old = Set::shown();
    // Emitter and readers change together: old jobs wait, and old readers run.
    let set = old.with(|set| {
        for app in ["cream", "big-poppa"] {
            *property(set, app, "org.payment.processed", "amount") = json!({ "type": "string" });
        }
    });
    assert!(!codes(&check(&set)).contains(&"schema-breaking".to_owned()));
    let report = against(&set, &old);
    let broken: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["code"] == "schema-breaking")
        .map(|f| f["message"].as_str().unwrap())
        .collect();
    assert_eq!(
        broken,
        [
            "field `amount`: integer is sent, string is read, in what was published before (sent by `cream`, read by 1 of 2)",
            "field `amount`: string is sent, integer is read, while the version of before still runs (sent by `cream`, read by 1 of 2)",
        ]
    );

    // A task of one version is performed by the other.
    let set = old.with(|set| {
        set.app("pheidi")["tasks"][0]["schema"] =
            object("Task", &[("org", "string"), ("template", "string")]);
    });
    let report = against(&set, &old);
    let found = &report["findings"][0];
    assert_eq!((&found["code"], &found["subject"]), (&json!("schema-breaking"), &json!("pheidi.email.send")));
    assert!(found["help"].as_str().unwrap().contains("serde(default)"), "{found:#}");
}

#[test]
fn what_is_gone_or_changes_for_strangers_is_told_too() {
    let old = Set::shown();
    // An optional field disappears under a reader that allows it.
    let with_note = |set: &mut Set| {
        for app in ["cream", "pheidi"] {
            set.app(app)["events"]["org.payment.failed"]["schema"]["properties"]["note"] =
                json!({ "type": "string" });
        }
    };
    let before = old.with(with_note);
    let after = before.with(|set| {
        let schema = &mut set.app("cream")["events"]["org.payment.failed"]["schema"];
        schema["properties"].as_object_mut().unwrap().remove("note");
    });
    assert_eq!(codes(&against(&after, &before))[0], "schema-narrowing");
    assert!(
        !codes(&check(&after)).contains(&"schema-narrowing".to_owned()),
        "it was never sent, as far as is known"
    );

    // Nobody here hears `email.sent`.
    let set = old.with(|set| {
        set.app("pheidi")["events"]["email.sent"]["schema"] = object("EmailSent", &[("to", "string")]);
    });
    assert!(codes(&against(&set, &old)).contains(&"schema-changed".to_owned()));

    // An event loses its publisher.
    let set = old.with(|set| set.app("cream")["tasks"][0]["emits"] = json!(["org.payment.processed"]));
    let report = against(&set, &old);
    let found = &report["findings"][0];
    assert_eq!((&found["severity"], &found["code"]), (&json!("error"), &json!("event-unpublished")));
    assert_eq!(found["message"], "nobody publishes it; `pheidi` would hear it; `cream` did before");
}

#[test]
fn warnings_are_no_errors_unless_they_are_denied() {
    let set = Set::shown();
    set.run(&["check"], &[]).ends(0);
    set.run(&["check"], &["--deny-warnings"]).ends(1);
    let none = Set::default().run(&["check"], &[]).ends(3);
    assert!(none.err.contains("PONOS_MANIFEST=1"), "{none:?}");
}

fn faulty() -> Set {
    Set::shown().with(|set| {
        *property(set, "cream", "org.payment.processed", "amount") = json!({ "type": "string" });
        set.app("pheidi")["reactions"][1]["creates"] = json!(["pheidi.emial.send"]);
        set.app("big-poppa")["reactions"][1]["conditional"] = false.into();
    })
}

#[test]
fn the_text_is_this() {
    let ran = faulty().run(&["check"], &[]).ends(1);
    let expected = "\
error[schema-breaking] org.payment.processed
  field `amount`: string is sent, integer is read (sent by `cream`, read by 1 of 2)
  breaks: big-poppa
  help: let `cream` send it as it was, or change `big-poppa` first; what means something else is another event
error[task-unowned] pheidi.emial.send
  nobody performs it; `pheidi` creates it of `org.payment.failed`
  help: did you mean `pheidi.email.send`?
error[cycle-unguarded] org.plan.activated
  each message begets the next for ever: `org.plan.activated` → `big-poppa.plan.activate` → `org.plan.activated`; the hop limit of `big-poppa` stops it after 64 hops
  help: let one of its reactions return an `Option`, and nothing when there is nothing to do
warning[event-unheard] email.sent
  nobody hears it; `pheidi` publishes it
  help: give the manifests of all applications, or let it be: it costs nothing
warning[event-unheard] github.pushed
  nobody hears it; `hooks` publishes it
  help: give the manifests of all applications, or let it be: it costs nothing

longest chain: 3 hops: cream.payment.process → org.payment.processed → pheidi.email.send → email.sent
4 manifests of 4 applications: 3 errors, 2 warnings
";
    assert_eq!(ran.out, expected);
}

#[test]
fn the_table_is_this() {
    let ran = faulty().run(&["check"], &["--markdown"]).ends(1);
    let expected = "\
| | where | what | breaks | way out |
| --- | --- | --- | --- | --- |
| ❌ schema-breaking | <code>org.payment.processed</code> | field <code>amount</code>: string is sent, integer is read (sent by <code>cream</code>, read by 1 of 2) | <code>big-poppa</code> | let <code>cream</code> send it as it was, or change <code>big-poppa</code> first; what means something else is another event |
| ❌ task-unowned | <code>pheidi.emial.send</code> | nobody performs it; <code>pheidi</code> creates it of <code>org.payment.failed</code> |  | did you mean <code>pheidi.email.send</code>? |
";
    assert!(ran.out.starts_with(expected), "{}", ran.out);
    assert!(
        ran.out
            .ends_with("|\n\n4 manifests of 4 applications: 3 errors, 2 warnings; longest chain: 3 hops\n")
    );
    let quiet = Set::clean().run(&["check"], &["--markdown"]).ends(0);
    assert_eq!(quiet.out, "8 manifests of 8 applications: nothing found; longest chain: 6 hops\n");
}

#[test]
fn a_hostile_name_ends_neither_a_line_nor_a_cell() {
    let evil = "a`|<img src=x>\n@you\u{1b}[2J\u{202e}";
    let set = Set::shown().with(|set| {
        let hostile = manifest(evil, &[], &[reaction(evil, evil, &[evil])], &[task(evil, &[evil])]);
        set.add("evil", hostile);
    });
    let table = set.run(&["check"], &["--markdown"]).ends(1).out;
    let body = table.split("\n\n").next().unwrap();
    for line in body.lines() {
        assert_eq!(line.matches('|').count(), 6, "{line}");
        assert!(!line.contains("<img") && !line.contains('@') && !line.contains('`'), "{line}");
    }
    for options in [&["--markdown"][..], &[], &["--json"]] {
        let out = set.run(&["check"], options).ends(1).out;
        assert!(!out.chars().any(|c| matches!(c, '\u{1b}' | '\u{202e}')), "{out:?}");
    }
}
