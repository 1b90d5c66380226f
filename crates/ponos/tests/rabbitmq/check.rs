//! The checker: from the ledger and the times of the faults, and from nothing else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::load::{Answer, Book, Call, Piece, Run, Step, begins_as_event, emits, fails_once, is_doomed};

/// A node that was killed.
#[derive(Debug, Clone)]
pub struct Outage {
    pub what: String,
    /// When the signal was sent.
    pub sent: Instant,
    /// When it answered again, and was a member of every queue.
    pub back: Instant,
    /// What was in flight at the time.
    pub open: usize,
    pub running: u32,
    pub waiting: i64,
}

impl Outage {
    /// What the ledger says of this moment.
    pub fn now(what: impl Into<String>, book: &Book) -> Self {
        let sent = Instant::now();
        let open = book.pieces.iter().rev().take(10_000).filter(|piece| piece.answered.is_none()).count();
        Self { what: what.into(), sent, back: sent, open, running: book.running, waiting: book.waiting }
    }
}

/// Why something ran twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The connection was lost in the middle of the run.
    Cut,
    /// The run had ended, and the connection was lost before its settlement was over.
    NotSettled,
    /// The connection was lost before the publish was confirmed, so that it was sent again; both arrived.
    SentTwice,
    /// What sent it ran twice itself.
    Follows,
}

/// What the checker counted.
#[derive(Debug, Default)]
pub struct Verdict {
    pub confirmed: usize,
    pub unknown: usize,
    pub unknown_and_done: usize,
    pub refused: usize,
    pub done: usize,
    pub recovered: usize,
    pub shelved: usize,
    pub lost: usize,
    pub runs: usize,
    pub extra: BTreeMap<Why, usize>,
    /// For each outage: the longest time without a confirm, and without the start of a run, from its beginning to the
    /// beginning of the next one.
    pub stalls: Vec<(Duration, Duration)>,
    /// The longest that one publish waited for its answer.
    pub slowest_publish: Duration,
    pub faults: Vec<String>,
}

pub fn check(book: &Book, outages: &[Outage]) -> Verdict {
    let mut verdict = Verdict { runs: book.runs.values().map(Vec::len).sum(), ..Verdict::default() };
    for (job, piece) in (0..).zip(&book.pieces) {
        check_piece(job, piece, book, outages, &mut verdict);
    }
    for (call, runs) in &book.runs {
        let most = if fails_once(call.job) && call.step == Step::Make { 2 } else { 1 };
        if call.attempt > most {
            verdict.faults.push(format!("{call:?}: an attempt was spent that the handler did not ask for"));
        }
        for pair in runs.windows(2) {
            match why(*call, pair[0], pair[1], book, outages) {
                Some(why) => *verdict.extra.entry(why).or_default() += 1,
                None => verdict.faults.push(format!("{call:?} ran again without a reason: {pair:?}")),
            }
        }
    }
    verdict.stalls = stalls(book, outages);
    verdict
}

fn check_piece(job: u32, piece: &Piece, book: &Book, outages: &[Outage], verdict: &mut Verdict) {
    let Some((at, answer)) = piece.answered else {
        verdict.faults.push(format!("the publish of job {job} was never answered"));
        return;
    };
    verdict.slowest_publish = verdict.slowest_publish.max(at - piece.asked);
    verdict.done += usize::from(piece.over && !is_doomed(job));
    verdict.recovered += usize::from(piece.over && is_doomed(job));
    verdict.shelved += usize::from(piece.shelved);
    let ran = (1..=2).any(|attempt| book.runs.contains_key(&Call { job, step: Step::Make, attempt }));
    match answer {
        Answer::Confirmed => {
            verdict.confirmed += 1;
            if !piece.is_complete(job) {
                verdict.lost += 1;
                let since = |at: Instant| {
                    let kill = outages.iter().rev().find(|outage| outage.sent <= at)?;
                    Some(at - kill.sent)
                };
                verdict.faults.push(format!(
                    "job {job} is lost: asked for {:?} after a kill, confirmed {:?} after one; it ran: {ran}",
                    since(piece.asked),
                    since(at)
                ));
            }
        }
        Answer::Unknown => {
            verdict.unknown += 1;
            verdict.unknown_and_done += usize::from(piece.over);
        }
        Answer::Refused => {
            verdict.refused += 1;
            if ran {
                verdict.faults.push(format!("job {job} ran, although its publish was refused"));
            }
        }
    }
    if piece.shelved && !emits(job) {
        verdict.faults.push(format!("job {job} emitted nothing, and it arrived"));
    }
}

/// Whether an outage and a time have a moment in common.
fn disturbed(outages: &[Outage], from: Instant, to: Instant) -> bool {
    outages.iter().any(|outage| outage.sent <= to && outage.back >= from)
}

/// What explains that `again` followed on `run`.
fn why(call: Call, run: Run, again: Run, book: &Book, outages: &[Outage]) -> Option<Why> {
    if outages.iter().any(|outage| outage.sent <= again.started && outage.back >= run.started) {
        let cut = outages
            .iter()
            .any(|outage| run.started <= outage.sent && run.ended.is_none_or(|end| end >= outage.sent));
        return Some(if cut { Why::Cut } else { Why::NotSettled });
    }
    let first_of = |call: Call| book.runs.get(&call).and_then(|runs| runs.first()).map(|run| run.started);
    let begun = first_of(call)?;
    let of_outside = call.step == Step::Make && call.attempt == 1;
    if of_outside {
        // Sent by the publisher, or by the reaction that the publisher's event went to.
        let piece = &book.pieces[call.job as usize];
        let sent = if begins_as_event(call.job) { begun } else { piece.answered?.0 };
        return disturbed(outages, piece.asked, sent).then_some(Why::SentTwice);
    }
    let before: Vec<&Vec<Run>> = (1..=2)
        .map(|attempt| Call { job: call.job, step: Step::Make, attempt })
        .filter(|other| *other != call)
        .filter_map(|other| book.runs.get(&other))
        .collect();
    if before.iter().any(|runs| runs.len() > 1) {
        return Some(Why::Follows);
    }
    let sender = before.iter().filter_map(|runs| runs.last()?.ended).filter(|end| *end <= begun).max()?;
    disturbed(outages, sender, begun).then_some(Why::SentTwice)
}

fn stalls(book: &Book, outages: &[Outage]) -> Vec<(Duration, Duration)> {
    let confirms = book.pieces.iter().filter(|piece| piece.is_confirmed()).filter_map(|piece| piece.answered);
    let mut confirms: Vec<Instant> = confirms.map(|(at, _)| at).collect();
    let mut starts: Vec<Instant> = book.runs.values().flatten().map(|run| run.started).collect();
    confirms.sort_unstable();
    starts.sort_unstable();
    let ends = outages.iter().skip(1).map(|next| next.sent).map(Some).chain([None]);
    let longest = |times: &[Instant], from: Instant, to: Option<Instant>| {
        let first = times.partition_point(|at| *at < from).saturating_sub(1);
        let last = to.map_or(times.len(), |to| times.partition_point(|at| *at < to));
        times[first.min(last)..last].windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    };
    let of = |(outage, end): (&Outage, Option<Instant>)| {
        (longest(&confirms, outage.sent, end), longest(&starts, outage.sent, end))
    };
    outages.iter().zip(ends).map(of).collect()
}

impl Verdict {
    pub fn print(&self, book: &Book, outages: &[Outage]) {
        eprintln!(
            "   no  killed     open publishes  running  in the ladder   down for  no confirm for  no run for"
        );
        for (n, (outage, (confirm, run))) in outages.iter().zip(&self.stalls).enumerate() {
            eprintln!(
                "{:>5}  {:<8}  {:>15}  {:>7}  {:>13}  {:>7.1} s  {:>12.1} s  {:>8.1} s",
                n + 1,
                outage.what,
                outage.open,
                outage.running,
                outage.waiting,
                (outage.back - outage.sent).as_secs_f64(),
                confirm.as_secs_f64(),
                run.as_secs_f64(),
            );
        }
        eprintln!(
            "publishes {}: confirmed {}, without an answer {} (of which done {}), refused {}; the slowest took {:.1} s",
            book.pieces.len(),
            self.confirmed,
            self.unknown,
            self.unknown_and_done,
            self.refused,
            self.slowest_publish.as_secs_f64(),
        );
        for (problem, count) in &book.problems {
            eprintln!("  {count} times: {problem}");
        }
        eprintln!(
            "jobs done {}, failed and recovered {}, lost {}; events at the second service {}",
            self.done, self.recovered, self.lost, self.shelved,
        );
        let extra: usize = self.extra.values().sum();
        eprintln!(
            "runs {}, of which extra {extra} ({:.2} %): {:?}",
            self.runs,
            extra as f64 * 100.0 / self.runs as f64,
            self.extra,
        );
    }
}

#[test]
fn the_checker_finds_what_must_not_be() {
    let begin = Instant::now();
    let at = |ms: u64| begin + Duration::from_millis(ms);
    let outage = Outage { sent: at(100), back: at(200), ..Outage::now("it", &Book::default()) };
    let run = |started, ended| Run { started: at(started), ended: Some(at(ended)) };
    let call = |job, attempt| Call { job, step: Step::Make, attempt };
    let piece = |answer, over| Piece { asked: at(0), answered: Some((at(5), answer)), over, shelved: false };
    let faults = |answer, over, runs: Vec<(Call, Vec<Run>)>| {
        let pieces = vec![piece(answer, over)];
        let book = Book { pieces, runs: runs.into_iter().collect(), ..Book::default() };
        check(&book, std::slice::from_ref(&outage)).faults
    };
    let once = || vec![(call(0, 1), vec![run(10, 20)])];
    assert_eq!(faults(Answer::Confirmed, true, once()), [""; 0]);
    assert_eq!(faults(Answer::Unknown, false, vec![]), [""; 0]);
    let cut = vec![(call(0, 1), vec![run(90, 110), run(210, 220)])];
    assert_eq!(faults(Answer::Confirmed, true, cut), [""; 0]);
    for (what, answer, over, runs) in [
        ("is lost", Answer::Confirmed, false, once()),
        ("was refused", Answer::Refused, true, once()),
        ("without a reason", Answer::Confirmed, true, vec![(call(0, 1), vec![run(10, 20), run(30, 40)])]),
        ("an attempt was spent", Answer::Confirmed, true, vec![(call(0, 2), vec![run(10, 20)])]),
    ] {
        let faults = faults(answer, over, runs);
        assert!(faults.iter().any(|fault| fault.contains(what)), "{what}: {faults:?}");
    }
}
