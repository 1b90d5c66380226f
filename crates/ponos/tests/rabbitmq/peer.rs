//! A service on the npm package `ponos`, in a Node process; `node/peer.js` says what it can be told.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use ponos_testbed::Node;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// How long anything may take that must happen: a busy machine starts a Node process in seconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A Node process, which ends with this value.
#[derive(Debug)]
pub(crate) struct Peer {
    name: String,
    child: Child,
    /// Taken when it is to stop: the end of its input is an order too.
    input: Option<ChildStdin>,
    /// What it says, by a thread that reads; it ends with the process.
    lines: mpsc::UnboundedReceiver<Value>,
    /// What it said that nobody has asked for yet.
    heard: Vec<Value>,
    log: Arc<Mutex<String>>,
}

impl Peer {
    /// Starts a peer in a virtual host and waits until it has declared and consumes everything.
    pub(crate) async fn start(node: &Node, vhost: &str, args: &[&str]) -> Self {
        let mut peer = Self::spawn(node, vhost, args);
        peer.line("ready", |line| line["ready"] == true).await;
        peer
    }

    /// Starts a peer, without waiting.
    pub(crate) fn spawn(node: &Node, vhost: &str, args: &[&str]) -> Self {
        let mut command = Command::new("node");
        command.arg(directory().join("peer.js")).args(args);
        command.env("RABBITMQ_HOSTNAME", "127.0.0.1").env("RABBITMQ_PORT", node.amqp_port().to_string());
        command.env("RABBITMQ_USERNAME", "guest").env("RABBITMQ_PASSWORD", "guest");
        command.env("RABBITMQ_VHOST", vhost).env("NODE_NO_WARNINGS", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("node starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut errors = child.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "unreadable": line }));
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let text = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = errors.read(&mut buffer) {
                text.lock().expect("a log").push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self { name: args.join(" "), child, input, lines, heard: Vec::new(), log }
    }

    /// The first line that fits and was not asked for before.
    pub(crate) async fn line(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.heard.iter().position(&fits) {
            return self.heard.remove(place);
        }
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            match tokio::time::timeout_at(deadline, self.lines.recv()).await {
                Ok(Some(line)) if fits(&line) => return line,
                Ok(Some(line)) => self.heard.push(line),
                ended => panic!(
                    "`peer.js {}` {} and did not say `{what}`; it said {:#?}\n{}",
                    self.name,
                    if ended.is_err() { "is late" } else { "has ended" },
                    self.heard,
                    self.log.lock().expect("a log")
                ),
            }
        }
    }

    /// A run of a job of this name.
    pub(crate) async fn job(&mut self, name: &str) -> Value {
        self.line(&format!("job {name}"), |line| line["job"] == name).await
    }

    /// What it has said so far about something, without waiting.
    pub(crate) fn said(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        while let Ok(line) = self.lines.try_recv() {
            self.heard.push(line);
        }
        self.heard.iter().filter(|line| fits(line)).cloned().collect()
    }

    /// Publishes an event and waits for the confirm; answers the TID.
    pub(crate) async fn emit(&mut self, name: &str, payload: Value) -> String {
        self.order(json!({ "publish": "event", "name": name, "payload": payload })).await
    }

    /// Publishes a task of its own application and waits for the confirm; answers the TID.
    pub(crate) async fn create(&mut self, name: &str, payload: Value) -> String {
        self.order(json!({ "publish": "task", "name": name, "payload": payload })).await
    }

    /// Carries out an order to publish; answers the TID.
    pub(crate) async fn order(&mut self, order: Value) -> String {
        let input = self.input.as_mut().expect("it was not stopped");
        writeln!(input, "{order}").expect("it reads its input");
        let answer =
            self.line("published", |line| line.get("published").or(line.get("error")).is_some()).await;
        answer["tid"].as_str().unwrap_or_else(|| panic!("{order}: {answer}")).to_owned()
    }

    /// Stops it in order, as far as the package knows one.
    pub(crate) async fn stop(mut self) {
        drop(self.input.take());
        self.line("stopped", |line| line["stopped"] == true).await;
    }

    /// Waits for its end and answers the exit code.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        // Its output ends with it.
        let ended = async {
            while let Some(line) = self.lines.recv().await {
                self.heard.push(line);
            }
        };
        tokio::time::timeout(DEADLINE, ended).await.expect("it ends");
        self.child.wait().expect("it can be waited for").code()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/rabbitmq/node")
}

/// Whether peers can be started. What the package needs is installed when it is missing; a machine without Node skips.
pub(crate) fn is_installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        for program in ["node", "npm"] {
            match Command::new(program).arg("--version").stdout(Stdio::null()).status() {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // Past the harness, which shows what a macro prints only when the test fails.
                    let _ = writeln!(
                        std::io::stderr(),
                        "SKIPPED: the tests of mixed fleets, because `{program}` is not installed"
                    );
                    return false;
                }
                Err(error) => panic!("`{program}` cannot be started: {error}"),
            }
        }
        install();
        true
    })
}

/// Installs the package unless it is there. Several test processes may come here at once.
fn install() {
    let lock = File::open(directory().join("package-lock.json")).expect("the list of packages");
    lock.lock().expect("a lock on the list of packages");
    // What npm writes last.
    if directory().join("node_modules/.package-lock.json").exists() {
        return;
    }
    let npm = Command::new("timeout")
        .args(["--kill-after=5", "200", "npm", "ci", "--ignore-scripts", "--omit=optional"])
        .args(["--no-audit", "--no-fund"])
        .current_dir(directory())
        .stdin(Stdio::null())
        .output()
        .expect("npm starts");
    assert!(
        npm.status.success(),
        "`npm ci` in {} failed, is there a network?\n{}",
        directory().display(),
        String::from_utf8_lossy(&npm.stderr)
    );
}
