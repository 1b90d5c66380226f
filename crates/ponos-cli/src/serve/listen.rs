//! Connections: so many at once, each with a deadline for what it sends, and an end in order.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::places::{Place, Places};
use super::state::{State, stopped};
use super::{END, routes, stream};

/// How long a request's head may take to arrive, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(10);

/// How large a request's head may be.
pub(super) const HEAD_BYTES: usize = 32 * 1024;

/// How long is waited after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is to end, then lets what runs come to its end for a while.
pub(super) async fn serve(listener: &TcpListener, state: Arc<State>, stopping: watch::Receiver<bool>) {
    let router = routes::router(state);
    let places = Arc::new(Places::default());
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(stopping.clone()) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let place = tokio::select! {
                    place = places.take() => place,
                    () = stopped(stopping.clone()) => break,
                };
                connections.spawn(connection(stream, place, router.clone(), stopping.clone()));
            }
            // No file descriptor is free, or the other side is gone already.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(END, ended).await;
}

async fn connection(stream: TcpStream, place: Place, router: axum::Router, stopping: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let place = &place;
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            place.works();
            let response = ask(router, request).await;
            // A stream is not done when it is answered.
            if response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != stream::TYPE) {
                place.waits();
            }
            Ok::<Response<Body>, Infallible>(response)
        }
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
        () = place.lost() => {}
        () = stopped(stopping) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = connection => {}
                () = place.lost() => {}
            }
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
