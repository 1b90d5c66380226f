//! `ponos explain` with the figures of a running system.

use serde_json::{Value, json};

use crate::place::Place;
use crate::traffic::Traffic;

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_the_figures_are_those_of_the_traffic() {
    figures(&Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_the_figures_are_those_of_the_traffic() {
    figures(&Place::rabbitmq().await).await;
}

async fn figures(place: &Place) {
    let traffic = Traffic::six_payments(place).await;

    let explained = place.ponos(&["explain", "org.payment.processed", "--json"]).ok().json();
    assert_eq!((&explained["kind"], &explained["emitted_by"][0]["app"]), (&json!("event"), &json!("cream")));
    let live = &explained["live"];
    assert_eq!((&live["published"], &live["declared"]), (&json!(6), &json!(true)));
    assert_eq!(live["sources"], json!([{ "from": "cream.invoice.pay", "published": 6, "declared": true }]));
    let queues: Vec<Value> = ["big-poppa", "metrics", "pheidi"]
        .map(|app| counts(live, &format!("{app}.org.payment.processed")))
        .into();
    // Consumers, waiting, done, failed, attempts, retried.
    assert_eq!(queues, [json!([1, 0, 6, 0, 6, 0]), json!([0, 6, 0, 0, 0, 0]), json!([1, 0, 6, 0, 6, 0])]);
    let followed = &live["followed_by"];
    let shares: Vec<Value> = followed["names"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| json!([one["after"], one["name"], one["transactions"]]))
        .collect();
    let expected = [
        json!([1, "big-poppa.plan.activate", 6]),
        json!([1, "pheidi.email.send", 6]),
        json!([2, "org.plan.activated", 6]),
        json!([2, "org.receipt.emailed", 5]),
    ];
    assert_eq!(shares, expected);
    assert_eq!((&followed["transactions"], &followed["failed"]), (&json!(6), &json!(1)));

    let task = place.ponos(&["explain", "pheidi.email.send", "--json"]).ok().json();
    // Five are done, of which one was tried twice; one gave up, was recovered and failed.
    assert_eq!(counts(&task["live"], "pheidi.email.send"), json!([1, 0, 5, 1, 8, 1]));
    let settled = task["live"]["followed_by"]["settled_p50_ms"].as_f64();
    assert!(settled.is_some_and(|p50| p50 > 0.0 && p50 < 30_000.0), "{task:#}");

    let text = place.ponos(&["explain", "org.payment.processed"]).ok().out.clone();
    for said in [
        "event org.payment.processed\n",
        "emitted by    cream (cream.invoice.pay)\n",
        "published     6 in 24h: cream.invoice.pay 6\n",
        "LISTENER   QUEUE                            STATE",
        "⚠ nobody works it, 6 waiting",
        "USUALLY FOLLOWED BY (last 6 transactions)\n  1    100%  ▸ big-poppa.plan.activate\n",
        "  2   83.3%  ◇ org.receipt.emailed\n",
        "ends in failure: 16.6%",
        "POLICY\n  big-poppa: ",
        "⚠ nobody listens to org.plan.activated\n",
    ] {
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }
    place.ponos(&["explain", "org.plan.activated"]).ok().says("nobody listens\n");

    // What stands in the way is said.
    let paused = ["pause", "metrics.org.payment.processed", "--reason", "cleaning", "--for", "10m"];
    place.ponos(&paused).ok();
    place.ponos(&["explain", "org.payment.processed"]).ok().says("paused by ").says(": cleaning");

    let ran = place.ponos(&["explain", "org.payment.procesed"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("no manifest and no record knows"), "{ran:?}");
    assert!(ran.err.contains("did you mean `org.payment.processed`?"), "{ran:?}");
    // Other verbs know the manifests too.
    for (verb, said) in [
        ("map", "metrics"),
        ("check", "4 manifests of 4 applications"),
        ("asyncapi", "metrics.payment.count"),
    ] {
        place.ponos(&[verb]).ok().says("org.payment.processed").says(said);
    }
    let map = place.ponos(&["map", "--live", "--json"]).ok().json();
    let reaction = "reaction:pheidi:org.payment.processed";
    let node = map["nodes"].as_array().unwrap().iter().find(|node| node["id"] == reaction).unwrap();
    assert_eq!((&node["count"], &node["consumers"]), (&json!(6), &json!(1)));
    traffic.stop().await;
}

/// The figures of a queue.
fn counts(live: &Value, queue: &str) -> Value {
    let found = live["queues"].as_array().unwrap().iter().find(|one| one["queue"] == queue).unwrap();
    ["consumers", "waiting", "done", "failed", "attempts", "retried"].map(|key| found[key].clone()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_service_has_told_its_manifest_it_is_said_how() {
    let place = Place::sqlite();
    place.broker().connect().await.unwrap().close().await.unwrap();
    for verb in ["map", "check", "asyncapi"] {
        let ran = place.ponos(&[verb]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains("knows no manifest") && ran.err.contains("when it starts"), "{ran:?}");
        assert!(ran.err.contains("PONOS_MANIFEST=1 service > FILE"), "{ran:?}");
    }
}
