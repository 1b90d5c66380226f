//! `ponos topology` against a real RabbitMQ, with services of the library at work on it.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ponos::core::broker::{Broker as _, Inspect, Settlement, SubscribeOptions, Topology, Verdict};
use ponos::core::name::{AppName, EventName, QueueName, TaskName};
use ponos::prelude::*;
use ponos::{PublishError, RabbitBroker, RabbitOptions, RawPublisher, TaskPolicy};
use ponos_testbed::Node;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// How long something may take that happens elsewhere.
const DEADLINE: Duration = Duration::from_secs(30);

#[event("order.paid")]
struct OrderPaid {
    order: u64,
}

#[event("parcel.sent")]
struct ParcelSent {
    order: u64,
}

#[app("shop", state = Printer)]
struct Shop;

#[task("shop.parcel.send", app = Shop, emits(ParcelSent))]
struct ParcelSend {
    order: u64,
}

#[app("desk", state = Printer)]
struct Desk;

#[task("desk.parcel.note", app = Desk)]
struct ParcelNote {
    order: u64,
}

/// Counts what was done. Order 13 fails for good, all others fail once.
#[derive(Debug, Clone, Default)]
struct Printer {
    tries: Arc<AtomicU32>,
    noted: Arc<AtomicU32>,
}

fn send_what_is_paid(e: OrderPaid) -> ParcelSend {
    ParcelSend { order: e.order }
}

async fn send(t: ParcelSend, cx: TaskCx<ParcelSend>) -> Outcome {
    if t.order == 13 {
        return Err("unlucky".to_owned()).stop();
    }
    if cx.state().tries.fetch_add(1, Ordering::SeqCst) == 0 {
        return Err("not yet".into());
    }
    cx.emit(ParcelSent { order: t.order })?;
    Ok(())
}

fn note_what_is_sent(e: ParcelSent) -> ParcelNote {
    ParcelNote { order: e.order }
}

async fn note(t: ParcelNote, cx: TaskCx<ParcelNote>) -> Outcome {
    assert_ne!(t.order, 13);
    cx.state().noted.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

fn shop() -> Service<Shop> {
    let policy = |p: TaskPolicy<ParcelSend>| p.retry(Backoff::constant(millis(50)));
    Service::<Shop>::new().on(send_what_is_paid).task(send, policy)
}

fn desk() -> Service<Desk> {
    Service::<Desk>::new().on(note_what_is_sent).task(note, |p| p)
}

/// A virtual host of its own, and a folder with the manifests.
struct Place {
    node: &'static Node,
    vhost: String,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let node = Node::shared();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("shop.json"), shop().manifest().to_json()).unwrap();
        std::fs::write(folder.path().join("desk.json"), desk().manifest().to_json()).unwrap();
        Self { node, vhost: node.fresh_vhost_name(), folder }
    }

    fn url(&self) -> String {
        self.url_as("guest", "guest")
    }

    fn url_as(&self, user: &str, password: &str) -> String {
        let port = self.node.management_port().unwrap();
        let url = self.node.url_as(user, password, &self.vhost);
        format!("{url}?management=http://127.0.0.1:{port}")
    }

    async fn broker(&self) -> RabbitBroker {
        RabbitBroker::connect(RabbitOptions::from_url(&self.url()).unwrap()).await.unwrap()
    }

    /// `ponos topology …` on this virtual host.
    async fn topology(&self, args: &[&str]) -> Ran {
        self.topology_at(&self.url(), args).await
    }

    async fn topology_at(&self, url: &str, args: &[&str]) -> Ran {
        ran(self.folder.path(), url, args).await
    }

    fn queues(&self) -> Vec<String> {
        let (status, body) = self.node.http("GET", &format!("/api/queues/{}", self.vhost), None);
        assert_eq!(status, 200);
        let queues: Vec<Value> = serde_json::from_str(&body).unwrap();
        queues.iter().map(|queue| queue["name"].as_str().unwrap().to_owned()).collect()
    }

    fn put(&self, path: &str, body: &Value) {
        let (status, answer) = self.node.http("PUT", path, Some(&body.to_string()));
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
    }
}

async fn ran(folder: &Path, url: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ponos"));
    command.arg("topology").args(args).current_dir(folder).env("PONOS_BROKER", url);
    command.env("PONOS_VIEW", folder.join("view"));
    command.env_remove("NO_COLOR").env_remove("COLUMNS").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ends(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(code == 0 || self.err.is_empty() || self.err.lines().count() == 2, "{self:?}");
        self
    }

    #[track_caller]
    fn says(&self, text: &str) -> &Self {
        assert!(self.out.contains(text) || self.err.contains(text), "{text:?} is not in {self:?}");
        self
    }

    #[track_caller]
    fn never_says(&self, text: &str) -> &Self {
        assert!(!self.out.contains(text) && !self.err.contains(text), "{text:?} is in {self:?}");
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        let json: Value = serde_json::from_str(&self.out).unwrap();
        assert_eq!(json["version"], 1);
        json
    }
}

/// Polls until something holds.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < DEADLINE, "{what} did not come to be");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

fn payload(order: u64) -> Map<String, Value> {
    Map::from_iter([("order".to_owned(), json!(order))])
}

const BOTH: [&str; 4] = ["--manifest", "shop.json", "--manifest", "desk.json"];

fn with<'a>(verb: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&[verb], rest].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_planned_is_applied_once_and_is_what_services_use() {
    let place = Place::new();
    let planned = place.topology(&with("plan", &BOTH)).await;
    planned.ends(1).says("+ exchange order.paid\n").says("+ queue shop.parcel.send\n");
    planned.says("+ binding parcel.sent → desk.parcel.sent\n").says("+ queue desk.control.state\n");
    planned.says("+ exchange ponos.lifecycle\n").never_says("shop.retry.").never_says("discarded");
    planned.says("rabbitmqctl set_operator_policy -p").says("ponos-shop-guard");
    assert_eq!(place.queues(), Vec::<String>::new(), "a plan changes nothing");

    let applied = place.topology(&with("apply", &BOTH)).await;
    let missing = planned.out.lines().filter(|line| line.starts_with("+ ")).count();
    applied.ends(0).says(&format!("declared {missing} things"));
    place.topology(&with("apply", &BOTH)).await.ends(0).says("nothing to do");
    place.topology(&with("plan", &BOTH)).await.ends(0).says("nothing to do");

    // Records begin with the first look.
    place.topology(&["plan"]).await.ends(1).says("knows no manifest");
    // Services find everything as they want it, and what they add on the way is theirs.
    let broker = place.broker().await;
    let printer = Printer::default();
    let shop = shop().start(printer.clone(), Broker::from(Arc::new(broker.clone()))).await.unwrap();
    let desk = desk().start(printer.clone(), Broker::from_url(&place.url()).unwrap()).await.unwrap();
    let web = RawPublisher::connect(AppName::from_checked("web"), Broker::from_url(&place.url()).unwrap());
    let web = web.await.unwrap();
    web.emit(EventName::from_checked("order.paid"), &payload(1), None).await.unwrap();
    until("the note", || async { printer.noted.load(Ordering::SeqCst) == 1 }).await;
    assert_eq!(broker.stats().mismatches, 0);
    assert!(place.queues().iter().any(|queue| queue.starts_with("shop.retry.")));
    let planned = place.topology(&with("plan", &[&BOTH[..], &["--json"]].concat())).await;
    assert_eq!(planned.ends(0).json()["entries"], json!([]));
    // What they told of themselves is as good as files.
    let same = planned.json()["same"].clone();
    until("both manifests", || async {
        let told = place.topology(&["plan", "--json"]).await;
        told.code == 0 && told.json()["same"] == same
    })
    .await;
    shop.shutdown().await;
    desk.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_refused_and_a_start_says_the_same() {
    let place = Place::new();
    let vhost = &place.vhost;
    place.put(
        &format!("/api/queues/{vhost}/shop.parcel.send"),
        &json!({ "durable": true, "arguments": { "x-max-length": 5 } }),
    );
    place.put(&format!("/api/exchanges/{vhost}/order.paid"), &json!({ "type": "topic", "durable": true }));
    place.put(
        &format!("/api/queues/{vhost}/shop.failed"),
        &json!({ "durable": true, "arguments": { "x-queue-type": "quorum", "x-delivery-limit": 7 } }),
    );
    place.put(
        &format!("/api/policies/{vhost}/short"),
        &json!({ "pattern": "^shop.failed$", "definition": { "message-ttl": 1000 }, "apply-to": "queues" }),
    );
    let planned = place.topology(&["plan", "--manifest", "shop.json"]).await;
    let kind = "x-queue-type: wanted quorum, found classic";
    planned.ends(1).says("! queue shop.parcel.send\n").says(&format!("    {kind} (cannot be used)\n"));
    planned.says("    x-max-length: wanted none, found 5\n");
    planned.says("! exchange order.paid\n    type: wanted fanout, found topic (cannot be used)\n");
    planned.says("~ queue shop.failed\n    x-delivery-limit: wanted 1000000000, found 7\n");
    planned.says("policy short sets message-ttl = 1000: it removes jobs that lie there for that long");

    let applied = place.topology(&["apply", "--manifest", "shop.json"]).await;
    applied.ends(1).says("nothing was declared: 2 things cannot be used").says(kind);
    assert!(!place.queues().iter().any(|queue| queue == "shop.control.state"));

    // The first thing that a service meets, with what is different about it.
    let error = shop().start(Printer::default(), Broker::from_url(&place.url()).unwrap()).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("type: wanted fanout, found topic"), "{said}");
    place.node.http("DELETE", &format!("/api/exchanges/{vhost}/order.paid"), None);
    let error = shop().start(Printer::default(), Broker::from_url(&place.url()).unwrap()).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains(kind) && said.contains("x-max-length: wanted none, found 5"), "{said}");
    // Without the plugin the one difference that RabbitMQ names.
    let elsewhere = format!("{}?management=http://127.0.0.1:1", place.node.url_of(vhost));
    let error = shop().start(Printer::default(), Broker::from_url(&elsewhere).unwrap()).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("x-queue-type") && !said.contains("x-max-length"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_nobody_names_and_nobody_needs_is_taken_away() {
    let place = Place::new();
    let broker = place.broker().await;
    place.topology(&with("apply", &BOTH)).await.ends(0);
    // An older version: three queues that no manifest names any more, one of them with a job, one worked.
    let app = AppName::from_checked("shop");
    let [empty, full, worked] = ["shop.parcel.wrap", "shop.parcel.weigh", "shop.parcel.stamp"];
    let cancelled = EventName::from_checked("order.cancelled");
    let heard = QueueName::subscription(&app, &cancelled);
    let task = |name: &'static str| QueueName::task(&TaskName::from_checked(name));
    let old = Topology {
        app: Some(app.clone()),
        events: vec![cancelled.clone()],
        subscriptions: vec![(heard.clone(), cancelled.clone())],
        tasks: vec![task(empty), task(full), task(worked), QueueName::discarded(&app)],
        ..Topology::default()
    };
    broker.declare(&old).await.unwrap();
    broker.carry_out(&ponos::rabbitmq::topology::Plan::level(&app, Duration::from_secs(1))).await.unwrap();
    let other = AppName::from_checked("shopping");
    let other_task = task("shopping.list.write");
    broker
        .declare(&Topology { app: Some(other), tasks: vec![other_task], ..Topology::default() })
        .await
        .unwrap();
    let web = RawPublisher::connect(AppName::from_checked("shop"), Broker::from_url(&place.url()).unwrap());
    let web = web.await.unwrap();
    web.create(TaskName::from_checked(full), &payload(1), None).await.unwrap();
    let subscription = broker.subscribe(&task(worked), SubscribeOptions::prefetch(1)).await.unwrap();

    let prune = with("prune", &[&BOTH[..], &["--app", "shop", "--wait", "1"]].concat());
    let refused = place.topology(&prune).await;
    refused.ends(4).says("would delete shop.order.cancelled (0 messages)").says("would delete 4 queues");
    refused.never_says("shopping").never_says("failed").never_says("retry").never_says("discarded");
    place
        .topology(&["prune", "--manifest", "desk.json", "--app", "shop"])
        .await
        .ends(2)
        .says("no manifest of");
    assert!(place.queues().contains(&empty.to_owned()));

    let before = place.queues();
    let pruned = place.topology(&with("prune", &[&prune[1..], &["--yes"]].concat())).await;
    pruned.ends(1).says(&format!("deleted {empty}\n")).says("deleted shop.order.cancelled\n");
    pruned.says(&format!("not deleted {full}: 1 job in it and nobody works it; nothing was changed"));
    pruned.says(&format!(
        "not deleted {worked}: 0 messages and 1 consumer were left; its bindings are as they were"
    ));
    pruned.says("2 of 4 queues not deleted");
    let gone: Vec<String> = before.into_iter().filter(|queue| !place.queues().contains(queue)).collect();
    assert_eq!(gone.len(), 2, "{gone:?}");
    let (status, _) =
        place.node.http("GET", &format!("/api/exchanges/{}/order.cancelled", place.vhost), None);
    assert_eq!(status, 200, "events are everybody's");

    // The version that works them runs, the jobs are done, it is stopped.
    drop(subscription);
    let mut stand_in = broker.subscribe(&task(full), SubscribeOptions::prefetch(1)).await.unwrap();
    let mut taken = Vec::new();
    std::future::poll_fn(|cx| stand_in.poll_next(cx, 1, &mut taken)).await.unwrap();
    broker.settle(&taken[0], Settlement::just(Verdict::Done)).await.unwrap();
    drop(stand_in);
    let prune = with("prune", &[&prune[1..], &["--yes", "--json"]].concat());
    let started = Instant::now();
    loop {
        // A consumer's end is heard of late.
        let pruned = place.topology(&prune).await;
        if pruned.code == 0 {
            pruned.json();
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{pruned:?}");
    }
    assert!(!place.queues().iter().any(|queue| queue == full || queue == worked));
    place.topology(&prune).await.ends(0);
    place.topology(&with("plan", &BOTH)).await.ends(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_just_the_printed_permissions_can_do_all_of_its_own_and_nothing_else() {
    let place = Place::new();
    let permissions = place.topology(&with("permissions", &[&BOTH[..], &["--json"]].concat())).await;
    let permissions = permissions.ends(0).json();
    assert_eq!(permissions["vhost"], place.vhost);
    for row in permissions["permissions"].as_array().unwrap() {
        let text = |key: &str| row[key].as_str().unwrap();
        let user = format!("{}-{}", place.vhost, text("app"));
        place.node.add_user(&place.vhost, &user, "pw", text("configure"), text("write"), text("read"));
    }
    let url_of = |app: &str| place.url_as(&format!("{}-{app}", place.vhost), "pw");
    let broker = |app: &str| Broker::from_url(&url_of(app)).unwrap();

    // Without the events it is said who makes them.
    let error = shop().start(Printer::default(), broker("shop")).await.unwrap_err().to_string();
    assert!(error.contains("may not declare it") && error.contains("ponos topology apply"), "{error}");
    place.topology_at(&url_of("shop"), &with("apply", &BOTH)).await.ends(3).says("may not declare it");
    place.topology(&with("apply", &BOTH)).await.ends(0);

    // It starts, consumes, retries over the ladder, emits; another one hears it.
    let printer = Printer::default();
    let shop = shop().start(printer.clone(), broker("shop")).await.unwrap();
    let desk = desk().start(printer.clone(), broker("desk")).await.unwrap();
    let web = RawPublisher::connect(AppName::from_checked("web"), Broker::from_url(&place.url()).unwrap());
    let web = web.await.unwrap();
    let paid = EventName::from_checked("order.paid");
    web.emit(paid.clone(), &payload(1), None).await.unwrap();
    until("the note", || async { printer.noted.load(Ordering::SeqCst) == 1 }).await;
    assert_eq!(printer.tries.load(Ordering::SeqCst), 2, "it was retried");
    assert!(place.queues().iter().any(|queue| queue.starts_with("shop.retry.")));

    // It fails for good, and the failed job can be discarded.
    let own = broker("shop").connect().await.unwrap();
    let failed = ponos::FailedJobs::new(Arc::clone(&own), AppName::from_checked("shop"));
    web.emit(paid.clone(), &payload(13), None).await.unwrap();
    until("the failed job", || async { !failed.list(1, None).await.unwrap().is_empty() }).await;
    let job = failed.list(1, None).await.unwrap().remove(0);
    assert!(failed.discard(job.id).await.unwrap());

    // It is paused and resumed.
    let queue = QueueName::from_checked("shop.parcel.send");
    let consumers = || async {
        let queues = own.inspect(Inspect::Queues(None)).await.unwrap().into_queues();
        queues.iter().find(|stats| stats.queue == queue).map(|stats| stats.consumers)
    };
    own.declare(&Topology {
        app: Some(AppName::from_checked("shop")),
        tasks: vec![queue.clone()],
        ..Topology::default()
    })
    .await
    .unwrap();
    shop.pause(&queue, "a try").await.unwrap();
    until("the pause", || async { consumers().await == Some(0) }).await;
    shop.resume(&queue, "it is over").await.unwrap();
    until("the end of the pause", || async { consumers().await == Some(1) }).await;
    web.emit(paid, &payload(2), None).await.unwrap();
    until("the second note", || async { printer.noted.load(Ordering::SeqCst) == 2 }).await;

    // Nothing of another application, and no event that it does not emit.
    let thief = RawPublisher::connect(AppName::from_checked("shop"), broker("shop")).await.unwrap();
    let note = TaskName::from_checked("desk.parcel.note");
    let stolen = thief.create(note, &payload(3), None).await.unwrap_err();
    assert!(is_denied(&stolen), "{stolen}");
    let paid = thief.emit(EventName::from_checked("order.paid"), &payload(3), None).await.unwrap_err();
    assert!(is_denied(&paid), "{paid}");
    let read =
        own.subscribe(&QueueName::from_checked("desk.parcel.note"), SubscribeOptions::prefetch(1)).await;
    assert!(read.is_err());
    shop.shutdown().await;
    desk.shutdown().await;
    assert_eq!(printer.noted.load(Ordering::SeqCst), 2);
}

fn is_denied(error: &PublishError) -> bool {
    matches!(error, PublishError::Refused { source, .. }
        if source.kind() == ponos::core::broker::BrokerErrorKind::Denied)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_plugin_it_is_said_what_is_missing_and_what_works_does() {
    let place = Place::new();
    let away = format!("{}?management=http://127.0.0.1:1", place.node.url_of(&place.vhost));
    let missing = place.topology_at(&away, &with("plan", &BOTH)).await;
    missing.ends(3).says("http://127.0.0.1:1").says("rabbitmq-plugins enable rabbitmq_management");
    missing.says("?management=http://host:port").never_says("guest:");
    let prune = with("prune", &[&BOTH[..], &["--app", "shop", "--yes"]].concat());
    place.topology_at(&away, &prune).await.ends(3).says("rabbitmq_management");
    place.topology_at(&away, &with("apply", &BOTH)).await.ends(0).says("are there now");
    place.topology(&with("plan", &BOTH)).await.ends(0);

    // A user without the tag is told about it.
    let user = format!("{}-plain", place.vhost);
    place.node.add_user(&place.vhost, &user, "pw", ".*", ".*", ".*");
    let plain = place.topology_at(&place.url_as(&user, "pw"), &with("plan", &BOTH)).await;
    plain.ends(3).says("set_user_tags").never_says("pw");

    // Who has declared nothing asks the plugin for its queues; a service does not.
    let options = RabbitOptions::from_url(&away).unwrap();
    let tool = RabbitBroker::connect(options.clone()).await.unwrap();
    let error = tool.inspect(Inspect::Queues(None)).await.unwrap_err().to_string();
    assert!(error.contains("cannot be listed") && error.contains("enable rabbitmq_management"), "{error}");
    let service = RabbitBroker::connect(options).await.unwrap();
    service.declare(&shop().manifest().topology().unwrap()).await.unwrap();
    assert!(!service.inspect(Inspect::Queues(None)).await.unwrap().into_queues().is_empty());
    let tool = place.broker().await;
    let listed = tool.inspect(Inspect::Queues(Some(AppName::from_checked("shop")))).await;
    let listed = listed.unwrap().into_queues();
    let send = listed.iter().find(|stats| stats.queue == "shop.parcel.send").unwrap();
    assert_eq!(send.unsettled, Some(0));
    let of_jobs = |name: &QueueName| name.app() == "shop" && *name != "shop.control.state";
    assert!(listed.iter().all(|stats| of_jobs(&stats.queue)), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_manifest_or_no_rabbitmq_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.json"), "{}").unwrap();
    std::fs::write(folder.path().join("shop.json"), shop().manifest().to_json()).unwrap();
    std::fs::write(folder.path().join("desk.json"), desk().manifest().to_json()).unwrap();
    let amqp = "amqp://u:secret@127.0.0.1:1";
    for (url, args, why) in [
        (amqp, &["apply"][..], "--manifest"),
        (amqp, &["plan", "--manifest", "nope.json"], "cannot be read"),
        (amqp, &["plan", "--manifest", "x.json"], "no Ponos manifest"),
        ("sqlite:ponos.db", &["plan", "--manifest", "shop.json"], "is about RabbitMQ"),
        ("amqp://u:secret@h:x", &["plan", "--manifest", "shop.json"], "port is a number"),
        (amqp, &with("permissions", &[&BOTH[..], &["--user", "one"]].concat()), "one user for several"),
    ] {
        let ran = ran(folder.path(), url, args).await;
        ran.ends(2).says(why).never_says("secret");
    }
    let printed = ran(folder.path(), "", &["permissions", "--manifest", "shop.json", "--user", "s"]).await;
    printed.ends(0).says("rabbitmqctl set_permissions -p / s '^(shop(").says(r"|parcel\.sent)$");
}
