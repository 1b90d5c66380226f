//! Services on the npm package `ponos` 5.8.3 and services in Rust on one RabbitMQ: the real package, in a Node process.

use std::collections::BTreeMap;

use ponos::core::broker::Inspect;
use ponos::core::envelope::Recovery;
use ponos::core::name::{AppName, QueueName};
use ponos::prelude::*;
use ponos::{FailedJobs, Phase, RetryFailed, StartError};
use ponos_testbed::Node;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::peer::{self, DEADLINE, Peer};

#[event("org.payment.processed")]
struct OrgPaymentProcessed {
    org: String,
}

#[event("email.sent")]
struct EmailSent {
    org: String,
}

#[app("cream", emits(OrgPaymentProcessed))]
struct Cream;

#[app("pheidi", state = Log)]
struct Pheidi;

#[task("pheidi.email.send", app = Pheidi, emits(EmailSent))]
struct EmailSend {
    org: String,
}

#[app("audit", state = Log)]
struct Audit;

#[task("audit.entry.write", app = Audit)]
struct EntryWrite {
    org: String,
}

/// One run of a task, as its handler saw it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    org: String,
    tid: String,
    attempt: u32,
    phase: &'static str,
}

/// Where handlers note what they do.
type Log = mpsc::UnboundedSender<Run>;

fn note<T: Task>(cx: &TaskCx<T>, org: &str) -> Run {
    let phase = if cx.phase() == Phase::Run { "run" } else { "recover" };
    Run { org: org.to_owned(), tid: cx.tid().to_string(), attempt: cx.attempt(), phase }
}

fn thank_the_payer(e: OrgPaymentProcessed) -> EmailSend {
    EmailSend { org: e.org }
}

/// The organisation's name says how it goes.
async fn send_email(t: EmailSend, cx: TaskCx<EmailSend>) -> Outcome {
    let _ = cx.state().send(note(&cx, &t.org));
    if t.org.starts_with("hopeless") || t.org.starts_with("shaky") && cx.attempt() < 3 {
        Err("the provider is busy")?;
    }
    cx.emit(EmailSent { org: t.org })?;
    Ok(())
}

async fn flag_org(t: EmailSend, cx: TaskCx<EmailSend>, _: GaveUp) -> Outcome {
    let _ = cx.state().send(note(&cx, &t.org));
    Ok(())
}

fn pheidi() -> Service<Pheidi> {
    let backoff = Backoff::exponential(millis(50)).max(millis(400));
    Service::new()
        .on(thank_the_payer)
        .task(send_email, |p| p.retry(backoff).max_retries(2).no_breaker().recover(flag_org))
}

fn audit_the_mail(e: EmailSent) -> EntryWrite {
    EntryWrite { org: e.org }
}

async fn write_entry(t: EntryWrite, cx: TaskCx<EntryWrite>) -> Outcome {
    let _ = cx.state().send(note(&cx, &t.org));
    Ok(())
}

fn audit() -> Service<Audit> {
    Service::new().on(audit_the_mail).task(write_entry, |p| p)
}

/// A virtual host of its own.
struct Fleet {
    node: &'static Node,
    vhost: String,
}

impl Fleet {
    /// `None`, said aloud, where Node is not installed.
    fn new() -> Option<Self> {
        peer::is_installed().then(|| {
            let node = Node::shared();
            Self { node, vhost: node.fresh_vhost_name() }
        })
    }

    async fn peer(&self, args: &[&str]) -> Peer {
        Peer::start(self.node, &self.vhost, args).await
    }

    fn quorum(&self) -> Broker {
        Broker::from_url(&self.node.url_of(&self.vhost)).expect("a URL")
    }

    fn classic(&self) -> Broker {
        let url = format!("{}?queue_type=classic", self.node.url_of(&self.vhost));
        Broker::from_url(&url).expect("a URL")
    }

    /// A queue as RabbitMQ shows it.
    fn queue(&self, name: &str) -> Value {
        let (status, answer) = self.node.http("GET", &format!("/api/queues/{}/{name}", self.vhost), None);
        assert_eq!(status, 200, "{name}: {answer}");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// Waits until nothing is ready in any queue but the failed jobs'.
    async fn drained(&self) {
        let (status, answer) =
            self.node.http("GET", &format!("/api/queues/{}?columns=name", self.vhost), None);
        assert_eq!(status, 200, "{answer}");
        let listed: Vec<Value> = serde_json::from_str(&answer).expect("JSON");
        let names = listed.iter().map(|queue| queue["name"].as_str().expect("a name"));
        // A stream keeps what was read.
        let names: Vec<_> =
            names.filter(|name| !name.ends_with(".failed") && !name.ends_with(".state")).collect();
        assert!(names.contains(&"pheidi.email.send"), "{names:?}");
        let broker = self.quorum().connect().await.expect("connects");
        let deadline = tokio::time::Instant::now() + DEADLINE;
        for name in names {
            let queue = QueueName::parse(name).expect("a name");
            loop {
                let answer = broker.inspect(Inspect::Queue(queue.clone())).await.expect("it answers");
                let stats = answer.into_queues().pop().expect("it is there");
                if stats.ready == 0 {
                    break;
                }
                assert!(tokio::time::Instant::now() < deadline, "not drained: {stats:?}");
            }
        }
        broker.close().await.expect("closes");
    }
}

async fn next(runs: &mut mpsc::UnboundedReceiver<Run>) -> Run {
    tokio::time::timeout(DEADLINE, runs.recv()).await.expect("a run in time").expect("the service lives")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_a_node_service_is_heard_in_rust_and_what_rust_emits_in_node() {
    let Some(fleet) = Fleet::new() else { return };
    let (log, mut runs) = mpsc::unbounded_channel();
    let rust = pheidi().start(log, fleet.quorum()).await.expect("starts");
    let mut hears = fleet.peer(&["server", "--name", "audit", "--event", "email.sent"]).await;
    let mut cream = fleet.peer(&["publisher", "--name", "cream", "--event", "org.payment.processed"]).await;

    let tid = cream.emit("org.payment.processed", json!({ "org": "acme", "amount": 19.5 })).await;

    let run = next(&mut runs).await;
    assert_eq!(run, Run { org: "acme".into(), tid: tid.clone(), attempt: 1, phase: "run" });
    let job = hears.job("email.sent").await;
    assert_eq!((&job["payload"], &job["tid"]), (&json!({ "org": "acme" }), &json!(tid)));
    let meta = &job["meta"];
    assert_eq!((&meta["appId"], &meta["type"]), (&json!("pheidi"), &json!("email.sent")));
    assert_eq!((&meta["correlationId"], &meta["deliveryMode"]), (&json!(tid), &json!(2)));
    assert_eq!(meta["headers"]["publisherWorkerName"], "pheidi.email.send");
    assert!(meta["timestamp"].as_u64() > Some(1_600_000_000_000), "milliseconds: {meta}");

    // A TID that somebody chose.
    let order = json!({ "publish": "event", "name": "org.payment.processed", "payload": { "org": "b" }, "tid": "tx-17" });
    assert_eq!(cream.order(order).await, "tx-17");
    assert_eq!(next(&mut runs).await.tid, "tx-17");
    assert_eq!(hears.job("email.sent").await["tid"], "tx-17");
    hears.stop().await;
    cream.stop().await;
    rust.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_goes_from_rust_through_a_node_worker_and_back_under_one_tid() {
    let Some(fleet) = Fleet::new() else { return };
    let args = ["--event", "org.payment.processed", "--republish", "org.payment.processed=email.sent"];
    let mut node = fleet.peer(&[&["server", "--name", "pheidi"], &args[..]].concat()).await;
    let (log, mut runs) = mpsc::unbounded_channel();
    let rust = audit().start(log, fleet.quorum()).await.expect("starts");
    let cream = Publisher::<Cream>::connect(fleet.quorum()).await.expect("connects");

    for org in ["acme", "zebra, größer"] {
        let receipt = cream.emit(OrgPaymentProcessed { org: org.into() }).await.expect("published");
        let tid = receipt.tid.to_string();
        let job = node.job("org.payment.processed").await;
        assert_eq!((&job["payload"], &job["tid"]), (&json!({ "org": org }), &json!(tid)));
        assert_eq!(job["meta"]["messageId"], json!(receipt.id.to_string()));
        assert_eq!(next(&mut runs).await, Run { org: org.into(), tid, attempt: 1, phase: "run" });
    }
    node.stop().await;
    rust.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queues_of_a_node_service_are_taken_over_with_the_jobs_in_them() {
    let Some(fleet) = Fleet::new() else { return };
    let server = [
        "server",
        "--name",
        "pheidi",
        "--event",
        "org.payment.processed",
        "--task",
        "email.send",
        "--fail",
        "org.payment.processed=99",
        "--fail",
        "email.send=99",
    ];
    let mut node = fleet.peer(&server).await;
    let mut cream = fleet.peer(&["publisher", "--name", "cream", "--event", "org.payment.processed"]).await;
    let mut itself = fleet.peer(&["publisher", "--name", "pheidi", "--task", "email.send"]).await;
    let mut hears = fleet.peer(&["server", "--name", "audit", "--event", "email.sent"]).await;

    // What the Node service is at, and loses with its process.
    let mut expected = BTreeMap::new();
    let fine = cream.emit("org.payment.processed", json!({ "org": "fine-held" })).await;
    expected.insert(fine, "fine-held".to_owned());
    node.job("org.payment.processed").await;
    let fine = itself.create("email.send", json!({ "org": "fine-held-task" })).await;
    expected.insert(fine, "fine-held-task".to_owned());
    node.job("email.send").await;
    drop(node);
    // What comes while there is no service at all.
    for kind in ["fine", "shaky", "hopeless"] {
        for n in 0..5 {
            let (event, task) = (format!("{kind}-{n}"), format!("{kind}-task-{n}"));
            expected.insert(cream.emit("org.payment.processed", json!({ "org": event })).await, event);
            expected.insert(itself.create("email.send", json!({ "org": task })).await, task);
        }
    }
    let unreadable = cream.emit("org.payment.processed", json!({ "org": 5 })).await;

    let (log, mut runs) = mpsc::unbounded_channel();
    let rust = pheidi().start(log, fleet.classic()).await.expect("starts on Node's queues");

    // 12 fine ones run once, 10 shaky ones three times, 10 hopeless ones three times and recover.
    let mut seen: BTreeMap<String, Vec<(u32, &str)>> = BTreeMap::new();
    for _ in 0..12 + 30 + 40 {
        let run = next(&mut runs).await;
        assert_eq!(expected.get(&run.tid), Some(&run.org), "each under the TID that Node gave it");
        seen.entry(run.org).or_default().push((run.attempt, run.phase));
    }
    assert_eq!(seen.len(), expected.len(), "no job is lost");
    for (org, runs) in &seen {
        let (times, recovered) = match org.as_str() {
            org if org.starts_with("fine") => (1, false),
            org if org.starts_with("shaky") => (3, false),
            _ => (3, true),
        };
        let wanted: Vec<_> = (1..=times).map(|n| (n, "run")).collect();
        assert_eq!(runs.iter().filter(|run| run.1 == "run").copied().collect::<Vec<_>>(), wanted, "{org}");
        assert_eq!(runs.iter().any(|run| run.1 == "recover"), recovered, "{org}");
    }
    for _ in 0..22 {
        let job = hears.job("email.sent").await;
        let tid = job["tid"].as_str().expect("a TID");
        assert_eq!(json!(expected.get(tid)), job["payload"]["org"], "one mail for each");
    }

    fleet.drained().await;
    for queue in ["pheidi.org.payment.processed", "pheidi.email.send"] {
        assert_eq!(fleet.queue(queue)["type"], "classic");
    }
    assert_eq!(fleet.queue("pheidi.failed")["type"], "quorum");
    assert_eq!(fleet.queue("pheidi.retry.125")["type"], "quorum");

    let broker = fleet.quorum().connect().await.expect("connects");
    let failed = FailedJobs::new(broker.clone(), AppName::parse("pheidi").expect("a name"));
    // A look takes what comes within a second, and hands it back: on a busy machine it may see less than there is.
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let list = loop {
        let list = failed.list(100, None).await.expect("a list");
        if list.len() >= 11 {
            break list;
        }
        assert!(tokio::time::Instant::now() < deadline, "only {} failed jobs are listed", list.len());
    };
    assert_eq!(list.len(), 11, "the hopeless ones, and what nobody can read");
    for job in &list {
        let report = job.report.as_ref().expect("a report");
        if job.tid.to_string() == unreadable {
            assert_eq!((report.queue.as_str(), report.gave_up.attempts), ("pheidi.org.payment.processed", 1));
            assert!(String::from_utf8_lossy(&job.body).contains(r#""org":5"#), "with its bytes");
            continue;
        }
        let org = &expected[&job.tid.to_string()];
        assert!(org.starts_with("hopeless"), "{org}");
        assert_eq!((report.queue.as_str(), report.gave_up.attempts), ("pheidi.email.send", 3));
        assert_eq!(
            (report.gave_up.error.as_str(), &report.recovery),
            ("the provider is busy", &Recovery::Done)
        );
    }
    // Back from the failed ones, into Node's queue.
    let again = list.iter().find(|job| job.tid.to_string() != unreadable).expect("one of them");
    let queue = QueueName::task(&ponos::core::name::TaskName::parse("pheidi.email.send").expect("a name"));
    while failed.retry(again.id).await.expect("an answer") != RetryFailed::Retried(queue.clone()) {
        assert!(tokio::time::Instant::now() < deadline, "it is not found to be retried");
    }
    let phases = [next(&mut runs).await, next(&mut runs).await, next(&mut runs).await, next(&mut runs).await];
    assert!(phases.iter().all(|run| run.tid == again.tid.to_string()), "{phases:?}");
    assert_eq!(phases.iter().map(|run| run.phase).collect::<Vec<_>>(), ["run", "run", "run", "recover"]);
    broker.close().await.expect("closes");
    rust.shutdown().await;
    // What was not settled would be ready again.
    fleet.drained().await;
    assert!(hears.said(|line| line["job"] == "email.sent").is_empty(), "no mail was sent twice");
    assert!(runs.try_recv().is_err(), "no job ran twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_equal_messages_of_a_node_service_are_two_jobs() {
    const PAIRS: usize = 10;
    let Some(fleet) = Fleet::new() else { return };
    let (log, mut runs) = mpsc::unbounded_channel();
    // Classic, so that the package can declare the task's queue, which it does before it publishes.
    let rust = pheidi().start(log, fleet.classic()).await.expect("starts");
    let mut hears = fleet.peer(&["server", "--name", "audit", "--event", "email.sent"]).await;
    let mut raw = fleet.peer(&["server", "--name", "twin", "--event", "org.payment.processed"]).await;
    let mut cream = fleet.peer(&["publisher", "--name", "cream", "--event", "org.payment.processed"]).await;
    let mut itself = fleet.peer(&["publisher", "--name", "pheidi", "--task", "email.send"]).await;

    for n in 0..PAIRS {
        let twice = |kind: &str, name: &str| {
            let tid = format!("{kind}-{n}");
            json!({ "publish": kind, "name": name, "payload": { "org": "acme" }, "tid": tid, "times": 2 })
        };
        cream.order(twice("event", "org.payment.processed")).await;
        itself.order(twice("task", "email.send")).await;
        let (one, two) = (raw.job("org.payment.processed").await, raw.job("org.payment.processed").await);
        assert_eq!(
            (&one["tid"], &one["payload"], &one["meta"]),
            (&two["tid"], &two["payload"], &two["meta"])
        );
        assert!(one["meta"].get("messageId").is_none(), "nothing tells them apart: {one}");
    }

    let mut done = BTreeMap::<String, usize>::new();
    let mut sent = BTreeMap::<String, usize>::new();
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..4 * PAIRS {
        *done.entry(next(&mut runs).await.tid).or_default() += 1;
        let mail = hears.job("email.sent").await;
        *sent.entry(mail["tid"].as_str().expect("a TID").to_owned()).or_default() += 1;
        ids.insert(mail["meta"]["messageId"].to_string());
    }
    assert_eq!((done.len(), sent.len()), (2 * PAIRS, 2 * PAIRS));
    assert!(done.values().chain(sent.values()).all(|&times| times == 2), "{done:?} {sent:?}");
    assert_eq!(ids.len(), 4 * PAIRS, "and whoever hears of them can tell them apart");
    rust.shutdown().await;
    // What was not settled would be ready again.
    fleet.drained().await;
    assert!(runs.try_recv().is_err(), "no job ran twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_of_another_type_are_refused_at_the_start_with_the_way_out() {
    let Some(fleet) = Fleet::new() else { return };
    let server = ["server", "--name", "pheidi", "--event", "org.payment.processed"];
    let node = fleet.peer(&server).await;
    let (log, _runs) = mpsc::unbounded_channel();
    let refused = pheidi().start(log, fleet.quorum()).await.expect_err("classic queues cannot be used");
    assert!(matches!(refused, StartError::Broker { app: "pheidi", .. }), "{refused:?}");
    let said = refused.to_string();
    for part in ["`pheidi.org.payment.processed`", "classic", "quorum", "`?queue_type=classic`"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The Node service is not disturbed.
    let mut cream = fleet.peer(&["publisher", "--name", "cream", "--event", "org.payment.processed"]).await;
    let tid = cream.emit("org.payment.processed", json!({ "org": "acme" })).await;
    let mut node = node;
    assert_eq!(node.job("org.payment.processed").await["tid"], json!(tid));

    // The other way round: a Node service ends over the queues of a Rust service.
    let Some(fleet) = Fleet::new() else { return };
    let (log, mut runs) = mpsc::unbounded_channel();
    let rust = pheidi().start(log, fleet.quorum()).await.expect("starts");
    let mut node = Peer::spawn(fleet.node, &fleet.vhost, &server);
    let said = node.line("error", |line| line.get("error").is_some()).await["error"].to_string();
    assert!(said.contains("PRECONDITION_FAILED - inequivalent arg"), "{said}");
    assert_eq!(node.end().await, Some(1));
    let mut cream = fleet.peer(&["publisher", "--name", "cream", "--event", "org.payment.processed"]).await;
    let tid = cream.emit("org.payment.processed", json!({ "org": "acme" })).await;
    assert_eq!(next(&mut runs).await.tid, tid);
    rust.shutdown().await;
}
