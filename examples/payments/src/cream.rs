//! `cream` owns payments.
//!
//! | HTTP | what |
//! | --- | --- |
//! | `POST /payments` `{"org":"acme","amount_cents":1900}` | 202 with the transaction id once the broker has the task `cream.payment.process` |
//! | `GET /billing/{org}` | the name on the organisation's card |
//!
//! The card company is a function here: it declines what is above [`CARD_LIMIT_CENTS`]. The name on a card is computed
//! from the organisation, so there is nothing to keep over a restart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use ponos::http::{TID_HEADER, cause_from_headers};
use ponos::prelude::*;
use serde::{Deserialize, Serialize};

use crate::http::{HttpListener, Problem, json_body};
use crate::{Org, Pace, Served, process};

/// Where `cream` answers HTTP unless [`ADDRESS_VARIABLE`] says otherwise: this port on 127.0.0.1.
pub const PORT: u16 = 8401;

/// The variable with the address of `cream`, for itself and for those who ask it.
pub const ADDRESS_VARIABLE: &str = "CREAM_ADDR";

/// What is above this amount is declined.
pub const CARD_LIMIT_CENTS: u64 = 1_000_000;

/// A payment has been taken.
#[event("org.payment.processed")]
#[derive(Debug, PartialEq)]
struct OrgPaymentProcessed {
    org: Org,
    amount_cents: u64,
}

/// A payment has been declined.
#[event("org.payment.failed")]
#[derive(Debug, PartialEq)]
struct OrgPaymentFailed {
    org: Org,
    amount_cents: u64,
    reason: String,
}

/// The application.
#[app("cream", state = Card)]
#[derive(Debug)]
pub struct Cream;

/// Takes a payment.
#[task("cream.payment.process", app = Cream, emits(OrgPaymentProcessed, OrgPaymentFailed))]
struct PaymentProcess {
    org: Org,
    amount_cents: u64,
}

/// The company that the cards are charged with.
#[derive(Debug)]
pub struct Card {
    limit_cents: u64,
}

impl Card {
    /// Charges a card, or says why not.
    fn charge(&self, amount_cents: u64) -> Result<(), String> {
        if amount_cents > self.limit_cents {
            return Err(format!("{amount_cents} cents are above the card's limit of {}", self.limit_cents));
        }
        Ok(())
    }
}

async fn process_payment(task: PaymentProcess, cx: TaskCx<PaymentProcess>) -> Outcome {
    let PaymentProcess { org, amount_cents } = task;
    match cx.state().charge(amount_cents) {
        Ok(()) => {
            tracing::info!(%org, amount_cents, "the payment is taken");
            cx.emit(OrgPaymentProcessed { org, amount_cents })?;
        }
        // A declined card is a result and not an error: another attempt would be declined too.
        Err(reason) => {
            tracing::info!(%org, reason, "the payment is declined");
            cx.emit(OrgPaymentFailed { org, amount_cents, reason })?;
        }
    }
    Ok(())
}

/// The definition.
pub fn service(pace: Pace) -> Service<Cream> {
    Service::new().version(env!("CARGO_PKG_VERSION")).task(process_payment, |p| match pace {
        Pace::Production => p.timeout(secs(20)).max_retries(8),
        Pace::Demo => {
            p.timeout(secs(2)).max_retries(4).retry(Backoff::exponential(millis(200)).max(millis(800)))
        }
    })
}

/// Where it answers.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
}

impl Config {
    /// From the environment.
    ///
    /// # Errors
    ///
    /// When a variable cannot be read.
    pub fn from_env() -> anyhow::Result<Self> {
        Ok(Self { address: process::address(ADDRESS_VARIABLE, PORT)? })
    }
}

/// Starts the service and its HTTP server.
///
/// # Errors
///
/// When the port is taken or the broker cannot be used.
pub async fn start(
    service: Service<Cream>,
    config: Config,
    broker: impl Into<Broker>,
) -> anyhow::Result<Served<Cream>> {
    let listener = HttpListener::bind(config.address, ADDRESS_VARIABLE).await?;
    let running = service.start(Card { limit_cents: CARD_LIMIT_CENTS }, broker).await?;
    let http = listener.serve(router(running.publisher()));
    Ok(Served::new(Some(http), running))
}

fn router(publisher: Publisher<Cream>) -> Router {
    Router::new()
        .route("/payments", post(accept_payment))
        .route("/billing/{org}", get(billing))
        .with_state(Arc::new(publisher))
}

/// What `POST /payments` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payment {
    org: Org,
    amount_cents: u64,
}

/// What `POST /payments` answers.
#[derive(Debug, Serialize)]
struct Accepted {
    accepted: bool,
    tid: String,
}

async fn accept_payment(
    State(publisher): State<Arc<Publisher<Cream>>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let Payment { org, amount_cents } = json_body(&headers, body)?;
    if amount_cents == 0 {
        return Err(Problem::unprocessable("`amount_cents` is 0: there is nothing to pay"));
    }
    let task = PaymentProcess { org, amount_cents };
    let receipt = publisher.create(task).await.map_err(|error| Problem::not_published(&error))?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted: true, tid: receipt.tid.to_string() })))
}

/// What `GET /billing/{org}` answers.
#[derive(Debug, Serialize)]
struct Billing {
    org: Org,
    name: String,
}

/// Answers with the transaction id of the request, for whoever wants to see that it has travelled.
async fn billing(
    Path(org): Path<String>,
    headers: HeaderMap,
) -> Result<([(HeaderName, String); 1], Json<Billing>), Problem> {
    let org = Org::try_from(org).map_err(|error| Problem::not_found(error.to_string()))?;
    // Only our own services ask here, so their transaction ids are believed.
    let texts = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let tid = cause_from_headers(texts).map(|cause| cause.tid.to_string());
    tracing::info!(tid, %org, "asked for the name on the card");
    let name = name_on_card(&org);
    Ok(([(HeaderName::from_static(TID_HEADER), tid.unwrap_or_default())], Json(Billing { org, name })))
}

/// A first name chosen by the organisation's, and that as the last one.
fn name_on_card(org: &Org) -> String {
    const FIRST_NAMES: [&str; 8] = ["Ada", "Alan", "Barbara", "Edsger", "Frances", "Grace", "Leslie", "Tony"];
    let sum: usize = org.as_str().bytes().map(usize::from).sum();
    let mut last = org.as_str().to_owned();
    last[..1].make_ascii_uppercase();
    format!("{} {last}", FIRST_NAMES[sum % FIRST_NAMES.len()])
}

/// The whole program `cream`.
///
/// # Errors
///
/// When it cannot start.
pub async fn main() -> anyhow::Result<()> {
    let service = service(Pace::Production).manifest_if_asked();
    process::log()?;
    let served = start(service, Config::from_env()?, process::broker()?).await.context("cream")?;
    tracing::info!(url = served.url(), "cream takes payments");
    process::until_told_to_end().await?;
    served.shutdown().await;
    Ok(())
}

/// How long a request to `cream` may take, for those who ask it.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn org() -> Org {
        Org::try_from("acme".to_owned()).unwrap()
    }

    fn cx() -> TaskCx<PaymentProcess> {
        TaskCx::test(Card { limit_cents: 5_000 })
    }

    #[tokio::test]
    async fn a_payment_that_is_taken_is_processed() {
        let cx = cx();
        process_payment(PaymentProcess { org: org(), amount_cents: 5_000 }, cx.clone()).await.unwrap();
        assert_eq!(
            cx.emitted::<OrgPaymentProcessed>(),
            [OrgPaymentProcessed { org: org(), amount_cents: 5_000 }]
        );
        assert_eq!(cx.emitted::<OrgPaymentFailed>(), []);
    }

    #[tokio::test]
    async fn a_declined_card_is_a_failed_payment_and_not_a_failed_job() {
        let cx = cx();
        process_payment(PaymentProcess { org: org(), amount_cents: 5_001 }, cx.clone()).await.unwrap();
        assert_eq!(cx.emitted::<OrgPaymentProcessed>(), []);
        assert_eq!(
            cx.emitted::<OrgPaymentFailed>()[0].reason,
            "5001 cents are above the card's limit of 5000"
        );
    }

    #[test]
    fn the_name_on_the_card_is_always_the_same() {
        assert_eq!(name_on_card(&org()), name_on_card(&org()));
        assert!(name_on_card(&org()).ends_with(" Acme"));
    }
}
