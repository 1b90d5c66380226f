//! The five programs of the example in this process, on one broker, with HTTP on free ports between them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::Context;
use ponos::core::broker::{Inspect, QueueStats};
use ponos::core::envelope::Envelope;
use ponos::core::id::Timestamp;
use ponos::core::journal::{JournalQuery, Record};
use ponos::core::name::{AppName, QueueName};
use ponos::{App, Broker, CircuitState, FailedJobs, Service, Tid};
use ponos_example_payments::http::HttpServer;
use ponos_example_payments::mail_provider::{Deliveries, Delivery, ModeRequest};
use ponos_example_payments::{Pace, Served, cream, deploy, hooks, mail_provider, pheidi};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::console::{Console, Tone};
use super::traffic::{Payment, Webhook};
use crate::text;

/// How many failed attempts are told of one by one in a scene.
const TOLD_FAILURES: u64 = 6;

/// How many messages are looked at in one go.
const PAGE: usize = 1_000;

/// Everything that runs, and how to ask it.
pub(super) struct Stage {
    broker: Arc<dyn ponos::core::broker::Broker>,
    /// Before anything was recorded.
    began: Timestamp,
    cream: Served<cream::Cream>,
    pheidi: Served<pheidi::Pheidi>,
    hooks: Served<hooks::Hooks>,
    deploy: Served<deploy::Deploy>,
    provider: HttpServer,
    flagged: pheidi::Flagged,
    client: reqwest::Client,
    seen: Seen,
}

/// What the hooks of the services have seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) circuit: watch::Receiver<CircuitState>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    /// Failed attempts in this scene.
    failures: AtomicU64,
}

/// A webhook's answer.
#[derive(Debug)]
pub(super) enum Taken {
    /// It became an event.
    Event(Tid),
    /// It maps to nothing.
    Ignored,
    /// It was refused, with what was wrong.
    Refused(String),
}

impl Stage {
    /// Starts everything.
    ///
    /// # Errors
    ///
    /// When the broker cannot be used, or somebody else works there.
    pub(super) async fn set(broker: Broker, console: Console) -> anyhow::Result<Self> {
        let broker = broker.connect().await.context("the broker cannot be used")?;
        refuse_company(&*broker).await.context("the broker cannot be used")?;
        // RabbitMQ keeps records from the first look on.
        records(&*broker, JournalQuery::Last(0)).await?;
        let began = Timestamp::from(SystemTime::now());
        let shared = || Broker::from(Arc::clone(&broker));
        let free: SocketAddr = ([127, 0, 0, 1], 0).into();

        let counts = Arc::new(Counts::default());
        let (tell_circuit, circuit) = watch::channel(CircuitState::Closed);
        let provider = mail_provider::start(mail_provider::Config { address: free, file: None }).await?;
        let definition = narrated(cream::service(Pace::Demo), &console, &counts);
        let cream = cream::start(definition, cream::Config { address: free }, shared()).await?;
        let billing = cream.url().unwrap_or_default();
        let config = pheidi::Config::new(billing, provider.url(), Pace::Demo);
        let flagged = config.flagged.clone();
        let definition = narrated(pheidi::service(Pace::Demo), &console, &counts);
        let definition = with_circuit(definition, &console, &counts, tell_circuit);
        let pheidi = pheidi::start(definition, config, shared()).await?;
        let definition = narrated(deploy::service(Pace::Demo), &console, &counts);
        let deploy = deploy::start(definition, Pace::Demo, shared()).await?;
        let hooks = hooks::start(hooks::service(), hooks::Config { address: free }, shared()).await?;
        let client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(10)).build()?;
        let seen = Seen { circuit, counts };
        Ok(Self { broker, began, cream, pheidi, hooks, deploy, provider, flagged, client, seen })
    }

    /// Stops everything, those who promise before those who keep.
    pub(super) async fn strike(self) {
        self.hooks.shutdown().await;
        self.cream.shutdown().await;
        self.deploy.shutdown().await;
        self.pheidi.shutdown().await;
        self.provider.stop().await;
        let _ = self.broker.close().await;
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// The broker's URL without a password.
    pub(super) fn broker_name(&self) -> &str {
        self.broker.name()
    }

    pub(super) fn urls(&self) -> [(&'static str, String, &'static str); 3] {
        [
            ("cream", self.cream.url().unwrap_or_default(), "payments and billing"),
            ("hooks", self.hooks.url().unwrap_or_default(), "GitHub's webhooks"),
            ("mail-provider", self.provider.url(), "somebody else's, to be broken"),
        ]
    }

    /// Pays; answers the transaction if the payment was accepted.
    pub(super) async fn pay(&self, payment: Payment) -> anyhow::Result<Tid> {
        let url = format!("{}/payments", self.cream.url().unwrap_or_default());
        let body = serde_json::json!({ "org": payment.org, "amount_cents": payment.amount_cents });
        let answer = self.client.post(url).json(&body).send().await?;
        anyhow::ensure!(answer.status() == 202, "cream answered {}", answer.status());
        tid(&answer.json().await?)
    }

    /// Sends a webhook as GitHub does.
    pub(super) async fn webhook(&self, webhook: Webhook) -> Taken {
        let url = format!("{}/webhooks/github", self.hooks.url().unwrap_or_default());
        let request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("x-github-event", webhook.kind);
        let answer = async {
            let answer = request.body(webhook.body).send().await?;
            let status = answer.status();
            let body: serde_json::Value = answer.json().await?;
            if status != 202 {
                return Ok(Taken::Refused(format!(
                    "{status}: {}",
                    body["detail"].as_str().unwrap_or_default()
                )));
            }
            if body["accepted"] == false { Ok(Taken::Ignored) } else { tid(&body).map(Taken::Event) }
        };
        answer.await.unwrap_or_else(|error: anyhow::Error| Taken::Refused(format!("{error:#}")))
    }

    /// Tells the provider how to behave.
    pub(super) async fn provider(&self, mode: &ModeRequest) -> anyhow::Result<()> {
        let answer = self.client.put(format!("{}/mode", self.provider.url())).json(mode).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// What the provider has delivered, by its own books.
    pub(super) async fn deliveries(&self) -> anyhow::Result<Vec<Delivery>> {
        let answer: Deliveries = self.ask(format!("{}/deliveries", self.provider.url())).await?;
        Ok(answer.deliveries)
    }

    async fn ask<T: DeserializeOwned>(&self, url: String) -> anyhow::Result<T> {
        Ok(self.client.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// The organisations that the recovery function has flagged.
    pub(super) fn flagged(&self) -> Vec<String> {
        self.flagged.orgs().iter().map(ToString::to_string).collect()
    }

    /// What the queue of mails holds.
    pub(super) async fn mail_queue(&self) -> Option<QueueStats> {
        let queue = QueueName::parse(pheidi::QUEUE).ok()?;
        self.broker.inspect(Inspect::Queue(queue)).await.ok()?.into_queues().pop()
    }

    /// How many jobs of these transactions wait or run, by queue. Looks into the queues and not at the journal.
    pub(super) async fn left(&self, tids: &BTreeSet<Tid>) -> anyhow::Result<Vec<(QueueName, usize)>> {
        let mut left = Vec::new();
        for app in apps() {
            let ends = [QueueName::failed(&app), QueueName::discarded(&app), QueueName::unroutable(&app)];
            let stats = self.broker.inspect(Inspect::Queues(Some(app))).await?.into_queues();
            for stats in stats.into_iter().filter(|stats| !ends.contains(&stats.queue)) {
                if stats.messages() > 0 {
                    let ours =
                        self.messages(&stats.queue).await?.iter().filter(|m| tids.contains(&m.tid)).count();
                    if ours > 0 {
                        left.push((stats.queue, ours));
                    }
                }
            }
        }
        Ok(left)
    }

    async fn messages(&self, queue: &QueueName) -> anyhow::Result<Vec<Envelope>> {
        // One page: what is on the move cannot be turned by pages, and a demo leaves no more behind.
        let query = Inspect::Messages { queue: queue.clone(), limit: PAGE, after: None };
        Ok(self.broker.inspect(query).await?.into_messages())
    }

    /// The failed jobs of these transactions, as the broker keeps them.
    pub(super) async fn failed(&self, tids: &BTreeSet<Tid>) -> anyhow::Result<Vec<Envelope>> {
        let mut all = Vec::new();
        for app in apps() {
            let failed = FailedJobs::new(Arc::clone(&self.broker), app);
            let mut after = None;
            loop {
                let page = failed.list(PAGE, after).await?;
                after = page.last().map(|envelope| envelope.id);
                let last = page.len() < PAGE;
                all.extend(page.into_iter().filter(|envelope| tids.contains(&envelope.tid)));
                if last {
                    break;
                }
            }
        }
        Ok(all)
    }

    /// The records of these transactions, and how many records were dropped by this process.
    pub(super) async fn records(&self, tids: &BTreeSet<Tid>) -> anyhow::Result<(Vec<Record>, u64)> {
        let mut records = records(&*self.broker, JournalQuery::Since(self.began)).await?;
        records.retain(|record| tids.contains(&record.tid));
        Ok((records, self.broker.journal().map_or(0, |journal| journal.dropped())))
    }
}

impl Seen {
    /// How often a circuit was opened.
    pub(super) fn opened(&self) -> u64 {
        self.counts.opened.load(Ordering::Relaxed)
    }

    /// Begins to count the failed attempts anew; answers how many there were.
    pub(super) fn new_scene(&self) -> u64 {
        self.counts.failures.swap(0, Ordering::Relaxed)
    }

    /// Failed attempts in this scene.
    pub(super) fn failures(&self) -> u64 {
        self.counts.failures.load(Ordering::Relaxed)
    }
}

/// The applications that have queues.
fn apps() -> BTreeSet<AppName> {
    work_queues().map(|queue| queue.app()).collect()
}

fn tid(answer: &serde_json::Value) -> anyhow::Result<Tid> {
    answer["tid"].as_str().and_then(Tid::from_foreign).context("the answer has no transaction id")
}

async fn records(
    broker: &dyn ponos::core::broker::Broker,
    query: JournalQuery,
) -> anyhow::Result<Vec<Record>> {
    let journal = broker.journal().context("this broker keeps no journal, so nothing can be balanced")?;
    Ok(ponos::core::journal::read(&*journal, &query).await?)
}

/// Others who work the same queues would take jobs that the demo counts; and on a broker that many share, what waits in
/// them may be theirs.
async fn refuse_company(broker: &dyn ponos::core::broker::Broker) -> anyhow::Result<()> {
    for queue in work_queues() {
        let Some(stats) = broker.inspect(Inspect::Queue(queue.clone())).await?.into_queues().pop() else {
            continue;
        };
        anyhow::ensure!(
            stats.consumers == 0,
            "somebody works `{queue}` on this broker already: stop it, or name another broker with --broker sqlite:FILE"
        );
        anyhow::ensure!(
            stats.ready == 0 || !crate::broker::is_rabbitmq(broker.name()),
            "`{queue}` on {} already holds {}, and the demo does not mix with others: name an empty virtual host (`rabbitmqctl add_vhost demo`), or let the service that owns it work first",
            broker.name(),
            text::count(stats.ready, "job")
        );
    }
    Ok(())
}

/// The queues that the services work, by their definitions.
fn work_queues() -> impl Iterator<Item = QueueName> {
    let manifests = [
        cream::service(Pace::Demo).manifest(),
        pheidi::service(Pace::Demo).manifest(),
        hooks::service().manifest(),
        deploy::service(Pace::Demo).manifest(),
    ];
    manifests.into_iter().flat_map(|manifest| {
        let heard = manifest.reactions.into_iter().map(|reaction| reaction.queue);
        let queues: Vec<_> = heard.chain(manifest.tasks.into_iter().map(|task| task.queue)).collect();
        queues.into_iter().filter_map(|queue| QueueName::parse(&queue).ok())
    })
}

/// A service whose failures are told.
fn narrated<A: App>(service: Service<A>, console: &Console, counts: &Arc<Counts>) -> Service<A> {
    let (console, counts) = (console.clone(), Arc::clone(counts));
    service.on_error(move |report| {
        let error = report.error.lines().next().unwrap_or_default();
        let tid = report.tid.short();
        if report.gave_up {
            let text =
                format!("✖ {} gave up after attempt {}: {error}  ({tid})", report.queue, report.attempt);
            return console.say(A::NAME, Tone::Bad, &text);
        }
        let told = counts.failures.fetch_add(1, Ordering::Relaxed);
        if told < TOLD_FAILURES {
            let text = format!(
                "↻ {} attempt {} failed, again later: {error}  ({tid})",
                report.queue, report.attempt
            );
            console.say(A::NAME, Tone::Open, &text);
        } else if told == TOLD_FAILURES {
            console.say(A::NAME, Tone::Faint, "↻ … and so on; the rest is counted");
        }
    })
}

/// The service whose circuit the story is about.
fn with_circuit<A: App>(
    service: Service<A>,
    console: &Console,
    counts: &Arc<Counts>,
    tell: watch::Sender<CircuitState>,
) -> Service<A> {
    let (console, counts) = (console.clone(), Arc::clone(counts));
    service.on_circuit(move |change| {
        let name = &change.circuit;
        let (tone, text) = match &change.state {
            CircuitState::Open { time, cause } => {
                counts.opened.fetch_add(1, Ordering::Relaxed);
                let why = match cause {
                    ponos::core::policy::TripCause::Consecutive(n) => format!("{n} failures in a row"),
                    ponos::core::policy::TripCause::Ratio { failures, calls } => format!("{failures} of {calls} failed"),
                    ponos::core::policy::TripCause::Probe => "the probe failed".into(),
                    _ => "it is sick".into(),
                };
                let time = time.as_secs_f64();
                (Tone::Bad, format!("⚡ circuit {name} OPEN ({why}): the listener is cut off for {time:.1} s, the queue keeps the jobs"))
            }
            CircuitState::HalfOpen => (Tone::Open, format!("⚡ circuit {name} HALF-OPEN: one job is tried at a time")),
            CircuitState::Closed => (Tone::Good, format!("⚡ circuit {name} CLOSED: the held jobs flow again")),
            _ => (Tone::Plain, format!("⚡ circuit {name} has changed")),
        };
        console.say(A::NAME, tone, &text);
        tell.send_replace(change.state.clone());
    })
}
