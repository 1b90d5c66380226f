//! The checker: from the ledger and from what the broker holds at the end, and from nothing else.

#![allow(unreachable_pub, reason = "a module of a test binary")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ledger::{Call, Micros, Run};

/// A process that was killed.
#[derive(Debug, Clone, Copy)]
pub struct Kill {
    pub worker: u32,
    /// When the signal was sent.
    pub sent: Micros,
    /// When the kernel had taken the process away.
    pub over: Micros,
}

/// What the broker holds at the end.
#[derive(Debug, Default)]
pub struct Found {
    /// The events of jobs that are done: job and the process whose run was settled.
    pub done: Vec<(u32, u32)>,
    /// The events of recovery functions: the same.
    pub given_up: Vec<(u32, u32)>,
    /// The queue of failed jobs, with whether each was recovered.
    pub failed: Vec<(u32, bool)>,
}

/// What one kill did.
#[derive(Debug, Default)]
pub struct Harm {
    /// Runs that it cut in the middle.
    pub cut: usize,
    /// Runs that had finished and were not settled any more.
    pub unsettled: usize,
    /// From the signal to the first and to the last start of what it cut, elsewhere.
    pub resumed: Option<(Micros, Micros)>,
}

/// What the checker counted.
#[derive(Debug)]
pub struct Verdict {
    pub accepted: usize,
    pub done: usize,
    pub recovered: usize,
    /// Events of both kinds that went out.
    pub events: usize,
    pub runs: usize,
    pub extra: usize,
    /// One for each kill, in their order.
    pub harm: Vec<Harm>,
    /// What must not be, in words.
    pub faults: Vec<String>,
}

pub fn check(
    accepted: &[u32],
    doomed: impl Fn(u32) -> bool,
    runs: &[Run],
    kills: &[Kill],
    found: &Found,
) -> Verdict {
    let mut faults = Vec::new();
    let settled_by = ends(accepted, doomed, found, &mut faults);

    let kill_of: HashMap<u32, usize> = kills.iter().enumerate().map(|(n, kill)| (kill.worker, n)).collect();
    let mut harm: Vec<Harm> = kills.iter().map(|_| Harm::default()).collect();
    let mut calls: BTreeMap<Call, Vec<Run>> = BTreeMap::new();
    for run in runs {
        calls.entry(run.call).or_default().push(*run);
    }
    let mut extra = 0;
    for (call, runs) in &calls {
        let mut killers = BTreeSet::new();
        for pair in runs.windows(2) {
            let (run, next) = (pair[0], pair[1]);
            extra += 1;
            let Some(&number) = kill_of.get(&run.worker) else {
                faults.push(format!("{call:?} ran again although process {} was not killed", run.worker));
                continue;
            };
            if !killers.insert(number) {
                faults.push(format!("{call:?} ran again twice for one kill"));
            }
            let kill = kills[number];
            if run.started > kill.over || next.started < kill.sent {
                faults.push(format!("{call:?} ran in two processes at once: {run:?}, {next:?}, {kill:?}"));
            }
            let harm = &mut harm[number];
            match run.finished {
                Some(_) => harm.unsettled += 1,
                None => {
                    harm.cut += 1;
                    let after = next.started.saturating_sub(kill.sent);
                    let (first, last) = harm.resumed.unwrap_or((after, after));
                    harm.resumed = Some((first.min(after), last.max(after)));
                }
            }
        }
        let last = runs.last().expect("a call is in the map because it ran");
        if last.finished.is_none() {
            faults.push(format!("{call:?} started in process {} and never finished", last.worker));
        }
    }
    let recovered = settled_by.iter().filter(|(call, _)| call.recovery).count();
    let done = settled_by.len() - recovered;
    for (call, worker) in settled_by {
        match calls.get(&call).and_then(|runs| runs.last()) {
            Some(run) if run.worker == worker => {}
            other => faults.push(format!("{call:?} was settled by process {worker}, but {other:?} ran last")),
        }
    }
    let events = found.done.len() + found.given_up.len();
    Verdict { accepted: accepted.len(), done, recovered, events, runs: runs.len(), extra, harm, faults }
}

/// How every accepted job ended, and which process settled the last call of it.
fn ends(
    accepted: &[u32],
    doomed: impl Fn(u32) -> bool,
    found: &Found,
    faults: &mut Vec<String>,
) -> Vec<(Call, u32)> {
    let mut done: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut given_up: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut failed: HashMap<u32, Vec<bool>> = HashMap::new();
    found.done.iter().for_each(|&(job, worker)| done.entry(job).or_default().push(worker));
    found.given_up.iter().for_each(|&(job, worker)| given_up.entry(job).or_default().push(worker));
    found.failed.iter().for_each(|&(job, recovered)| failed.entry(job).or_default().push(recovered));
    let mut settled_by = Vec::new();
    for &job in accepted {
        let ends = (done.remove(&job), given_up.remove(&job), failed.remove(&job));
        match (doomed(job), &ends) {
            (false, (Some(by), None, None)) if by.len() == 1 => {
                settled_by.push((Call { job, recovery: false, attempt: super::attempts(job) }, by[0]));
            }
            (true, (None, Some(by), Some(recovered))) if by.len() == 1 && recovered[..] == [true] => {
                settled_by.push((Call { job, recovery: true, attempt: 1 }, by[0]));
            }
            (doomed, ends) => faults
                .push(format!("job {job} (doomed: {doomed}) ended as (done, given up, failed) = {ends:?}")),
        }
    }
    for job in done.keys().chain(given_up.keys()).chain(failed.keys()) {
        faults.push(format!("job {job} has ended and was never accepted"));
    }
    settled_by
}

#[test]
fn the_checker_finds_what_must_not_be() {
    let call = |job, attempt| Call { job, recovery: false, attempt };
    let run = |job, worker, started, finished| Run { call: call(job, 1), worker, started, finished };
    let kill = Kill { worker: 1, sent: 20, over: 22 };
    let faults = |accepted: &[u32], runs: &[Run], done: &[(u32, u32)]| {
        let found = Found { done: done.to_vec(), ..Found::default() };
        check(accepted, |_| false, runs, &[kill], &found).faults
    };
    let cut = run(0, 1, 10, None);
    assert_eq!(faults(&[0], &[cut, run(0, 2, 30, Some(40))], &[(0, 2)]), [""; 0]);
    for (what, accepted, runs, done) in [
        ("ended as", vec![0, 1], vec![run(0, 2, 30, Some(40))], vec![(0, 2)]),
        ("ended as", vec![0], vec![cut, run(0, 2, 30, Some(40))], vec![(0, 1), (0, 2)]),
        ("never accepted", vec![], vec![run(0, 2, 30, Some(40))], vec![(0, 2)]),
        ("was not killed", vec![0], vec![run(0, 3, 10, Some(11)), run(0, 2, 30, Some(40))], vec![(0, 2)]),
        ("two processes at once", vec![0], vec![cut, run(0, 2, 15, Some(40))], vec![(0, 2)]),
        (
            "twice for one kill",
            vec![0],
            vec![cut, run(0, 1, 21, None), run(0, 2, 30, Some(40))],
            vec![(0, 2)],
        ),
        ("never finished", vec![0], vec![cut], vec![(0, 1)]),
        ("was settled by", vec![0], vec![cut, run(0, 2, 30, Some(40))], vec![(0, 1)]),
    ] {
        let faults = faults(&accepted, &runs, &done);
        assert!(faults.iter().any(|fault| fault.contains(what)), "{what}: {faults:?}");
    }
}
