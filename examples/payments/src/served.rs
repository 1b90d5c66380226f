use ponos::{App, Running};

use crate::http::HttpServer;

/// A service at work, with the HTTP server in front of it if it has one.
#[derive(Debug)]
pub struct Served<A: App> {
    http: Option<HttpServer>,
    running: Running<A>,
}

impl<A: App> Served<A> {
    pub(crate) fn new(http: Option<HttpServer>, running: Running<A>) -> Self {
        Self { http, running }
    }

    /// Where it answers HTTP: `http://127.0.0.1:8401`, or nothing for a service that only works its queues.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        self.http.as_ref().map(HttpServer::url)
    }

    /// The service.
    #[must_use]
    pub fn running(&self) -> &Running<A> {
        &self.running
    }

    /// Stops gracefully: first the HTTP server, so that nothing new is promised, then the service.
    pub async fn shutdown(self) {
        if let Some(http) = self.http {
            http.stop().await;
        }
        self.running.shutdown().await;
    }
}
