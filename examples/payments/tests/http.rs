//! The HTTP sides of the services, asked over real sockets.

#![expect(clippy::unwrap_used, reason = "what a test relies on may end it")]

use ponos::Broker;
use ponos_example_payments::{Pace, Served, cream, hooks, mail_provider};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

fn free() -> std::net::SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn cream() -> Served<cream::Cream> {
    let config = cream::Config { address: free() };
    cream::start(cream::service(Pace::Demo), config, Broker::memory()).await.unwrap()
}

async fn hooks() -> Served<hooks::Hooks> {
    hooks::start(hooks::service(), hooks::Config { address: free() }, Broker::memory()).await.unwrap()
}

/// Posts a text as JSON and answers the status and the body.
async fn post(url: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> (u16, Value) {
    let mut request = Client::new().post(url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_payment_is_accepted_with_its_transaction_id() {
    let cream = cream().await;
    let url = format!("{}/payments", cream.url().unwrap());
    let (status, answer) = post(&url, &[JSON], r#"{"org":"acme","amount_cents":1900}"#).await;
    assert_eq!((status, &answer["accepted"]), (202, &json!(true)));
    assert_eq!(answer["tid"].as_str().unwrap().len(), 36);
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(
        post(&url, &[form], r#"{"org":"acme","amount_cents":1900}"#).await.0,
        202,
        "as `curl -d` sends it"
    );
    cream.shutdown().await;
}

#[tokio::test]
async fn a_wrong_payment_is_refused_and_told_why() {
    let cream = cream().await;
    let url = format!("{}/payments", cream.url().unwrap());
    for (body, status, why) in [
        ("", 400, "the body is empty"),
        ("{", 400, "no JSON"),
        ("[]", 422, "does not fit"),
        (r#"{"org":"acme"}"#, 422, "missing field `amount_cents`"),
        (r#"{"org":"acme","amount_cents":-1}"#, 422, "invalid value"),
        (r#"{"org":"acme","amount_cents":0}"#, 422, "nothing to pay"),
        (r#"{"org":"../x","amount_cents":1}"#, 422, "lowercase letters"),
        (r#"{"org":"acme","amount_cents":1,"amount":2}"#, 422, "unknown field `amount`"),
    ] {
        let (got, answer) = post(&url, &[JSON], body).await;
        assert_eq!((got, &answer["status"]), (status, &json!(status)), "{body}");
        assert!(answer["detail"].as_str().unwrap().contains(why), "{body}: {answer}");
    }
    assert_eq!(post(&url, &[("content-type", "text/plain")], "org=acme").await.0, 415);
    assert_eq!(post(&cream.url().unwrap(), &[JSON], "{}").await.0, 404);
    assert_eq!(reqwest::get(&url).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    cream.shutdown().await;
}

#[tokio::test]
async fn billing_answers_the_name_in_the_transaction_that_it_is_asked_in() {
    let cream = cream().await;
    let tid = "0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17";
    let ask = |org: &str| {
        Client::new().get(format!("{}/billing/{org}", cream.url().unwrap())).header("x-ponos-tid", tid)
    };
    let answer = ask("acme").send().await.unwrap();
    assert_eq!(answer.headers()["x-ponos-tid"], tid);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "org": "acme", "name": "Leslie Acme" }));
    assert_eq!(ask("AC%2FME").send().await.unwrap().status(), StatusCode::NOT_FOUND);
    cream.shutdown().await;
}

#[tokio::test]
async fn real_webhooks_are_accepted_and_those_that_map_to_nothing_are_counted() {
    let hooks = hooks().await;
    let base = hooks.url().unwrap();
    let url = format!("{base}/webhooks/github");
    for line in hooks::REAL_WEBHOOKS.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let kind = line["event"].as_str().unwrap();
        let (status, answer) =
            post(&url, &[JSON, ("X-GitHub-Event", kind)], line["payload"].to_string()).await;
        assert_eq!((status, &answer["accepted"]), (202, &json!(true)), "{kind}: {answer}");
    }
    for kind in ["ping", "star", "star"] {
        let (status, answer) = post(&url, &[JSON, ("X-GitHub-Event", kind)], "{}").await;
        assert_eq!((status, &answer["accepted"]), (202, &json!(false)), "{answer}");
    }
    let stats: Value = reqwest::get(format!("{base}/stats")).await.unwrap().json().await.unwrap();
    let counts = ["received", "emitted", "ignored", "refused"].map(|name| stats[name].as_u64().unwrap());
    assert_eq!(counts, [13, 10, 3, 0]);
    assert_eq!(stats["ignored_kinds"], json!({ "ping": 1, "star": 2 }));
    assert_eq!(stats["events"]["github.pushed"], 2);
    hooks.shutdown().await;
}

#[tokio::test]
async fn a_malformed_webhook_is_refused_and_told_why() {
    let hooks = hooks().await;
    let url = format!("{}/webhooks/github", hooks.url().unwrap());
    let push = ("X-GitHub-Event", "push");
    for (headers, body, status, why) in [
        (&[JSON][..], "{}", 400, "`X-GitHub-Event` is missing"),
        (&[JSON, ("X-GitHub-Event", " ")], "{}", 400, "`X-GitHub-Event` is missing"),
        (&[JSON, push], "", 400, "the body is empty"),
        (&[JSON, push], "not json", 400, "no JSON"),
        (&[JSON, push], "[1]", 422, "does not fit"),
        (&[JSON, push], "{}", 422, "missing field `ref`"),
        (&[JSON, push], r#"{"ref":"r","after":"a"}"#, 422, "missing field `repository`"),
        (&[JSON, ("X-GitHub-Event", "pull_request")], "{}", 422, "missing field `action`"),
        (&[("content-type", "application/x-www-form-urlencoded"), push], "payload=", 415, "application/json"),
    ] {
        let (got, answer) = post(&url, headers, body).await;
        assert_eq!((got, &answer["status"]), (status, &json!(status)), "{body}");
        assert!(answer["detail"].as_str().unwrap().contains(why), "{body}: {answer}");
    }
    let large = vec![b' '; hooks::MAX_BODY + 1];
    assert_eq!(post(&url, &[JSON, push], large).await.0, 413);
    let stats: Value =
        reqwest::get(format!("{}/stats", hooks.url().unwrap())).await.unwrap().json().await.unwrap();
    assert_eq!((&stats["received"], &stats["refused"]), (&json!(10), &json!(10)));
    hooks.shutdown().await;
}

#[tokio::test]
async fn the_mail_provider_behaves_as_it_is_told() {
    let config = mail_provider::Config { address: free(), file: None };
    let provider = mail_provider::start(config).await.unwrap();
    let messages = format!("{}/messages", provider.url());
    let mode = format!("{}/mode", provider.url());
    let put =
        async |body: Value| Client::new().put(&mode).json(&body).send().await.unwrap().status().as_u16();
    let mail = r#"{"to":"a@b","subject":"s","text":"t"}"#;
    let key = |key: &'static str| [JSON, ("idempotency-key", key)];

    assert_eq!(post(&messages, &[JSON], mail).await.0, 400, "no key");
    assert_eq!(post(&messages, &key("1"), mail).await, (201, json!({ "number": 1 })));
    assert_eq!(put(json!({ "mode": "broken" })).await, 200);
    assert_eq!(post(&messages, &key("1"), mail).await.0, 500);
    assert_eq!(put(json!({ "mode": "busy", "retry_after_s": 3, "times": 1 })).await, 200);
    let busy = Client::new()
        .post(&messages)
        .header("idempotency-key", "1")
        .json(&json!({ "to": "a@b", "subject": "s", "text": "t" }));
    let busy = busy.send().await.unwrap();
    assert_eq!((busy.status().as_u16(), &busy.headers()["retry-after"]), (429, &"3".parse().unwrap()));
    assert_eq!(post(&messages, &key("1"), mail).await, (201, json!({ "number": 1 })), "as the first time");
    assert_eq!(post(&messages, &key("2"), mail).await, (201, json!({ "number": 2 })));
    assert_eq!(put(json!({ "mode": "ok", "broken_for": ["a@b"] })).await, 200);
    assert_eq!(post(&messages, &key("3"), mail).await.0, 500);
    assert_eq!(put(json!({ "mode": "sleepy" })).await, 422);

    let ledger: Value =
        reqwest::get(format!("{}/deliveries", provider.url())).await.unwrap().json().await.unwrap();
    assert_eq!((&ledger["count"], &ledger["repeated"]), (&json!(2), &json!(1)));
    provider.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_the_way_out() {
    let first = cream().await;
    let address = first.url().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    let error = hooks::start(hooks::service(), hooks::Config { address }, Broker::memory())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(&address.to_string()) && error.contains("HOOKS_ADDR=127.0.0.1:PORT"), "{error}");
    first.shutdown().await;
}
