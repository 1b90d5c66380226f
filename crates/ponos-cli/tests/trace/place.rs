//! A broker of a test's own, and the program beside it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ponos::Broker;
use ponos_testbed::Node;
use serde_json::Value;
use tempfile::TempDir;

/// How long something may take that happens in another process.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A broker, and a directory for everything else.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { url: format!("sqlite:{}", dir.path().join("ponos.db").display()), dir }
    }

    pub(crate) async fn rabbitmq() -> Self {
        let url = tokio::task::spawn_blocking(|| Node::shared().fresh_vhost()).await.unwrap();
        let place = Self { url, dir: tempfile::tempdir().unwrap() };
        // RabbitMQ keeps records from the first look on.
        place.ponos(&["tail", "--no-follow"]).ok();
        place
    }

    pub(crate) fn broker(&self) -> Broker {
        Broker::from_url(&self.url).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ponos"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "RUST_LOG", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
        command.env("PONOS_BROKER", &self.url).env("PONOS_VIEW", self.dir.path().join("view"));
        command
    }

    #[track_caller]
    pub(crate) fn ponos(&self, args: &[&str]) -> Ran {
        self.with(&[], args)
    }

    /// As on a terminal that knows colours.
    #[track_caller]
    pub(crate) fn colored(&self, args: &[&str]) -> Ran {
        self.with(&[("CLICOLOR_FORCE", "1")], args)
    }

    #[track_caller]
    pub(crate) fn with(&self, environment: &[(&str, &str)], args: &[&str]) -> Ran {
        let output = self.command(args).envs(environment.iter().copied()).output().unwrap();
        Ran {
            args: format!("{args:?}"),
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs it until `found` finds something in what it prints.
    #[track_caller]
    pub(crate) fn until<T>(&self, args: &[&str], found: impl Fn(&Ran) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let ran = self.ponos(args);
            if let Some(found) = found(&ran) {
                return found;
            }
            assert!(started.elapsed() < DEADLINE, "it still says {ran:?}");
        }
    }

    /// Starts it, to be read while it runs.
    pub(crate) fn watching(&self, args: &[&str]) -> Watching {
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Watching { child, lines, seen: String::new() }
    }
}

/// A program that runs.
pub(crate) struct Watching {
    child: Child,
    lines: Receiver<String>,
    pub(crate) seen: String,
}

impl Watching {
    /// Reads until it has said this.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        let end = Instant::now() + DEADLINE;
        while !self.seen.contains(text) {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                }
                Err(_) => panic!("it has not said {text:?} but\n{}", self.seen),
            }
        }
    }

    /// Forgets what was read.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }

    /// What ^C does.
    #[allow(dead_code, reason = "not every test interrupts")]
    #[track_caller]
    pub(crate) fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// Its exit code, once it has ended by itself.
    #[track_caller]
    pub(crate) fn code(mut self) -> i32 {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("it was not killed");
            }
            assert!(Instant::now() < end, "it has not ended: {}", self.seen);
            std::thread::yield_now();
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    #[expect(dead_code, reason = "for assertions that fail")]
    args: String,
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(&self) -> &Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.out.contains(text), "{text:?} is not in\n{}\n{}", self.out, self.err);
        self
    }
}
