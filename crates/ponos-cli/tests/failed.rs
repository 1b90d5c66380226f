//! `ponos failed …` with the real program against a real file, with a service of the library at work on it.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

mod retries;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use ponos::core::broker::{Destination, Outgoing};
use ponos::core::envelope::{Envelope, MessageName, Progress};
use ponos::core::name::{AppName, TaskName};
use ponos::{Broker, FailedJobs, MessageId, Tid};
use retries::*;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Clears the screen, colours, a bell, turns the text around, hides.
const EVIL: &str = "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}evil\u{200b}\u{2066}\u{feff}";

/// What `PONOS_MANIFEST=1` prints of the shop, as far as it matters here.
const MANIFEST: &str = r#"{"ponos_manifest":1,"app":"shop","tasks":[{"name":"shop.parcel.send","queue":"shop.parcel.send",
    "emits":[],"schema":{"type":"object","required":["order"],"properties":{"order":{"type":"integer"}}},
    "recovers":false,"policy":{"concurrency":1,"prefetch":1}}]}"#;

fn place() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("ponos.db").display());
    (dir, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_interrupted_and_continued_runs_every_job_exactly_once() {
    let (_dir, url) = place();
    interrupted_and_continued(&url, "-INT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_told_to_end_stops_as_cleanly() {
    let (_dir, url) = place();
    interrupted_and_continued(&url, "-TERM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_killed_loses_none_and_names_the_duplicates() {
    let (_dir, url) = place();
    killed_and_begun_anew(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_are_retried_in_seconds_and_what_fails_again_is_not_resolved() {
    let (_dir, url) = place();
    all_at_once_in_vain(&url).await;
}

/// Everything a terminal would obey.
fn is_harmless(ran: &Ran) {
    for text in [&ran.out, &ran.err] {
        let obeyed = |c: char| {
            c != '\n'
                && (c.is_control()
                    || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'))
        };
        assert_eq!(text.chars().find(|c| obeyed(*c)), None, "{text:.2000}");
    }
}

fn ids(list: &Value) -> Vec<String> {
    let groups = list["groups"].as_array().unwrap();
    let jobs = groups.iter().flat_map(|group| group["jobs"].as_array().unwrap());
    jobs.map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_errors_and_bodies_do_not_disturb_the_terminal() {
    let (_dir, url) = place();
    let line = "x".repeat(1 << 20);
    let printer = Printer::burning(&format!("{EVIL} {line}\n{EVIL}\r{EVIL}"));
    let shop = shop(&url, &printer).await;
    let body = json!({"order": 1, "note": format!("{EVIL}{}", "y".repeat(900_000)), EVIL: EVIL}).to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), body).unwrap();
    let publish = command(&url, &["publish", TASK, "-"]).stdin(file.reopen().unwrap()).output().unwrap();
    Ran::of(publish).ok();
    let list = failed(&url, 1);
    let id = ids(&list).remove(0);
    let digits = list["groups"][0]["fingerprint"].as_str().unwrap()[..8].to_owned();
    for by in ["fingerprint", "error", "name", "app", "host", "day"] {
        let ran = ponos(&url, &["failed", "list", "--by", by]);
        is_harmless(ran.ok());
        assert!(ran.out.lines().all(|line| line.len() < 400), "{by}: {} bytes", ran.out.len());
        is_harmless(ponos(&url, &["failed", "list", "--by", by, "--json"]).ok());
    }
    let json = ponos(&url, &["failed", "show", &id, "--body", "--headers", "--json"]);
    is_harmless(json.ok());
    assert!(json.json()["body"]["note"].as_str().unwrap().starts_with(EVIL), "programs get it as it is");
    for which in [&id, &digits] {
        is_harmless(ponos(&url, &["failed", "show", which]).ok());
        is_harmless(ponos(&url, &["failed", "show", which, "--body", "--headers"]).ok());
        is_harmless(ponos(&url, &["failed", "show", which, "--body", "--unredacted"]).ok());
    }
    let edit = ["failed", "edit", &id, "--set", &format!("note={EVIL}"), "--dry-run"];
    is_harmless(ponos(&url, &edit).ok());
    let discard = ["failed", "discard", &id, "--reason", &format!("{EVIL}\n{EVIL}"), "--yes"];
    is_harmless(ponos(&url, &discard).ok());
    is_harmless(ponos(&url, &["failed", "list", "--discarded"]).ok());
    is_harmless(ponos(&url, &["failed", "show", &id, "--discarded"]).ok());
    is_harmless(ponos(&url, &["failed", "restore", "--op", EVIL]).failed(1, "no discarded job"));
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_named_by_their_digits_and_filtered() {
    let (_dir, url) = place();
    let printer = Printer::burning("the printer is on fire");
    let shop = shop(&url, &printer).await;
    publish(&url, 0..5).await;
    printer.has_failed(5).await;
    failed(&url, 5);
    // Another way to fail.
    ponos(&url, &["publish", TASK, "{\"order\":\"seven\"}"]).ok();
    let list = failed(&url, 6);
    let groups = list["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &groups[0]["count"], &groups[1]["count"]), (2, &5.into(), &1.into()));
    let digits = |n: usize| groups[n]["fingerprint"].as_str().unwrap()[..8].to_owned();

    let ran = ponos(&url, &["failed", "list"]);
    ran.ok().says("GROUP     COUNT  FIRST").says("VERSION  QUEUE\n").says(&format!("{}      5  ", digits(0)));
    ran.says(&format!("… 2 more: ponos failed show {} --last 5", digits(0)))
        .says("6 failed jobs in 2 groups");
    for (args, total) in
        [(&["--name", "shop.*"][..], 6), (&["--name", "*.email.*"], 0), (&["--since", "1h"], 6)]
    {
        let ran = ponos(&url, &[&["failed", "list", "--json"], args].concat());
        assert_eq!(ran.ok().json()["total"], total, "{args:?}");
    }
    for (by, count, key) in
        [("app", 1, "shop"), ("name", 1, TASK), ("error", 2, "the printer is on fire"), ("day", 1, "20")]
    {
        let json = ponos(&url, &["failed", "list", "--by", by, "--json"]).ok().json();
        let groups = json["groups"].as_array().unwrap();
        assert_eq!(groups.len(), count, "{by}: {json}");
        assert!(groups[0]["key"].as_str().unwrap().starts_with(key), "{by}: {json}");
    }

    let newest = |n: &str| ponos(&url, &["failed", "show", &digits(0), "--last", n, "--json"]).ok().json();
    assert_eq!((&newest("1")["count"], newest("1")["jobs"].as_array().unwrap().len()), (&5.into(), 1));
    let at = |job: &Value| job["report"]["at"].as_u64().unwrap();
    let three = newest("3")["jobs"].as_array().unwrap().clone();
    assert!(at(&three[0]) >= at(&three[1]) && at(&three[1]) >= at(&three[2]), "newest first");
    ponos(&url, &["failed", "show", &digits(0)]).ok().says("1 of 5 failed jobs in group");
    let none = if digits(0).starts_with("0000") || digits(1).starts_with("0000") { "ffff" } else { "0000" };
    ponos(&url, &["failed", "show", none]).failed(1, "no group of failed jobs begins with");

    // Nothing is done that was not confirmed.
    let ran = ponos(&url, &["failed", "retry", &digits(0), "--rate", "10/s"]);
    ran.failed(4, "nothing was done: this would retry 5 jobs").says(&format!("  5 → {TASK}"));
    ran.says("would retry 5 jobs of 5 transactions").says("10 per 1s ≈ 500ms");
    ponos(&url, &["failed", "retry", "--all", "--dry-run"]).ok().says("would retry 6 jobs");
    let json = ponos(&url, &["failed", "retry", "--all", "--name", "*.nobody", "--yes", "--json"]);
    assert_eq!(json.ok().json()["plan"]["jobs"], 0);
    ponos(&url, &["failed", "discard", "--all", "--reason", "r"]).failed(4, "would discard 6 jobs");
    failed(&url, 6);
    printer.fire(false);
    let ran =
        ponos(&url, &["failed", "retry", &digits(0), "--when-circuit-closed", "--yes", "--wait", "--json"]);
    let json = ran.ok().json();
    assert_eq!(json["balance"], json!({"retried": 5, "done": 5, "failed_again": 0, "pending": 0}));
    assert!(json["operation"].as_str().unwrap().starts_with("op-"));
    let tid = groups[0]["jobs"][0]["tid"].as_str().unwrap();
    ponos(&url, &["trace", tid]).says("retried by hand").says("  done");
    failed(&url, 1);
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_shown_when_asked_for_and_without_their_secrets() {
    let (_dir, url) = place();
    let printer = Printer::burning("no");
    let shop = shop(&url, &printer).await;
    let body = r#"{"order":1,"price":1.10,"user":{"Email":"ada@example.org","apiToken":"t0k3n","n":["x",{"cvv":1234}]}}"#;
    publish_as_it_is(&url, body).await;
    let id = ids(&failed(&url, 1)).remove(0);
    let show = |more: &[&str]| ponos(&url, &[&["failed", "show", &id], more].concat());
    for secret in ["ada@example.org", "t0k3n", "1234"] {
        for more in [&[][..], &["--json"], &["--body"], &["--body", "--json"], &["--headers"]] {
            show(more).ok().never_says(secret);
        }
        show(&["--body", "--unredacted"]).ok().says(secret);
        show(&["--body", "--unredacted", "--json"]).ok().says(secret);
        let edit = ["failed", "edit", &id, "--set", "user.Email=c@d", "--set", "order=2", "--dry-run"];
        ponos(&url, &edit).ok().never_says(secret).never_says("c@d").says("‹redacted, changed›");
    }
    show(&[]).ok().never_says("x-ponos-wire").never_says("\"order\"");
    show(&["--headers"]).ok().says("x-ponos-wire: 1").never_says("\"order\"");
    show(&["--body"]).ok().says("\"Email\": \"‹redacted›\"").says("\"price\": 1.10,\n");
    assert_eq!(show(&["--json"]).ok().json()["body"], Value::Null);
    assert_eq!(show(&["--json", "--body"]).ok().json()["body"]["user"]["n"][1]["cvv"], "‹redacted›");
    show(&["--unredacted"]).failed(2, "--body");
    shop.shutdown().await;
}

/// A job whose body keeps its order and its digits.
async fn publish_as_it_is(url: &str, body: &str) {
    let now = std::time::SystemTime::now().into();
    let tid = Tid::new(now, [7; 10]);
    let envelope = Envelope {
        id: MessageId::new(now, [8; 10]),
        name: MessageName::Task(TaskName::parse(TASK).unwrap()),
        cause: Some(MessageId::new(now, [9; 10])),
        app: None,
        publisher: None,
        published_at: now,
        hops: 1,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body: format!(r#"{{"tid":"{tid}",{}"#, &body[1..]).into(),
        tid,
    };
    let (broker, _) = jobs_of(url).await;
    let to = Destination::Queue(serde_json::from_value(TASK.into()).unwrap());
    let sent = broker.publish(vec![Outgoing { to, envelope }]).await;
    assert!(sent[0].is_confirmed(), "{sent:?}");
    broker.close().await.unwrap();
}

async fn jobs_of(url: &str) -> (std::sync::Arc<dyn ponos::core::broker::Broker>, FailedJobs) {
    let broker = Broker::from_url(url).unwrap().connect().await.unwrap();
    let jobs = FailedJobs::new(broker.clone(), AppName::from_checked("shop"));
    (broker, jobs)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_back_already_is_named_and_left_alone_when_asked() {
    let (_dir, url) = place();
    let printer = Printer::burning("no");
    let shop = shop(&url, &printer).await;
    publish(&url, 0..2).await;
    printer.has_failed(2).await;
    let ids = ids(&failed(&url, 2));
    printer.fire(false);
    // As a tool leaves it that dies between the copy and the acknowledgement, on a broker without transactions.
    let (broker, jobs) = jobs_of(&url).await;
    let job = jobs.show(ids[0].parse().unwrap()).await.unwrap().unwrap();
    let queue = job.report.as_ref().unwrap().queue.clone();
    let envelope = Envelope { report: None, progress: Progress::default(), ..job };
    let sent = broker.publish(vec![Outgoing { to: Destination::Queue(queue), envelope }]).await;
    assert!(sent[0].is_confirmed(), "{sent:?}");
    printer.has_printed(1).await;

    let dry = ["failed", "retry", "--all", "--dry-run", "--json"];
    until(&url, &dry, |ran| (ran.ok().json()["possible_duplicates"] == json!([ids[0]])).then_some(()));
    ponos(&url, &["failed", "retry", "--all", "--dry-run"])
        .ok()
        .says("warning: 1 possible duplicate")
        .says(&ids[0]);
    let ran = ponos(&url, &["failed", "retry", "--all", "--skip-duplicates", "--yes", "--wait"]);
    ran.ok().says("left alone").says("retried 1 = 1 done + 0 failed again");
    assert_eq!(retries_left(&url), [ids[0].clone()]);
    // No job's fate depends on a record.
    ponos(&url, &["failed", "retry", "--all", "--yes"]).ok().says("retried 1 of 1 job");
    printer.has_printed(3).await;
    broker.close().await.unwrap();
    shop.shutdown().await;
}

fn retries_left(url: &str) -> Vec<String> {
    ids(&ponos(url, &["failed", "list", "--json"]).ok().json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_edited_and_the_original_is_kept() {
    let (dir, url) = place();
    let printer = Printer::burning("no");
    let shop = shop(&url, &printer).await;
    publish_as_it_is(&url, r#"{"order":7,"big":123456789012345678901234567890}"#).await;
    let id = ids(&failed(&url, 1)).remove(0);
    let (broker, jobs) = jobs_of(&url).await;
    let parsed: MessageId = id.parse().unwrap();
    let original = jobs.show(parsed).await.unwrap().unwrap();
    let edit = |more: &[&str]| ponos(&url, &[&["failed", "edit", &id], more].concat());

    edit(&[]).failed(2, "nothing says what is to be changed");
    edit(&["--set", "order=7"]).failed(1, "nothing was changed");
    edit(&["--set", "tid=x"]).failed(2, "transaction id cannot be changed");
    edit(&["--set", "order.deep=1"]).failed(2, "cannot be set");
    edit(&["--set", "order"]).failed(2, "has no `=`");
    let unconfirmed = edit(&["--set", "order=8"]);
    unconfirmed
        .failed(4, "nothing was done")
        .says("-   \"order\": 7,\n+   \"order\": 8,\n    \"big\": 1234567890123");
    edit(&["--set", "order=8", "--dry-run"]).ok();
    assert_eq!(jobs.list(10, None).await.unwrap(), vec![original.clone()], "nothing was done");

    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let manifest = file("manifest.json", MANIFEST);
    let wrong = edit(&["--set", "order=eight", "--manifest", &manifest, "--yes"]);
    wrong.failed(1, "`order` is a text and must be integer");
    edit(&["--patch", &file("patch.json", "[1]"), "--yes"]).failed(2, "no JSON object");

    printer.fire(false);
    let patch = file("patch.json", r#"{"order":8,"note":null,"new":{"a":1}}"#);
    let done = edit(&["--patch", &patch, "--manifest", &manifest, "--yes", "--json"]).ok().json();
    assert_eq!(
        (&done["id"], &done["queue"], &done["dry_run"]),
        (&id.clone().into(), &TASK.into(), &false.into())
    );
    assert_ne!(done["new_id"], id);
    printer.has_printed(1).await;
    assert_eq!(printer.printed().into_keys().collect::<Vec<_>>(), [8]);
    edit(&["--set", "order=9", "--yes"]).failed(1, "no failed job has the id");
    let tid = original.tid.to_string();
    until(&url, &["trace", &tid, "--json"], |ran| {
        ran.out.contains(done["new_id"].as_str().unwrap()).then_some(())
    });
    ponos(&url, &["trace", &tid]).says("edited by hand");

    let kept = jobs.show_discarded(parsed).await.unwrap().unwrap();
    assert_eq!((&kept.body, &kept.report), (&original.body, &original.report));
    let by = kept.progress.discarded.unwrap();
    assert!(by.reason.contains(done["new_id"].as_str().unwrap()), "{by:?}");

    // The copy, had it failed too: its transaction and its cause are the original's, its digits are kept.
    ponos(&url, &["failed", "restore", &id]).ok().says("restored 1 of 1 job");
    printer.fire(true);
    let done = edit(&["--set", "order=9", "--yes", "--json"]).ok().json();
    let new: MessageId = done["new_id"].as_str().unwrap().parse().unwrap();
    failed(&url, 1);
    let copy = jobs.show(new).await.unwrap().unwrap();
    assert_eq!(
        (&copy.tid, copy.cause, copy.progress.edited_from),
        (&original.tid, original.cause, Some(parsed))
    );
    let body = String::from_utf8(copy.body.to_vec()).unwrap();
    assert_eq!(
        body,
        format!(r#"{{"tid":"{}","order":9,"big":123456789012345678901234567890}}"#, original.tid)
    );
    ponos(&url, &["failed", "show", &new.to_string()]).ok().says(&format!("edited from  {id}"));
    broker.close().await.unwrap();
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_kept_with_who_and_why_and_restored_as_it_was() {
    let (_dir, url) = place();
    let printer = Printer::burning("no");
    let shop = shop(&url, &printer).await;
    publish(&url, 0..4).await;
    printer.has_failed(4).await;
    let all = ids(&failed(&url, 4));
    let (broker, jobs) = jobs_of(&url).await;
    let by_id = |mut jobs: Vec<Envelope>| {
        jobs.sort_by_key(|job| job.id);
        jobs
    };
    let before = by_id(jobs.list(10, None).await.unwrap());
    let discard = |ids: &[String]| {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let args =
            [&["failed", "discard"], &ids[..], &["--reason", "bad producer", "--yes", "--json"]].concat();
        ponos(&url, &args).ok().json()["operation"].as_str().unwrap().to_owned()
    };
    ponos(&url, &["failed", "discard", &all[0], "--reason", " ", "--yes"]).failed(2, "the reason is empty");
    let (first, second) = (discard(&all[..1]), discard(&all[1..]));
    assert_ne!(first, second);
    failed(&url, 0);

    let list = ponos(&url, &["failed", "list", "--discarded", "--json"]).ok().json();
    assert_eq!(list["total"], 4);
    let by = &list["groups"][0]["jobs"][0]["discarded"];
    assert_eq!(
        (&by["reason"], by["at"].is_u64(), by["by"].is_string()),
        (&"bad producer".into(), true, true)
    );
    let group = list["groups"][0]["fingerprint"].as_str().unwrap()[..8].to_owned();
    ponos(&url, &["failed", "list", "--discarded"])
        .ok()
        .says("4 discarded jobs in 1 group")
        .says("bad producer");
    ponos(&url, &["failed", "show", &all[0], "--discarded"]).ok().says("because      bad producer");
    ponos(&url, &["failed", "retry", &all[0], "--yes"]).failed(1, "no failed job has the id");

    let tid = list["groups"][0]["jobs"][0]["tid"].as_str().unwrap();
    ponos(&url, &["trace", tid])
        .says("discarded by hand")
        .says(": bad producer")
        .never_says("shop.discarded");

    ponos(&url, &["failed", "restore", "--op", "op-nobody"])
        .failed(1, "no discarded job is of the operation");
    ponos(&url, &["failed", "restore", "--op", &second, "--dry-run"]).ok().says("would restore 3 jobs");
    ponos(&url, &["failed", "restore", "--op", &second]).ok().says("restored 3 of 3 jobs");
    assert_eq!(retries_left(&url).into_iter().collect::<BTreeSet<_>>(), all[1..].iter().cloned().collect());
    ponos(&url, &["failed", "restore", &group]).ok().says("restored 1 of 1 job");
    assert_eq!(by_id(jobs.list(10, None).await.unwrap()), before, "as they were");
    ponos(&url, &["failed", "restore", "--all"]).ok().says("no discarded jobs");
    broker.close().await.unwrap();
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discarded_jobs_are_kept_for_thirty_days() {
    let (_dir, url) = place();
    let printer = Printer::burning("no");
    let shop = shop(&url, &printer).await;
    publish(&url, 0..3).await;
    printer.has_failed(3).await;
    let all = ids(&failed(&url, 3));
    let (broker, jobs) = jobs_of(&url).await;
    for (id, days) in [(&all[0], 31), (&all[1], 29)] {
        let mut operation = ponos::Operation::begun_by("somebody");
        let before = operation.at.as_millis() - days * 24 * 3_600_000;
        operation.at = ponos::core::id::Timestamp::from_millis(before);
        jobs.discard_many(vec![id.parse().unwrap()], "old", ponos::Bulk::new(operation)).await.unwrap();
    }
    ponos(&url, &["failed", "discard", &all[2], "--reason", "new", "--yes"]).ok();
    let kept = ids(&ponos(&url, &["failed", "list", "--discarded", "--json"]).ok().json());
    assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), all[1..].iter().cloned().collect());
    broker.close().await.unwrap();
    shop.shutdown().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn progress_is_a_bar_on_a_terminal_and_lines_in_a_pipe() {
    let (dir, url) = place();
    let printer = Printer::burning("no");
    let shop = shop(&url, &printer).await;
    publish(&url, 0..30).await;
    printer.has_failed(30).await;
    failed(&url, 30);
    let piped = ponos(&url, &["failed", "retry", "--all", "--yes", "--wait"]);
    piped.failed(1, "30 failed again").says("retried 30 of 30 jobs").never_says("\u{1b}").never_says("\r");
    printer.fire(false);
    // script(1) gives the program a terminal of its own.
    let line = format!("{} failed retry --all --yes --wait", env!("CARGO_BIN_EXE_ponos"));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("PONOS_BROKER", &url);
    let ran = Ran::of(command.current_dir(Path::new(dir.path())).output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.says("[########################] 30/30  ").says("✔ 30");
    ran.says("retried 30 = ");
    shop.shutdown().await;
}
