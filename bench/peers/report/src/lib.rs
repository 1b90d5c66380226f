//! What a peer is told, and what it says. Every peer, in whatever language, understands the same words:
//!
//! `peer publish|consume url=… queue=… type=classic|quorum count=N body=256 window=256 prefetch=N mode=… wait_ms=0 fail=0`
//!
//! and prints one line of JSON: `{"count":N,"seconds":S,"cpu":S,"rss_kib":K}`. Seconds run from the first message to the last
//! confirm or settlement that the peer knows of, so that connecting is not counted; `cpu` is the whole process's user and
//! system time within them.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

/// The words after the name of a peer.
#[derive(Debug, Clone)]
pub struct Order {
    /// `publish`, `consume`, …
    pub workload: String,
    options: HashMap<String, String>,
}

impl Order {
    /// What this process was told.
    ///
    /// # Errors
    ///
    /// When it was told nothing, or something that is no `key=value`.
    pub fn of_this_process() -> Result<Self> {
        let mut words = std::env::args().skip(1);
        let workload = words.next().context("which workload?")?;
        let options = words.map(|word| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(anyhow!("`{word}` is not key=value")),
        });
        Ok(Self { workload, options: options.collect::<Result<_>>()? })
    }

    /// A text that must be there.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.options.get(key).map(String::as_str).with_context(|| format!("`{key}=` is missing"))
    }

    /// A value, or another one when nothing is said.
    ///
    /// # Errors
    ///
    /// When what is said is no such value.
    pub fn value<T: FromStr<Err: Display>>(&self, key: &str, otherwise: T) -> Result<T> {
        match self.options.get(key) {
            Some(text) => text.parse().map_err(|error| anyhow!("`{key}={text}`: {error}")),
            None => Ok(otherwise),
        }
    }
}

/// A measurement that has begun.
#[derive(Debug)]
pub struct Measuring {
    began: Instant,
    cpu: f64,
}

impl Measuring {
    /// Begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self { began: Instant::now(), cpu: cpu_seconds() }
    }

    /// Prints what `count` messages took until now.
    pub fn end(self, count: usize) {
        let (seconds, cpu) = (self.began.elapsed().as_secs_f64(), cpu_seconds() - self.cpu);
        let rss = resident_kib();
        println!("{}", serde_json::json!({ "count": count, "seconds": seconds, "cpu": cpu, "rss_kib": rss }));
    }
}

/// User and system time of this process. `/proc` counts hundredths of a second on every Linux of today.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

/// The most memory that this process has had.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or_default()
}

/// A JSON object of about so many bytes.
#[must_use]
pub fn filler(bytes: usize) -> String {
    "payload-".chars().cycle().take(bytes.saturating_sub(40)).collect()
}
