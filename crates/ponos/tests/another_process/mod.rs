//! A test's other processes: its own binary, started again to play one role.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const ROLE: &str = "PONOS_TEST_ROLE";
const FILE: &str = "PONOS_TEST_FILE";
const NUMBER: &str = "PONOS_TEST_NUMBER";

/// What this process was started for.
pub struct Role {
    pub name: String,
    /// The broker's file.
    pub file: PathBuf,
    /// Whatever number the role needs.
    pub number: u32,
}

impl Role {
    /// The role of this process; `None` in the test itself.
    pub fn of_this_process() -> Option<Self> {
        let name = std::env::var(ROLE).ok()?;
        let file = std::env::var_os(FILE)?.into();
        let number = std::env::var(NUMBER).ok()?.parse().ok()?;
        Some(Self { name, file, number })
    }
}

/// Tells the parent something.
#[expect(clippy::print_stdout, reason = "the way to the parent")]
pub fn say(text: &str) {
    println!("\n{text}");
}

/// Another process; it ends with the test, whatever happens there.
#[derive(Debug)]
pub struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this binary again; its test `another_process` looks for the role and plays it.
    pub fn start(role: &str, file: &Path, number: u32) -> Self {
        Self::start_test("another_process", role, file, number)
    }

    /// The same with a test of another name, for binaries that have several.
    pub fn start_test(test: &str, role: &str, file: &Path, number: u32) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(FILE, file)
            .env(NUMBER, number.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that starts so, and gives the rest of it.
    pub fn line(&mut self, start: &str) -> String {
        let mut text = String::new();
        loop {
            text.clear();
            let read = self.out.read_line(&mut text).unwrap();
            assert_ne!(read, 0, "the process ended before it said `{start}`");
            if let Some(rest) = text.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    /// SIGKILL, without waiting for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until the kernel has taken a killed process away.
    pub fn reap(&mut self) {
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for an orderly end.
    pub fn terminate(mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let end = self.child.wait().unwrap();
        assert!(end.success(), "{end}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
