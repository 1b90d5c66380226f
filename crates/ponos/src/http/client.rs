//! The HTTP client behind `cx.http()`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ponos_core::envelope::Cause;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, ResponseBuilderExt, Url, redirect};
use serde::Serialize;

use super::error::Target;
use super::options::{Allowed, StubAnswer};
use super::{CAUSE_HEADER, HOPS_HEADER, HttpError, HttpErrorKind, HttpOptions, TID_HEADER};
use crate::clock::Clock;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;

/// What all handlers of a service share. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: HttpOptions,
    /// For the time limit of a stub; the network has its own.
    clock: Clock,
    /// Built at the first request: most services make none.
    client: OnceLock<Result<reqwest::Client, String>>,
}

impl Client {
    pub(crate) fn new(options: HttpOptions, clock: Clock) -> Self {
        let client = OnceLock::new();
        Self { shared: Arc::new(Shared { options, clock, client }) }
    }

    /// The client of one attempt.
    pub(crate) fn within(&self, cause: Cause) -> Http {
        Http { client: self.clone(), cause }
    }

    fn reqwest(&self) -> Result<&reqwest::Client, &str> {
        let build = || {
            let allowed = self.shared.options.allowed.clone();
            let policy = redirect::Policy::custom(move |attempt| follow(&allowed, attempt));
            let builder = reqwest::Client::builder().redirect(policy);
            builder.build().map_err(|error| error.to_string())
        };
        self.shared.client.get_or_init(build).as_ref().map_err(String::as_str)
    }
}

/// A request that carries the ids is redirected only to where they may go; the answer is the redirect itself otherwise.
fn follow(allowed: &Allowed, attempt: redirect::Attempt<'_>) -> redirect::Action {
    let carries_ids = attempt.previous().first().is_some_and(|first| allowed.contains(first));
    if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("too many redirects")
    } else if carries_ids && !allowed.contains(attempt.url()) {
        attempt.stop()
    } else {
        attempt.follow()
    }
}

/// An HTTP client whose requests belong to the transaction of the job that makes them.
///
/// To the hosts that the service [allows](HttpOptions::allow) it sends `x-ponos-tid`, `x-ponos-cause`, `x-ponos-hops` and `traceparent`, in
/// place of what the caller may have set (but a `traceparent` that the caller set stays). A redirect from such a host to
/// another one is not followed: the answer is the redirect. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    cause: Cause,
}

impl Http {
    /// A GET request.
    pub fn get(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// A POST request.
    pub fn post(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// A PUT request.
    pub fn put(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// A DELETE request.
    pub fn delete(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// A PATCH request.
    pub fn patch(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// A request with any method. What is wrong with the URL is reported by [`RequestBuilder::send`].
    pub fn request(&self, method: Method, url: impl AsRef<str>) -> RequestBuilder {
        let text = url.as_ref();
        let (target, request) = match Url::parse(text) {
            Ok(url) => {
                let target = Target::new(&method, &url);
                let request = match self.client.reqwest() {
                    Ok(client) => Ok(client.request(method, url)),
                    Err(error) => Err(HttpError::new(HttpErrorKind::Request, &target, error)),
                };
                (target, request)
            }
            Err(error) => {
                let target = Target::unparsed(&method, text);
                let error = HttpError::new(HttpErrorKind::Request, &target, format!("not a URL: {error}"));
                (target, Err(error))
            }
        };
        RequestBuilder {
            client: self.client.clone(),
            cause: self.cause.clone(),
            target,
            query: Vec::new(),
            timeout: self.client.shared.options.timeout,
            request,
        }
    }
}

/// A request in the making. What is wrong with it is reported by [`send`](Self::send).
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    client: Client,
    cause: Cause,
    target: Target,
    query: Vec<(String, String)>,
    timeout: Duration,
    request: Result<reqwest::RequestBuilder, HttpError>,
}

impl RequestBuilder {
    fn map(mut self, f: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> Self {
        self.request = self.request.map(f);
        self
    }

    /// Adds a header.
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        self.map(|request| request.header(name.as_ref(), value.as_ref()))
    }

    /// Adds `Authorization: Bearer …`.
    pub fn bearer_auth(self, token: impl std::fmt::Display) -> Self {
        self.map(|request| request.bearer_auth(token))
    }

    /// Adds a parameter to the URL's query.
    pub fn query(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.query.push((name.into(), value.to_string()));
        self
    }

    /// Sets the body to a JSON text, and the content type.
    pub fn json<T: Serialize + ?Sized>(self, body: &T) -> Self {
        self.map(|request| request.json(body))
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        self.map(|request| request.body(body))
    }

    /// How long this request may take, from connecting to the end of the answer's body.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the request and returns once the answer's head has come.
    ///
    /// # Errors
    ///
    /// See [`HttpError`]. A status that says failure is none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the request was carried out.
    pub async fn send(self) -> Result<reqwest::Response, HttpError> {
        let Self { client, cause, target, query, timeout, request } = self;
        let failed = |error| HttpError::from_reqwest(error, &target);
        let mut request = request?.build().map_err(failed)?;
        if !query.is_empty() {
            request.url_mut().query_pairs_mut().extend_pairs(query);
        }
        let Shared { options, clock, .. } = &*client.shared;
        if options.allowed.contains(request.url()) {
            carry(&cause, request.headers_mut());
        }
        *request.timeout_mut() = Some(timeout);

        let Some(stub) = &options.stub else {
            let reqwest =
                client.reqwest().map_err(|error| HttpError::new(HttpErrorKind::Request, &target, error))?;
            return reqwest.execute(request).await.map_err(failed);
        };
        let url = request.url().clone();
        match clock.timeout(timeout, stub(request)).await {
            Some(answer) => stubbed(answer, url, &target),
            None => Err(HttpError::new(HttpErrorKind::Timeout, &target, "no answer in time")),
        }
    }
}

fn stubbed(answer: StubAnswer, url: Url, target: &Target) -> Result<reqwest::Response, HttpError> {
    let answer = answer.map_err(|error| HttpError::new(HttpErrorKind::Connect, target, error))?;
    let (parts, body) = answer.into_parts();
    let mut response = http::Response::builder()
        .status(parts.status)
        .version(parts.version)
        .url(url)
        .body(body)
        .expect("every part was valid in the stub's response");
    *response.headers_mut() = parts.headers;
    Ok(response.into())
}

/// Adds the ids of a transaction.
fn carry(cause: &Cause, headers: &mut HeaderMap) {
    let traced = headers.contains_key("traceparent");
    let mut put = |name: &'static str, value: &str| {
        // Ids are hexadecimal or made of safe characters, a trace state is ASCII; should one not be, it stays here.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put(TID_HEADER, &cause.tid.to_string());
    if let Some(message) = cause.message {
        put(CAUSE_HEADER, &message.to_string());
        put(HOPS_HEADER, &cause.hops.to_string());
    }
    if traced {
        return;
    }
    if let Some(trace) = &cause.trace {
        put("traceparent", &trace.parent);
        if let Some(state) = &trace.state {
            put("tracestate", state);
        }
    } else if let Some(parent) = trace_parent(cause) {
        put("traceparent", &parent);
    }
}

/// A W3C trace parent made of the ids: the transaction is the trace, the message the span. `None` where the transaction's
/// id is no UUID or nothing caused the request.
fn trace_parent(cause: &Cause) -> Option<String> {
    let trace = cause.tid.trace_id()?;
    // The last eight bytes: the first are a time, alike for neighbours.
    let bytes: [u8; 8] = cause.message?.as_bytes()[8..].try_into().ok()?;
    let span = u64::from_be_bytes(bytes);
    let zero = span == 0 || trace.bytes().all(|b| b == b'0'); // W3C: all zeros are no id
    (!zero).then(|| format!("00-{trace}-{span:016x}-01"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc;

    use ponos_core::envelope::TraceContext;
    use ponos_core::id::{MessageId, Tid};

    use super::*;

    const TID: &str = "0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17";

    fn cause() -> Cause {
        Cause {
            message: Some(MessageId::from_bytes(
                *b"\x01\x98\xf3\xc2\x7d\x41\x8a\x06\x9c\x1e\x5b\x0f\x4e\x2a\x9d\x18",
            )),
            hops: 3,
            ..Cause::root(Tid::from_foreign(TID).unwrap())
        }
    }

    fn http(options: HttpOptions) -> Http {
        Client::new(options, Clock::real()).within(cause())
    }

    type Requests = mpsc::Receiver<(String, HashMap<String, String>)>;

    /// A server that answers each connection with the same text and reports the heads of the requests.
    fn server(answer: impl Into<String>) -> (SocketAddr, Requests) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (report, requests) = mpsc::channel();
        let answer = answer.into();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = Vec::new();
                let mut chunk = [0; 4096];
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut chunk) {
                        Ok(n) if n > 0 => head.extend_from_slice(&chunk[..n]),
                        _ => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let mut lines = head.lines();
                let first = lines.next().unwrap_or_default().to_owned();
                let headers = lines.map_while(|line| line.split_once(": "));
                let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
                let _ = report.send((first, headers.collect()));
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        (address, requests)
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

    fn redirect_to(url: &str) -> String {
        format!("HTTP/1.1 307 Moved\r\nlocation: {url}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    }

    /// Resolves a name to a loopback server although the URL's host is another's.
    fn with_host(http: &Http, host: &str, address: SocketAddr) {
        let allowed = http.client.shared.options.allowed.clone();
        let policy = redirect::Policy::custom(move |attempt| follow(&allowed, attempt));
        let client = reqwest::Client::builder().redirect(policy).no_proxy().resolve(host, address);
        http.client.shared.client.set(Ok(client.build().unwrap())).unwrap();
    }

    #[tokio::test]
    async fn an_allowed_host_learns_the_transaction() {
        let (address, requests) = server(OK);
        let answer = http(HttpOptions::default())
            .post(format!("http://{address}/card?a=1"))
            .query("b", "2 3")
            .header("x-mine", "yes")
            .header("x-ponos-tid", "forged")
            .json(&[1])
            .send()
            .await
            .unwrap();
        assert_eq!(answer.text().await.unwrap(), "ok");
        let (first, headers) = requests.recv().unwrap();
        assert_eq!(first, "POST /card?a=1&b=2+3 HTTP/1.1");
        assert_eq!(headers["x-ponos-tid"], TID);
        assert_eq!(headers["x-ponos-cause"], "0198f3c2-7d41-8a06-9c1e-5b0f4e2a9d18");
        assert_eq!(headers["x-ponos-hops"], "3");
        assert_eq!(headers["traceparent"], "00-0198f3c27d417a069c1e5b0f4e2a9d17-9c1e5b0f4e2a9d18-01");
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-mine"], "yes");
        assert!(TraceContext::parse(&headers["traceparent"], None).is_some());
    }

    #[tokio::test]
    async fn another_host_learns_nothing() {
        let (address, requests) = server(OK);
        let stranger = http(HttpOptions::default().allow("*.internal.example"));
        with_host(&stranger, "internal.example", address);
        let url = format!("http://internal.example:{}/", address.port());
        stranger.get(url).send().await.unwrap();
        let (_, headers) = requests.recv().unwrap();
        assert!(
            !headers.keys().any(|name| name.starts_with("x-ponos") || name.starts_with("trace")),
            "{headers:?}"
        );

        let friend = http(HttpOptions::default().allow("*.internal.example"));
        with_host(&friend, "billing.internal.example", address);
        let url = format!("http://billing.internal.example:{}/", address.port());
        friend.get(url).send().await.unwrap();
        assert_eq!(requests.recv().unwrap().1["x-ponos-tid"], TID);
    }

    #[tokio::test]
    async fn a_redirect_takes_the_ids_to_allowed_hosts_only() {
        let (last, requests) = server(OK);
        let (near, _near) = server(redirect_to(&format!("http://localhost:{}/", last.port())));
        let answer = http(HttpOptions::default()).get(format!("http://{near}/")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(requests.recv().unwrap().1["x-ponos-tid"], TID);

        let (far, _far) = server(redirect_to(&format!("http://stranger.example:{}/", last.port())));
        let http = http(HttpOptions::default());
        with_host(&http, "stranger.example", last);
        let answer = http.get(format!("http://{far}/")).send().await.unwrap();
        assert_eq!(answer.status(), 307);
        assert!(requests.try_recv().is_err(), "the stranger was never called");
    }

    #[tokio::test]
    async fn a_stub_sees_what_would_have_left_and_nothing_leaves() {
        let options = HttpOptions::default().allow("billing.internal").stub(|request| async move {
            assert_eq!(request.url().as_str(), "https://billing.internal/card");
            assert_eq!(request.headers()["x-ponos-tid"], TID);
            assert_eq!(request.body().unwrap().as_bytes(), Some(b"{}".as_slice()));
            Ok(http::Response::builder().status(202).header("x-a", "b").body(b"[7]".to_vec()).unwrap())
        });
        let http = http(options);
        let answer = http.put("https://billing.internal/card").body("{}").send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.url().as_str()), (202, "https://billing.internal/card"));
        assert_eq!(answer.headers()["x-a"], "b");
        assert_eq!(answer.json::<Vec<u8>>().await.unwrap(), [7]);
    }

    #[tokio::test]
    async fn a_stub_can_fail_and_can_be_late() {
        let failing = http(HttpOptions::default().stub(|_| async { Err("refused".to_owned()) }));
        let error = failing.get("http://u:secret@a/b?key=secret#c").send().await.unwrap_err();
        assert_eq!(error.to_string(), "GET http://a/b: refused");
        assert_eq!(error.kind(), HttpErrorKind::Connect);

        let options =
            HttpOptions::default().stub(|_| std::future::pending()).timeout(Duration::from_millis(5));
        let error = http(options).delete("http://a/").send().await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Timeout);
    }

    #[tokio::test]
    async fn an_error_says_what_is_wrong_and_keeps_secrets() {
        let http = http(HttpOptions::default());
        let tls = http.get("https://u:secret@127.0.0.1/x?token=secret").send().await.unwrap_err();
        assert_eq!(tls.kind(), HttpErrorKind::Tls, "{tls:?}");
        assert!(tls.to_string().starts_with("GET https://127.0.0.1/x: https is not built in yet"), "{tls}");

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://u:secret@{}/x?token=secret", listener.local_addr().unwrap());
        let late = http.patch(&url).timeout(Duration::from_millis(5)).send().await.unwrap_err();
        assert_eq!(late.kind(), HttpErrorKind::Timeout);
        drop(listener);
        let gone = http.get(&url).send().await.unwrap_err();
        assert_eq!(gone.kind(), HttpErrorKind::Connect);

        let header = http.get(&url).header("x", "a\nb").send().await.unwrap_err();
        assert_eq!(header.kind(), HttpErrorKind::Request);
        let relative = http.get("/x?token=secret").send().await.unwrap_err();
        assert_eq!(relative.to_string(), "GET `/x`: not a URL: relative URL without a base");
        for error in [tls, late, gone, header, relative] {
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn the_traces_own_parent_is_passed_on() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let trace = TraceContext::parse(parent, Some("a=b")).map(Arc::new);
        let mut headers = HeaderMap::new();
        carry(&Cause { trace, ..cause() }, &mut headers);
        assert_eq!(
            (&headers["traceparent"], &headers["tracestate"]),
            (&parent.parse().unwrap(), &"a=b".parse().unwrap())
        );

        let mut headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), "mine".parse().unwrap())]);
        carry(&cause(), &mut headers);
        assert_eq!(headers["traceparent"], "mine");

        let mut headers = HeaderMap::new();
        carry(&Cause { tid: Tid::from_foreign("node").unwrap(), ..cause() }, &mut headers);
        assert!(headers.contains_key("x-ponos-cause") && !headers.contains_key("traceparent"));
    }
}
