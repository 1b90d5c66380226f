//! How long things took: stalls, and from a fault to the next run of what it cut.

use crate::ledger::{Book, Fault, Micros, Run, Scope};

/// What the ledger says of time.
#[derive(Debug, Default, Clone)]
pub(crate) struct Times {
    /// The longest time without a confirm, while publishes were open.
    pub(crate) confirm_stall: Micros,
    /// The longest time without the beginning of a run, while jobs were unfinished.
    pub(crate) run_stall: Micros,
    pub(crate) slowest_publish: Micros,
    /// From each fault of a process that cut runs to the first of them that began again, sorted.
    pub(crate) resumed: Vec<Micros>,
    /// Faults that cut at least one run.
    pub(crate) cutting: usize,
}

impl Times {
    pub(crate) fn of(book: &Book) -> Self {
        let starts = sorted(book.runs.values().flatten().map(|run| run.started));
        let confirmed = || book.jobs.values().filter(|job| job.is_confirmed());
        let confirms = sorted(confirmed().filter_map(|job| job.answered).map(|(at, _)| at));
        let waits = confirmed().filter_map(|job| Some((job.asked, job.answered?.0)));
        let (resumed, cutting) = resumed(book);
        Self {
            confirm_stall: longest(&confirms, &sorted_waits(waits.clone())),
            run_stall: longest(&starts, &sorted_waits(pending(book))),
            slowest_publish: waits.map(|(asked, at)| at - asked).max().unwrap_or_default(),
            resumed,
            cutting,
        }
    }

    /// The time within which this share of the faults' jobs were back.
    pub(crate) fn resumed_within(&self, share: f64) -> Option<Micros> {
        let place = (self.resumed.len() as f64 * share).ceil() as usize;
        self.resumed.get(place.saturating_sub(1)).copied()
    }
}

fn sorted(times: impl Iterator<Item = Micros>) -> Vec<Micros> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

fn sorted_waits(times: impl Iterator<Item = (Micros, Micros)>) -> Vec<(Micros, Micros)> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

/// From the confirm of each job to its first run: then something was there to be begun.
fn pending(book: &Book) -> impl Iterator<Item = (Micros, Micros)> {
    use crate::ledger::{Call, Step};
    book.jobs.iter().filter_map(|(number, job)| {
        let call = Call { job: *number, step: Step::Make, attempt: 1 };
        let begun = book.runs.get(&call)?.first()?.started;
        let confirmed = job.answered?.0;
        (confirmed < begun).then_some((confirmed, begun))
    })
}

/// The longest time between two marks in which something was waited for.
fn longest(marks: &[Micros], waits: &[(Micros, Micros)]) -> Micros {
    let mut longest = 0;
    let mut mark = 0;
    let (mut from, mut to) = match waits.first() {
        Some(first) => *first,
        None => return 0,
    };
    let mut stretch = |from: Micros, to: Micros| {
        let mut last = from;
        while mark < marks.len() && marks[mark] <= to {
            if marks[mark] > from {
                longest = longest.max(marks[mark] - last);
                last = marks[mark];
            }
            mark += 1;
        }
        longest = longest.max(to - last);
    };
    for (begun, ended) in &waits[1..] {
        if *begun > to {
            stretch(from, to);
            (from, to) = (*begun, *ended);
        } else {
            to = to.max(*ended);
        }
    }
    stretch(from, to);
    longest
}

/// From each fault of a process to the first run of what it had cut, and how many cut something.
fn resumed(book: &Book) -> (Vec<Micros>, usize) {
    let mut first: std::collections::HashMap<u32, Option<Micros>> = std::collections::HashMap::new();
    let kills = |process: u32| {
        let of_process = move |fault: &Fault| matches!(fault.scope, Scope::Process(hit) if hit == process);
        book.faults.iter().filter(move |(_, fault)| of_process(fault) && fault.is_death())
    };
    for runs in book.runs.values() {
        for (n, run) in runs.iter().enumerate() {
            let is_cut = |fault: &Fault, run: &Run| {
                run.ended.is_none() && run.started <= fault.to.unwrap_or(Micros::MAX)
            };
            for (number, fault) in kills(run.by).filter(|(_, fault)| is_cut(fault, run)) {
                let after = runs.get(n + 1).map(|again| again.started.saturating_sub(fault.from));
                let entry = first.entry(*number).or_default();
                *entry = match (*entry, after) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
        }
    }
    let cutting = first.len();
    (sorted(first.into_values().flatten()), cutting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_a_time_without_a_mark_in_which_something_was_waited_for() {
        assert_eq!(longest(&[], &[]), 0);
        assert_eq!(longest(&[10, 20, 90], &[(5, 20), (80, 90)]), 10, "nobody waited from 20 to 80");
        assert_eq!(longest(&[10, 20, 90], &[(5, 90)]), 70);
        assert_eq!(longest(&[10, 20], &[(5, 30), (15, 60)]), 40, "to the end of the wait");
    }
}
