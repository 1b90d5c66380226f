//! What stands in bodies and what opens the broker is seen nowhere, unless somebody asks for it.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use ponos::RawPublisher;
use ponos::core::journal::{Entry, From, Said};
use ponos::core::name::AppName;
use ponos::core::name::{EventName, TaskName};
use ponos_testbed::Node;

use crate::place::Place;
use crate::system::{InvoicePay, Smtp, big_poppa, cream, metrics, pheidi};

/// In bodies.
const CARD: &str = "4929-PLANTED-CARD-7311";

/// In the broker's URL. Only on RabbitMQ: a file has no password.
const PASSWORD: &str = "PLANTED-p4ssw0rd-7311";

/// Everything that is logged in this process, at every level but for `lapin`'s own.
fn logged() -> &'static Mutex<Vec<u8>> {
    static LOGGED: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOGGED.get_or_init(|| {
        let filter = tracing_subscriber::filter::Targets::new()
            .with_default(tracing::Level::TRACE)
            // Its frames hold the login: the manual says to switch it off.
            .with_target("lapin", tracing_subscriber::filter::LevelFilter::OFF);
        use tracing_subscriber::layer::SubscriberExt as _;
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Buffer);
        let _ =
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer).with(filter));
        Mutex::default()
    })
}

struct Buffer;

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        logged().lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    secrets(&Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq() {
    let url = tokio::task::spawn_blocking(|| {
        let (node, vhost) = (Node::shared(), Node::shared().fresh_vhost_name());
        node.add_user(&vhost, "planted", PASSWORD, ".*", ".*", ".*");
        node.url_as("planted", PASSWORD, &vhost)
    });
    let place = Place { url: url.await.unwrap(), dir: tempfile::tempdir().unwrap() };
    place.ponos(&["tail", "--no-follow"]).ok();
    secrets(&place).await;
}

async fn secrets(place: &Place) {
    let _ = logged();
    let smtp = Arc::new(Smtp::default());
    let (cream, big_poppa, pheidi, metrics) =
        (cream(place).await, big_poppa(place).await, pheidi(place, &smtp).await, metrics(place).await);
    let pay = |org: &str| InvoicePay { org: org.into(), card: CARD.into(), cents: 1 };
    let good = cream.publisher().create(pay("acme")).await.unwrap().tid.to_string();
    let bad = cream.publisher().create(pay("nobody")).await.unwrap().tid.to_string();
    // A body that no handler can read, which is the value itself.
    let broker = place.broker().connect().await.unwrap();
    let raw = RawPublisher::connect(AppName::from_checked("cream"), Arc::clone(&broker)).await.unwrap();
    let wrong = serde_json::json!({ "org": { "card": CARD } });
    let event = EventName::from_checked("org.payment.processed");
    raw.emit(event, wrong.as_object().unwrap(), None).await.unwrap();
    let wrong = serde_json::json!({ "org": "x", "card": "y", "cents": CARD });
    let task = TaskName::from_checked("cream.invoice.pay");
    raw.create(task, wrong.as_object().unwrap(), None).await.unwrap();
    for tid in [&good, &bad] {
        place.until(&["trace", tid, "--json"], |ran| {
            (ran.code == 0 && ran.json()["outcome"] != "pending").then_some(())
        });
    }
    for app in ["big-poppa", "cream"] {
        place.until(&["failed", "list", "--app", app, "--json"], |ran| {
            (ran.code == 0 && ran.json()["total"] == 1).then_some(())
        });
    }

    let mut seen: Vec<(String, String)> = Vec::new();
    let failed = place.ponos(&["failed", "list", "--app", "pheidi", "--json"]).ok().json();
    let id = failed["groups"][0]["jobs"][0]["id"].as_str().unwrap().to_owned();
    for args in [
        &["trace", &good][..],
        &["trace", &bad, "--json"],
        &["trace", &bad, "--mermaid"],
        &["diff", &good, &bad],
        &["diff", &good, &bad, "--json"],
        &["tail", "--no-follow", "--beats"],
        &["tail", "--no-follow", "--json", "--beats"],
        &["queues"],
        &["queues", "--json"],
        &["failed", "list", "--app", "big-poppa"],
        &["failed", "list", "--app", "cream"],
        &["failed", "list", "--app", "cream", "--json", "--by", "error"],
        &["failed", "list", "--app", "pheidi", "--json"],
        &["failed", "show", &id, "--app", "pheidi"],
        &["failed", "show", &id, "--app", "pheidi", "--json", "--headers"],
        &["failed", "retry", "--all", "--app", "pheidi", "--dry-run"],
        &["orders", "--app", "pheidi"],
        &["pause", "no.such.queue", "--reason", "to see"],
        &["publish", "org.payment.processed", "{\"org\":\"x\"}"],
        &["explain", "org.payment.processed"],
        &["map", "--live"],
        &["doctor"],
        &["top", "--once"],
    ] {
        let ran = place.ponos(args);
        seen.push((format!("{args:?}"), format!("{}\n{}", ran.out, ran.err)));
    }
    let nowhere = place.url.replace(":567", ":1");
    if nowhere != place.url {
        let ran = place.ponos(&["--broker", &nowhere, "queues"]);
        assert_ne!(ran.code, 0);
        seen.push(("an unreachable broker".into(), ran.err));
    }
    let journal = broker.journal().unwrap();
    let mut reader = journal.open(From::Start).await.unwrap();
    let mut records = 0;
    loop {
        let entries = reader.next().await.unwrap();
        if entries.is_empty() {
            break;
        }
        records += entries.iter().filter(|Entry { said, .. }| matches!(said, Said::Record(_))).count();
        seen.push(("the journal".into(), format!("{entries:?}")));
    }
    assert!(records > 20, "{records}");
    drop(raw);
    cream.shutdown().await;
    big_poppa.shutdown().await;
    pheidi.shutdown().await;
    metrics.shutdown().await;
    broker.close().await.unwrap();
    let log = String::from_utf8_lossy(&logged().lock().unwrap()).into_owned();
    assert!(log.contains("gave up"), "everything is logged");
    seen.push(("the log".into(), log));
    // The files beside the broker's, and the read model's.
    for file in files(place.dir.path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        // The broker's own file is where bodies belong.
        if !name.starts_with("ponos.db") || name.contains("journal") {
            seen.push((name, String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned()));
        }
    }
    for (place, text) in &seen {
        for secret in [CARD, PASSWORD] {
            if let Some(at) = text.find(secret) {
                let around: String =
                    text[..at].chars().rev().take(200).collect::<Vec<_>>().into_iter().rev().collect();
                panic!("{secret} stands in {place}, behind {around}");
            }
        }
    }
    // Who asks for it gets it.
    let shown = place.ponos(&["failed", "show", &id, "--app", "pheidi", "--body", "--unredacted"]);
    assert!(shown.ok().out.contains("Body, "), "{shown:?}");
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
