//! Somebody else's mail provider: a small HTTP server that knows nothing of Ponos and can be told to fail.
//!
//! | HTTP | what |
//! | --- | --- |
//! | `POST /messages` with `Idempotency-Key` | takes a mail. A repeated key is answered as the first time and nothing is delivered again |
//! | `PUT /mode` | how it behaves from now on: [`ModeRequest`] |
//! | `GET /mode` | how it behaves |
//! | `GET /deliveries` | what it has delivered, in order |
//!
//! The ledger of deliveries can be kept in a file, one JSON object a line, so that a repeated key is recognised after a
//! restart too.

mod ledger;
mod mode;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

pub use self::ledger::Delivery;
use self::ledger::{Entry, Ledger};
use self::mode::{Behaviour, Modes};
pub use self::mode::{ModeName, ModeRequest};
use crate::http::{HttpListener, HttpServer, Problem, json_body};
use crate::process;

/// Where the provider answers HTTP unless [`ADDRESS_VARIABLE`] says otherwise: this port on 127.0.0.1.
pub const PORT: u16 = 8403;

/// The variable with the address of the provider, for itself and for those who send mail.
pub const ADDRESS_VARIABLE: &str = "MAIL_PROVIDER_ADDR";

/// The variable with the file of the ledger.
pub const FILE_VARIABLE: &str = "MAIL_PROVIDER_FILE";

/// The file of the ledger unless [`FILE_VARIABLE`] names another, in the working directory.
pub const DEFAULT_FILE: &str = "mail-provider.jsonl";

/// The header with which a sender names a mail, the same however often it asks.
const KEY_HEADER: &str = "idempotency-key";

/// The longest key, in bytes.
const MAX_KEY_LEN: usize = 200;

/// Says that an answer is that of the first time.
const REPLAYED: (HeaderName, &str) = (HeaderName::from_static("idempotent-replayed"), "true");

/// Where it answers, and what it keeps.
#[derive(Debug, Clone)]
pub struct Config {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// The file of the ledger; without one it forgets.
    pub file: Option<PathBuf>,
}

impl Config {
    /// From the environment.
    ///
    /// # Errors
    ///
    /// When a variable cannot be read.
    pub fn from_env() -> anyhow::Result<Self> {
        let file = std::env::var_os(FILE_VARIABLE).filter(|file| !file.is_empty());
        let file = file.map_or_else(|| PathBuf::from(DEFAULT_FILE), PathBuf::from);
        Ok(Self { address: process::address(ADDRESS_VARIABLE, PORT)?, file: Some(file) })
    }
}

/// Starts the server.
///
/// # Errors
///
/// When the port is taken or the file cannot be used.
pub async fn start(config: Config) -> anyhow::Result<HttpServer> {
    let listener = HttpListener::bind(config.address, ADDRESS_VARIABLE).await?;
    let ledger = Ledger::open(config.file.as_deref())?;
    let provider = Arc::new(Provider(Mutex::new(Inner { ledger, modes: Modes::default() })));
    let router = Router::new()
        .route("/messages", post(take_message))
        .route("/mode", get(show_mode).put(change_mode))
        .route("/deliveries", get(deliveries))
        .with_state(provider);
    Ok(listener.serve(router))
}

/// What the HTTP handlers share. Held while a mail is looked up and written, never across an await.
struct Provider(Mutex<Inner>);

struct Inner {
    ledger: Ledger,
    modes: Modes,
}

impl Provider {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `POST /messages` takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Message {
    to: String,
    subject: String,
    text: String,
}

async fn take_message(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let key = headers.get(KEY_HEADER).and_then(|value| value.to_str().ok()).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| Problem::bad_request("the header `Idempotency-Key` is missing"))?.to_owned();
    if key.len() > MAX_KEY_LEN {
        return Err(Problem::bad_request(format!(
            "the header `Idempotency-Key` is longer than {MAX_KEY_LEN} bytes"
        )));
    }
    let message: Message = json_body(&headers, body)?;
    if !message.to.contains('@') {
        return Err(Problem::unprocessable("`to` is no address"));
    }
    let tid = headers.get(ponos::http::TID_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (answer, pause) = {
        let mut inner = provider.lock();
        let behaviour = inner.modes.next(&message.to);
        match behaviour {
            Behaviour::Broken => {
                return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "out of order"));
            }
            Behaviour::MailboxFails => {
                return Err(Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("the mailbox of {} fails", message.to),
                ));
            }
            Behaviour::Busy { retry_after } => {
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many mails at once");
                return Ok(
                    ([(header::RETRY_AFTER, retry_after.as_secs().to_string())], problem).into_response()
                );
            }
            Behaviour::Ok => (deliver(&mut inner, key, message, tid), None),
            // The mail is delivered and only the answer is late: what a sender without a key would send twice.
            Behaviour::Slow { delay } => (deliver(&mut inner, key, message, tid), Some(delay)),
        }
    };
    if let Some(delay) = pause {
        tokio::time::sleep(delay).await;
    }
    answer
}

fn deliver(
    inner: &mut Inner,
    key: String,
    message: Message,
    tid: Option<String>,
) -> Result<Response, Problem> {
    let taken = |number: usize| Json(serde_json::json!({ "number": number }));
    match inner.ledger.deliver(key, message, tid) {
        Ok(Entry::New(number)) => Ok((StatusCode::CREATED, taken(number)).into_response()),
        Ok(Entry::Repeated(number)) => Ok((StatusCode::CREATED, [REPLAYED], taken(number)).into_response()),
        Ok(Entry::Differs) => Err(Problem::unprocessable("this `Idempotency-Key` was used for another mail")),
        Err(error) => {
            tracing::error!(%error, "the ledger cannot be written");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the ledger cannot be written"))
        }
    }
}

async fn change_mode(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ModeRequest>, Problem> {
    let mode: ModeRequest = json_body(&headers, body)?;
    tracing::info!(?mode, "told how to behave");
    provider.lock().modes = Modes::from(mode.clone());
    Ok(Json(mode))
}

async fn show_mode(State(provider): State<Arc<Provider>>) -> Json<ModeRequest> {
    Json(provider.lock().modes.shown())
}

/// What `GET /deliveries` answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Deliveries {
    /// How many mails were delivered: one for each key.
    pub count: usize,
    /// How many requests repeated a key.
    pub repeated: u64,
    /// The mails, in order.
    pub deliveries: Vec<Delivery>,
}

async fn deliveries(State(provider): State<Arc<Provider>>) -> Json<Deliveries> {
    let inner = provider.lock();
    let deliveries = inner.ledger.deliveries().to_vec();
    Json(Deliveries { count: deliveries.len(), repeated: inner.ledger.repeated(), deliveries })
}

/// The whole program `mail-provider`.
///
/// # Errors
///
/// When it cannot start.
pub async fn main() -> anyhow::Result<()> {
    process::log()?;
    let server = start(Config::from_env()?).await.context("mail-provider")?;
    tracing::info!(url = server.url(), "the mail provider takes mail");
    process::until_told_to_end().await?;
    server.stop().await;
    Ok(())
}
