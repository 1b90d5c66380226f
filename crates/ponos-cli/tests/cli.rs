//! The real program against a real file, with a small service of the library at work on it.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ponos::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

#[path = "support/shop.rs"]
mod shop;

use shop::*;

/// How long something may take that happens in another process.
const DEADLINE: Duration = Duration::from_secs(20);

const HEARD: &str = "shop.order.paid";

/// A folder with a `ponos.db`, and the program in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    async fn shop(&self, printer: &Printer) -> Running<Shop> {
        service().start(printer.clone(), Broker::sqlite(self.path().join("ponos.db"))).await.unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ponos"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        for name in ["PONOS_BROKER", "NO_COLOR", "COLUMNS"] {
            command.env_remove(name);
        }
        command
    }

    fn ponos(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    fn ponos_reading(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    /// Runs it until `found` finds something in what it prints.
    fn until<T>(&self, args: &[&str], found: impl Fn(&Ran) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let ran = self.ponos(args);
            if let Some(found) = found(&ran) {
                return found;
            }
            assert!(started.elapsed() < DEADLINE, "{args:?} still says {ran:?}");
        }
    }

    fn until_done(&self, tid: &str) {
        self.until(&["trace", tid, "--json"], |ran| {
            (ran.code == 0 && ran.json()["outcome"] == "done").then_some(())
        });
    }

    /// The figures of one queue.
    fn queue(ran: &Ran, name: &str) -> Value {
        let queues = ran.ok().json();
        queues["queues"].as_array().unwrap().iter().find(|queue| queue["queue"] == name).unwrap().clone()
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn ok(&self) -> &Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self
    }

    /// It failed with this code, with one line that says why and one that says what to do.
    #[track_caller]
    fn failed(&self, code: i32, why: &str) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        let lines: Vec<&str> = self.err.lines().collect();
        assert_eq!(lines.len(), 2, "{self:?}");
        assert!(lines[0].starts_with("error: ") && lines[0].contains(why), "{self:?}");
        assert!(lines[1].starts_with("help: ") && lines[1].len() > 10, "{self:?}");
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        let json: Value = serde_json::from_str(&self.out).unwrap();
        assert_eq!(json["version"], 1);
        json
    }

    #[track_caller]
    fn says(&self, text: &str) -> &Self {
        assert!(self.out.contains(text), "{text:?} is not in {self:?}");
        self
    }

    #[track_caller]
    fn is_harmless(&self) -> &Self {
        let harmful = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!self.out.contains(harmful) && !self.err.contains(harmful), "{self:?}");
        self
    }
}

#[test]
fn names_are_told_what_they_name_or_what_is_wrong() {
    let place = Place::new();
    let ran = place.ponos(&[
        "names",
        "check",
        "org.payment.processed",
        "pheidi.email.send",
        "order.item.mark-completed",
    ]);
    assert_eq!(
        ran.ok().out,
        "org.payment.processed  ok  event\n\
         pheidi.email.send  ok  task of pheidi\n\
         order.item.mark-completed  ok  event, or task of order\n"
    );
    let ran = place.ponos(&["names", "check", "user.create", "a.b.send", EVIL, "pheidi.retry.send"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, ""), "findings are no error");
    ran.is_harmless()
        .says("user.create  refused  event name `user.create` does not end in a past-tense verb");
    ran.says("for example `user.created`").says("a.b.send  ok  task of a").says("uses `retry` as its model");

    assert_eq!(place.ponos(&["names", "check", "--kind", "event", "pheidi.email.send"]).code, 1);
    assert_eq!(place.ponos(&["names", "check", "--kind", "task", "api.user.created"]).code, 1);
    place.ponos(&["names", "check", "--kind", "task", "pheidi.email.send"]).ok();

    let ran = place.ponos_reading(&["names", "check", "-"], "user.created\n\n  user.died \n");
    assert_eq!(ran.ok().out, "user.created  ok  event\nuser.died  ok  event\n");

    let ran = place.ponos(&["names", "check", "--json", "user.create", "api.user.create"]);
    let json = ran.json();
    assert_eq!((ran.code, &json["refused"]), (1, &1.into()));
    assert_eq!(json["names"][0]["suggestion"], "user.created");
    assert_eq!(
        (&json["names"][1]["ok"], &json["names"][1]["event"], &json["names"][1]["task_of"]),
        (&true.into(), &false.into(), &"api".into())
    );
    assert_eq!(place.path().read_dir().unwrap().count(), 0, "no broker is needed");
}

#[test]
fn what_is_no_command_is_a_usage_error_with_a_way_out() {
    let place = Place::new();
    for (args, why) in [
        (&["publish", "user.created", "{\"tid\":\"x\"}"][..], "has a field `tid`"),
        (&["publish", "user.created", "[1]"], "no JSON object"),
        (&["publish", "user.created", "{"], "no JSON"),
        (&["publish", "user.create", "{}"], "past-tense"),
        (
            &["publish", "order.item.mark-completed", "{}"],
            "can be an event's name or that of a task of `order`",
        ),
        (&["publish", "user.created", "{}", "--tid", "a b"], "is no transaction id"),
        (&["publish", "api.user.create", "{}", "--app", "web"], "only `api` can create"),
        (&["queues", "--broker", "redis://u:secret@h"], "`redis:` is no broker"),
        (&["queues", "--broker", "ponos.db"], "a broker is named by a URL"),
        (&["queues", "--broker", "memory:"], "inside one process"),
        (&["queues", "--app", "Shop"], "uppercase"),
        (&["failed", "show", "7"], "write a job's id, or at least 4 hexadecimal digits"),
        (&["failed", "retry"], "required"),
        (&["failed", "retry", "--all", "--rate", "0/s"], "nothing would ever start"),
        (&["failed", "discard", "--all"], "--reason"),
        (&["trace", "@first"], "is no transaction"),
        (&["pause", TASK], "--reason"),
        (&["pause", TASK, "--reason", " "], "the reason is empty"),
        (&["pause", TASK, "--reason", "r", "--for", "soon"], "`30m`"),
        (&["rate", "set", TASK, "5", "--reason", "r"], "`5/s`"),
        (&["rate", "set", TASK, "0/s", "--reason", "r"], "`ponos pause`"),
        (&["rate", "set", TASK, "5/s"], "--reason"),
        (&["rate", "set", "smtp", "5/s", "--reason", "r"], "whose dependency is `smtp`?"),
        (&["rate", "set", TASK, "5/s", "--app", "web", "--reason", "r"], "is not one of `web`"),
        (&["rate", "reset", "Smtp", "--app", "web"], "neither a queue nor a dependency"),
        (&["circuit", "open", "smtp", "--app", "shop"], "--reason"),
        (&["circuit", "open", "shop.failed", "--reason", "r"], "cannot be cut off"),
        (&["queus"], "unrecognized subcommand 'queus'"),
    ] {
        let ran = place.ponos(args);
        ran.failed(2, why);
        assert_eq!(ran.out, "");
        assert!(!ran.err.contains("secret"), "{ran:?}");
    }
    assert!(place.ponos(&["queus"]).err.contains("'queues'"), "the help is a near command");
    assert_eq!(place.path().read_dir().unwrap().count(), 0);
}

#[test]
fn help_and_version_are_no_errors_and_name_the_exit_codes() {
    let place = Place::new();
    for args in [&["--help"][..], &["queues", "--help"], &["failed", "retry", "--help"]] {
        place.ponos(args).ok().says("Usage: ponos");
    }
    place
        .ponos(&["--help"])
        .says("3  the broker cannot be reached or used")
        .says("4  nothing was done")
        .says("PONOS_BROKER");
    place.ponos(&["--version"]).ok().says("ponos 0.");
    for args in [&[][..], &["failed"]] {
        let ran = place.ponos(args);
        ran.says("Usage: ponos");
        assert_eq!((ran.code, ran.err.as_str()), (2, ""), "nothing was asked for");
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error_and_is_not_created() {
    let place = Place::new();
    let id = "0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17";
    for args in [
        &["queues"][..],
        &["failed", "list"],
        &["failed", "show", id],
        &["failed", "retry", id],
        &["failed", "discard", "--all", "--reason", "r", "--yes"],
        &["trace", "@last"],
        &["pause", TASK, "--reason", "r"],
        &["resume", TASK],
        &["rate", "set", TASK, "5/s", "--reason", "r"],
        &["circuit", "reset", "smtp", "--app", "shop"],
        &["orders"],
        &["publish", "user.created", "{}"],
    ] {
        place.ponos(args).failed(3, "no broker there: the file `ponos.db` does not exist");
        assert_eq!(place.path().read_dir().unwrap().count(), 0, "{args:?}");
    }
    let ran = Ran::of(place.command(&["queues"]).env("PONOS_BROKER", "sqlite:other.db").output().unwrap());
    ran.failed(3, "`other.db`");
    File::create(place.path().join("ponos.db")).unwrap();
    place.ponos(&["queues"]).failed(3, "is an empty file");
}

#[test]
fn what_is_no_broker_is_left_as_it_is() {
    let place = Place::new();
    let file = place.path().join("ponos.db");
    let text = "not a database, but long enough to be taken for one at first sight\n".repeat(100);
    std::fs::write(&file, &text).unwrap();
    place.ponos(&["queues"]).failed(3, "it is no SQLite database");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    place.ponos(&["queues", "--broker", "sqlite:."]).failed(3, "is a directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_can_be_traced() {
    let place = Place::new();
    let shop = place.shop(&Printer::default()).await;
    let published = place.ponos(&["publish", "order.paid", "{\"order\":7}", "--json"]);
    let published = published.ok().json();
    assert_eq!((&published["kind"], &published["queues"]), (&"event".into(), &1.into()));
    let tid = published["tid"].as_str().unwrap();
    place.until_done(tid);

    let tree = place.ponos(&["trace", &tid[24..]]);
    tree.ok().says(&format!("TID {tid}  done")).says("◇ order.paid");
    tree.says("shop → on order.paid  done")
        .says("▸ shop.parcel.send  done")
        .says("◇ parcel.sent  nobody listens");
    assert_eq!(place.ponos(&["trace", "@last", "--json"]).ok().json()["tid"], tid);
    assert_eq!(
        place.ponos(&["trace", &tid.replace('-', ""), "--json"]).ok().json()["messages"][0]["id"],
        published["id"]
    );
    assert_eq!(place.ponos(&["trace", &tid[26..].to_uppercase(), "--json"]).ok().json()["tid"], tid);
    place.ponos(&["trace", &tid[32..]]).failed(2, "too short");
    place.ponos(&["trace", "nobody-knows-it"]).failed(1, "no records");
    place.ponos(&["trace", "@failed"]).failed(1, "no failed job");

    let with_tid = |tid: &str| place.ponos(&["publish", TASK, "{\"order\":1}", "--tid", tid]);
    with_tid("a-twin-id").ok().says("published shop.parcel.send to 1 queue\n  tid  a-twin-id\n  id   ");
    with_tid("b-twin-id").ok().says("ponos trace b-twin-id\n");
    let both = place.ponos(&["trace", "twin-id"]);
    both.failed(1, "2 transactions end in `twin-id`").says("a-twin-id  ").says("b-twin-id  ");
    let both = place.ponos(&["trace", "twin-id", "--json"]);
    assert_eq!(both.failed(1, "2 transactions").json()["candidates"].as_array().unwrap().len(), 2);
    place.until_done("a-twin-id");

    let ran = place.ponos_reading(&["publish", "user.created", "-"], "{\"name\":\"Ada\"}");
    ran.ok().says("published user.created to 0 queues: nobody listens");
    place.ponos(&["publish", "shop.parcel.burn", "{}"]).failed(1, "there is no queue `shop.parcel.burn`");
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_show_what_waits_where() {
    let place = Place::new();
    place.shop(&Printer::default()).await.shutdown().await;
    for _ in 0..2 {
        place.ponos(&["publish", TASK, "{\"order\":1}"]).ok();
    }
    let ran = place.ponos(&["queues"]);
    let lines: Vec<Vec<&str>> = ran.ok().out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..6], ["queue", "ready", "delayed", "unsettled", "consumers", "oldest"]);
    assert_eq!(lines[0][6..], ["in/s", "out/s", "p95", "retry", "fail", "flight"]);
    let row = lines.iter().find(|line| line[0] == TASK).unwrap();
    assert_eq!(row[1..5], ["2", "0", "0", "0"]);
    assert!(row[5].ends_with('s'), "{row:?}");

    let ran = place.ponos(&["queues", "--app", "shop", "--json"]);
    let queue = Place::queue(&ran, TASK);
    assert_eq!((&queue["ready"], &queue["paused"]), (&2.into(), &Value::Null));
    assert!(queue["oldest_age_ms"].is_u64() && queue["oldest"].is_u64());
    place.ponos(&["queues", "--app", "nobody"]).failed(1, "no application `nobody`");
    let url = format!("sqlite://{}", place.path().join("ponos.db").display());
    place.ponos(&["--broker", &url, "queues"]).ok();
    place.ponos(&["queues", "--broker", &url]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_looked_at_and_then_retried_or_discarded() {
    let place = Place::new();
    let printer = Printer::default();
    printer.on_fire.store(true, Ordering::SeqCst);
    let shop = place.shop(&printer).await;
    assert_eq!(place.ponos(&["failed", "list"]).ok().out, "no failed jobs\n");
    for order in 1..=3 {
        place
            .ponos(&[
                "publish",
                TASK,
                &format!("{{\"order\":{order},\"note\":\"{EVIL}\"}}").replace('\u{1b}', "\\u001b"),
            ])
            .ok();
    }
    let list = place.until(&["failed", "list", "--json"], |ran| {
        let json = ran.ok().json();
        (json["total"] == 3).then_some(json)
    });
    let groups = list["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "errors that differ in their numbers are alike: {list}");
    assert_eq!((&groups[0]["queue"], &groups[0]["count"]), (&TASK.into(), &3.into()));
    assert_eq!((&groups[0]["app"], &groups[0]["reason"]), (&"shop".into(), &"stopped".into()));
    let jobs = groups[0]["jobs"].as_array().unwrap();
    let ids: Vec<&str> = jobs.iter().map(|job| job["id"].as_str().unwrap()).collect();
    let tid = jobs[0]["tid"].as_str().unwrap();

    let ran = place.ponos(&["failed", "list"]);
    ran.ok().is_harmless().says("shop.parcel.send  stopped").says("the printer is on fire");
    ran.says("3 failed jobs in 1 group").says(ids[2]);
    place.ponos(&["failed", "list", "--app", "shop", "--json"]).ok().is_harmless();

    let shown = place.ponos(&["failed", "show", ids[0], "--headers", "--body"]);
    shown.ok().is_harmless().says("stopped after 1 attempt").says("    and a second line").says(tid);
    shown
        .says("x-ponos-wire: 1")
        .says(&format!("  {{\n    \"tid\": \"{tid}\",\n"))
        .says("ponos failed retry");
    let shown = place.ponos(&["failed", "show", ids[0], "--body", "--json"]);
    let json = shown.ok().is_harmless().json();
    assert_eq!((&json["body"]["tid"], &json["body"]["note"]), (&tid.into(), &EVIL.into()));
    assert_eq!((&json["report"]["queue"], &json["report"]["attempts"]), (&TASK.into(), &1.into()));
    assert_eq!(place.ponos(&["trace", "@failed"]).ok().is_harmless().code, 0);

    let unknown = "0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17";
    place.ponos(&["failed", "show", unknown]).failed(1, "no failed job has the id");
    place.ponos(&["failed", "retry", ids[0], unknown]).failed(1, "no failed job has the id");
    let ran = place.ponos(&["failed", "retry", "--all"]);
    ran.failed(4, "nothing was done: this would retry 3 jobs").says(&format!("  3 → {TASK}"));
    assert_eq!(
        place.ponos(&["failed", "list", "--json"]).ok().json()["total"],
        3,
        "nothing was done by halves"
    );

    let ran = place.ponos(&["failed", "discard", ids[2], "--reason", "burnt", "--yes", "--json"]);
    let json = ran.ok().json();
    assert_eq!(
        (&json["jobs"][0]["result"], &json["jobs"][0]["queue"]),
        (&"done".into(), &"shop.discarded".into())
    );
    assert_eq!(Place::queue(&place.ponos(&["queues", "--json"]), "shop.discarded")["ready"], 1, "it is kept");

    printer.on_fire.store(false, Ordering::SeqCst);
    let ran = place.ponos(&["failed", "retry", ids[0], "--yes"]);
    ran.ok().says(&format!("retried {} → {TASK}\nretried 1 of 1 job, as op-", ids[0]));
    place.until_done(tid);
    place.ponos(&["failed", "retry", ids[0], "--yes"]).failed(1, "no failed job has the id");
    place.ponos(&["failed", "retry", "--all", "--yes", "--app", "shop"]).ok().says(ids[1]);
    assert_eq!(place.ponos(&["failed", "list"]).ok().out, "no failed jobs\n");
    assert_eq!(place.ponos(&["failed", "discard", "--all", "--reason", "r"]).ok().out, "no failed jobs\n");
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_reaches_a_service_at_work_and_its_end_too() {
    let place = Place::new();
    let shop = place.shop(&Printer::default()).await;
    let queues = ["queues", "--app", "shop", "--json"];
    place.until(&queues, |ran| (Place::queue(ran, TASK)["consumers"] == 1).then_some(()));
    let ran = place.ponos(&["pause", TASK, "--reason", &format!("the printer smokes {EVIL}")]);
    ran.ok().says("paused shop.parcel.send: 1 consumer stops");
    place.until(&queues, |ran| (Place::queue(ran, TASK)["consumers"] == 0).then_some(()));

    let published = place.ponos(&["publish", "order.paid", "{\"order\":7}", "--json"]).ok().json();
    let tid = published["tid"].as_str().unwrap();
    let waiting = place.until(&queues, |ran| {
        let queue = Place::queue(ran, TASK);
        (queue["ready"] == 1).then_some(queue)
    });
    assert!(waiting["paused"]["reason"].as_str().unwrap().starts_with("the printer smokes"), "{waiting}");
    assert_eq!(Place::queue(&place.ponos(&queues), HEARD)["paused"], Value::Null);
    place.ponos(&["queues"]).ok().is_harmless().says(": the printer smokes");
    assert_eq!(place.ponos(&["trace", tid, "--json"]).ok().json()["outcome"], "pending");

    place.ponos(&["resume", TASK]).ok().is_harmless().says("resumed shop.parcel.send, which ");
    place.until_done(tid);
    assert_eq!(place.ponos(&["resume", TASK]).ok().out, "shop.parcel.send was not paused\n");
    place
        .ponos(&["pause", "shop.parcel.burn", "--reason", "r"])
        .failed(1, "there is no queue `shop.parcel.burn`");
    place.ponos(&["resume", "web.parcel.burn"]).failed(1, "no application `web`");
    place.ponos(&["pause", "shop.failed", "--reason", "r"]).failed(2, "cannot be paused");
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_and_a_circuit_reach_a_service_at_work_and_are_listed() {
    let place = Place::new();
    let shop = place.shop(&Printer::default()).await;
    let queues = ["queues", "--app", "shop", "--json"];
    place.until(&queues, |ran| (Place::queue(ran, TASK)["consumers"] == 1).then_some(()));
    assert_eq!(place.ponos(&["orders"]).ok().out, "no orders stand\n");
    let set = ["rate", "set", TASK, "2/h", "--reason", &format!("slowly {EVIL}"), "--for", "2h"];
    let ran = place.ponos(&set);
    ran.ok()
        .is_harmless()
        .says("limited shop.parcel.send to 2/h, all instances together: 1 consumer follows");
    ran.says("it ends by itself at ").says("before: ponos rate reset shop.parcel.send");
    let open = ["circuit", "open", "printer", "--app", "shop", "--reason", "no paper", "--json"];
    let opened = place.ponos(&open).ok().json();
    assert_eq!(
        (&opened["order"]["dependency"], &opened["order"]["kind"], &opened["consumers"], &opened["replaced"]),
        (&"printer".into(), &"circuit_open".into(), &Value::Null, &Value::Null)
    );
    let orders = place.ponos(&["orders", "--app", "shop", "--json"]).ok().json();
    let orders = orders["orders"].as_array().unwrap();
    assert_eq!(orders.len(), 2, "{orders:?}");
    assert_eq!((&orders[0]["queue"], &orders[0]["rate"]["period_ms"]), (&TASK.into(), &3_600_000.into()));
    assert_eq!(orders[0]["until"].as_u64().unwrap() - orders[0]["at"].as_u64().unwrap(), 7_200_000);
    assert_eq!((&orders[1]["dependency"], &orders[1]["reason"]), (&"printer".into(), &"no paper".into()));
    let ran = place.ponos(&["orders"]);
    ran.ok()
        .is_harmless()
        .says("printer of shop   circuit held open")
        .says("limited to 2/h")
        .says("for another 1h, by ");
    let ran = place.ponos(&["queues"]);
    ran.ok().is_harmless().says("  limited to 2/h by ").says("printer of shop: circuit held open by ");
    assert_eq!(place.ponos(&["queues", "--json"]).ok().json()["orders"].as_array().unwrap().len(), 2);
    place
        .ponos(&["circuit", "reset", "printer", "--app", "shop"])
        .ok()
        .says("where it is open it lets one job through");
    place
        .ponos(&["circuit", "resume", "printer", "--app", "shop"])
        .ok()
        .says("resumed circuit printer of shop, which was opened by ");
    let again = place.ponos(&["circuit", "resume", "printer", "--app", "shop"]);
    assert_eq!(again.ok().out, "circuit printer of shop was not held open by order\n");

    // The circuit of a queue alone, by its name.
    place.ponos(&["circuit", "open", TASK, "--reason", "r"]).ok().says("1 consumer stops within a second");
    place.until(&queues, |ran| (Place::queue(ran, TASK)["consumers"] == 0).then_some(()));
    place.ponos(&["circuit", "resume", TASK]).ok();
    place.until(&queues, |ran| (Place::queue(ran, TASK)["consumers"] == 1).then_some(()));
    // The limit holds meanwhile: one starts, the other waits.
    let tids: Vec<_> = (0..2)
        .map(|_| place.ponos(&["publish", TASK, "{\"order\":7}", "--json"]).ok().json()["tid"].to_string())
        .collect();
    let tids: Vec<_> = tids.iter().map(|tid| tid.trim_matches('"')).collect();
    let done = |tid: &str| place.ponos(&["trace", tid, "--json"]).json()["outcome"] == "done";
    place.until(&queues, |_| tids.iter().any(|tid| done(tid)).then_some(()));
    assert!(!tids.iter().all(|tid| done(tid)), "two an hour");
    place.ponos(&["rate", "reset", TASK]).ok().says("which was limited by ");
    tids.iter().for_each(|tid| place.until_done(tid));
    assert_eq!(place.ponos(&["orders"]).ok().out, "no orders stand\n");
    place.ponos(&["rate", "reset", "printer", "--app", "nobody"]).failed(1, "no application `nobody`");
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_failed_in_two_applications_is_asked_about() {
    #[app("web")]
    struct Web;
    #[task("web.page.draw", app = Web)]
    struct PageDraw {
        order: u64,
    }
    fn draw_what_is_paid(e: OrderPaid) -> PageDraw {
        PageDraw { order: e.order }
    }
    async fn draw(_: PageDraw, _: TaskCx<PageDraw>) -> Outcome {
        Ok(())
    }
    let place = Place::new();
    let shop = place.shop(&Printer::default()).await;
    let web = Service::<Web>::new().on(draw_what_is_paid).task(draw, |p| p);
    let web = web.start((), Broker::sqlite(place.path().join("ponos.db"))).await.unwrap();
    // Neither can read it.
    let published = place.ponos(&["publish", "order.paid", "{\"order\":\"seven\"}", "--json"]).ok().json();
    let id = published["id"].as_str().unwrap();
    place.until(&["failed", "list", "--json"], |ran| (ran.ok().json()["total"] == 2).then_some(()));
    place.ponos(&["failed", "show", id]).failed(1, "failed in several applications: shop, web");
    place.ponos(&["failed", "show", id, "--app", "web"]).ok().says("undecodable");
    let discard = ["failed", "discard", id, "--reason", "r", "--yes"];
    place.ponos(&discard).failed(1, "failed in several applications: shop, web");
    place.ponos(&[&discard[..], &["--app", "web"]].concat()).ok();
    place.ponos(&discard).ok().says("→ shop.discarded");
    shop.shutdown().await;
    web.shutdown().await;
}

#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::new();
    let mut command = place.command(&["names", "check", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    let names = (0..20_000).fold(String::new(), |mut names, n| {
        writeln!(names, "order{n}.paid").unwrap();
        names
    });
    // It may stop reading before the end.
    let _ = stdin.write_all(names.as_bytes());
    drop(stdin);
    Ran::of(child.wait_with_output().unwrap()).ok();

    let mut command = place.command(&["--help"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    Ran::of(child.wait_with_output().unwrap()).ok();
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_takes_nothing_is_an_error() {
    let place = Place::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::of(place.command(&["names", "check", "order.paid"]).stdout(full).output().unwrap());
    ran.failed(1, "the output could not be written");
}

#[cfg(target_os = "linux")]
#[test]
fn colours_appear_on_a_terminal_only_and_not_with_no_color() {
    let place = Place::new();
    let piped = place.ponos(&["names", "check", "order.paid"]);
    assert!(!piped.ok().out.contains('\u{1b}'));
    // script(1) gives the program a terminal of its own.
    let on_a_terminal = |no_color: Option<&str>| {
        let line = format!("{} names check order.paid", env!("CARGO_BIN_EXE_ponos"));
        let mut command = Command::new("script");
        command
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(on_a_terminal(None).contains("\u{1b}[32mok\u{1b}[0m"));
    assert!(on_a_terminal(Some("")).contains("\u{1b}[32m"), "an empty one does not count");
    assert!(!on_a_terminal(Some("1")).contains("\u{1b}[3"));
}
