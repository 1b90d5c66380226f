//! The program as a child, and a client that checks every answer against the description.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::retries::{DEADLINE, command};

pub(crate) const TOKEN: &str = "a-token-that-nobody-guesses";

const OPENAPI: &str = include_str!("../../src/serve/openapi.json");

pub(crate) fn place() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("ponos.db").display());
    (dir, url)
}

pub(crate) struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub(crate) port: u16,
    api: Value,
    /// Operations that were answered as their description says, in the good case.
    answered: RefCell<BTreeSet<String>>,
    /// All that was ever answered.
    said: RefCell<String>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem with this status, in the form of RFC 9457 and with a way out.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, says: &str) -> &Self {
        assert_eq!(
            (self.status, self.header("content-type")),
            (status, "application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert!(problem["type"].as_str().unwrap().starts_with("urn:ponos:problem:"), "{self:?}");
        assert!(problem["title"].is_string() && problem["status"] == status, "{self:?}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{says}: {self:?}");
        self
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Server {
    pub(crate) fn start(url: &str) -> Self {
        Self::with_view(url, None)
    }

    /// With another place for its read model than beside the broker's file.
    pub(crate) fn with_view(url: &str, view: Option<&Path>) -> Self {
        let mut command = command(url, &["serve", "--listen", "127.0.0.1:0", "--json"]);
        if let Some(view) = view {
            command.env("PONOS_VIEW", view);
        }
        let mut child = command
            .env("PONOS_API_TOKEN", TOKEN)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let first: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            let mut error = String::new();
            child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            panic!("{line}{error}")
        });
        let port = first["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        let api = serde_json::from_str(OPENAPI).unwrap();
        let server =
            Self { child, stdout, port, api, answered: RefCell::default(), said: RefCell::default() };
        server.until("/readyz", |answer| (answer.status == 200).then_some(()));
        server
    }

    /// A request with the token.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", &[])
    }

    #[track_caller]
    pub(crate) fn post(&self, body: &Value, headers: &[&str]) -> Answer {
        let headers = [&["content-type: application/json"], headers].concat();
        self.ask("POST", "/api/v1/operations", &body.to_string(), &headers)
    }

    /// Asks with the token, and checks the answer against the description.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str, headers: &[&str]) -> Answer {
        let authorization = format!("authorization: Bearer {TOKEN}");
        let headers = [&[authorization.as_str()], headers].concat();
        let answer = self.bare(method, path, body, &headers);
        self.check(method, path, &answer);
        answer
    }

    /// Asks without a token.
    #[track_caller]
    pub(crate) fn bare(&self, method: &str, path: &str, body: &str, headers: &[&str]) -> Answer {
        let host = format!("host: 127.0.0.1:{}", self.port);
        let length = format!("content-length: {}", body.len());
        let headers = [&[host.as_str(), length.as_str(), "connection: close"], headers].concat();
        self.raw(&format!("{method} {path} HTTP/1.1\r\n{}\r\n\r\n{body}", headers.join("\r\n")))
    }

    /// Sends a text and reads what comes until the connection ends.
    #[track_caller]
    pub(crate) fn raw(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        // It may be answered, and closed, before all of it was taken.
        let _ = stream.write_all(request.as_bytes());
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        self.said.borrow_mut().push_str(&text);
        let (head, body) =
            text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?} to {request:.300}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Answer { status, headers, body: body.to_owned() }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Asks until the answer is what is waited for.
    #[track_caller]
    pub(crate) fn until<T>(&self, path: &str, found: impl Fn(&Answer) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let answer = self.get(path);
            if let Some(found) = found(&answer) {
                return found;
            }
            assert!(started.elapsed() < DEADLINE, "{path}: {answer:?}");
        }
    }

    /// Every answer is one that the description knows, and carries what keeps it from being abused.
    #[track_caller]
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        for (name, value) in [
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answer.header(name), value, "{path}: {answer:?}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
        let path = path.split('?').next().unwrap();
        let paths = self.api["paths"].as_object().unwrap();
        // What is written out counts before what has a parameter.
        let mut known: Vec<&String> = paths.keys().filter(|known| fits(known, path)).collect();
        known.sort_by_key(|known| known.matches('{').count());
        let operation = known.first().and_then(|known| paths[*known].get(method.to_ascii_lowercase()));
        let Some(operation) = operation else {
            assert!(answer.status >= 400, "{method} {path} is not described: {answer:?}");
            return;
        };
        let responses = &operation["responses"];
        let response = responses
            .get(answer.status.to_string())
            .unwrap_or(&self.api["components"]["responses"]["Problem"]);
        let kind = answer.header("content-type").split(';').next().unwrap();
        let schema = &response["content"][kind]["schema"];
        assert!(schema.is_object(), "{method} {path}: {kind} is not described: {answer:?}");
        if kind.ends_with("json") {
            let schema = json!({"allOf": [schema], "components": self.api["components"]});
            let schema = jsonschema::draft202012::new(&schema).unwrap();
            let json = answer.json();
            let errors: Vec<String> = schema
                .iter_errors(&json)
                .map(|error| format!("{error} at {}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{method} {path}: {errors:#?} in {}", answer.body);
        }
        if answer.status < 300 {
            self.answered.borrow_mut().insert(operation["operationId"].as_str().unwrap().to_owned());
        }
    }

    /// The operations that were not asked for.
    pub(crate) fn not_answered(&self) -> BTreeSet<String> {
        let paths = self.api["paths"].as_object().unwrap();
        let operations = paths.values().flat_map(|item| item.as_object().unwrap().values());
        let all = operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned());
        all.filter(|operation| !self.answered.borrow().contains(operation)).collect()
    }

    /// Ends it and gives what it printed after the first line, on both outputs, and all that it answered.
    #[track_caller]
    pub(crate) fn end(mut self, how: &str) -> String {
        crate::retries::signal(&self.child, how);
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < DEADLINE, "it does not end");
            std::thread::yield_now();
        };
        assert_eq!(status.code(), Some(0), "{status}");
        let mut printed = String::new();
        self.stdout.read_to_string(&mut printed).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "", "it prints nothing while it serves");
        self.said.take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(&path).all(|(known, given)| known.starts_with('{') || known == given)
}

/// How long a connection may take that is left to itself.
pub(crate) const LEFT: Duration = Duration::from_secs(20);
