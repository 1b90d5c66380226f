//! Requests that nobody who means well sends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
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

/// Requests as bytes, which no client would send, and what they are answered: a status, and what a problem says.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_hardly_http_are_answered_in_order() {
    let (_dir, url) = place();
    let shop = shop(&url, &Printer::new()).await;
    let server = Server::start(&url);
    let host = format!("host: 127.0.0.1:{}", server.port);
    let bearer = format!("{host}\r\nauthorization: Bearer {TOKEN}");
    let json = "content-type: application/json";
    let long = "x".repeat(40 * 1024);
    let many: String = (0..150).map(|n| format!("x-{n}: 1\r\n")).collect();
    let chunked = "2\r\n{}\r\n0\r\n\r\n";
    let smuggled = format!("GET {WHOAMI} HTTP/1.1\r\n{bearer}\r\n\r\n");
    for (request, status, says) in [
        // Nothing of it is HTTP.
        ("\0\0\0\0\r\n\r\n".to_owned(), 400, ""),
        (format!("GET {WHOAMI} HTTP/9.9\r\n{bearer}\r\n\r\n"), 400, ""),
        (format!("GET {WHOAMI} HTTP/1.1\r\n{bearer}\r\nx y: 1\r\n\r\n"), 400, ""),
        (format!("GET {WHOAMI} HTTP/1.1\r\n{bearer}\r\n folded: 1\r\n\r\n"), 400, ""),
        (format!("GET {WHOAMI} HTTP/1.1\r\n{bearer}\r\nx: \0\r\n\r\n"), 400, ""),
        (format!("GET /api/v1/trac\0es HTTP/1.1\r\n{bearer}\r\n\r\n"), 400, ""),
        (format!("GET /api/v1/ü HTTP/1.1\r\n{bearer}\r\nconnection: close\r\n\r\n"), 404, "openapi"),
        // Too much of it.
        (format!("GET /api/v1/traces/{long} HTTP/1.1\r\n{bearer}\r\n\r\n"), 431, ""),
        (format!("GET {WHOAMI}?x={} HTTP/1.1\r\n{bearer}\r\n\r\n", long.repeat(2)), 431, ""),
        (format!("GET {WHOAMI} HTTP/1.1\r\n{bearer}\r\nx: {long}\r\n\r\n"), 431, ""),
        (format!("GET {WHOAMI} HTTP/1.1\r\n{many}{bearer}\r\n\r\n"), 431, ""),
        (
            format!("POST /api/v1/operations HTTP/1.1\r\n{host}\r\ncontent-length: 99999999999\r\n\r\n"),
            401,
            "Bearer",
        ),
        (
            format!(
                "POST /api/v1/operations HTTP/1.1\r\n{bearer}\r\n{json}\r\ncontent-length: 99999999999\r\n\r\n"
            ),
            413,
            "1 MiB",
        ),
        // Two lengths, or one that is none: where the next request begins would be anybody's guess.
        (
            format!(
                "POST /api/v1/operations HTTP/1.1\r\n{bearer}\r\n{json}\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"
            ),
            400,
            "",
        ),
        (
            format!(
                "POST /api/v1/operations HTTP/1.1\r\n{bearer}\r\n{json}\r\ncontent-length: +2\r\n\r\n{{}}"
            ),
            400,
            "",
        ),
        (
            format!(
                "POST /api/v1/operations HTTP/1.1\r\n{bearer}\r\n{json}\r\ncontent-length: -1\r\n\r\n{{}}"
            ),
            400,
            "",
        ),
        (
            format!(
                "POST /api/v1/operations HTTP/1.1\r\n{bearer}\r\n{json}\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"
            ),
            411,
            "Content-Length",
        ),
        (
            format!(
                "POST /api/v1/operations HTTP/1.1\r\n{bearer}\r\n{json}\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{chunked}{smuggled}"
            ),
            411,
            "Content-Length",
        ),
        (
            format!(
                "POST /api/v1/operations HTTP/1.1\r\n{bearer}\r\n{json}\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n{chunked}{smuggled}"
            ),
            411,
            "Content-Length",
        ),
        (
            format!("GET /livez HTTP/1.1\r\n{host}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
            411,
            "Content-Length",
        ),
        (
            format!(
                "POST /api/v1/operations HTTP/1.1\r\n{bearer}\r\n{json}\r\ntransfer-encoding: xchunked\r\n\r\n"
            ),
            400,
            "",
        ),
        // Methods without a meaning here, and one that would make it a proxy.
        (format!("OPTIONS * HTTP/1.1\r\n{bearer}\r\nconnection: close\r\n\r\n"), 404, "openapi"),
        (
            format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\n{bearer}\r\nconnection: close\r\n\r\n", server.port),
            404,
            "openapi",
        ),
        (format!("CONNECT evil.org:443 HTTP/1.1\r\n{bearer}\r\nconnection: close\r\n\r\n"), 403, "Host"),
        (format!("TRACE {WHOAMI} HTTP/1.1\r\n{bearer}\r\nconnection: close\r\n\r\n"), 405, "Allow"),
        (format!("TRACE {WHOAMI} HTTP/1.1\r\n{host}\r\nconnection: close\r\n\r\n"), 401, "Bearer"),
        // An older version without a name for whom it is.
        (format!("GET {WHOAMI} HTTP/1.0\r\nauthorization: Bearer {TOKEN}\r\n\r\n"), 403, "Host"),
        (format!("GET {WHOAMI} HTTP/1.0\r\n{bearer}\r\n\r\n"), 200, ""),
    ] {
        let answer = server.raw(&request);
        let shown: String = request.chars().take(120).collect();
        assert_eq!(answer.status, status, "{shown:?}: {answer:?}");
        assert!(!answer.body.contains("HTTP/1.1 "), "one answer only: {shown:?}: {answer:?}");
        match (says, status) {
            (_, 200) => {}
            // Read in one piece it is a request, and has a problem.
            (_, 431) if !answer.body.is_empty() => {
                answer.is_problem(431, "32 KiB");
            }
            // What the server refuses before it is a request has no body, so nothing to be read into.
            ("", _) => assert_eq!(answer.body, "", "{shown:?}"),
            (says, _) => {
                answer.is_problem(status, says);
                assert!(!answer.body.contains(TOKEN), "{answer:?}");
            }
        }
        assert_eq!(answer.header("access-control-allow-origin"), "", "{shown:?}");
    }
    // Two requests in one packet are two answers, in their order.
    let two = format!(
        "GET /livez HTTP/1.1\r\n{host}\r\n\r\nGET {WHOAMI} HTTP/1.1\r\n{host}\r\nconnection: close\r\n\r\n"
    );
    let answers = server.raw(&two);
    assert_eq!(answers.status, 200, "{answers:?}");
    assert!(answers.body.starts_with("ok\n") && answers.body.contains("HTTP/1.1 401 "), "{answers:?}");
    // What a head is answered without is its body, and nothing else.
    for (path, status) in [(WHOAMI, 200), ("/api/v1/nothing", 404), ("/livez", 200)] {
        let head = server.bare("HEAD", path, "", &[&format!("authorization: Bearer {TOKEN}")]);
        assert_eq!((head.status, head.body.as_str()), (status, ""), "{path}: {head:?}");
        assert_eq!(head.header("x-content-type-options"), "nosniff");
    }
    assert_eq!(server.get(WHOAMI).status, 200, "it lives");
    shop.shutdown().await;
    server.end("-TERM");
}

/// Names, ids and figures that mean harm, in every place that takes one. Nothing is a fault of the server, and what is
/// said about them is tame.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_and_figures_are_problems_and_tame_ones() {
    let (_dir, url) = place();
    let printer = Printer::new();
    let shop = shop(&url, &printer).await;
    publish(&url, 0..1).await;
    printer.has_printed(1).await;
    let server = Server::start(&url);
    let bearer = format!("authorization: Bearer {TOKEN}");
    // Not compared with the description, which takes longer than the answer.
    let get = |path: &str| server.bare("GET", path, "", &[&bearer]);
    let long = "a".repeat(20_000);
    let names = [
        "%1b%5b31mred",
        "%3cscript%3ealert(1)%3c/script%3e",
        "%e2%80%aegnp.exe",
        "a%0d%0aset-cookie:%20a=b",
        "';drop%20table%20message;--",
        "%25s%25n",
        "..%3b",
        "%ef%bb%bf",
        "%f0%9f%92%a9",
        "*",
        "-rf",
        "%20",
        &long,
    ];
    for name in names {
        for path in [
            format!("/api/v1/traces/{name}"),
            format!("/api/v1/traces/@last/diff/{name}"),
            format!("/api/v1/names/{name}/explain"),
            format!("/api/v1/failed/{name}"),
            format!("/api/v1/failed/messages/{name}"),
            format!("/api/v1/operations/{name}"),
            format!("/api/v1/queues?app={name}"),
            format!("/api/v1/failed?app={name}"),
            format!("/api/v1/failed?group_by={name}"),
            format!("/api/v1/stream?app={name}"),
            format!("/api/v1/stream?outcome={name}"),
            format!("/api/v1/traces?cursor={name}"),
            format!("/api/v1/traces?outcome={name}"),
            format!("/api/v1/whoami?{name}=1"),
        ] {
            let answer = get(&path);
            let shown: String = path.chars().take(80).collect();
            assert!((400..500).contains(&answer.status), "{shown}: {answer:?}");
            // A backslash before a character is how JSON tells of it; none stands there as it is.
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(
                !detail.chars().any(|c| c.is_control() || c == '\u{202e}' || c == '\u{feff}'),
                "{shown}: {detail:?}"
            );
            assert!(detail.len() <= 2100, "{shown}: {} bytes", detail.len());
            assert_eq!(answer.header("set-cookie"), "", "{shown}");
        }
        // Where any text may be asked for, nothing is found.
        let found = get(&format!("/api/v1/traces?name={name}"));
        assert_eq!((found.status, &found.json()["traces"]), (200, &json!([])), "{found:?}");
    }
    for query in [
        "traces?limit=0",
        "traces?limit=501",
        "traces?limit=1000000000",
        "traces?limit=-1",
        "traces?limit=NaN",
        "traces?limit=1e3",
        "traces?limit=99999999999999999999999",
        "traces?limit=1&limit=2",
        "traces?since=-1",
        "traces?since=99999999999999999999999",
        "traces?since=99999999999d",
        "traces?until=NaN",
        "services?limit=1000000000",
        "services?ended=maybe",
        "failed?since=999999999999999999999d",
        "failed/abcd?limit=1000000000",
        "failed/abcd?body=255",
        "failed/abcd?body=-1",
        "traces/@last?format=../../x",
    ] {
        get(&format!("/api/v1/{query}")).is_problem(400, "");
    }
    // The ends of what a moment can be.
    for (query, some) in [
        ("since=0", true),
        ("until=0", false),
        ("since=18446744073709551615", false),
        ("until=18446744073709551615", true),
    ] {
        let found = get(&format!("/api/v1/traces?{query}"));
        assert_eq!(found.status, 200, "{query}: {found:?}");
        assert_eq!(!found.json()["traces"].as_array().unwrap().is_empty(), some, "{query}: {found:?}");
    }
    let all = json!({"all": true});
    let queue = json!({"queue": TASK});
    for body in [
        json!({"verb": "retry", "selector": all, "rate": "1e99/s"}),
        json!({"verb": "retry", "selector": all, "rate": "NaN/s"}),
        json!({"verb": "retry", "selector": all, "rate": "-1/s"}),
        json!({"verb": "retry", "selector": all, "rate": "0/s"}),
        json!({"verb": "retry", "selector": {"all": true, "since": "99999999999999999999d"}}),
        json!({"verb": "pause", "selector": queue, "for": "1000000000d"}),
        json!({"verb": "pause", "selector": {"queue": "../../x"}, "reason": "x"}),
        json!({"verb": "pause", "selector": {"queue": "\u{1b}[31m"}, "reason": "x"}),
        json!({"verb": "pause", "selector": {"queue": long}, "reason": "x"}),
        json!({"verb": "circuit_open", "selector": {"dependency": "\n", "app": "shop"}, "reason": "x"}),
        json!({"verb": "__proto__", "selector": all}),
        json!({"verb": ["retry"], "selector": all}),
    ] {
        let answer = server.post(&body, &[]);
        let shown: String = body.to_string().chars().take(200).collect();
        assert!(matches!(answer.status, 400 | 404), "{shown}: {answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(!detail.contains(char::is_control) && detail.len() <= 2100, "{detail:?}");
    }
    // A reason is cut, not refused.
    let order = json!({"verb": "pause", "selector": queue, "reason": long, "dry_run": true});
    let reason = server.post(&order, &[]).json()["order"]["order"]["reason"].as_str().unwrap().len();
    assert!(reason < 510, "{reason}");
    let standing = ponos(&url, &["orders", "--json"]).ok().json();
    assert_eq!(standing["orders"], json!([]), "none of it was done");
    shop.shutdown().await;
    server.end("-TERM");
}

/// Whether the other side still holds the connection.
fn is_held(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.peek(&mut [0]) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// More connections than there are places, all of them silent or reading nothing: others are answered meanwhile, and a
/// stream goes on.
#[tokio::test(flavor = "multi_thread")]
async fn slow_connections_push_out_each_other_and_nobody_else() {
    const MANY: usize = 400;
    let (_dir, url) = place();
    let shop = shop(&url, &Printer::new()).await;
    let server = Server::start(&url);
    let head = format!(
        "GET /api/v1/stream HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: Bearer {TOKEN}\r\n\r\n",
        server.port
    );
    let watch = || {
        let (mut stream, mut begins) = (server.connect(), [0; 12]);
        stream.write_all(head.as_bytes()).unwrap();
        stream.read_exact(&mut begins).unwrap();
        (stream, String::from_utf8(begins.to_vec()).unwrap())
    };
    let streams: Vec<_> = (0..16).map(|_| watch()).collect();
    assert!(streams.iter().all(|(_, begins)| begins == "HTTP/1.1 200"), "{streams:?}");
    assert_eq!(watch().1, "HTTP/1.1 503", "there are no more streams than that");
    let started = Instant::now();
    loop {
        let slow: Vec<TcpStream> = (0..MANY)
            .map(|n| {
                let mut slow = server.connect();
                let sent: &[u8] = match n % 3 {
                    0 => b"",
                    1 => b"GET /livez HTTP/1.1\r\nhost: 127.0",
                    _ => b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
                };
                let _ = slow.write_all(sent);
                slow
            })
            .collect();
        assert_eq!(server.get(WHOAMI).status, 200);
        // The youngest still have their places, so it was not their end that made room.
        let held = slow.iter().filter(|slow| is_held(slow)).count();
        if held >= 100 && !is_held(&slow[0]) {
            break;
        }
        // A machine that takes longer for this than a head may take proves nothing.
        assert!(started.elapsed() < DEADLINE, "{held} of {MANY} are held");
    }
    assert!(streams.iter().all(|(stream, _)| is_held(stream)), "streams keep their places");
    drop(streams);
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
