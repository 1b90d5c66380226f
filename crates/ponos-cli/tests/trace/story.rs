//! One payment, from its start to a service that was not there: the tree is exact, and it shows what has not happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::place::Place;
use crate::system::{InvoicePay, Smtp, big_poppa, cream, metrics, pheidi};

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    story(&Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq() {
    story(&Place::rabbitmq().await).await;
}

fn pay(org: &str) -> InvoicePay {
    InvoicePay { org: org.into(), card: "4111111111111111".into(), cents: 1 }
}

async fn story(place: &Place) {
    let smtp = Arc::new(Smtp::default());
    let (cream, big_poppa, pheidi) = (cream(place).await, big_poppa(place).await, pheidi(place, &smtp).await);
    // It was there once, so its queue hears; it is not there now.
    metrics(place).await.shutdown().await;

    // Three failures: a retry, the circuit opens, its probe fails, it is held again, and then the mail is sent.
    smtp.failures.store(3, Ordering::SeqCst);
    let tid = cream.publisher().create(pay("acme")).await.unwrap().tid.to_string();
    let tree = place.until(&["trace", &tid, "--json"], |ran| {
        let tree = (ran.code == 0).then(|| ran.json())?;
        (job(&tree, "pheidi.email.send")["state"] == "done").then_some(tree)
    });
    parents_are_exact(&tree);
    let states: BTreeMap<String, String> = jobs(&tree)
        .map(|job| (job["queue"].as_str().unwrap().to_owned(), job["state"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ("big-poppa.org.payment.processed", "done"),
        ("big-poppa.plan.activate", "done"),
        ("cream.invoice.pay", "done"),
        ("metrics.org.payment.processed", "not_yet"),
        ("pheidi.email.send", "done"),
        ("pheidi.org.payment.processed", "done"),
    ];
    assert_eq!(states, expected.map(|(queue, state)| (queue.to_owned(), state.to_owned())).into());
    assert_eq!(tree["outcome"], "pending");
    let attempts = job(&tree, "pheidi.email.send")["attempts"].as_array().unwrap().clone();
    assert_eq!(attempts.len(), 4, "{attempts:#?}");
    assert_eq!(attempts.last().unwrap()["attempt"], 4, "the circuit's hold is no attempt");

    let picture = place.ponos(&["trace", &tid]).ok().out.clone();
    for said in [
        "◇ org.plan.activated  nobody listens",
        "metrics → on org.payment.processed  not yet",
        "⋯ queue metrics.org.payment.processed: 1 ready",
        "nobody works it",
        ": connection refused",
        "circuit smtp open (2 attempts failed in a row) — not an attempt",
        "circuit smtp open (the attempt that tried it failed) — not an attempt",
        "pending",
    ] {
        assert!(picture.contains(said), "{said:?} is not in\n{picture}");
    }

    // The service comes, and who watches sees it.
    let mut watching = place.watching(&["trace", &tid, "--watch"]);
    watching.until("nobody works it");
    watching.forget();
    let metrics = metrics(place).await;
    watching.until("▸ metrics.payment.count  done");
    assert_eq!(watching.code(), 0);
    assert_eq!(place.ponos(&["trace", &tid, "--json"]).ok().json()["outcome"], "done");

    // Another one's mail can never be sent.
    let bad = cream.publisher().create(pay("nobody")).await.unwrap().tid.to_string();
    place.until(&["trace", &bad, "--json"], |ran| {
        (ran.code == 0 && ran.json()["outcome"] == "failed").then_some(())
    });
    let picture = place.ponos(&["trace", "@failed"]).ok().out.clone();
    for said in ["failed (stopped), recovered", "recovery 1 done", "no such mailbox"] {
        assert!(picture.contains(said), "{said:?} is not in\n{picture}");
    }
    let differ = place.ponos(&["diff", &tid, &bad]);
    assert_eq!((differ.code, differ.err.as_str()), (1, ""));
    differ
        .says("≠")
        .says("- ")
        .says("org.receipt.emailed  present   vs   missing")
        .says("first divergence: ");
    let chart = place.ponos(&["trace", &tid, "--mermaid"]).ok().out.clone();
    assert!(chart.starts_with("flowchart TD\n") && chart.contains("metrics.payment.count"), "{chart}");

    // Everything of it stands in the log.
    let log = place.ponos(&["tail", "--no-follow", "--tid", &bad, "--json"]);
    let lines: Vec<Value> = log.ok().out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["kind"] == "gave-up") && lines.len() > 8, "{lines:#?}");
    place.ponos(&["tail", "--no-follow", "--outcome", "circuit"]).ok().says("⚡ circuit smtp  open for 1.2s");
    cream.shutdown().await;
    metrics.shutdown().await;
    big_poppa.shutdown().await;
    pheidi.shutdown().await;
}

fn jobs(tree: &Value) -> impl Iterator<Item = &Value> {
    tree["messages"].as_array().unwrap().iter().flat_map(|message| message["jobs"].as_array().unwrap())
}

fn job<'a>(tree: &'a Value, queue: &str) -> &'a Value {
    jobs(tree).find(|job| job["queue"] == queue).unwrap_or(&Value::Null)
}

/// Each message hangs under the one that it names as its cause, and that one was worked by the queue it names.
fn parents_are_exact(tree: &Value) {
    let messages = tree["messages"].as_array().unwrap();
    let by_name = |name: &str| messages.iter().find(|message| message["name"] == name).unwrap();
    for (child, parent, by) in [
        ("org.payment.processed", "cream.invoice.pay", "cream.invoice.pay"),
        ("big-poppa.plan.activate", "org.payment.processed", "big-poppa.org.payment.processed"),
        ("org.plan.activated", "big-poppa.plan.activate", "big-poppa.plan.activate"),
        ("pheidi.email.send", "org.payment.processed", "pheidi.org.payment.processed"),
        ("org.receipt.emailed", "pheidi.email.send", "pheidi.email.send"),
    ] {
        let message = by_name(child);
        assert_eq!(message["cause"], by_name(parent)["id"], "{child}");
        assert_eq!((&message["by"], &message["origin"]), (&by.into(), &"caused".into()), "{child}");
    }
    assert_eq!(by_name("cream.invoice.pay")["origin"], "start");
    assert_eq!(messages.len(), 6);
}
