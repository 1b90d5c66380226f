//! Connections: so many at once, each with a deadline for what it sends, and an end in order.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::state::{State, stopped};
use super::{END, routes};

/// How many connections there are at once. Others wait to be accepted.
const CONNECTIONS: usize = 128;

/// How long a request's head may take to arrive, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(10);

/// How large a request's head may be.
const HEAD_BYTES: usize = 32 * 1024;

/// How long is waited after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is to end, then lets what runs come to its end for a while.
pub(super) async fn serve(listener: &TcpListener, state: Arc<State>, stopping: watch::Receiver<bool>) {
    let router = routes::router(state);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
            () = stopped(stopping.clone()) => break,
        };
        match accepted {
            (Ok(place), Ok((stream, _))) => {
                let (router, stopping) = (router.clone(), stopping.clone());
                connections.spawn(async move {
                    connection(stream, router, stopping).await;
                    drop(place);
                });
            }
            // No file descriptor is free, or the other side is gone already.
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(END, ended).await;
}

async fn connection(stream: TcpStream, router: axum::Router, stopping: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<Response<Body>, Infallible>(ask(router, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // What goes wrong with a connection is the other side's business.
        _ = connection.as_mut() => {}
        () = stopped(stopping) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn ask(router: axum::Router, request: Request<Incoming>) -> Response<Body> {
    use hyper::service::Service as _;
    let service = hyper_util::service::TowerToHyperService::new(router);
    match service.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
