//! `pheidi` sends mail: a receipt for each payment.
//!
//! The event does not hold the name on the card, so its handler asks `cream` over HTTP; the transaction id travels in the
//! request. The mail goes to a provider over HTTP, under the job's id as idempotency key: it is the same at each
//! attempt and in each process, so that a mail whose answer was lost is not sent twice.
//!
//! What the provider answers decides what follows:
//!
//! | answer | follows |
//! | --- | --- |
//! | 2xx | `email.sent` |
//! | 429 with `Retry-After` | another attempt, not before |
//! | 5xx, 408, no answer in time, no connection | another attempt, after the backoff; it counts for the circuit breaker |
//! | another 4xx | no other attempt: recovery at once |
//!
//! The recovery function flags the organisation. The flags are in memory and in the log; what a restart must not forget,
//! the failed job itself, the broker keeps.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use ponos::prelude::*;
use ponos::{Fail, MessageId};
use serde::Deserialize;

use crate::{Org, Pace, Served, cream, mail_provider, process};

/// The dependency that the circuit breaker is named after.
pub const DEPENDENCY: &str = "mail-provider";

/// The queue of the task that sends mail.
pub const QUEUE: &str = "pheidi.email.send";

/// How long a request to the provider may take in production. The longest is the attempt's own limit.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest `Retry-After` that is believed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How much of an answer an error shows, in characters.
const SHOWN_ANSWER: usize = 120;

/// What `pheidi` reads of a payment.
#[event("org.payment.processed")]
struct OrgPaymentProcessed {
    org: Org,
    amount_cents: u64,
}

/// A mail is on its way.
#[event("email.sent")]
#[derive(Debug, PartialEq)]
struct EmailSent {
    org: Org,
    template: Template,
}

/// Which mail.
#[data]
#[derive(Debug, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Template {
    Receipt,
}

/// The application.
#[app("pheidi", state = Mailer)]
#[derive(Debug)]
pub struct Pheidi;

/// Sends a mail.
#[task("pheidi.email.send", app = Pheidi, emits(EmailSent))]
struct EmailSend {
    org: Org,
    amount_cents: u64,
    template: Template,
}

/// What the handlers reach.
#[derive(Debug)]
pub struct Mailer {
    billing: String,
    provider: String,
    provider_timeout: Duration,
    flagged: Flagged,
}

/// The organisations that a mail could not be sent to. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Flagged(Arc<Mutex<BTreeSet<Org>>>);

impl Flagged {
    /// All of them, by name.
    #[must_use]
    pub fn orgs(&self) -> Vec<Org> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, org: Org) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(org);
    }
}

/// What `cream` answers; of its fields this is the one that is read.
#[derive(Debug, Deserialize)]
struct Billing {
    name: String,
}

fn thank_the_payer(event: OrgPaymentProcessed) -> EmailSend {
    EmailSend { org: event.org, amount_cents: event.amount_cents, template: Template::Receipt }
}

async fn send_email(task: EmailSend, cx: TaskCx<EmailSend>) -> Outcome {
    let billing = name_on_card(&task.org, &cx).await?;
    let mail = receipt(&task, &billing.name);
    post(&mail, cx.id(), &cx).await?;
    tracing::info!(org = %task.org, "the mail is sent");
    cx.emit(EmailSent { org: task.org, template: task.template })?;
    Ok(())
}

async fn flag_org(task: EmailSend, cx: TaskCx<EmailSend>, why: GaveUp) -> Outcome {
    tracing::error!(org = %task.org, attempts = why.attempts, error = why.error, "no mail can be sent to this organisation: flagged");
    cx.state().flagged.add(task.org);
    Ok(())
}

/// Asks `cream`, in the transaction of the job.
async fn name_on_card(org: &Org, cx: &TaskCx<EmailSend>) -> Result<Billing, Fail> {
    let url = format!("{}/billing/{org}", cx.state().billing);
    let answer = cx.http().get(url).timeout(cream::REQUEST_TIMEOUT).send().await?;
    Ok(judge("cream", answer).await?.json().await?)
}

/// The address of an organisation.
#[must_use]
pub fn address_of(org: &Org) -> String {
    format!("billing@{org}.example")
}

fn receipt(task: &EmailSend, name: &str) -> serde_json::Value {
    let (units, cents) = (task.amount_cents / 100, task.amount_cents % 100);
    serde_json::json!({
        "to": address_of(&task.org),
        "subject": format!("Your payment of ${units}.{cents:02}"),
        "text": format!("Dear {name},\n\nwe have received ${units}.{cents:02}. Thank you.\n"),
    })
}

/// Gives a mail to the provider.
async fn post(mail: &serde_json::Value, key: MessageId, cx: &TaskCx<EmailSend>) -> Outcome {
    let Mailer { provider, provider_timeout, .. } = cx.state();
    let request = cx.http().post(format!("{provider}/messages")).header("idempotency-key", key.to_string());
    let answer = request.timeout(*provider_timeout).json(mail).send().await?;
    judge("the mail provider", answer).await?;
    Ok(())
}

/// What follows on an answer; see the [module](self).
async fn judge(who: &str, answer: reqwest::Response) -> Result<reqwest::Response, Fail> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let seconds =
        answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let says = what_it_says(&answer.text().await.unwrap_or_default());
    let status = status.as_u16();
    let error = format!("{who} answered {status}: {says}");
    Err(match (status, seconds) {
        (429, Some(seconds)) => {
            Fail::retry_after(error, Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
        }
        (408 | 429, _) => error.into(),
        (400..=499, _) => Fail::stop(error),
        _ => error.into(),
    })
}

/// The `detail` of a problem (RFC 9457), or the head of what was answered instead.
fn what_it_says(answer: &str) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    let detail = serde_json::from_str(answer).map(|Problem { detail }| detail);
    detail.as_deref().unwrap_or(answer).chars().take(SHOWN_ANSWER).collect()
}

/// The definition.
pub fn service(pace: Pace) -> Service<Pheidi> {
    let service = Service::new().version(env!("CARGO_PKG_VERSION")).on(thank_the_payer);
    match pace {
        Pace::Production => service.task(send_email, |p| {
            p.timeout(secs(20))
                .retry(Backoff::exponential(secs(1)).max(mins(5)))
                .max_retries(8)
                .recover(flag_org)
                .depends_on(DEPENDENCY)
        }),
        Pace::Demo => service
            .task(send_email, |p| {
                p.timeout(secs(2))
                    .concurrency(DEMO_CONCURRENCY)
                    .retry(Backoff::exponential(millis(200)).max(millis(800)))
                    .max_retries(DEMO_RUNS - 1)
                    .recover(flag_org)
                    .depends_on(DEPENDENCY)
            })
            .dependency(DEPENDENCY, |d| d.breaker(demo_breaker())),
    }
}

/// How many mails are sent at once in the demo.
const DEMO_CONCURRENCY: u32 = 4;

/// How many attempts a mail has in the demo.
pub const DEMO_RUNS: u32 = 5;

/// How many failures in a row open the circuit in the demo: one more than a single job has attempts, so that one bad
/// address never cuts off the others.
pub const DEMO_ROW: u32 = DEMO_RUNS + 1;

fn demo_breaker() -> BreakerConfig {
    BreakerConfig::default()
        .window(secs(10))
        .consecutive(DEMO_ROW)
        .open_initial(millis(2_500))
        .open_max(millis(2_500))
        .open_jitter(0.1)
        .close_after(2)
}

/// Whom it asks, and how patiently.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where `cream` answers, as `http://127.0.0.1:8401`.
    pub billing: String,
    /// Where the mail provider answers.
    pub provider: String,
    /// How long a request to the provider may take.
    pub provider_timeout: Duration,
    /// Where the recovery function writes.
    pub flagged: Flagged,
}

impl Config {
    /// These two, as patiently as `pace` asks.
    #[must_use]
    pub fn new(billing: impl Into<String>, provider: impl Into<String>, pace: Pace) -> Self {
        let provider_timeout = match pace {
            Pace::Production => PROVIDER_TIMEOUT,
            Pace::Demo => Duration::from_secs(1),
        };
        Self {
            billing: billing.into(),
            provider: provider.into(),
            provider_timeout,
            flagged: Flagged::default(),
        }
    }

    /// From the environment.
    ///
    /// # Errors
    ///
    /// When a variable cannot be read.
    pub fn from_env() -> anyhow::Result<Self> {
        let url = |address: SocketAddr| format!("http://{address}");
        let billing = process::address(cream::ADDRESS_VARIABLE, cream::PORT)?;
        let provider = process::address(mail_provider::ADDRESS_VARIABLE, mail_provider::PORT)?;
        Ok(Self::new(url(billing), url(provider), Pace::Production))
    }
}

/// Starts the service.
///
/// # Errors
///
/// When the broker cannot be used.
pub async fn start(
    service: Service<Pheidi>,
    config: Config,
    broker: impl Into<Broker>,
) -> anyhow::Result<Served<Pheidi>> {
    let Config { billing, provider, provider_timeout, flagged } = config;
    let running = service.start(Mailer { billing, provider, provider_timeout, flagged }, broker).await?;
    Ok(Served::new(None, running))
}

/// The whole program `pheidi`.
///
/// # Errors
///
/// When it cannot start.
pub async fn main() -> anyhow::Result<()> {
    let service = service(Pace::Production).manifest_if_asked();
    process::log()?;
    let config = Config::from_env()?;
    tracing::info!(billing = config.billing, provider = config.provider, "pheidi sends mail");
    let served = start(service, config, process::broker()?).await.context("pheidi")?;
    process::until_told_to_end().await?;
    served.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HttpServer;
    use crate::mail_provider::{Deliveries, ModeName, ModeRequest};

    /// `cream` and the provider, for real, and a context whose state knows them.
    struct World {
        cream: Served<cream::Cream>,
        provider: HttpServer,
        cx: TaskCx<EmailSend>,
        flagged: Flagged,
    }

    impl World {
        async fn new() -> Self {
            let free = "127.0.0.1:0".parse().unwrap();
            let cream =
                cream::start(cream::service(Pace::Demo), cream::Config { address: free }, Broker::memory())
                    .await
                    .unwrap();
            let provider =
                mail_provider::start(mail_provider::Config { address: free, file: None }).await.unwrap();
            let flagged = Flagged::default();
            let cx = TaskCx::test(Mailer {
                billing: cream.url().unwrap(),
                provider: provider.url(),
                provider_timeout: millis(300),
                flagged: flagged.clone(),
            });
            Self { cream, provider, cx, flagged }
        }

        async fn mode(&self, mode: ModeRequest) {
            let url = format!("{}/mode", self.provider.url());
            let answer = reqwest::Client::new().put(url).json(&mode).send().await.unwrap();
            assert!(answer.status().is_success());
        }

        async fn deliveries(&self) -> Deliveries {
            reqwest::get(format!("{}/deliveries", self.provider.url())).await.unwrap().json().await.unwrap()
        }

        async fn send(&self) -> Outcome {
            send_email(task(), self.cx.clone()).await
        }

        async fn end(self) {
            self.provider.stop().await;
            self.cream.shutdown().await;
        }
    }

    fn task() -> EmailSend {
        thank_the_payer(OrgPaymentProcessed {
            org: Org::try_from("acme".to_owned()).unwrap(),
            amount_cents: 1_905,
        })
    }

    fn mode(mode: ModeName) -> ModeRequest {
        ModeRequest { mode, delay_ms: 2_000, retry_after_s: 7, ..ModeRequest::default() }
    }

    #[tokio::test]
    async fn a_receipt_with_the_name_on_the_card_is_sent_in_the_transaction_of_the_payment() {
        let world = World::new().await;
        world.send().await.unwrap();
        let sent = world.deliveries().await.deliveries.remove(0);
        assert_eq!(sent.key, world.cx.id().to_string());
        assert_eq!(sent.tid.unwrap(), world.cx.tid().to_string());
        assert_eq!(
            (sent.to.as_str(), sent.subject.as_str()),
            ("billing@acme.example", "Your payment of $19.05")
        );
        assert!(sent.text.contains(" Acme,\n"), "{}", sent.text);
        assert_eq!(world.cx.emitted::<EmailSent>().len(), 1);
        world.end().await;
    }

    #[tokio::test]
    async fn a_mail_whose_answer_was_lost_is_not_sent_twice() {
        let world = World::new().await;
        world.mode(ModeRequest { times: Some(1), ..mode(ModeName::Slow) }).await;
        let late = world.send().await.unwrap_err().to_string();
        assert!(late.contains("no answer in time"), "{late}");
        world.send().await.unwrap();
        let ledger = world.deliveries().await;
        assert_eq!((ledger.count, ledger.repeated), (1, 1));
        world.end().await;
    }

    #[tokio::test]
    async fn what_the_provider_answers_decides_what_follows() {
        let world = World::new().await;
        for (name, follows, says) in [
            (ModeName::Broken, "follows: Retry,", "the mail provider answered 500: out of order"),
            (
                ModeName::Busy,
                "follows: RetryAfter(7s)",
                "the mail provider answered 429: too many mails at once",
            ),
        ] {
            world.mode(mode(name)).await;
            let fail = world.send().await.unwrap_err();
            assert!(format!("{fail:?}").contains(follows) && fail.to_string() == says, "{fail:?}");
        }
        assert_eq!(world.cx.emitted::<EmailSent>(), [], "an attempt that fails says nothing");

        // The key is known, the mail is another one: no attempt can help.
        world.mode(mode(ModeName::Ok)).await;
        world.send().await.unwrap();
        let other = EmailSend { amount_cents: 1, ..task() };
        let fail = send_email(other, world.cx.clone()).await.unwrap_err();
        assert!(format!("{fail:?}").contains("follows: Stop"), "{fail:?}");
        world.end().await;
    }

    #[tokio::test]
    async fn an_organisation_that_cannot_be_reached_is_flagged() {
        let world = World::new().await;
        let why = GaveUp { reason: ponos::GaveUpReason::Exhausted, error: "500".into(), attempts: 5 };
        flag_org(task(), world.cx.clone(), why).await.unwrap();
        assert_eq!(world.flagged.orgs(), [task().org]);
        world.end().await;
    }
}
