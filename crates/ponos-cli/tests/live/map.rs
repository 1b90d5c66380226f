//! `ponos map --live`.

use std::time::Duration;

use ponos::core::journal::Notice;
use serde_json::{Value, json};

use crate::place::Place;
use crate::stranger::Stranger;
use crate::traffic::Traffic;

const DAY: Duration = Duration::from_secs(86_400);

/// The manifest of somebody who hears payments.
fn mailer() -> Notice {
    let policy = json!({ "concurrency": 1, "prefetch": 1 });
    let manifest = json!({
        "ponos_manifest": 1, "app": "legacy-mailer", "version": "0.9.0",
        "reactions": [{ "event": "org.payment.processed", "queue": "legacy-mailer.org.payment.processed",
                        "creates": ["legacy-mailer.mail.send"], "policy": policy }],
        "tasks": [{ "name": "legacy-mailer.mail.send", "queue": "legacy-mailer.mail.send", "emits": [],
                    "schema": {}, "recovers": false, "policy": policy }]
    });
    Notice::Hello { manifest: Some(manifest.to_string().into()) }
}

fn node<'a>(map: &'a Value, id: &str) -> &'a Value {
    map["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).unwrap_or(&Value::Null)
}

fn edge<'a>(map: &'a Value, from: &str, to: &str) -> &'a Value {
    let edges = map["edges"].as_array().unwrap();
    edges.iter().find(|edge| edge["from"] == from && edge["to"] == to).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_drift_and_who_is_gone_are_on_the_map() {
    let place = Place::sqlite();
    Stranger::new("legacy-mailer", 9 * DAY).notice(mailer()).write(&place).await;
    let traffic = Traffic::six_payments(&place).await;
    // An event that `cream` does not declare, and a task that a handler creates by itself.
    Stranger::new("cream", Duration::ZERO)
        .published("user.card.expired", true, Some("cream.invoice.pay"))
        .published("big-poppa.plan.activate", false, Some("pheidi.email.send"))
        .write(&place)
        .await;

    let map = place.ponos(&["map", "--live", "--json"]).ok().json();
    let count = |id: &str| node(&map, id)["count"].clone();
    assert_eq!(count("event:org.payment.processed"), 6);
    assert_eq!(count("event:org.receipt.emailed"), 5);
    assert_eq!(count("reaction:pheidi:org.payment.processed"), 6);
    assert_eq!(count("task:cream.invoice.pay"), 6);
    let metrics = node(&map, "reaction:metrics:org.payment.processed");
    assert_eq!((&metrics["consumers"], &metrics["waiting"]), (&json!(0), &json!(6)));
    let mail = node(&map, "task:pheidi.email.send");
    assert!((mail["failed"].as_f64().unwrap() - 1.0 / 6.0).abs() < 1e-9, "{mail}");
    assert_eq!(mail["consumers"], 1);

    let declared = edge(&map, "task:cream.invoice.pay", "event:org.payment.processed");
    assert_eq!((&declared["declared"], &declared["count"]), (&json!(true), &json!(6)));
    let drift = edge(&map, "task:cream.invoice.pay", "event:user.card.expired");
    assert_eq!(
        (&drift["declared"], &drift["drift"], &drift["count"]),
        (&json!(false), &json!(true), &json!(1))
    );
    let in_code = edge(&map, "task:pheidi.email.send", "task:big-poppa.plan.activate");
    assert_eq!((&in_code["declared"], &in_code["drift"]), (&json!(false), &json!(false)));
    let publisher = edge(&map, "outside:cream", "task:cream.invoice.pay");
    assert_eq!((&publisher["drift"], &publisher["count"]), (&json!(false), &json!(6)));
    let drifting = map["edges"].as_array().unwrap().iter().filter(|edge| edge["drift"] == true).count();
    assert_eq!(drifting, 1, "{map:#}");

    let gone = map["live"]["not_seen"].as_array().unwrap();
    assert_eq!((gone.len(), &gone[0]["app"]), (1, &json!("legacy-mailer")));
    assert!(gone[0]["last_seen"].is_u64());
    let unused = map["live"]["unused"].as_array().unwrap();
    assert!(unused.contains(&json!("legacy-mailer.mail.send")), "{unused:?}");
    assert!(!unused.contains(&json!("pheidi.email.send")), "{unused:?}");

    let text = place.ponos(&["map", "--live"]).ok().out.clone();
    for said in [
        "⚠ no consumer  6 waiting",
        "pheidi.email.send  ",
        "✖ 16.7%",
        "drift: 1 observed edge not in any manifest (cream.invoice.pay → user.card.expired)\n",
        "pheidi.email.send → big-poppa.plan.activate",
        "legacy-mailer has not been seen for 9d\n",
        "declared and not sent in 24h: ",
    ] {
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }
    let forms = [("dot", "color=red"), ("mermaid", "-.->"), ("html", "class=\"edge drift\"")];
    for (form, said) in forms {
        place.ponos(&["map", "--live", "--format", form]).ok().says(said).says("6 waiting");
    }
    // Without --live it is what services told, and nothing else.
    let plain = place.ponos(&["map"]).ok().out.clone();
    assert!(plain.contains("legacy-mailer") && !plain.contains("user.card.expired"), "{plain}");
    assert!(!plain.contains("waiting") && !plain.contains("drift"), "{plain}");
    traffic.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_which_nobody_was_ever_seen_is_said_to_be_so() {
    let place = Place::sqlite();
    place.broker().connect().await.unwrap().close().await.unwrap();
    let Notice::Hello { manifest: Some(manifest) } = mailer() else { unreachable!() };
    std::fs::write(place.dir.path().join("mailer.json"), &*manifest).unwrap();
    place
        .ponos(&["map", "mailer.json", "--live"])
        .ok()
        .says("legacy-mailer is declared and has never been seen\n")
        .says("no such queue on the broker");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_strangers_cannot_disturb() {
    const EVIL: &str = "x\"]; a`|]<img src=y onerror=z>&lt;'\\\n\u{1b}[2J\u{202e}";
    let place = Place::sqlite();
    Stranger::new("legacy-mailer", Duration::ZERO)
        .notice(mailer())
        .published(EVIL, true, Some(EVIL))
        .published(EVIL, false, None)
        .published("org.payment.processed", true, Some(EVIL))
        .write(&place)
        .await;
    let is_tame = |out: &str| !out.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'));
    for form in ["text", "dot", "mermaid", "html", "json"] {
        let out = place.ponos(&["map", "--live", "--format", form]).ok().out.clone();
        assert!(is_tame(&out), "{form}: {out:?}");
        assert!(!out.contains("<img") || matches!(form, "text" | "json" | "dot"), "{form}: {out}");
    }
    let map = place.ponos(&["map", "--live", "--json"]).ok().json();
    assert!(map["nodes"].as_array().unwrap().iter().any(|node| node["name"] == EVIL), "it is what it was");
    for args in [&["explain", EVIL][..], &["explain", EVIL, "--json"], &["explain", "org.payment.processed"]]
    {
        let ran = place.ponos(args);
        assert!(is_tame(&ran.out) && ran.code == 0, "{ran:?}");
    }
    let ran = place.ponos(&["explain", &format!("{EVIL}y")]);
    assert!(is_tame(&ran.err) && ran.code == 1, "{ran:?}");
}
