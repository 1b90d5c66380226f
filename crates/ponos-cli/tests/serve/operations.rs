//! What there is to do.

use ponos_testbed::Node;
use serde_json::{Value, json};

use crate::retries::*;
use crate::server::{Answer, Server, place};

/// How an operation that was begun has ended.
#[track_caller]
fn ended(server: &Server, begun: &Answer) -> Value {
    assert_eq!(begun.status, 202, "{begun:?}");
    server.until(begun.header("location"), |answer| {
        let json = answer.json();
        (json["state"] != "planning" && json["state"] != "running").then_some(json)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_jobs_are_retried_once_discarded_and_restored() {
    let (_dir, url) = place();
    retried_discarded_restored(&url, Server::start).await;
}

/// The same on a real RabbitMQ node, where all goes over the network and records are in a stream.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_rabbitmq() {
    let url = tokio::task::spawn_blocking(|| Node::shared().fresh_vhost()).await.expect("a node starts");
    let view = tempfile::tempdir().unwrap();
    retried_discarded_restored(&url, |url| Server::with_view(url, Some(view.path()))).await;
}

async fn retried_discarded_restored(url: &str, start: impl Fn(&str) -> Server) {
    let printer = Printer::burning("the printer is on fire");
    let shop = shop(url, &printer).await;
    publish(url, 0..5).await;
    printer.has_failed(5).await;
    let list = failed(url, 5);
    let group = list["groups"][0]["fingerprint"].as_str().unwrap().to_owned();
    let ids: Vec<&str> =
        list["groups"][0]["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    let server = start(url);
    printer.fire(false);

    let dry = json!({"verb": "retry", "selector": {"app": "shop", "jobs": [group]}, "dry_run": true});
    let dry = ended(&server, &server.post(&dry, &[]));
    assert_eq!(
        (&dry["state"], &dry["plan"]["jobs"], &dry["jobs"]),
        (&json!("finished"), &json!(5), &json!([]))
    );
    assert_eq!(dry["plan"]["queues"], json!([{"queue": TASK, "jobs": 5}]));
    failed(url, 5);

    // Once for a key, and only for the same request.
    let one = json!({"verb": "retry", "selector": {"app": "shop", "jobs": [ids[0]]}, "rate": "100/s"});
    let key = ["idempotency-key: again"];
    let first = ended(&server, &server.post(&one, &key));
    assert_eq!((&first["state"], &first["progress"]["done"]), (&json!("finished"), &json!(1)), "{first}");
    printer.has_printed(1).await;
    failed(url, 4);
    let again = server.post(&one, &key);
    assert_eq!((again.status, &again.json()["id"]), (202, &first["id"]));
    let other = json!({"verb": "retry", "selector": {"app": "shop", "all": true}});
    server.post(&other, &key).is_problem(422, "new key");
    failed(url, 4);
    // Retried is not resolved: what became of it is told apart.
    let location = format!("/api/v1/operations/{}", first["id"].as_str().unwrap());
    let balance = server.until(&location, |answer| {
        let json = answer.json();
        (json["balance"]["pending"] == 0).then(|| json["balance"].clone())
    });
    assert_eq!(balance, json!({"retried": 1, "done": 1, "failed_again": 0, "pending": 0}));

    let discard = json!({"verb": "discard", "selector": {"all": true, "app": "shop"}, "reason": "old"});
    let discarded = ended(&server, &server.post(&discard, &[]));
    assert_eq!(
        (&discarded["progress"]["done"], &discarded["balance"]),
        (&json!(4), &Value::Null),
        "{discarded}"
    );
    failed(url, 0);
    let restore = json!({"verb": "restore", "selector": {"app": "shop", "jobs": [ids[1]]}});
    assert_eq!(ended(&server, &server.post(&restore, &[]))["progress"]["done"], 1);
    failed(url, 1);

    // What is not there was not begun, and its key may be used again.
    let gone = json!({"verb": "retry", "selector": {"app": "shop", "jobs": [ids[0]]}});
    let key = ["idempotency-key: gone"];
    server.post(&gone, &key).is_problem(404, "no failed job");
    let there = json!({"verb": "retry", "selector": {"app": "shop", "jobs": [ids[1]]}});
    assert_eq!(ended(&server, &server.post(&there, &key))["progress"]["done"], 1);
    server.get("/api/v1/operations/op-00000000").is_problem(404, "no such operation");
    printer.has_printed(2).await;
    assert!(printer.printed().values().all(|times| *times == 1), "{:?}", printer.printed());
    shop.shutdown().await;
    server.end("-TERM");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_given_and_end() {
    let (_dir, url) = place();
    let printer = Printer::new();
    let shop = shop(&url, &printer).await;
    let server = Server::start(&url);
    let orders = || ponos(&url, &["orders", "--json"]).ok().json()["orders"].as_array().unwrap().clone();

    let mut pause = json!({"verb": "pause", "selector": {"queue": TASK}, "reason": "paper", "for": "1h", "dry_run": true});
    let dry = ended(&server, &server.post(&pause, &[]));
    assert_eq!((&dry["order"]["order"]["kind"], orders().len()), (&json!("pause"), 0));
    pause["dry_run"] = json!(false);
    let paused = ended(&server, &server.post(&pause, &[]));
    assert_eq!((&paused["state"], &paused["order"]["consumers"]), (&json!("finished"), &json!(1)));
    assert_eq!((&orders()[0]["reason"], orders().len()), (&json!("paper"), 1));
    assert_eq!(server.get("/api/v1/queues").json()["orders"][0]["kind"], "pause");
    let rate = json!({"verb": "rate", "selector": {"queue": TASK}, "rate": "5/s", "reason": "slowly"});
    ended(&server, &server.post(&rate, &[]));
    let circuit =
        json!({"verb": "circuit_open", "selector": {"dependency": "smtp", "app": "shop"}, "reason": "down"});
    ended(&server, &server.post(&circuit, &[]));
    assert_eq!(orders().len(), 3);
    for (verb, selector) in [
        ("resume", json!({"queue": TASK})),
        ("rate_reset", json!({"queue": TASK})),
        ("circuit_resume", json!({"dependency": "smtp", "app": "shop"})),
        ("circuit_reset", json!({"queue": TASK})),
    ] {
        let end = ended(&server, &server.post(&json!({"verb": verb, "selector": selector}), &[]));
        assert_eq!(end["state"], "finished", "{end}");
    }
    assert_eq!(orders(), Vec::<Value>::new());
    let nowhere = json!({"verb": "pause", "selector": {"queue": "shop.parcel.burn"}, "reason": "x"});
    server.post(&nowhere, &[]).is_problem(404, "shop.parcel.burn");
    shop.shutdown().await;
    server.end("-TERM");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_stops_between_two_jobs_when_the_server_ends() {
    let (_dir, url) = place();
    let printer = Printer::burning("the printer is on fire");
    let shop = shop(&url, &printer).await;
    publish(&url, 0..50).await;
    printer.has_failed(50).await;
    failed(&url, 50);
    printer.fire(false);
    let server = Server::start(&url);
    let slowly = json!({"verb": "retry", "selector": {"all": true}, "rate": "5/s"});
    assert_eq!(server.post(&slowly, &[]).status, 202);
    printer.has_printed(1).await;
    server.end("-INT");
    let left = ponos(&url, &["failed", "list", "--json"]).ok().json()["total"].as_u64().unwrap();
    assert!((1..50).contains(&left), "{left} are left");
    printer.has_printed(50 - left).await;
    assert!(printer.printed().values().all(|times| *times == 1), "{:?}", printer.printed());
    shop.shutdown().await;
}
