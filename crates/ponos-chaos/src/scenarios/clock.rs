//! The wall clock of all processes jumps, an hour back and forth, while jobs wait for their retries.

use std::time::Duration;

use super::{FIGURES, Figures, Scenario};
use crate::check::Verdict;
use crate::faults::Shim;
use crate::ledger::{Book, Ending, Micros, Scope};
use crate::system::{BrokerKind, System};

/// By how much it jumps.
const HOUR: Duration = Duration::from_secs(3600);

/// How much later than asked for a retry may run: a busy machine is slow, and a clock that hides jobs hides them for an hour.
const LATE: Micros = 60_000_000;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "clock",
    title: "the wall clock jumps by an hour",
    what: "The wall clock of workers and publishers is set back by an hour, again and again, and now and then ahead, while jobs wait for their \
           retries and others are published; the monotonic clock goes on as it is, and the ledger is kept by it.",
    passes: "I1–I9, and nothing runs twice because of a clock. No retry is more than a minute late. None is early; on \
             SQLite only one that was waiting when the clock was set ahead may be, which is documented.",
    brokers: &[BrokerKind::Sqlite, BrokerKind::RabbitMq],
    long: Figures {
        jobs: 60_000,
        faults: 120,
        pace: 1_000,
        between: (Duration::from_millis(300), Duration::from_millis(1_500)),
        ..FIGURES
    },
    short: Figures {
        faults: 8,
        workers: 3,
        between: (Duration::from_millis(300), Duration::from_millis(900)),
        ..FIGURES
    },
    run: jump,
    judge,
};

fn jump(system: &mut System) -> anyhow::Result<()> {
    let dir = system.dir();
    let shim = Shim::build(&dir, &dir)?;
    system.worker.env = shim.env();
    system.start_load()?;
    let mut hours: i32 = 0;
    let mut jumps = 0;
    while system.must_go_on(jumps) {
        system.wait_between();
        // Mostly back: a jump ahead frees what a jump back has hidden by mistake, and must not hide that.
        let next = if system.chance.u8(..4) == 0 { hours + 1 } else { hours - 1 };
        let kind = if next > hours { "clock-ahead" } else { "clock-back" };
        // It touches no process in a way that would explain that something runs again.
        let fault = system.fault(kind, Scope::Process(0), format!("from {hours} h to {next} h"));
        let by = HOUR * next.unsigned_abs();
        if next < 0 { shim.clock_behind(by) } else { shim.clock_ahead(by) }?;
        system.over(fault);
        hours = next;
        jumps += 1;
    }
    Ok(())
}

/// When each retry was due and when it ran.
fn retries(book: &Book) -> impl Iterator<Item = (Micros, Micros, Micros)> {
    book.runs.iter().flat_map(|(call, runs)| {
        let again = crate::ledger::Call { attempt: call.attempt + 1, ..*call };
        let next = book.runs.get(&again).and_then(|runs| runs.iter().map(|run| run.started).min());
        runs.iter().filter_map(move |run| match (run.ended, next) {
            (Some((ended, Ending::Again(delay))), Some(next)) => Some((ended, ended + delay, next)),
            _ => None,
        })
    })
}

fn judge(book: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    let all: Vec<_> = retries(book).collect();
    let ahead: Vec<Micros> =
        book.faults.values().filter(|fault| fault.kind == "clock-ahead").map(|fault| fault.from).collect();
    let across =
        |&&(ended, _, next): &&(Micros, Micros, Micros)| ahead.iter().any(|at| (ended..=next).contains(at));
    let early = all.iter().filter(|(_, due, next)| next + 1_000 < *due).count();
    let latest = all.iter().map(|(_, due, next)| next.saturating_sub(*due)).max().unwrap_or(0);
    if latest > LATE {
        verdict.violations.push(format!("clock: a retry ran {} s after it was due", latest / 1_000_000));
    }
    if all.is_empty() {
        verdict.violations.push("clock: nothing was tried again".to_owned());
    }
    vec![
        (
            "retries".to_owned(),
            format!("{}, {} across a jump ahead", all.len(), all.iter().filter(across).count()),
        ),
        ("of them early".to_owned(), early.to_string()),
        ("the latest".to_owned(), format!("{} ms after it was due", latest / 1_000)),
    ]
}
