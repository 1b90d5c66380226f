//! What there is to know.

use std::io::{BufRead as _, BufReader, Write as _};

use serde_json::{Value, json};

use crate::retries::*;
use crate::server::{Server, TOKEN, place};

const SECRET: &str = "hunter2-never-to-be-seen";

/// The transactions that are known, the last first.
fn tids(server: &Server, at_least: usize) -> Vec<String> {
    server.until("/api/v1/traces?limit=500", |answer| {
        let json = answer.json();
        let traces = json["traces"].as_array()?;
        let settled = traces.iter().all(|trace| trace["outcome"] != "pending");
        (traces.len() >= at_least && settled)
            .then(|| traces.iter().map(|trace| trace["tid"].as_str().unwrap().to_owned()).collect())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_what_its_description_says() {
    let (_dir, url) = place();
    let printer = Printer::burning("the printer is on fire");
    let shop = shop(&url, &printer).await;
    publish(&url, 0..1).await;
    ponos(&url, &["publish", TASK, &json!({"order": 1, "password": SECRET}).to_string()]).ok();
    printer.has_failed(2).await;
    printer.fire(false);
    publish(&url, 2..3).await;
    failed(&url, 2);
    let server = Server::start(&url);

    assert_eq!(server.bare("GET", "/livez", "", &[]).body, "ok\n", "it needs no token");
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/api/v1/whoami").json()["problem"], Value::Null);
    let served: Value = server.get("/api/v1/openapi.json").json();
    assert_eq!(served["openapi"], "3.1.0");

    // Transactions.
    let tids = tids(&server, 3);
    let (good, bad) = (&tids[0], &tids[2]);
    let tree = server.get(&format!("/api/v1/traces/{good}")).json();
    assert_eq!((&tree["outcome"], &tree["tid"]), (&json!("done"), &json!(good)), "did it work?");
    assert_eq!(server.get(&format!("/api/v1/traces/{bad}")).json()["outcome"], "failed");
    let printed = ponos(&url, &["trace", good, "--json"]).ok().json();
    assert_eq!(tree, printed, "the verb says the same");
    let end = &good[good.len() - 12..];
    assert_eq!(server.get(&format!("/api/v1/traces/{end}")).json()["tid"], json!(good));
    assert_eq!(server.get("/api/v1/traces/@failed").json()["outcome"], "failed");
    let records = server.get(&format!("/api/v1/traces/{good}?format=records")).json();
    assert!(records["records"].as_array().unwrap().iter().any(|it| it["kind"] == "done"), "{records}");
    assert!(server.get(&format!("/api/v1/traces/{good}?format=mermaid")).body.starts_with("flowchart"));
    let diff = server.get(&format!("/api/v1/traces/{good}/diff/{bad}")).json();
    assert_eq!(diff, ponos(&url, &["diff", good, bad, "--json"]).json());
    for (filter, count) in [
        ("outcome=failed", 2),
        ("outcome=done", 1),
        ("outcome=pending", 0),
        ("name=shop.parcel.send", 3),
        ("app=shop", 3),
        ("app=bakery", 0),
        ("since=1h", 3),
        ("until=1000", 0),
    ] {
        let traces = server.get(&format!("/api/v1/traces?{filter}")).json();
        assert_eq!(traces["traces"].as_array().unwrap().len(), count, "{filter}: {traces}");
    }

    // The system, by the manifest that the shop wrote into the journal.
    let names = server.get("/api/v1/names").json();
    assert_eq!((&names["names"][0]["name"], &names["names"][0]["to"]), (&json!(TASK), &json!(["shop"])));
    let explained = server.get(&format!("/api/v1/names/{TASK}/explain")).json();
    assert_eq!(explained["kind"], "task");
    assert_eq!(server.get("/api/v1/map").json()["nodes"][0]["name"], TASK);
    assert_eq!(server.get("/api/v1/checks").json()["errors"], 0);
    assert_eq!(server.get("/api/v1/asyncapi?app=shop").json()["asyncapi"], "3.0.0");
    server.get("/api/v1/asyncapi?app=bakery").is_problem(404, "bakery");

    // Queues and services.
    let queues = server.get("/api/v1/queues").json();
    let queue = |name: &str| {
        let all = queues["queues"].as_array().unwrap();
        all.iter().find(|it| it["queue"] == name).unwrap_or_else(|| panic!("{name}: {queues}")).clone()
    };
    assert_eq!((&queue(TASK)["consumers"], &queue("shop.failed")["ready"]), (&json!(1), &json!(2)));
    server.get("/api/v1/queues?app=bakery").is_problem(404, "bakery");
    let services = server.get("/api/v1/services?app=shop").json();
    let service = &services["services"][0];
    assert_eq!(
        (&service["app"], &service["silent"], &service["lost"]),
        (&json!("shop"), &json!(false), &json!(0))
    );

    // Failed jobs.
    let list = server.get("/api/v1/failed").json();
    assert_eq!(list, ponos(&url, &["failed", "list", "--json"]).ok().json());
    assert_eq!(server.get("/api/v1/failed?group_by=app").json()["groups"][0]["key"], "shop");
    server.get("/api/v1/failed?group_by=colour").is_problem(400, "fingerprint, error");
    let group = list["groups"][0]["fingerprint"].as_str().unwrap();
    let shown = server.get(&format!("/api/v1/failed/{group}?limit=5")).json();
    assert_eq!((&shown["count"], shown["jobs"].as_array().unwrap().len()), (&json!(2), 2));
    let id = list["groups"][0]["jobs"][1]["id"].as_str().unwrap();
    let job = server.get(&format!("/api/v1/failed/messages/{id}")).json();
    assert_eq!((&job["body"], &job["headers"]), (&Value::Null, &Value::Null));
    let job = server.get(&format!("/api/v1/failed/messages/{id}?body=1")).json();
    assert_eq!((&job["body"]["order"], &job["body"]["password"]), (&json!(1), &json!("‹redacted›")));
    server.get("/api/v1/failed/messages/x").is_problem(400, "/api/v1/failed");
    server
        .get("/api/v1/failed/messages/0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17")
        .is_problem(404, "no failed job");

    // Figures.
    let metrics = server.get("/metrics").body;
    for figure in [
        "ponos_collector_lag_seconds ",
        "ponos_collector_db_bytes ",
        "ponos_collector_records_total ",
        "ponos_collector_oldest_record_timestamp_seconds ",
        "ponos_failed_open{name=\"shop.parcel.send\"} 2\n",
        "ponos_failed_oldest_age_seconds{name=\"shop.parcel.send\"} ",
    ] {
        assert!(metrics.lines().any(|line| format!("{line}\n").starts_with(figure)), "{figure}: {metrics}");
    }

    // Something to do.
    let pause = json!({"verb": "pause", "selector": {"queue": TASK}, "reason": "paper"});
    let operation = server.post(&pause, &[]).json();
    let id = operation["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/api/v1/operations/{id}")).json()["state"], "finished");

    // The stream, which has no end of its own.
    let mut stream = server.connect();
    let head = format!(
        "GET /api/v1/stream HTTP/1.1\r\nhost: localhost:{}\r\nauthorization: bearer {TOKEN}\r\n\r\n",
        server.port
    );
    stream.write_all(head.as_bytes()).unwrap();
    let begun = BufReader::new(stream).lines().find(|line| line.as_ref().unwrap().starts_with(": alive"));
    assert!(begun.is_some());

    assert_eq!(Vec::from_iter(server.not_answered()), ["stream"], "all others were asked");
    shop.shutdown().await;
    let said = server.end("-TERM");
    assert!(!said.contains(SECRET), "a secret was answered");
    assert!(!said.contains(TOKEN), "the token was answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_a_body_is_not_told() {
    let (_dir, url) = place();
    let shop = shop(&url, &Printer::new()).await;
    ponos(&url, &["publish", TASK, &json!({"order": SECRET, "token": SECRET}).to_string()]).ok();
    let list = failed(&url, 1);
    let server = Server::start(&url);
    let tid = tids(&server, 1).remove(0);
    let (group, id) = (&list["groups"][0]["fingerprint"], &list["groups"][0]["jobs"][0]["id"]);
    let shown = server.get(&format!("/api/v1/failed/messages/{}", id.as_str().unwrap())).json();
    assert!(
        shown["report"]["error"].as_str().unwrap().contains("order"),
        "the error names the field: {shown}"
    );
    for path in [
        "/api/v1/failed".to_owned(),
        format!("/api/v1/failed/{}", group.as_str().unwrap()),
        format!("/api/v1/traces/{tid}"),
        format!("/api/v1/traces/{tid}?format=records"),
        format!("/api/v1/traces/{tid}?format=mermaid"),
        "/metrics".to_owned(),
    ] {
        assert_eq!(server.get(&path).status, 200, "{path}");
    }
    shop.shutdown().await;
    assert!(!server.end("-TERM").contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_the_whole_list_once() {
    let (_dir, url) = place();
    let printer = Printer::new();
    let shop = shop(&url, &printer).await;
    publish(&url, 0..23).await;
    printer.has_printed(23).await;
    let server = Server::start(&url);
    let all = tids(&server, 23);
    for limit in [1, 5, 23, 24] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("/api/v1/traces?limit={limit}{cursor}")).json();
            let traces = page["traces"].as_array().unwrap();
            assert!(traces.len() <= limit);
            seen.extend(traces.iter().map(|trace| trace["tid"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, all, "{limit}");
    }
    for (query, says) in [
        ("limit=0", "1 to 500"),
        ("limit=501", "1 to 500"),
        ("limit=x", "openapi.json"),
        ("cursor=x", "begin without one"),
        ("cursor=2026-11-23T06.x", "begin without one"),
        ("since=yesterday", "since"),
        ("outcome=fine", "openapi.json"),
        ("colour=red", "unknown field"),
    ] {
        server.get(&format!("/api/v1/traces?{query}")).is_problem(400, says);
    }
    shop.shutdown().await;
    server.end("-INT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_what_happens_and_only_what_was_asked_for() {
    let (_dir, url) = place();
    let printer = Printer::new();
    let shop = shop(&url, &printer).await;
    let server = Server::start(&url);
    server.get("/api/v1/stream?outcome=fine").is_problem(400, "published, unheard");
    server.get("/api/v1/stream?name=A%24").is_problem(400, "matches no name");
    let mut stream = server.connect();
    let head = format!(
        "GET /api/v1/stream?outcome=done&app=shop HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: Bearer {TOKEN}\r\n\r\n",
        server.port
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(
        head[0].contains("200") && head.iter().any(|line| line == "content-type: text/event-stream"),
        "{head:?}"
    );
    assert!(lines.any(|line| line == ": alive"), "from here on entries are told");
    publish(&url, 7..8).await;
    let event: Vec<String> = lines
        .by_ref()
        .skip_while(|line| !line.starts_with("id: "))
        .take_while(|line| !line.is_empty())
        .collect();
    assert_eq!(event[1], "event: entry", "{event:?}");
    let entry: Value = serde_json::from_str(event[2].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&entry["kind"], &entry["origin"]["app"]), (&json!("done"), &json!("shop")));
    // An open stream does not hold up the end, and is ended in order.
    let said = server.end("-TERM");
    assert!(!said.contains(TOKEN));
    assert!(lines.all(|line| !line.contains("published")), "it was not asked for");
    shop.shutdown().await;
}
