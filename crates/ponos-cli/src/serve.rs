//! `ponos serve`: keeps the read model current and answers a JSON API, on this machine and with a token only.
//!
//! | module | what |
//! | --- | --- |
//! | `address`, `token` | where it listens, and who may ask |
//! | `listen`, `places`, `guard` | connections with deadlines, and who gives way when there are too many; what every request has to pass |
//! | `problem`, `answer` | RFC 9457; JSON out, queries in |
//! | `routes` | the table of all routes |
//! | `state`, `collector`, `models` | what handlers share; the thread that follows the journal; files that answer questions |
//! | `traces`, `system`, `queues`, `failed` | what there is to know |
//! | `operations` | what there is to do |
//! | `stream`, `metrics` | entries as they come; figures of the collector |
//!
//! Handlers ask the same functions as the verbs, so that both say the same in the same form.

mod address;
mod answer;
mod collector;
mod failed;
mod guard;
mod listen;
mod metrics;
mod models;
mod operations;
mod places;
mod problem;
mod queues;
mod routes;
mod state;
mod stream;
mod system;
mod token;
mod traces;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ponos::Secret;
use serde::Serialize;
use tokio::sync::watch;

use self::address::Address;
use self::collector::Collector;
use self::state::State;
use self::token::Token;
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::json;
use crate::output::{self, Output};

/// Threads for requests. Questions to files have threads of their own.
const THREADS: usize = 2;

/// How long what runs may go on when it ends.
const END: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Where it listens, on this machine only: there is no TLS
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8470")]
    listen: Address,

    /// The token that requests must have, at least 16 characters [default: PONOS_API_TOKEN, else a random one]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Prints where it listens as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    address: String,
    url: &'a str,
}

/// Serves until it is interrupted or told to end.
///
/// # Errors
///
/// When the address, the token, the broker or the read model cannot be used.
pub(crate) fn run(args: &ServeArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let (token, made) = Token::find(args.token_file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|error| {
            CliError::broker(format!("cannot start a runtime: {error}"), "free some memory, then try again")
        })?;
    let served = runtime.block_on(async {
        // Before the broker is asked: a second one on the same port is told so at once.
        let listener = args.listen.bind().await?;
        let session = Arc::new(Session::open(url).await?);
        let served = serve(args, &listener, token, made, &session, out).await;
        if let Some(session) = Arc::into_inner(session) {
            session.close().await;
        }
        served
    });
    runtime.shutdown_timeout(END);
    served.map(|()| Exit::Ok)
}

async fn serve(
    args: &ServeArgs,
    listener: &tokio::net::TcpListener,
    token: Token,
    made: Option<Secret>,
    session: &Arc<Session>,
    out: &mut Output,
) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let (stop, stopping) = watch::channel(false);
    let collector = Collector::start(Arc::clone(session), stopping.clone())?;
    let address = listener.local_addr().map_err(address::unusable)?;
    let state = Arc::new(State::new(Arc::clone(session), token, address, collector, stopping.clone()));

    let url = format!("http://{address}");
    if args.json {
        json::print(&Document { version: json::VERSION, address: address.to_string(), url: &url }, out);
    } else {
        out.line(&url);
        out.hint("every request needs `Authorization: Bearer TOKEN`; ^C ends it");
    }
    if let Some(made) = made {
        // Not on the standard output, which may be kept.
        output::note(&format!("token: {}", made.expose()));
    }
    out.flush();

    let serving = listen::serve(listener, Arc::clone(&state), stopping);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        () = signals.interrupted() => {
            let _ = stop.send(true);
            serving.await;
        }
    }
    let _ = stop.send(true);
    state.end(END).await;
    Ok(())
}

/// What asks the program to end.
#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    fn listen() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        let both =
            signal(SignalKind::interrupt()).and_then(|one| Ok(Self(one, signal(SignalKind::terminate())?)));
        both.map_err(|error| {
            CliError::refused(
                format!("signals cannot be listened for: {error}"),
                "free some memory, then try again",
            )
        })
    }

    async fn interrupted(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// ^C.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Result<Self, CliError> {
        Ok(Self)
    }

    async fn interrupted(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
