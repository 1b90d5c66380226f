//! Requests that nobody who means well sends.

use std::io::{Read as _, Write as _};
use std::time::Instant;

use serde_json::json;

use crate::retries::*;
use crate::server::{LEFT, Server, TOKEN, place};

const WHOAMI: &str = "/api/v1/whoami";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_meant_for_it_is_refused() {
    let (_dir, url) = place();
    let shop = shop(&url, &Printer::new()).await;
    let server = Server::start(&url);
    let port = server.port;
    let bearer = format!("authorization: Bearer {TOKEN}");

    // Without the token nobody learns which paths there are.
    for path in
        [WHOAMI, "/metrics", "/api/v1/openapi.json", "/api/v1/nothing", "/", "/livez/", "/api/v1/..%2flivez"]
    {
        let answer = server.bare("GET", path, "", &[]);
        answer.is_problem(401, "Authorization: Bearer");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    for wrong in [
        "authorization: Bearer a-token-that-nobody-guesseS",
        "authorization: Bearer",
        "authorization: Bearer ",
        "authorization: Basic YWRtaW46YWRtaW4=",
        &format!("authorization: {TOKEN}"),
        &format!("cookie: token={TOKEN}"),
        &format!("x-api-key: {TOKEN}"),
    ] {
        server.bare("GET", WHOAMI, "", &[wrong]).is_problem(401, "Bearer");
    }
    server.bare("GET", WHOAMI, "", &[&bearer, &bearer]).is_problem(401, "Bearer");
    server.bare("GET", &format!("{WHOAMI}?token={TOKEN}"), "", &[]).is_problem(401, "Bearer");
    assert_eq!(server.bare("GET", WHOAMI, "", &[&bearer, "cookie: a=b"]).status, 200, "cookies are ignored");

    // Another name: a page whose name server leads here.
    for host in ["evil.org", "evil.org:80", &format!("evil.org:{port}"), "127.0.0.1", "localhost:1", ""] {
        let request =
            format!("GET {WHOAMI} HTTP/1.1\r\nhost: {host}\r\n{bearer}\r\nconnection: close\r\n\r\n");
        server.raw(&request).is_problem(403, "Host");
    }
    let two = format!("host: 127.0.0.1:{port}\r\nhost: evil.org");
    for (target, host) in [
        (WHOAMI.to_owned(), two),
        (WHOAMI.to_owned(), "x-nothing: 1".to_owned()),
        (format!("http://evil.org:{port}{WHOAMI}"), format!("host: 127.0.0.1:{port}")),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\n{host}\r\n{bearer}\r\nconnection: close\r\n\r\n");
        let answer = server.raw(&request);
        assert!(matches!(answer.status, 400 | 403), "{request}: {answer:?}");
    }
    // A page of a browser, whatever it knows.
    for header in [
        "origin: https://evil.org",
        "origin: null",
        &format!("origin: http://127.0.0.1:{port}"),
        "sec-fetch-site: cross-site",
        "sec-fetch-site: same-site",
    ] {
        server.bare("GET", WHOAMI, "", &[&bearer, header]).is_problem(403, "browser");
        server.bare("GET", "/livez", "", &[header]).is_problem(403, "browser");
    }

    // Paths.
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v1/whoami/",
        "//api/v1/whoami",
        "/api/v1/../v1/whoami",
        "/api/v1/..%2fv1%2fwhoami",
        "/api/v1/traces/..%2f..%2fetc%2fpasswd",
        "/api/v1/%2e%2e/v1/whoami",
        "/api/v1/traces/%00",
        "/api/v1/traces/..",
        "/API/v1/whoami",
        "/api/v2/whoami",
    ] {
        server.get(path).is_problem(404, "openapi.json");
    }
    server.get("/api/v1/traces/%ff%fe%fd%fc").is_problem(400, "");
    server.get("/api/v1/traces/abc").is_problem(400, "too short");
    server.get("/api/v1/traces/@everything").is_problem(400, "@last");
    server.get("/api/v1/traces/0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17").is_problem(404, "no records");
    server.get("/api/v1/names/no.such.name/explain").is_problem(404, "no.such.name");
    server.get("/api/v1/whoami?verbose=1").is_problem(400, "unknown field");

    // Methods.
    for (method, path, allowed) in [
        ("POST", WHOAMI, "GET"),
        ("DELETE", "/api/v1/traces", "GET"),
        ("PUT", "/api/v1/operations", "POST"),
        ("GET", "/api/v1/operations", "POST"),
        ("PATCH", "/metrics", "GET"),
        ("OPTIONS", WHOAMI, "GET"),
        ("BREW", WHOAMI, "GET"),
    ] {
        let answer = server.ask(method, path, "", &[]);
        answer.is_problem(405, "Allow");
        assert!(answer.header("allow").contains(allowed), "{method} {path}: {answer:?}");
    }

    // Bodies.
    let json = "content-type: application/json";
    let post = |body: &str, headers: &[&str]| server.ask("POST", "/api/v1/operations", body, headers);
    let retry = json!({"verb": "retry", "selector": {"all": true}}).to_string();
    for header in ["content-type: text/plain", "content-type: application/x-www-form-urlencoded", "x-none: 1"]
    {
        post(&retry, &[header]).is_problem(415, "application/json");
    }
    post(&format!("\"{}\"", "x".repeat(1024 * 1024)), &[json]).is_problem(413, "1 MiB");
    for body in [
        "",
        "{",
        "null",
        "[1]",
        "{\"verb\":\"retry\",\"selector\":{\"all\":true},\"x\":1}",
        &"[".repeat(100_000),
    ] {
        post(body, &[json]).is_problem(400, "openapi.json");
    }
    post(&retry, &[json, &format!("idempotency-key: {}", "x".repeat(256))])
        .is_problem(400, "Idempotency-Key");

    // It lives.
    assert_eq!(server.get(WHOAMI).status, 200);
    shop.shutdown().await;
    server.end("-TERM");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_is_not_waited_for() {
    let (_dir, url) = place();
    let shop = shop(&url, &Printer::new()).await;
    let server = Server::start(&url);
    let started = Instant::now();
    let mut head = server.connect();
    head.write_all(b"GET /livez HTTP/1.1\r\nhost: 127.0").unwrap();
    let mut body = server.connect();
    let request = format!(
        "POST /api/v1/operations HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        server.port
    );
    body.write_all(request.as_bytes()).unwrap();
    let mut idle = server.connect();
    idle.write_all(format!("GET /livez HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n\r\n", server.port).as_bytes())
        .unwrap();
    assert_eq!(server.get(WHOAMI).status, 200, "others are answered meanwhile");
    for (slow, says) in [(&mut head, ""), (&mut body, "408"), (&mut idle, "200")] {
        let mut answer = String::new();
        // A connection that is reset has ended too.
        let _ = slow.read_to_string(&mut answer);
        assert!(answer.lines().next().unwrap_or_default().contains(says), "{says}: {answer}");
    }
    assert!(started.elapsed() < LEFT, "{:?}", started.elapsed());
    shop.shutdown().await;
    server.end("-TERM");
}
