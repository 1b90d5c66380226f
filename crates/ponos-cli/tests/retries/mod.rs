//! A shop whose printer can be on fire, and the real program that retries what failed there: for any broker.

#![allow(clippy::unwrap_used, dead_code, reason = "clippy takes the helpers of a test for something else")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ponos::core::broker::Inspect;
use ponos::core::name::{AppName, QueueName};
use ponos::prelude::*;
use ponos::{FailedJobs, RawPublisher};
use serde_json::Value;
use tokio::sync::watch;

/// How long something may take that happens in another process, or a thousand times.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const TASK: &str = "shop.parcel.send";

/// How many jobs fail together.
pub(crate) const JOBS: u64 = 1000;

#[app("shop", state = Printer)]
pub(crate) struct Shop;

#[task("shop.parcel.send", app = Shop)]
pub(crate) struct ParcelSend {
    pub(crate) order: u64,
}

/// What the handler shares with its test.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    on_fire: Arc<AtomicBool>,
    error: Arc<Mutex<String>>,
    printed: Arc<Mutex<BTreeMap<u64, u32>>>,
    count: watch::Sender<u64>,
    failures: watch::Sender<u64>,
}

impl Printer {
    pub(crate) fn new() -> Self {
        Self {
            on_fire: Arc::default(),
            error: Arc::new(Mutex::new("the printer is on fire".to_owned())),
            printed: Arc::default(),
            count: watch::Sender::new(0),
            failures: watch::Sender::new(0),
        }
    }

    pub(crate) fn burning(error: &str) -> Self {
        let printer = Self::new();
        printer.fire(true);
        *printer.error.lock().unwrap() = error.to_owned();
        printer
    }

    pub(crate) fn fire(&self, on: bool) {
        self.on_fire.store(on, Ordering::SeqCst);
    }

    /// How often each was printed.
    pub(crate) fn printed(&self) -> BTreeMap<u64, u32> {
        self.printed.lock().unwrap().clone()
    }

    pub(crate) async fn has_printed(&self, at_least: u64) {
        let mut count = self.count.subscribe();
        let enough = tokio::time::timeout(DEADLINE, count.wait_for(|count| *count >= at_least)).await;
        enough
            .unwrap_or_else(|_| panic!("only {} of {at_least} were printed", *self.count.borrow()))
            .unwrap();
    }

    pub(crate) async fn has_failed(&self, at_least: u64) {
        let mut count = self.failures.subscribe();
        let enough = tokio::time::timeout(DEADLINE, count.wait_for(|count| *count >= at_least)).await;
        enough.unwrap_or_else(|_| panic!("only {} failed", *self.failures.borrow())).unwrap();
    }
}

pub(crate) async fn send(t: ParcelSend, cx: TaskCx<ParcelSend>) -> Outcome {
    let printer = cx.state();
    if printer.on_fire.load(Ordering::SeqCst) {
        printer.failures.send_modify(|count| *count += 1);
        let error = printer.error.lock().unwrap().clone();
        return Err(error).stop();
    }
    *printer.printed.lock().unwrap().entry(t.order).or_default() += 1;
    printer.count.send_modify(|count| *count += 1);
    Ok(())
}

pub(crate) async fn shop(url: &str, printer: &Printer) -> Running<Shop> {
    let service = Service::<Shop>::new().task(send, |p| p.concurrency(64));
    service.start(printer.clone(), Broker::from_url(url).unwrap()).await.unwrap()
}

/// The program, told of the broker by its environment.
pub(crate) fn command(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ponos"));
    command.args(args).stdin(Stdio::null()).env("PONOS_BROKER", url);
    for name in ["NO_COLOR", "COLUMNS", "RUST_LOG", "EDITOR", "VISUAL"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn ponos(url: &str, args: &[&str]) -> Ran {
    Ran::of(command(url, args).output().unwrap())
}

/// Runs it until `found` finds something in what it prints.
#[track_caller]
pub(crate) fn until<T>(url: &str, args: &[&str], found: impl Fn(&Ran) -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        let ran = ponos(url, args);
        if let Some(found) = found(&ran) {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "{args:?} still says {ran:?}");
    }
}

/// The failed jobs, as soon as there are so many.
#[track_caller]
pub(crate) fn failed(url: &str, total: u64) -> Value {
    until(url, &["failed", "list", "--app", "shop", "--json"], |ran| {
        let json = ran.ok().json();
        (json["total"] == total).then_some(json)
    })
}

pub(crate) async fn publish(url: &str, orders: impl Iterator<Item = u64>) {
    let broker = Broker::from_url(url).unwrap().connect().await.unwrap();
    let publisher =
        RawPublisher::connect(AppName::from_checked("shop"), Broker::from(broker.clone())).await.unwrap();
    let name = ponos::core::name::TaskName::parse(TASK).unwrap();
    let publisher = Arc::new(publisher);
    let mut under_way = tokio::task::JoinSet::new();
    for order in orders {
        let (publisher, name) = (Arc::clone(&publisher), name.clone());
        under_way.spawn(async move {
            let payload = serde_json::Map::from_iter([("order".to_owned(), order.into())]);
            publisher.create(name, &payload, None).await.unwrap();
        });
    }
    while let Some(published) = under_way.join_next().await {
        published.unwrap();
    }
    broker.close().await.unwrap();
}

/// A thousand jobs of one group, all of them failed; the printer is well again.
pub(crate) async fn a_thousand_failed(url: &str, printer: &Printer) -> String {
    printer.fire(true);
    publish(url, 0..JOBS).await;
    printer.has_failed(JOBS).await;
    let groups = failed(url, JOBS)["groups"].clone();
    assert_eq!(groups.as_array().unwrap().len(), 1, "{}", groups[1]);
    printer.fire(false);
    groups[0]["fingerprint"].as_str().unwrap()[..8].to_owned()
}

/// Starts a paced retry of a group, and answers when some of its jobs were printed.
pub(crate) async fn retrying(url: &str, group: &str, rate: &str, printer: &Printer) -> Child {
    let args = ["failed", "retry", group, "--app", "shop", "--rate", rate, "--yes"];
    let child = command(url, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    printer.has_printed(100).await;
    child
}

pub(crate) fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// `failed retry` at a rate, interrupted and continued: every job exactly once, and the balance.
pub(crate) async fn interrupted_and_continued(url: &str, how: &str) {
    let printer = Printer::new();
    let shop = shop(url, &printer).await;
    let group = a_thousand_failed(url, &printer).await;
    let child = retrying(url, &group, "200/s", &printer).await;
    signal(&child, how);
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.failed(1, "interrupted: ");
    let (retried, left) = numbers(&ran.err);
    assert_eq!(retried + left, JOBS, "{ran:?}");
    assert!((100..JOBS).contains(&retried), "{ran:?}");
    ran.says(&format!("retried {retried} of {JOBS} jobs, as op-"));
    failed(url, left);

    // The same command goes on, at its rate and not slower.
    let started = Instant::now();
    let args = ["failed", "retry", &group, "--app", "shop", "--rate", "200/s", "--yes", "--wait=60s"];
    let ran = ponos(url, &args);
    let took = started.elapsed();
    ran.ok().says(&format!("retried {left} = {left} done + 0 failed again + 0 still pending"));
    let least = Duration::from_millis((left - 1) * 5);
    // The burst of a rate and a timer's lateness.
    assert!(took + Duration::from_millis(200) > least, "{left} jobs at 200/s took {took:?}");
    assert!(took < least * 2 + Duration::from_secs(15), "{left} jobs at 200/s took {took:?}");
    let printed = printer.printed();
    assert_eq!(printed.len() as u64, JOBS, "none is lost");
    assert!(printed.values().all(|times| *times == 1), "every one exactly once");
    failed(url, 0);
    shop.shutdown().await;
}

/// `failed retry` killed and begun anew: none is lost, and what ran twice was named.
pub(crate) async fn killed_and_begun_anew(url: &str) {
    let printer = Printer::new();
    let shop = shop(url, &printer).await;
    let group = a_thousand_failed(url, &printer).await;
    // Fast enough that it is killed in the middle of some.
    let mut child = retrying(url, &group, "1000/s", &printer).await;
    signal(&child, "-KILL");
    child.wait().unwrap();
    let broker = Broker::from_url(url).unwrap().connect().await.unwrap();
    let jobs = FailedJobs::new(broker.clone(), AppName::from_checked("shop"));
    // What it had put back is run, and what it held is back: until then nothing tells a duplicate.
    let started = Instant::now();
    while ready(&*broker, TASK).await > 0 || ready(&*broker, "shop.failed").await == 0 {
        assert!(started.elapsed() < DEADLINE);
    }
    assert!(printer.printed().values().all(|times| *times == 1));

    let mut named: BTreeSet<String> = BTreeSet::new();
    let started = Instant::now();
    loop {
        let orders: BTreeMap<String, u64> = jobs
            .list(2000, None)
            .await
            .unwrap()
            .iter()
            .map(|job| {
                let body: Value = serde_json::from_slice(&job.body).unwrap();
                (job.id.to_string(), body["order"].as_u64().unwrap())
            })
            .collect();
        if orders.is_empty() {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{} are still there", orders.len());
        let printed = printer.printed();
        let in_both: BTreeSet<String> =
            orders.into_iter().filter(|(_, order)| printed.contains_key(order)).map(|(id, _)| id).collect();
        let names = |ran: &Ran| -> BTreeSet<String> {
            let json = ran.json();
            let duplicates = json["possible_duplicates"].as_array().unwrap_or_else(|| panic!("{ran:?}"));
            duplicates.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
        };
        // A record comes a moment after what it tells.
        let all = ["failed", "retry", "--all", "--app", "shop", "--json"];
        until(url, &[&all[..], &["--dry-run"]].concat(), |ran| {
            in_both.is_subset(&names(ran.ok())).then_some(())
        });
        let ran = ponos(url, &[&all[..], &["--yes"]].concat());
        named.extend(names(&ran));
        assert!(in_both.is_subset(&named), "{in_both:?} were in both places, {named:?} were named");
    }
    printer.has_printed(JOBS).await;
    until(url, &["failed", "list", "--app", "shop", "--json"], |ran| {
        (ran.ok().json()["total"] == 0 && printer.printed().len() as u64 == JOBS).then_some(())
    });
    let twice = printer.printed().values().filter(|times| **times > 1).count();
    assert!(twice <= named.len(), "{twice} ran twice, {} were named", named.len());
    broker.close().await.unwrap();
    shop.shutdown().await;
}

/// `failed retry` as fast as the broker takes it, of jobs that all fail again: seconds, and retried is not resolved.
pub(crate) async fn all_at_once_in_vain(url: &str) {
    let printer = Printer::new();
    let shop = shop(url, &printer).await;
    let group = a_thousand_failed(url, &printer).await;
    printer.fire(true);
    for times in 1..=2 {
        let started = Instant::now();
        let ran = ponos(url, &["failed", "retry", &group, "--app", "shop", "--yes", "--wait=60s"]);
        assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
        ran.failed(1, &format!("{JOBS} failed again, 0 pending, of {JOBS} jobs retried"));
        ran.says(&format!("retried {JOBS} = 0 done + {JOBS} failed again + 0 still pending"));
        let groups = failed(url, JOBS)["groups"].clone();
        let jobs = groups[0]["jobs"].as_array().unwrap();
        assert!(jobs.iter().all(|job| job["retried"]["times"] == times), "{}", jobs[0]);
        assert!(jobs.iter().all(|job| job["retried"]["op"] == jobs[0]["retried"]["op"]));
        assert!(jobs[0]["retried"]["err"].as_str().unwrap().contains("on fire"), "{}", jobs[0]);
    }
    shop.shutdown().await;
}

async fn ready(broker: &dyn ponos::core::broker::Broker, queue: &str) -> u64 {
    let queue: QueueName = serde_json::from_value(queue.into()).unwrap();
    let queues = broker.inspect(Inspect::Queue(queue)).await.unwrap().into_queues();
    queues[0].ready
}

/// "interrupted: 121 of 218 jobs retried, 97 still failed"
fn numbers(text: &str) -> (u64, u64) {
    let line = text.lines().find(|line| line.contains("interrupted: ")).unwrap();
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    let (retried, _, left) =
        (numbers.next().unwrap(), numbers.next(), numbers.next().unwrap_or_else(|| panic!("{line}")));
    (retried, left)
}

/// What the program said, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(&self) -> &Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self
    }

    /// It failed with this code, with one line that says why and one that says what to do.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, why: &str) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.starts_with("error: ") && self.err.contains(why), "{why:?} is not in {self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.out.lines().last().unwrap()).unwrap_or_else(|_| panic!("{self:?}"))
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.out.contains(text), "{text:?} is not in {self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn never_says(&self, text: &str) -> &Self {
        assert!(!self.out.contains(text) && !self.err.contains(text), "{text:?} is in {self:?}");
        self
    }
}
