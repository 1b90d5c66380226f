//! `ponos doctor`, `queues` and `top --once` with the real program, on systems that are well and on sick ones. What an
//! instance would say is appended to the journal by hand.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

mod retries;

use std::sync::Arc;

use ponos::core::broker::{Destination, Order, OrderAction, Outgoing, Topology};
use ponos::core::envelope::{Envelope, MessageName, Phase, Progress};
use ponos::core::id::Timestamp;
use ponos::core::journal::{
    AttemptEnd, AttemptRecord, Beat, CircuitNotice, CircuitPhase, Entry, Flight, Notice, Origin,
    PublishedRecord, QueueBeat, Record, Said, What,
};
use ponos::core::name::{AppName, EventName, QueueName, TaskName};
use ponos::{Broker, MessageId, Tid};
use retries::{Printer, ponos, shop};
use serde_json::{Value, json};
use tempfile::TempDir;

const QUEUE: &str = "shop.parcel.send";

fn place() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("ponos.db").display());
    (dir, url)
}

fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

fn before(seconds: u64) -> Timestamp {
    Timestamp::from_millis(now().as_millis() - seconds * 1000)
}

/// A service's manifest with one task.
fn manifest(more: Value) -> String {
    let mut manifest = json!({
        "ponos_manifest": 1, "app": "shop",
        "tasks": [{ "name": QUEUE, "queue": QUEUE, "emits": [], "schema": {}, "recovers": false,
                    "policy": { "concurrency": 1, "prefetch": 8, "depends_on": "printer" } }]
    });
    manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    manifest.to_string()
}

/// A beat of now, of an instance that works the queue and was given a job just before.
fn beat() -> Beat {
    let queue = QueueBeat {
        queue: QueueName::parse(QUEUE).unwrap(),
        in_flight: 0,
        buffered: 0,
        prefetch: 8,
        up: true,
        paused: false,
        last_delivery: Some(now()),
    };
    Beat { every_ms: 10_000, queues: vec![queue], ..Beat::default() }
}

/// A system whose services are played.
struct System {
    _dir: TempDir,
    url: String,
    broker: Arc<dyn ponos::core::broker::Broker>,
}

/// An instance that says what it is told.
struct Instance {
    origin: Arc<Origin>,
    seq: u64,
}

impl Instance {
    fn new(id: u64, version: Option<&str>, started: Timestamp) -> Self {
        let origin = Origin {
            id,
            app: AppName::parse("shop").unwrap(),
            version: version.map(Into::into),
            host: "box/7".into(),
            started,
        };
        Self { origin: Arc::new(origin), seq: 0 }
    }

    fn says(&mut self, system: &System, said: Said) {
        let entry = Entry { origin: Arc::clone(&self.origin), seq: self.seq, said };
        self.seq += 1;
        system.broker.journal().unwrap().append(entry);
    }

    fn hello(&mut self, system: &System, at: Timestamp, manifest: &str) {
        self.says(system, Said::Notice(at, Notice::Hello { manifest: Some(manifest.into()) }));
    }

    fn beats(&mut self, system: &System, at: Timestamp, beat: Beat) {
        self.says(system, Said::Notice(at, Notice::Beat(beat)));
    }
}

impl System {
    /// The queues are there, nobody is at work.
    async fn new() -> Self {
        let (dir, url) = place();
        let broker = Broker::from_url(&url).unwrap().connect().await.unwrap();
        let topology = Topology {
            app: Some(AppName::parse("shop").unwrap()),
            tasks: vec![QueueName::parse(QUEUE).unwrap()],
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        Self { _dir: dir, url, broker }
    }

    /// A service that is well is at work.
    async fn at_work() -> (Self, Instance) {
        let system = Self::new().await;
        let mut instance = Instance::new(1, Some("1"), before(60));
        instance.hello(&system, before(60), &manifest(json!({})));
        instance.beats(&system, now(), beat());
        (system, instance)
    }

    /// Puts a job into the queue.
    async fn job(&self) {
        let at = now();
        let name = TaskName::parse(QUEUE).unwrap();
        let tid = Tid::new(at, [3; 10]);
        let id = MessageId::new(at, [4; 10]);
        let envelope = Envelope {
            id,
            name: MessageName::Task(name),
            cause: None,
            app: None,
            publisher: None,
            published_at: at,
            hops: 0,
            version: None,
            trace: None,
            progress: Progress::default(),
            report: None,
            body: format!(r#"{{"tid":"{tid}"}}"#).into(),
            tid,
        };
        let sent = vec![Outgoing { to: Destination::Queue(QueueName::parse(QUEUE).unwrap()), envelope }];
        assert!(self.broker.publish(sent).await[0].is_confirmed());
    }

    async fn order(&self, action: OrderAction) {
        let order = Order {
            target: QueueName::parse(QUEUE).unwrap().into(),
            action,
            by: "ada@vm".into(),
            reason: "the printer smokes".into(),
            at: now(),
            until: None,
        };
        self.broker.steer(order).await.unwrap();
    }

    /// What the doctor finds, once everything is written: codes, subjects and messages.
    async fn findings(self) -> (i32, Vec<(String, String, String)>) {
        let url = self.url.clone();
        self.broker.close().await.unwrap();
        let ran = ponos(&url, &["doctor", "--json"]);
        assert_eq!(ran.err, "", "{ran:?}");
        let text = |value: &Value, key: &str| value[key].as_str().unwrap().to_owned();
        let findings = ran.json()["findings"].as_array().unwrap().clone();
        (
            ran.code,
            findings.iter().map(|it| (text(it, "code"), text(it, "subject"), text(it, "message"))).collect(),
        )
    }

    /// It finds this and nothing else.
    async fn finds(self, code: i32, kind: &str, subject: &str, says: &str) {
        let (exit, findings) = self.findings().await;
        let found: Vec<(&str, &str)> =
            findings.iter().map(|(kind, subject, _)| (&**kind, &**subject)).collect();
        assert_eq!(found, [(kind, subject)], "{findings:?}");
        assert!(findings[0].2.contains(says), "{says:?} is not in {findings:?}");
        assert_eq!(exit, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_is_well_has_no_findings() {
    let (_dir, url) = place();
    let printer = Printer::new();
    let shop = shop(&url, &printer).await;
    retries::publish(&url, 0..3).await;
    printer.has_printed(3).await;
    // Its first beat is not there at once.
    let args = ["doctor", "--deny-warnings"];
    let ran = retries::until(&url, &args, |ran| {
        ran.out.contains("1 instance alive").then(|| (ran.code, ran.out.clone()))
    });
    assert!(ran.0 == 0 && ran.1.starts_with("✔ broker ") && ran.1.ends_with("\nnothing found\n"), "{ran:?}");
    let json = ponos(&url, &["doctor", "--json"]).ok().json();
    assert_eq!(
        (&json["errors"], &json["warnings"], &json["not_looked_at"]),
        (&0.into(), &0.into(), &json!([]))
    );
    shop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_played_system_is_well_too() {
    let (system, _instance) = System::at_work().await;
    assert_eq!(system.findings().await, (0, vec![]));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn files_that_others_may_use_are_found() {
    use std::os::unix::fs::PermissionsExt as _;
    let chmod = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let (system, _instance) = System::at_work().await;
    let (dir, url) = (system._dir.path().to_owned(), system.url.clone());
    let file = dir.join("ponos.db");
    // Within a directory of its own nobody gets to it.
    chmod(&dir, 0o700);
    chmod(&file, 0o644);
    assert_eq!(ponos(&url, &["doctor", "--json"]).ok().json()["findings"], json!([]));
    chmod(&dir, 0o755);
    let (code, findings) = system.findings().await;
    assert_eq!(code, 0, "a warning");
    let (kind, subject, says) = &findings[0];
    assert_eq!((kind.as_str(), subject.as_str()), ("files-open", file.to_str().unwrap()), "{findings:?}");
    assert!(
        says.contains("may read the bodies") && findings.iter().all(|it| it.0 == "files-open"),
        "{findings:?}"
    );
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_everybody_may_write_is_not_opened() {
    use std::os::unix::fs::PermissionsExt as _;
    let (system, _instance) = System::at_work().await;
    let (dir, url) = (&system._dir, &system.url);
    system.broker.close().await.unwrap();
    for (path, mode) in [(dir.path().to_owned(), 0o755), (dir.path().join("ponos.db"), 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for verb in [&["doctor"][..], &["queues"], &["trace", "@last"]] {
        let ran = ponos(url, verb);
        assert_eq!(ran.code, 3, "{ran:?}");
        assert!(format!("{}{}", ran.out, ran.err).contains("chmod o-w"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_nobody_works_are_found() {
    let system = System::new().await;
    system.job().await;
    // It has just come: somebody may be about to start.
    system.finds(0, "queue-unworked", QUEUE, "nobody works it, and 1 job waits, the oldest for ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_given_nothing_is_found() {
    let (system, mut instance) = System::at_work().await;
    system.job().await;
    let mut stalled = beat();
    stalled.queues[0].last_delivery = Some(before(71));
    instance.beats(&system, now(), stalled);
    system.finds(1, "consumer-stalled", QUEUE, "given none for 1min").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_full_or_paused_does_not_stall() {
    for full in [true, false] {
        let (system, mut instance) = System::at_work().await;
        system.job().await;
        let mut busy = beat();
        busy.queues[0].last_delivery = Some(before(71));
        if full {
            busy.queues[0].in_flight = 8;
        } else {
            busy.queues[0].paused = true;
        }
        instance.beats(&system, now(), busy);
        assert_eq!(system.findings().await, (0, vec![]), "{full}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_fell_silent_with_a_job_is_found_until_somebody_ends_the_job() {
    for ended in [false, true] {
        let (system, _alive) = System::at_work().await;
        let mut dead = Instance::new(2, Some("1"), before(400));
        dead.hello(&system, before(400), &manifest(json!({})));
        let (tid, message) = (Tid::new(before(310), [5; 10]), MessageId::new(before(310), [6; 10]));
        let queue = QueueName::parse(QUEUE).unwrap();
        let flight = Flight { message, tid, queue: queue.clone(), attempt: 1, started: before(301) };
        let (tid, message) = (flight.tid.clone(), flight.message);
        dead.beats(&system, before(300), Beat { flights: vec![flight], ..beat() });
        if ended {
            let mut other = Instance::new(3, Some("1"), before(200));
            let what = What::Attempt(AttemptRecord::first(queue, Phase::Run, before(100), AttemptEnd::Done));
            other.says(&system, Said::Record(Record { at: before(100), tid, message, what }));
            assert_eq!(system.findings().await, (0, vec![]));
        } else {
            system.finds(1, "instance-silent", "shop at box/7", "5min and had 1 job in its hands").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_differ_and_run_together_are_found() {
    let (system, _one) = System::at_work().await;
    let mut two = Instance::new(2, Some("2"), before(30));
    two.hello(&system, before(30), &manifest(json!({ "version": "2", "emits": ["parcel.sent"] })));
    two.beats(&system, now(), beat());
    system.finds(0, "versions-mixed", "shop", "versions 1 and 2 run together").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nobody_hears_is_found() {
    let (system, mut instance) = System::at_work().await;
    let what = What::Published(PublishedRecord {
        name: EventName::parse("parcel.sent").unwrap().as_str().into(),
        event: true,
        app: Some(AppName::parse("shop").unwrap()),
        cause: None,
        by: None,
        queues: 0,
        hops: 0,
        size: 2,
    });
    let (tid, message) = (Tid::new(now(), [5; 10]), MessageId::new(now(), [6; 10]));
    instance.says(&system, Said::Record(Record { at: now(), tid, message, what }));
    system.finds(0, "event-unheard", "parcel.sent", "1 message in 24 hours").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_missing_are_found() {
    let (system, mut instance) = System::at_work().await;
    instance.seq += 37;
    instance.beats(&system, now(), beat());
    system.finds(0, "records-lost", "shop at box/7", "37 records were lost").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_is_found() {
    let (system, mut instance) = System::at_work().await;
    instance.beats(&system, now() + std::time::Duration::from_secs(120), beat());
    system.finds(0, "clock-skew", "box", "ahead of this machine's").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_that_is_open_for_long_is_found_and_shown() {
    let (system, mut instance) = System::at_work().await;
    let notice = CircuitNotice {
        circuit: "printer".into(),
        queues: vec![QueueName::parse(QUEUE).unwrap()],
        phase: CircuitPhase::Open,
        open_for: Some(std::time::Duration::from_secs(5)),
        cause: "5 of 5 failed".into(),
    };
    instance.says(&system, Said::Notice(before(600), Notice::Circuit(notice)));
    instance.beats(&system, now(), Beat { circuits: vec![("printer".into(), CircuitPhase::Open)], ..beat() });
    let url = system.url.clone();
    let dir = system._dir.path().to_owned();
    system.broker.close().await.unwrap();
    for args in [&["queues"][..], &["top", "--once"]] {
        ponos(&url, args).ok().says("circuit printer open 10min").says("0/8");
    }
    assert!(dir.join("ponos.db.view").is_dir());
    system.finds(0, "circuit-open", QUEUE, "open for 10min in 1 instance").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_stands_is_found_and_who_ignores_it() {
    let (system, mut instance) = System::at_work().await;
    system.order(OrderAction::Pause).await;
    system.finds(0, "order-stands", QUEUE, "paused by ada@vm").await;

    let system = System::new().await;
    instance.seq = 0;
    instance.hello(&system, before(60), &manifest(json!({ "orders": "ignored" })));
    instance.beats(&system, now(), beat());
    system.order(OrderAction::Pause).await;
    let (code, findings) = system.findings().await;
    let kinds: Vec<&str> = findings.iter().map(|(kind, ..)| &**kind).collect();
    assert_eq!((code, kinds), (1, vec!["orders-ignored", "order-stands"]), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_too_long_is_found() {
    let system = System::new().await;
    let mut instance = Instance::new(1, Some("1"), before(60));
    let policy = json!({ "concurrency": 1, "prefetch": 8 });
    let chain = json!({
        "hop_limit": 1,
        "tasks": [{ "name": QUEUE, "queue": QUEUE, "emits": ["parcel.sent"], "schema": {}, "recovers": false,
                    "policy": policy },
                  { "name": "shop.parcel.count", "queue": "shop.parcel.count", "emits": [], "schema": {},
                    "recovers": false, "policy": policy }],
        "reactions": [{ "event": "parcel.sent", "queue": "shop.parcel.sent", "creates": ["shop.parcel.count"],
                        "policy": policy }]
    });
    instance.hello(&system, before(60), &manifest(chain));
    instance.beats(&system, now(), beat());
    system.finds(1, "hop-limit", "shop", "after 1 hop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_jobs_and_queues_whose_owner_is_gone_are_found() {
    let (_dir, url) = place();
    let printer = Printer::burning("the printer is on fire");
    let running = shop(&url, &printer).await;
    retries::publish(&url, 0..2).await;
    printer.has_failed(2).await;
    let found = retries::until(&url, &["doctor", "--json"], |ran| {
        let findings = ran.ok().json()["findings"].clone();
        (findings.as_array().unwrap().len() == 1
            && findings[0]["message"].as_str().unwrap().starts_with("2 jobs"))
        .then(|| findings[0].clone())
    });
    assert_eq!((&found["code"], &found["subject"]), (&"jobs-failed".into(), &"shop".into()));
    assert!(found["message"].as_str().unwrap().contains("2 in shop.parcel.send"), "{found}");
    running.shutdown().await;

    let system = System::new().await;
    let long_ago = before(9 * 86_400);
    let mut instance = Instance::new(1, Some("1"), long_ago);
    instance.hello(&system, long_ago, &manifest(json!({})));
    instance.beats(&system, long_ago, beat());
    system.finds(0, "owner-gone", QUEUE, "not seen for 9d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_records_the_rest_is_looked_at_and_the_rest_is_said() {
    let (dir, url) = place();
    shop(&url, &Printer::new()).await.shutdown().await;
    retries::publish(&url, 0..2).await;
    // Another program's file.
    let journal = dir.path().join("ponos.db.journal");
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{ending}", journal.display()));
    }
    std::fs::write(&journal, "not a database, but long enough to be taken for one\n".repeat(100)).unwrap();
    let queues = ponos(&url, &["queues"]);
    queues.ok().says("without records: ").says("nobody works it");
    let doctor = ponos(&url, &["doctor"]);
    doctor.ok().says("[no-records]").says("· not looked at: stalled consumers: there are no records");
    assert_eq!(ponos(&url, &["doctor", "--deny-warnings"]).code, 1);
}

#[test]
fn a_broker_that_is_not_there_is_the_finding() {
    let (dir, url) = place();
    let ran = ponos(&url, &["doctor"]);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""), "{ran:?}");
    ran.says("[broker-unreachable]").says("· not looked at: everything else");
    assert_eq!(ponos(&url, &["doctor", "--json"]).json()["errors"], 1);
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn top_prints_one_frame_and_refuses_what_is_no_terminal() {
    let (system, _instance) = System::at_work().await;
    let url = system.url.clone();
    ponos(&url, &["top"]).failed(2, "the output is no terminal");
    ponos(&url, &["top", "--json"]).failed(2, "--once");
    system.broker.close().await.unwrap();
    ponos(&url, &["top", "--once"]).ok().says("1 instance alive").says(QUEUE).never_says("q quit");
    let json = ponos(&url, &["top", "--once", "--json"]).ok().json();
    assert_eq!((&json["totals"]["alive"], &json["no_records"]), (&1.into(), &Value::Null));
    ponos(&url, &["top", "--once", "--app", "nobody"]).failed(1, "no application `nobody`");
}
