//! Results: a line of JSON for each run, and the document that is made of the newest ones.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::check::Verdict;
use crate::ledger::Book;
use crate::output;
use crate::scenarios::{ALL, Scenario};

/// Where runs append their results unless told otherwise.
pub(crate) const RESULTS: &str = "docs/reliability/runs.jsonl";

/// What a run has shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: String,
    pub(crate) broker: String,
    pub(crate) version: String,
    pub(crate) seed: u64,
    pub(crate) command: String,
    /// Seconds since the epoch.
    pub(crate) at: u64,
    pub(crate) commit: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) confirmed: usize,
    /// Publishes without an answer, or whose publisher was killed.
    pub(crate) unknown: usize,
    pub(crate) refused: usize,
    pub(crate) done: usize,
    pub(crate) recovered: usize,
    pub(crate) lost: usize,
    pub(crate) runs: usize,
    /// Runs beyond the first of a call, by why.
    pub(crate) extra: BTreeMap<String, usize>,
    /// By kind.
    pub(crate) faults: BTreeMap<String, usize>,
    /// Faults of processes that cut a run.
    pub(crate) cutting: usize,
    pub(crate) confirm_stall_ms: u64,
    pub(crate) run_stall_ms: u64,
    #[serde(default)]
    pub(crate) slowest_publish_ms: u64,
    pub(crate) resumed_median_ms: Option<u64>,
    pub(crate) resumed_p99_ms: Option<u64>,
    pub(crate) resumed_max_ms: Option<u64>,
    pub(crate) violations: usize,
    /// What the scenario shows beside.
    pub(crate) rows: Vec<(String, String)>,
}

impl Outcome {
    pub(crate) fn of(
        scenario: &Scenario,
        book: &Book,
        verdict: &Verdict,
        rows: Vec<(String, String)>,
        version: String,
        command: String,
        took: Duration,
    ) -> Self {
        let mut faults: BTreeMap<String, usize> = BTreeMap::new();
        for fault in book.faults.values() {
            *faults.entry(fault.kind.clone()).or_default() += 1;
        }
        let word = |why| serde_json::to_value(why).ok().and_then(|word| word.as_str().map(str::to_owned));
        let extra = verdict.extra.iter().filter_map(|(why, count)| Some((word(why)?, *count))).collect();
        let times = &verdict.times;
        let resumed = |share| times.resumed_within(share).map(|micros| micros / 1_000);
        Self {
            scenario: scenario.name.to_owned(),
            broker: book.broker.clone(),
            version,
            seed: book.seed,
            command,
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            commit: commit(),
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            confirmed: verdict.confirmed,
            unknown: verdict.unknown + verdict.unanswered,
            refused: verdict.refused,
            done: verdict.done,
            recovered: verdict.recovered,
            lost: verdict.lost,
            runs: verdict.runs,
            extra,
            faults,
            cutting: times.cutting,
            confirm_stall_ms: times.confirm_stall / 1_000,
            run_stall_ms: times.run_stall / 1_000,
            slowest_publish_ms: times.slowest_publish / 1_000,
            resumed_median_ms: resumed(0.5),
            resumed_p99_ms: resumed(0.99),
            resumed_max_ms: resumed(1.0),
            violations: verdict.violations.len(),
            rows,
        }
    }

    fn extra_share(&self) -> f64 {
        self.extra.values().sum::<usize>() as f64 * 100.0 / self.runs.max(1) as f64
    }

    /// What a run prints.
    pub(crate) fn table(&self) -> String {
        let counts = |of: &BTreeMap<String, usize>| {
            let words: Vec<String> = of.iter().map(|(what, count)| format!("{count} {what}")).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        let seconds = |ms: u64| format!("{:.2} s", ms as f64 / 1_000.0);
        let mut rows = vec![
            ("seed", self.seed.to_string()),
            ("faults", format!("{}; {} cut runs", counts(&self.faults), self.cutting)),
            (
                "jobs confirmed",
                format!("{}; without an answer {}, refused {}", self.confirmed, self.unknown, self.refused),
            ),
            ("done", self.done.to_string()),
            ("failed and recovered", self.recovered.to_string()),
            ("lost", self.lost.to_string()),
            ("runs", self.runs.to_string()),
            ("of which extra", format!("{} ({:.2} %)", counts(&self.extra), self.extra_share())),
            ("longest without a confirm", seconds(self.confirm_stall_ms)),
            ("longest without a run", seconds(self.run_stall_ms)),
            ("slowest publish", seconds(self.slowest_publish_ms)),
        ];
        if let (Some(median), Some(p99), Some(max)) =
            (self.resumed_median_ms, self.resumed_p99_ms, self.resumed_max_ms)
        {
            rows.push((
                "from a kill to the next run",
                format!("median {median} ms, 99 % {p99} ms, max {max} ms"),
            ));
        }
        let more = self.rows.iter().map(|(what, value)| (what.as_str(), value.clone()));
        rows.extend(more);
        rows.push(("violations", self.violations.to_string()));
        rows.push(("took", format!("{:.1} s", self.seconds)));
        let lines: Vec<String> = rows.iter().map(|(what, value)| format!("  {what:<28} {value}")).collect();
        lines.join("\n")
    }
}

/// The commit of the working directory, with a mark if something was changed.
fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=7"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// Appends a run's line.
pub(crate) fn append(path: &Path, outcome: &Outcome) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.with_context(|| format!("opening {}", path.display()))?;
    let line = serde_json::to_string(outcome)? + "\n";
    file.write_all(line.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// `ponos-chaos report`.
pub(crate) fn write(results: &Path, to: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(results).with_context(|| format!("reading {}", results.display()))?;
    let runs = text.lines().map(serde_json::from_str).collect::<Result<Vec<Outcome>, _>>();
    let document = document(&runs.with_context(|| format!("reading {}", results.display()))?);
    if to == Path::new("-") {
        output::line(&document);
        return Ok(());
    }
    std::fs::write(to, document).with_context(|| format!("writing {}", to.display()))
}

/// The newest run of each scenario on each broker, in the order of the scenarios.
fn newest(runs: &[Outcome]) -> Vec<(&'static Scenario, &Outcome)> {
    let mut newest: BTreeMap<(usize, &str), &Outcome> = BTreeMap::new();
    for run in runs {
        let Some(place) = ALL.iter().position(|scenario| scenario.name == run.scenario) else { continue };
        let kept = newest.entry((place, &run.broker)).or_insert(run);
        if run.at >= kept.at {
            *kept = run;
        }
    }
    newest.into_iter().map(|((place, _), run)| (ALL[place], run)).collect()
}

const HEAD: &str = "\
# Reliability

Publishers, workers and an append-only ledger run as processes of their own; faults come from outside; a checker computes
from the ledger alone whether every confirmed job came to its end. This file is written by `ponos-chaos report` from
`docs/reliability/runs.jsonl`: the newest run of each scenario on each broker.

```sh
cargo run --release -p ponos-chaos -- list
cargo run --release -p ponos-chaos -- run r1 --broker sqlite --seed 7 --minutes 5
cargo run --release -p ponos-chaos -- report
```

The seed decides on the kinds of jobs, on victims, and on the pauses between faults. It does not replay how the processes
of a run are timed against each other: that is the machine's.

`lost` counts confirmed jobs that did not come to their end. `run again` counts runs beyond the first of a call, each of which
must have a fault that explains it; without one it is a violation.
";

/// The document, from the newest run of each scenario on each broker.
fn document(runs: &[Outcome]) -> String {
    let newest = newest(runs);
    let mut text = String::from(HEAD);
    text +=
        "\n| scenario | broker | jobs | faults | lost | run again | longest stall | violations | seed |\n";
    text += "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    for (_, run) in &newest {
        text += &format!(
            "| {} | {} | {} | {} | **{}** | {} ({:.2} %) | {:.1} s | {} | {} |\n",
            run.scenario.to_uppercase(),
            run.version,
            run.confirmed,
            run.faults.values().sum::<usize>(),
            run.lost,
            run.extra.values().sum::<usize>(),
            run.extra_share(),
            run.confirm_stall_ms.max(run.run_stall_ms) as f64 / 1_000.0,
            run.violations,
            run.seed,
        );
    }
    text += "\nWhat the invariants are:\n\n";
    for (name, what) in crate::check::INVARIANTS {
        text += &format!("* **{name}** {what}.\n");
    }
    for scenario in ALL {
        text += &format!(
            "\n## {}: {}\n\n{}\n\nPassed: {}\n",
            scenario.name.to_uppercase(),
            scenario.title,
            scenario.what,
            scenario.passes
        );
        let of_it: Vec<_> = newest.iter().filter(|(of, _)| of.name == scenario.name).collect();
        if of_it.is_empty() {
            text += "\nNot run yet in its full form.\n";
        }
        for (_, run) in of_it {
            let commit = run.commit.as_deref().map_or(String::new(), |commit| format!(", commit {commit}"));
            text += &format!(
                "\n`ponos-chaos {}`: {}{commit}\n\n```text\n{}\n```\n",
                run.command,
                run.version,
                run.table()
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(at: u64, scenario: &str, confirmed: usize) -> Outcome {
        let text = format!(
            r#"{{"scenario":"{scenario}","broker":"sqlite","version":"sqlite","seed":7,"command":"run {scenario}",
            "at":{at},"commit":null,"seconds":1.0,"confirmed":{confirmed},"unknown":0,"refused":0,"done":{confirmed},
            "recovered":0,"lost":0,"runs":{confirmed},"extra":{{"cut":1}},"faults":{{"kill":2}},"cutting":1,
            "confirm_stall_ms":10,"run_stall_ms":20,"resumed_median_ms":1,"resumed_p99_ms":2,"resumed_max_ms":3,
            "violations":0,"rows":[["a row","its value"]]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_document_has_the_newest_run_of_each_and_says_what_is_missing() {
        let document = document(&[outcome(2, "r1", 222), outcome(1, "r1", 111), outcome(3, "gone", 333)]);
        assert!(
            document.contains("| R1 | sqlite | 222 | 2 | **0** | 1 (0.45 %) | 0.0 s | 0 | 7 |"),
            "{document}"
        );
        assert!(!document.contains("111") && !document.contains("333"));
        assert!(document.contains("a row") && document.contains("its value"));
        assert!(document.contains("Not run yet"), "of the others there is none");
    }
}
