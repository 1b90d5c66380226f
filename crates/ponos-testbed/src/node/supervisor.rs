//! The shell process that owns a node's processes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Kills the node when this process ends, also by SIGKILL: the pipe closes. No other child holds the pipe's end,
/// because the standard library opens pipes close-on-exec.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// One order and its answer at a time.
    link: Mutex<Link>,
}

#[derive(Debug)]
struct Link {
    child: Child,
    /// Taken when the supervisor is told to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Supervisor {
    /// `start` and `epmd` are shell scripts that become the process in question.
    pub(super) fn new(directory: &Path, start: &Path, epmd: Option<&Path>) -> Self {
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(include_str!("supervisor.sh"))
            .arg("testbed-supervisor")
            .arg(directory)
            .arg(start);
        if let Some(epmd) = epmd {
            command.arg(epmd);
        }
        // A group of its own: what a terminal or `timeout` sends to the test's group is not meant for it.
        command.process_group(0).current_dir("/");
        command.env_clear().env("PATH", super::PATH).env("LANG", "C.UTF-8");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("/bin/sh starts");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { link: Mutex::new(Link { child, orders, answers }) }
    }

    /// The process id of the Erlang VM that now runs.
    pub(super) fn start(&self) -> u32 {
        self.order("start")
    }

    /// Ends the Erlang VM and waits until it is gone.
    pub(super) fn kill(&self) {
        self.order("kill");
    }

    /// Asks the Erlang VM to end.
    pub(super) fn terminate(&self) {
        self.order("terminate");
    }

    pub(super) fn freeze(&self) {
        self.order("freeze");
    }

    pub(super) fn thaw(&self) {
        self.order("thaw");
    }

    fn order(&self, order: &str) -> u32 {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = link.orders.as_mut().expect("the supervisor is told to end only when it is dropped");
        writeln!(orders, "{order}").expect("the supervisor reads its orders");
        let mut answer = String::new();
        link.answers.read_line(&mut answer).expect("the supervisor answers");
        answer.trim().parse().unwrap_or_else(|_| panic!("the supervisor answered {answer:?} to {order}"))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let link = self.link.get_mut().unwrap_or_else(PoisonError::into_inner);
        link.orders = None;
        let _ = link.child.wait();
    }
}
