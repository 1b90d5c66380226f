//! The listener: `/metrics` and health over HTTP, from before the broker is connected until the service has ended.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::health::Health;
use super::text::Form;
use super::view::View;

/// How long requests may still be answered when the service has ended.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// The service, once it has started.
type Shown = Arc<OnceLock<Arc<View>>>;

/// A listener at work. Dropping it closes it at once.
#[derive(Debug)]
pub(crate) struct Listener {
    addr: SocketAddr,
    shown: Shown,
    end: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Listener {
    /// Listens from now on. Until a service is [shown](Self::show) it is live and not started.
    ///
    /// # Errors
    ///
    /// When the address is taken, or not this machine's.
    pub(crate) async fn open(addr: SocketAddr) -> Result<Self, std::io::Error> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let shown = Shown::default();
        let (end, mut ended) = watch::channel(false);
        let serving = axum::serve(listener, router(Arc::clone(&shown))).with_graceful_shutdown(async move {
            // A sender that is gone ends it too.
            let _ = ended.wait_for(|ended| *ended).await;
        });
        let server = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "metrics and health are no longer served");
            }
        });
        tracing::info!(%addr, "metrics and health are served");
        Ok(Self { addr, shown, end, server })
    }

    /// Shows the service that has started.
    pub(crate) fn show(&self, view: Arc<View>) {
        // It is shown once, by who has opened it.
        let _ = self.shown.set(view);
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers what was asked and closes.
    pub(crate) async fn close(mut self) {
        self.end.send_replace(true);
        if tokio::time::timeout(CLOSE_DEADLINE, &mut self.server).await.is_err() {
            tracing::debug!("somebody held a connection to the metrics open; it is cut off");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/healthz", get(healthz))
        .with_state(shown)
}

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    let Some(view) = shown.get() else { return starting() };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let form = Form::accepted(accept);
    ([(header::CONTENT_TYPE, form.content_type())], view.metrics(form)).into_response()
}

async fn livez(State(shown): State<Shown>) -> Response {
    // That it answers shows that the event loop turns.
    shown.get().map_or_else(
        || says(true, &[]),
        |view| {
            let health = view.health();
            says(health.live, &health.problems)
        },
    )
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let Some(view) = shown.get() else { return starting() };
    let Health { ready, problems, .. } = view.health();
    says(ready, &problems)
}

async fn startupz(State(shown): State<Shown>) -> Response {
    if shown.get().is_some() { says(true, &[]) } else { starting() }
}

/// Always 200, because it is for reading: probes ask one of the others.
async fn healthz(State(shown): State<Shown>) -> Response {
    let json = shown.get().map_or_else(
        || r#"{"version":1,"status":"starting","live":true,"ready":false}"#.to_owned(),
        |view| view.health().to_json(),
    );
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

fn starting() -> Response {
    says(false, &["starting: the broker is not connected yet".to_owned()])
}

fn says(well: bool, problems: &[String]) -> Response {
    let (status, text) = if well {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", problems.join("\n")))
    };
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
