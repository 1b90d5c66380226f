//! The peers: how each is started, and with which words.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What a peer printed of itself.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Figure {
    pub count: usize,
    pub seconds: f64,
    pub cpu: f64,
    pub rss_kib: u64,
}

impl Figure {
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }
}

/// One way to do the same work.
#[derive(Debug)]
pub struct Peer {
    pub name: &'static str,
    program: Program,
    /// The first word decides which queue; those of one program share what they publish.
    queue: &'static str,
    /// More words for consuming.
    consuming: &'static [&'static str],
    /// Whether its way of publishing is measured under this name.
    publishes: bool,
}

#[derive(Debug)]
enum Program {
    /// A binary beside this one.
    Beside(&'static str),
    /// A script of Node.
    Node(&'static str),
}

pub const PEERS: &[Peer] = &[
    Peer {
        name: Peer::PONOS,
        program: Program::Beside("peer-ponos"),
        queue: "bench.job.run",
        consuming: &[],
        publishes: true,
    },
    Peer {
        name: "lapin, ack awaited",
        program: Program::Beside("peer-lapin"),
        queue: "lapin.await",
        consuming: &["mode=await"],
        publishes: true,
    },
    Peer {
        name: "lapin, basic_ack each",
        program: Program::Beside("peer-lapin"),
        queue: "lapin.each",
        consuming: &["mode=each"],
        publishes: false,
    },
    Peer {
        name: "lapin, acks of 64",
        program: Program::Beside("peer-lapin"),
        queue: "lapin.batch",
        consuming: &["mode=batch"],
        publishes: false,
    },
    Peer {
        name: "npm ponos",
        program: Program::Node("npm-ponos/peer.js"),
        queue: "npm.job.run",
        consuming: &[],
        publishes: true,
    },
];

impl Peer {
    pub const PONOS: &str = "Ponos";

    /// Publishes and consumes as many; both figures.
    pub fn round(&self, url: &str, kind: &str, count: usize) -> Result<Vec<(&'static str, Figure)>> {
        if matches!(self.program, Program::Node(_)) && kind == "quorum" {
            // The package declares classic queues only.
            return Ok(Vec::new());
        }
        // Each peer's messages are its own, and so are its exchanges: another virtual host for those of one name.
        let words = [
            format!("url={url}"),
            format!("queue={}", self.queue),
            format!("type={kind}"),
            format!("count={count}"),
        ];
        let published = self.run("publish", &words, &[])?;
        let consumed = self.run("consume", &words, self.consuming)?;
        let mut figures = vec![("consume, no-op", consumed)];
        if self.publishes {
            figures.push(("publish, confirmed", published));
        }
        Ok(figures)
    }

    fn run(&self, workload: &str, words: &[String], more: &[&str]) -> Result<Figure> {
        let mut command = self.program.command()?;
        command.arg(workload).args(words).args(more).stdin(Stdio::null()).stderr(Stdio::inherit());
        if !more.iter().any(|word| word.starts_with("prefetch=")) && self.name != Self::PONOS {
            command.arg("prefetch=256");
        }
        let output = command.output().with_context(|| format!("{} does not start", self.name))?;
        ensure!(output.status.success(), "{} failed at {workload}: {}", self.name, output.status);
        let line = String::from_utf8(output.stdout)?;
        let line = line.lines().last().with_context(|| format!("{} printed nothing", self.name))?;
        serde_json::from_str(line).with_context(|| format!("{} printed `{line}`", self.name))
    }
}

impl Program {
    fn command(&self) -> Result<Command> {
        match self {
            Self::Beside(name) => {
                let own = std::env::current_exe()?;
                Ok(Command::new(own.parent().unwrap_or(Path::new(".")).join(name)))
            }
            Self::Node(script) => {
                let mut command = Command::new("node");
                command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../peers").join(script));
                Ok(command)
            }
        }
    }
}
