//! The real program against a real RabbitMQ node, as `tests/cli.rs` and `tests/demo.rs` do it against a file.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ponos::prelude::*;
use ponos_testbed::{Node, NodeOptions};
use serde_json::Value;

#[path = "support/shop.rs"]
mod shop;

use shop::*;

/// How long something may take that happens in another process.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long a standing order may take until it is carried out.
const ORDER: Duration = Duration::from_secs(2);

/// What `demo --ci` promises.
const DEMO: Duration = Duration::from_secs(30);

/// The node of these tests. Making it blocks.
async fn node() -> &'static Node {
    tokio::task::spawn_blocking(Node::shared).await.unwrap()
}

/// A virtual host, named by the environment of the programs that run there.
struct Place {
    url: String,
}

impl Place {
    async fn fresh() -> Self {
        let node = node().await;
        Self { url: tokio::task::spawn_blocking(|| node.fresh_vhost()).await.unwrap() }
    }

    async fn shop(&self, printer: &Printer) -> Running<Shop> {
        service().start(printer.clone(), Broker::from_url(&self.url).unwrap()).await.unwrap()
    }

    fn ponos(&self, args: &[&str]) -> Ran {
        Ran::of(args, Some(&self.url))
    }

    /// Runs it until `found` finds something in what it prints.
    fn until<T>(&self, within: Duration, args: &[&str], found: impl Fn(&Ran) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let ran = self.ponos(args);
            if let Some(found) = found(&ran) {
                return found;
            }
            assert!(started.elapsed() < within, "{args:?} still says {ran:?}");
        }
    }

    fn outcome(&self, tid: &str) -> Value {
        self.ponos(&["trace", tid, "--json"]).ok().json()["outcome"].clone()
    }

    fn until_done(&self, tid: &str) {
        self.until(DEADLINE, &["trace", tid, "--json"], |ran| {
            (ran.code == 0 && ran.json()["outcome"] == "done").then_some(())
        });
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(args: &[&str], url: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ponos"));
        command.args(args).stdin(Stdio::null());
        for name in ["PONOS_BROKER", "NO_COLOR", "COLUMNS", "RUST_LOG"] {
            command.env_remove(name);
        }
        let Output { status, stdout, stderr } =
            command.envs(url.map(|url| ("PONOS_BROKER", url))).output().unwrap();
        Self {
            code: status.code().expect("it was not killed"),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    #[track_caller]
    fn ok(&self) -> &Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self
    }

    #[track_caller]
    fn failed(&self, code: i32, why: &str) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.starts_with("error: ") && self.err.contains(why), "{why:?} is not in {self:?}");
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(self.out.lines().last().unwrap()).unwrap_or_else(|_| panic!("{self:?}"))
    }

    #[track_caller]
    fn says(&self, text: &str) -> &Self {
        assert!(self.out.contains(text), "{text:?} is not in {self:?}");
        self
    }
}

/// Plays a demo to its end, and answers its balance, which must close.
fn balance(url: &str, seed: &str) -> (Value, String) {
    let started = Instant::now();
    let ran = Ran::of(&["demo", "--ci", "--json", "--seed", seed, "--broker", url], None);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(started.elapsed() < DEMO, "took {:?}", started.elapsed());
    assert_eq!(ran.out.lines().count(), 1, "{ran:?}");
    let balance = ran.json();
    let number = |name: &str| balance[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {balance}"));
    assert_eq!(number("lost"), 0, "{balance}");
    assert_eq!(number("accepted"), number("done") + number("failed"), "{balance}");
    assert!(number("breaker_opened") >= 1 && number("recovered") >= 1 && number("retries") > 0, "{balance}");
    (balance, ran.err)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_balances_on_a_fresh_virtual_host_and_again_and_its_hints_work() {
    let place = Place::fresh().await;
    let (balance_of_it, story) = balance(&place.url, "1");
    assert!(story.contains("HALF-OPEN") && story.contains("The balance closes"), "{story}");
    assert!(!story.contains("guest:"), "the password is nobody's: {story}");
    let hint = "with PONOS_BROKER set to the URL of this broker:";
    let hints: Vec<_> = story.lines().skip_while(|line| line.trim() != hint).skip(1).take(2).collect();
    assert_eq!(hints.len(), 2, "{story}");
    for hint in hints {
        let args: Vec<_> = hint.split_whitespace().skip(1).collect();
        assert!(!place.ponos(&args).ok().out.is_empty());
    }
    let failed = place.ponos(&["failed", "list", "--app", "pheidi", "--json"]).ok().json();
    assert_eq!(failed["total"], balance_of_it["failed"]);
    place.ponos(&["trace", "@failed"]).ok().says("recovery 1 done");
    // Failed jobs of the first are not counted in the second.
    balance(&place.url, "2");
}

#[test]
fn the_demo_balances_without_the_management_plugin_and_what_cannot_be_listed_is_said() {
    let node = Node::start(
        NodeOptions::new()
            .management(false)
            .tls(true)
            .config("ssl_options.verify", "verify_peer")
            .config("ssl_options.fail_if_no_peer_cert", true),
    );
    let url = node.url();
    balance(&url, "3");
    let ponos = |args: &[&str]| Ran::of(args, Some(&url));
    let ran = ponos(&["failed", "list"]);
    ran.failed(1, "rabbitmq-plugins enable rabbitmq_management");
    assert!(ran.err.contains("help: `ponos failed … --app NAME`"), "{ran:?}");
    // What manifests and beats name can be asked for, one by one.
    let queues = ["queues", "--app", "pheidi"];
    ponos(&queues).ok().says("pheidi.email.send").says("pheidi.failed").says("there may be more queues: ");
    let doctor = ponos(&["doctor"]);
    assert_eq!((doctor.code, doctor.err.as_str()), (0, ""), "{doctor:?}");
    for unseen in ["RabbitMQ's version", "what is declared", "permissions", "events that nobody hears"] {
        doctor.says(&format!("· not looked at: {unseen}: "));
    }
    let list = ["failed", "list", "--app", "pheidi"];
    ponos(&list).ok().says("1 failed job in 1 group");

    // The same over TLS, for who trusts the node and has a certificate that the node trusts.
    let url = node.tls_url_of("/");
    let tls = node.tls().expect("it has TLS");
    let ca = format!("{url}?cacertfile={}", tls.authority.display());
    let both = format!("{ca}&certfile={}&keyfile={}", tls.client.display(), tls.client_key.display());
    Ran::of(&list, Some(&both)).ok().says("1 failed job in 1 group");
    Ran::of(&list, Some(&ca)).failed(3, "cannot be reached");
    let ran = Ran::of(&list, Some(&url));
    ran.failed(3, "a certificate that is not to be trusted").failed(3, "`?cacertfile=ca.pem`");
    assert!(!ran.err.contains("guest:"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_sees_the_node_what_is_declared_and_who_may_do_what() {
    let mut place = Place::fresh().await;
    let port = node().await.management_port().unwrap();
    // Without it, and without records, there is nothing to list: the rest is looked at.
    let blind = place.ponos(&["doctor"]);
    blind.says("· not looked at: queues: ").says("· not looked at: permissions: ");
    assert_eq!((blind.code, blind.err.as_str()), (0, ""), "{blind:?}");
    place.url = format!("{}?management=http://127.0.0.1:{port}", place.url);
    // Records begin with the first look.
    place.ponos(&["queues"]).ok().says("no queues");
    let shop = place.shop(&Printer::default()).await;
    // The first beat is not there at once. `guest` may do everything everywhere.
    let well = place.until(DEADLINE, &["doctor", "--json"], |ran| {
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.contains("services: 1 instance alive").then(|| ran.json())
    });
    let codes = |json: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let findings = json["findings"].as_array().unwrap().iter();
        findings.map(|it| (text(&it["code"]), text(&it["subject"]))).collect()
    };
    let wide = ("permissions-wide".to_owned(), "user guest".to_owned());
    assert_eq!(codes(&well), std::slice::from_ref(&wide), "{well}");
    let fine = well["fine"].to_string();
    assert!(fine.contains(": RabbitMQ ") && fine.contains("declared: "), "{well}");
    shop.shutdown().await;
    place.ponos(&["publish", TASK, "{\"order\":1}"]).ok();
    // Nobody works it and how long the job waits is not known: an error.
    let sick = place.until(DEADLINE, &["doctor", "--json"], |ran| (ran.code == 1).then(|| ran.json()));
    assert_eq!(codes(&sick), [("queue-unworked".to_owned(), TASK.to_owned()), wide], "{sick}");
    assert!(!sick.to_string().contains("guest:"), "the password is nobody's: {sick}");
    place.ponos(&["top", "--once"]).ok().says("nobody works it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_does_not_mix_with_jobs_of_others() {
    let place = Place::fresh().await;
    // The queue of the demo's mails, with somebody's job in it.
    #[app("pheidi")]
    struct Pheidi;
    #[task("pheidi.email.send", app = Pheidi)]
    struct EmailSend {}
    async fn never(_: EmailSend, _: TaskCx<EmailSend>) -> Outcome {
        std::future::pending().await
    }
    let service = Service::<Pheidi>::new().task(never, |p| p);
    let running = service.start((), Broker::from_url(&place.url).unwrap()).await.unwrap();
    let demo = ["demo", "--ci", "--broker", &place.url];
    let ran = place.ponos(&demo);
    ran.failed(3, "somebody works `pheidi.email.send` on this broker already");
    running.shutdown().await;

    place.ponos(&["publish", "pheidi.email.send", "{}"]).ok();
    let ran = place.ponos(&demo);
    ran.failed(3, "already holds 1 job, and the demo does not mix with others");
    assert!(!ran.err.contains("guest:"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_can_be_traced() {
    let place = Place::fresh().await;
    let shop = place.shop(&Printer::default()).await;
    let published = place.ponos(&["publish", "order.paid", "{\"order\":7}", "--json"]).ok().json();
    assert_eq!((&published["kind"], &published["queues"]), (&"event".into(), &1.into()));
    let tid = published["tid"].as_str().unwrap();
    place.until_done(tid);
    for which in [tid, &tid[24..], "@last"] {
        let tree = place.ponos(&["trace", which]);
        tree.ok().says(&format!("TID {tid}  done")).says("◇ order.paid");
        tree.says("shop → on order.paid  done").says("▸ shop.parcel.send  done");
        tree.says("◇ parcel.sent  nobody listens");
    }
    let ran = place.ponos(&["trace", "nobody-knows-it"]);
    ran.failed(1, "no records");
    assert!(ran.err.contains("from the first look on"), "{ran:?}");
    place.ponos(&["publish", "order.paid", "{\"order\":8}"]).ok().says("to at least 1 queue");
    place.ponos(&["publish", TASK, "{\"order\":9}"]).ok().says("to 1 queue");
    place.ponos(&["publish", "user.created", "{}"]).ok().says("0 queues: nobody listens");
    place.ponos(&["publish", "shop.parcel.burn", "{}"]).failed(1, "there is no queue `shop.parcel.burn`");
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_looked_at_and_then_retried_or_discarded() {
    let place = Place::fresh().await;
    let printer = Printer::default();
    printer.on_fire.store(true, Ordering::SeqCst);
    let shop = place.shop(&printer).await;
    let list = ["failed", "list", "--app", "shop", "--json"];
    assert_eq!(place.ponos(&list).ok().json()["total"], 0);
    for order in 1..=2 {
        place.ponos(&["publish", TASK, &format!("{{\"order\":{order}}}")]).ok();
    }
    let groups = place.until(DEADLINE, &list, |ran| {
        let json = ran.ok().json();
        (json["total"] == 2).then(|| json["groups"].clone())
    });
    assert_eq!(
        groups.as_array().unwrap().len(),
        1,
        "errors that differ in their numbers are alike: {groups}"
    );
    let job = |n: usize, key: &str| groups[0]["jobs"][n][key].as_str().unwrap();
    let (first, second, tid) = (job(0, "id"), job(1, "id"), job(0, "tid"));

    place.ponos(&["failed", "show", first, "--app", "shop"]).ok().says("stopped after 1 attempt").says(tid);
    let unknown = "0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17";
    place.ponos(&["failed", "show", unknown, "--app", "shop"]).failed(1, "no failed job has the id");
    place.ponos(&["failed", "list", "--app", "web"]).failed(1, "no application `web`");
    let ran = place.ponos(&["failed", "retry", "--all", "--app", "shop"]);
    ran.failed(4, "nothing was done: this would retry 2 jobs");

    let ran = place.ponos(&["failed", "discard", second, "--app", "shop", "--reason", "r", "--yes"]);
    ran.ok().says(&format!("discarded {second} → shop.discarded\ndiscarded 1 of 1 job, as op-"));
    printer.on_fire.store(false, Ordering::SeqCst);
    let ran = place.ponos(&["failed", "retry", first, "--app", "shop", "--yes", "--wait"]);
    ran.ok().says(&format!("retried {first} → {TASK}\n"));
    ran.says("retried 1 = 1 done + 0 failed again + 0 still pending");
    place.until_done(tid);
    assert_eq!(place.ponos(&list).ok().json()["total"], 0);
    place.ponos(&["failed", "retry", first, "--app", "shop"]).failed(1, "no failed job has the id");
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_reaches_a_service_at_work_and_its_end_too() {
    let place = Place::fresh().await;
    let shop = place.shop(&Printer::default()).await;
    let pause = ["pause", TASK, "--reason", "the printer smokes"];
    place.ponos(&pause).ok().says("paused shop.parcel.send: 1 consumer stops");
    // Its answer counts the consumers.
    place.until(ORDER, &pause, |ran| ran.ok().out.contains("nobody works it now").then_some(()));

    let published = place.ponos(&["publish", TASK, "{\"order\":7}", "--json"]).ok().json();
    let tid = published["tid"].as_str().unwrap();
    assert_eq!(place.outcome(tid), "pending");
    // Who starts later finds it paused too.
    let another = place.shop(&Printer::default()).await;
    assert_eq!(place.outcome(tid), "pending");
    place.ponos(&["resume", TASK]).ok().says("resumed shop.parcel.send, which ").says("the printer smokes");
    place.until(ORDER, &["trace", tid, "--json"], |ran| (ran.ok().json()["outcome"] == "done").then_some(()));
    assert_eq!(place.ponos(&["resume", TASK]).ok().out, "shop.parcel.send was not paused\n");
    place
        .ponos(&["pause", "shop.parcel.burn", "--reason", "r"])
        .failed(1, "there is no queue `shop.parcel.burn`");
    place.ponos(&["resume", "web.parcel.burn"]).failed(1, "no application `web`");
    another.shutdown().await;
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_used_is_told_with_its_cure_and_without_its_password() {
    let node = node().await;
    let port = node.amqp_port();
    let closed = "127.0.0.1:1";
    for (url, why, cure) in [
        (
            format!("amqp://guest:secret@127.0.0.1:{port}/"),
            "refused the user `guest`",
            "check user and password",
        ),
        (
            format!("amqp://guest:guest@127.0.0.1:{port}/secret-host"),
            "has no virtual host `secret-host`",
            "rabbitmqctl add_vhost secret-host",
        ),
        (format!("amqp://guest:secret@{closed}/"), "127.0.0.1:1 cannot be reached", "is it running"),
        (format!("amqp://guest:secret@{closed},{closed}/"), "cannot be reached", "is it running"),
    ] {
        for args in [&["queues"][..], &["trace", "@last"], &["demo", "--ci", "--broker", &url]] {
            let started = Instant::now();
            let ran = Ran::of(args, Some(&url));
            ran.failed(3, why).failed(3, cure);
            assert_eq!(ran.out, "");
            assert!(!ran.err.contains(":secret") && !ran.err.contains("guest:"), "{ran:?}");
            assert!(started.elapsed() < Duration::from_secs(5), "{args:?} took {:?}", started.elapsed());
        }
    }
    let ran = Ran::of(&["queues", "--broker", "amqp://guest:secret@h:x"], None);
    ran.failed(2, "port is a number");
    assert!(!ran.err.contains("secret"), "{ran:?}");
}
