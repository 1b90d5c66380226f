//! The five programs as five processes, started in the wrong order and killed.

#![expect(clippy::unwrap_used, reason = "what a test relies on may end it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ponos::Broker;
use ponos::core::broker::{Inspect, QueueStats};
use ponos::core::id::Tid;
use ponos::core::journal::{self, JournalQuery};
use ponos::trace::Cascade;
use ponos_example_payments::hooks;
use ponos_example_payments::mail_provider::Deliveries;
use reqwest::Client;
use serde_json::{Value, json};

/// How long anything may take before the test gives up; on an idle machine the whole test takes a few seconds.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often a process outside is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A folder with a broker's file, three addresses, and the processes that run in it.
struct World {
    folder: tempfile::TempDir,
    addresses: BTreeMap<&'static str, SocketAddr>,
    running: BTreeMap<&'static str, Child>,
    client: Client,
}

impl World {
    fn new() -> Self {
        // All are taken at once, so that they differ; what takes a port between this and the start is bad luck.
        let variables = ["CREAM_ADDR", "HOOKS_ADDR", "MAIL_PROVIDER_ADDR"];
        let listeners = variables.map(|variable| (variable, TcpListener::bind("127.0.0.1:0").unwrap()));
        let addresses = listeners
            .iter()
            .map(|(variable, listener)| (*variable, listener.local_addr().unwrap()))
            .collect();
        Self {
            folder: tempfile::tempdir().unwrap(),
            addresses,
            running: BTreeMap::new(),
            client: Client::new(),
        }
    }

    fn binary(name: &str) -> &'static str {
        match name {
            "cream" => env!("CARGO_BIN_EXE_cream"),
            "pheidi" => env!("CARGO_BIN_EXE_pheidi"),
            "hooks" => env!("CARGO_BIN_EXE_hooks"),
            "deploy" => env!("CARGO_BIN_EXE_deploy"),
            "mail-provider" => env!("CARGO_BIN_EXE_mail-provider"),
            _ => panic!("no program `{name}`"),
        }
    }

    fn start(&mut self, name: &'static str) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(name)).unwrap();
        let mut command = Command::new(Self::binary(name));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.env_remove("PONOS_BROKER").env_remove("RUST_LOG").env_remove("PONOS_MANIFEST");
        command.envs(self.addresses.iter().map(|(variable, address)| (variable, address.to_string())));
        self.running.insert(name, command.spawn().unwrap());
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// As a power cut would: no chance to say goodbye.
    fn kill(&mut self, name: &str) {
        let mut child = self.running.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn url(&self, variable: &str, path: &str) -> String {
        format!("http://{}{path}", self.addresses[variable])
    }

    async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            if started.elapsed() > DEADLINE {
                let logs = World::NAMES.map(|name| format!("== {name}\n{}", read(&self.log(name))));
                panic!("not within {DEADLINE:?}: {what}\n{}", logs.join("\n"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    const NAMES: [&str; 5] = ["cream", "pheidi", "hooks", "deploy", "mail-provider"];

    /// Posts until it is accepted; answers the transaction.
    async fn post(&self, url: &str, kind: Option<&str>, body: &Value) -> String {
        self.until(&format!("{url} takes {body}"), async || {
            let mut request = self.client.post(url).json(body);
            if let Some(kind) = kind {
                request = request.header("X-GitHub-Event", kind);
            }
            let answer = request.send().await.ok().filter(|answer| answer.status() == 202)?;
            let answer: Value = answer.json().await.ok()?;
            Some(answer["tid"].as_str()?.to_owned())
        })
        .await
    }

    async fn pay(&self, org: &str, amount_cents: u64) -> String {
        self.post(
            &self.url("CREAM_ADDR", "/payments"),
            None,
            &json!({ "org": org, "amount_cents": amount_cents }),
        )
        .await
    }

    async fn provider(&self, mode: Value) {
        let url = self.url("MAIL_PROVIDER_ADDR", "/mode");
        self.until("the provider takes a mode", async || {
            let answer = self.client.put(&url).json(&mode).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    async fn deliveries(&self) -> Option<Deliveries> {
        let answer = self.client.get(self.url("MAIL_PROVIDER_ADDR", "/deliveries")).send().await.ok()?;
        answer.json().await.ok()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_is_killed() {
    let mut world = World::new();
    // Those who ask start before those who answer.
    for name in ["pheidi", "deploy", "hooks", "cream"] {
        world.start(name);
    }
    let broker = broker(&world).await;
    heard(&world, &*broker, "pheidi.org.payment.processed").await;
    heard(&world, &*broker, "deploy.github.pushed").await;

    let mut payments = BTreeSet::new();
    // Fewer than failures in a row open pheidi's circuit, for nobody takes mail yet.
    for n in 0..6 {
        payments.insert(world.pay(&format!("early-{n}"), 1900 + n).await);
    }
    // What was promised is the broker's; whoever promised it may go.
    world.kill("cream");
    let mut pushes = BTreeSet::new();
    for line in hooks::REAL_WEBHOOKS.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let tid = world
            .post(&world.url("HOOKS_ADDR", "/webhooks/github"), line["event"].as_str(), &line["payload"])
            .await;
        if line["event"] == "push" && line["payload"]["deleted"] == false {
            pushes.insert(tid);
        }
    }

    // The provider delivers and answers late, so that mails are delivered and not yet answered when pheidi dies.
    world.start("mail-provider");
    world.provider(json!({ "mode": "slow", "delay_ms": 5000 })).await;
    world.start("cream");
    world
        .until("a mail is delivered", async || world.deliveries().await.filter(|mails| mails.count > 0))
        .await;
    world.kill("pheidi");
    world.provider(json!({ "mode": "ok" })).await;
    for n in 0..10 {
        payments.insert(world.pay(&format!("late-{n}"), 2900 + n).await);
    }
    world.start("pheidi");
    world
        .until("a mail that pheidi died over is sent again, and recognised", async || {
            world.deliveries().await.filter(|mails| mails.repeated > 0)
        })
        .await;
    world.kill("mail-provider");
    world.start("mail-provider");

    let mails = world
        .until("every payment has its mail", async || {
            world.deliveries().await.filter(|mails| mails.count >= payments.len())
        })
        .await;
    world
        .until("the queues are empty", async || {
            queues(&*broker).await.iter().all(|q| left(q) == 0).then_some(())
        })
        .await;
    world
        .until("every push is built", async || {
            for tid in &pushes {
                let query = JournalQuery::Tid(Tid::from_foreign(tid)?);
                let records = journal::read(&*broker.journal()?, &query).await.ok()?;
                Cascade::from_records(records).find("build.completed")?;
            }
            Some(())
        })
        .await;

    let keys: BTreeSet<_> = mails.deliveries.iter().map(|mail| &mail.key).collect();
    let tids: BTreeSet<_> = mails.deliveries.iter().filter_map(|mail| mail.tid.clone()).collect();
    assert_eq!(keys.len(), mails.count, "a key was delivered twice");
    assert_eq!(mails.count, payments.len(), "a payment was mailed twice");
    assert_eq!(tids, payments, "a payment has no mail");
    assert_eq!(pushes.len(), 1);

    for name in World::NAMES {
        let mut child = world.running.remove(name).unwrap();
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let ended = world.until("it ends", async || child.try_wait().unwrap()).await;
        assert!(ended.success(), "{name} ended with {ended}:\n{}", read(&world.log(name)));
    }
    broker.close().await.unwrap();
}

/// The broker's file, once a service has made it.
async fn broker(world: &World) -> std::sync::Arc<dyn ponos::core::broker::Broker> {
    let file = world.folder.path().join("ponos.db");
    Broker::sqlite(file).connect().await.unwrap()
}

/// Waits until somebody hears this queue: what is published before an application was ever there, it does not hear.
async fn heard(world: &World, broker: &dyn ponos::core::broker::Broker, queue: &str) {
    world
        .until(queue, async || {
            queues(broker).await.iter().any(|q| q.queue.as_str() == queue && q.consumers > 0).then_some(())
        })
        .await;
}

async fn queues(broker: &dyn ponos::core::broker::Broker) -> Vec<QueueStats> {
    broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues()
}

fn left(queue: &QueueStats) -> u64 {
    queue.messages()
}

#[test]
fn a_wrong_setting_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    for (program, variable, value, says) in [
        ("cream", "PONOS_BROKER", "ponos.db", "PONOS_BROKER names no broker"),
        ("pheidi", "PONOS_BROKER", "redis://u:secret@h", "use `sqlite:FILE`"),
        ("hooks", "HOOKS_ADDR", "8402", "HOOKS_ADDR is `8402`: write 127.0.0.1:PORT"),
        ("deploy", "RUST_LOG", "ponos=loud", "RUST_LOG is `ponos=loud`"),
        ("mail-provider", "MAIL_PROVIDER_FILE", "/nowhere/x", "cannot use the ledger /nowhere/x"),
    ] {
        let mut command = Command::new(World::binary(program));
        command
            .env("CREAM_ADDR", "127.0.0.1:0")
            .env("HOOKS_ADDR", "127.0.0.1:0")
            .env("MAIL_PROVIDER_ADDR", "127.0.0.1:0");
        let output = command.current_dir(folder.path()).env(variable, value).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && error.contains(says) && !error.contains("secret"),
            "{program}: {error}"
        );
    }
}

#[test]
fn a_program_prints_its_manifest_without_a_broker() {
    for (program, emits) in [("cream", "org.payment.processed"), ("hooks", "github.pull-request.opened")] {
        let mut command = Command::new(World::binary(program));
        let output = command.env("PONOS_MANIFEST", "1").env("PONOS_BROKER", "nonsense").output().unwrap();
        let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(manifest["app"], program);
        assert!(manifest["events"][emits].is_object(), "{manifest}");
    }
}
