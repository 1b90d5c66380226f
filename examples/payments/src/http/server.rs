use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Problem;

/// How long open requests may go on after the server was told to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A port that is taken and not yet answered on. Callers that connect now wait.
#[derive(Debug)]
pub struct HttpListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpListener {
    /// Takes the port; `variable` names where the address comes from, for the error.
    ///
    /// # Errors
    ///
    /// When the port is taken or may not be used.
    pub async fn bind(address: SocketAddr, variable: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}: is it running already? Another address can be named with {variable}=127.0.0.1:PORT")
        })?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Answers from now on.
    #[must_use]
    pub fn serve(self, router: Router) -> HttpServer {
        let router = router
            .fallback(async || {
                Problem::not_found("there is nothing at this path; the README lists what there is")
            })
            .method_not_allowed_fallback(async || Problem::method_not_allowed());
        let (stop, stopped) = oneshot::channel::<()>();
        let Self { listener, address } = self;
        let task = tokio::spawn(async move {
            let serve = axum::serve(listener, router).with_graceful_shutdown(async {
                let _ = stopped.await;
            });
            if let Err(error) = serve.await {
                tracing::error!(%error, "the HTTP server ended");
            }
        });
        HttpServer { address, stop, task }
    }
}

/// An HTTP server at work. Dropping it stops it gracefully, but does not wait.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Where it answers, as `http://127.0.0.1:8401`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes no more requests and waits up to 5 s for those that are open.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let abort = self.task.abort_handle();
        if tokio::time::timeout(STOP_DEADLINE, self.task).await.is_err() {
            abort.abort();
        }
    }
}
