//! The processes: this program, started again to play a role. Each writes its log into the run's directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::scenarios::Figures;

/// What a worker is started with.
#[derive(Debug, Clone)]
pub(crate) struct WorkerOptions {
    pub(crate) concurrency: u32,
    pub(crate) prefetch: u32,
    /// After how long SQLite's processes take the jobs of one that stands still.
    pub(crate) lease: Duration,
    /// Whether there is a circuit breaker, and for how long it opens first.
    pub(crate) breaker: Option<Duration>,
    /// Variables of its environment, such as `LD_PRELOAD`.
    pub(crate) env: Vec<(String, String)>,
}

impl WorkerOptions {
    pub(crate) fn of(figures: &Figures) -> Self {
        Self {
            concurrency: figures.concurrency,
            prefetch: figures.prefetch,
            lease: Duration::from_secs(60),
            breaker: None,
            env: Vec::new(),
        }
    }
}

/// A process of the run; it ends with the driver.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) number: u32,
    role: &'static str,
    child: Child,
    /// Its end is the sign to end for whoever plays a role.
    input: Option<ChildStdin>,
}

impl Process {
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("{signal:?} to {} {}", self.role, self.number))
    }

    /// SIGKILL, without waiting for the end.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("killing {} {}", self.role, self.number))
    }

    /// SIGSTOP: it stands still, with everything that it holds.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until the kernel has taken it away.
    pub(crate) fn reap(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().with_context(|| format!("waiting for {} {}", self.role, self.number))
    }

    /// Resident memory in KiB and open files.
    pub(crate) fn sample(&self) -> Option<(u64, u64)> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(proc.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let rss = line.split_whitespace().next()?.parse().ok()?;
        let fds = std::fs::read_dir(proc.join("fd")).ok()?.count();
        Some((rss, u64::try_from(fds).ok()?))
    }

    /// Waits for its end by itself.
    fn ended_within(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} {} has not ended within {limit:?}", self.role, self.number);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All processes, and who comes next.
#[derive(Debug)]
pub(crate) struct Fleet {
    dir: PathBuf,
    program: PathBuf,
    processes: Vec<Process>,
    ledger: Option<Process>,
    next: u32,
}

impl Fleet {
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        Ok(Self { dir: dir.to_owned(), program, processes: Vec::new(), ledger: None, next: 1 })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the ledger's process, and waits until its file is there.
    pub(crate) fn start_ledger(&mut self) -> anyhow::Result<()> {
        let command = self.command("ledger");
        let (mut process, input) = self.spawn("ledger", 0, command)?;
        process.input = Some(input);
        self.ledger = Some(process);
        Ok(())
    }

    pub(crate) fn start_worker(&mut self, url: &str, options: &WorkerOptions) -> anyhow::Result<()> {
        let mut command = self.member("worker", url, options);
        command.args(["--concurrency", &options.concurrency.to_string()]);
        command.args(["--prefetch", &options.prefetch.to_string()]);
        if let Some(open) = options.breaker {
            command.args(["--breaker", &open.as_millis().to_string()]);
        }
        let number = self.take_number();
        command.args(["--number", &number.to_string()]);
        let (mut process, input) = self.spawn("worker", number, command)?;
        process.input = Some(input);
        self.processes.push(process);
        Ok(())
    }

    /// Gives the number of the publisher and where it takes its jobs from.
    pub(crate) fn start_publisher(
        &mut self,
        url: &str,
        options: &WorkerOptions,
        open: usize,
    ) -> anyhow::Result<(u32, ChildStdin)> {
        let mut command = self.member("publisher", url, options);
        let number = self.take_number();
        command.args(["--number", &number.to_string(), "--open", &open.to_string()]);
        let (process, input) = self.spawn("publisher", number, command)?;
        self.processes.push(process);
        Ok((number, input))
    }

    fn take_number(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    fn command(&self, role: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["role", role, "--dir"]).arg(&self.dir);
        command
    }

    fn member(&self, role: &str, url: &str, options: &WorkerOptions) -> Command {
        let mut command = self.command(role);
        command.args(["--url", url, "--lease", &options.lease.as_millis().to_string()]);
        command.envs(options.env.iter().cloned());
        command
    }

    fn spawn(
        &self,
        role: &'static str,
        number: u32,
        mut command: Command,
    ) -> anyhow::Result<(Process, ChildStdin)> {
        let log = self.dir.join(format!("{role}-{number}.log"));
        let log = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().with_context(|| format!("starting a {role}"))?;
        let input = child.stdin.take().context("a process has an input")?;
        Ok((Process { number, role, child, input: None }, input))
    }

    pub(crate) fn get(&mut self, number: u32) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.number == number)
    }

    pub(crate) fn numbers(&self, role: &str) -> Vec<u32> {
        self.processes.iter().filter(|process| process.role == role).map(|process| process.number).collect()
    }

    pub(crate) fn forget(&mut self, number: u32) {
        self.processes.retain(|process| process.number != number);
    }

    /// Workers that have ended.
    pub(crate) fn fallen(&mut self) -> Vec<u32> {
        let has_ended = |process: &mut Process| matches!(process.child.try_wait(), Ok(Some(_)));
        self.processes
            .iter_mut()
            .filter(|process| process.role == "worker")
            .filter_map(|process| has_ended(process).then_some(process.number))
            .collect()
    }

    /// Waits until every publisher has ended by itself; their input must be closed.
    pub(crate) fn await_publishers(&mut self, limit: Duration) -> anyhow::Result<()> {
        for process in self.processes.iter_mut().filter(|process| process.role == "publisher") {
            let status = process.ended_within(limit)?;
            if !status.success() {
                bail!("publisher {} ended with {status}", process.number);
            }
        }
        self.processes.retain(|process| process.role != "publisher");
        Ok(())
    }

    /// SIGTERM to all workers, and waits for their orderly end.
    pub(crate) fn end_workers(&mut self, limit: Duration) -> anyhow::Result<()> {
        for process in &self.processes {
            process.signal(Signal::TERM)?;
        }
        for mut process in std::mem::take(&mut self.processes) {
            let status = process.ended_within(limit)?;
            if !status.success() {
                bail!("{} {} ended with {status}", process.role, process.number);
            }
        }
        Ok(())
    }

    /// Ends everybody at once, and then the ledger in order.
    pub(crate) fn end_ledger(&mut self) -> anyhow::Result<()> {
        self.processes.clear();
        if let Some(mut ledger) = self.ledger.take() {
            drop(ledger.input.take());
            ledger.ended_within(Duration::from_secs(60))?;
        }
        Ok(())
    }
}
