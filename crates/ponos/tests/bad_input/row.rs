//! A row of `docs/bad-input.md`, and a message of others that one is about.

use ponos::core::envelope::{GaveUpReason, Recovery};
use ponos::prelude::*;

use super::place::{Foreign, Place};
use super::support::{Counter, Unit, WorkCheck, WorkDo, WorkDone};

/// Where the input comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comes {
    Publishing,
    FromOthers,
    Definition,
    Start,
    Running,
}

impl Comes {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publishing => "publishing",
            Self::FromOthers => "message of others",
            Self::Definition => "definition",
            Self::Start => "start",
            Self::Running => "running",
        }
    }
}

/// A row of the document.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which of the 57 it is about.
    pub number: u8,
    pub input: String,
    pub comes: Comes,
    /// What happens.
    pub outcome: String,
    /// The exact text that somebody reads; empty where nobody is told.
    pub says: String,
    /// The file, from the workspace's root, and the test in it that shows it.
    pub shown_by: (&'static str, &'static str),
}

/// What becomes of a message of others.
#[derive(Debug, Clone)]
pub enum Then {
    /// It ran, as this attempt in the end.
    Ran(u32),
    /// It failed at once, because it cannot be read. `{type}` stands for the payload's type.
    Undecodable(&'static str),
    /// It failed for another reason.
    Failed(GaveUpReason, Recovery, &'static str),
    /// The broker itself refuses it, and says something with this in it.
    Refused(&'static str),
}

/// A message of others.
#[derive(Debug, Clone)]
pub struct Case {
    pub number: u8,
    pub input: &'static str,
    pub message: Foreign,
    pub then: Then,
    /// The transaction id with which it ran; `None` for a new one, or any.
    pub tid: Option<&'static str>,
    /// What is worth knowing about the outcome.
    pub note: &'static str,
    /// Whether only RabbitMQ can have it.
    pub rabbitmq: bool,
}

impl Case {
    pub fn row(&self, shown_by: (&'static str, &'static str)) -> Row {
        let (outcome, says) = match &self.then {
            Then::Ran(1) => ("runs".to_owned(), ""),
            Then::Ran(attempt) => (format!("runs, as attempt {attempt}"), ""),
            Then::Undecodable(says) => ("failed at once, bytes kept".to_owned(), *says),
            Then::Failed(_, _, says) => ("failed, bytes kept".to_owned(), *says),
            Then::Refused(says) => ("refused by RabbitMQ".to_owned(), *says),
        };
        let outcome = match self.tid {
            Some(tid) => format!("{outcome} under `{tid}`"),
            None => outcome,
        };
        Row {
            number: self.number,
            input: self.input.to_owned(),
            comes: Comes::FromOthers,
            outcome: if self.note.is_empty() { outcome } else { format!("{outcome}: {}", self.note) },
            says: says.replace("{type}", "WorkDo"),
            shown_by,
        }
    }

    /// The number in the body: from 1000 on the handler fails the first time.
    fn n(&self) -> Option<u64> {
        // Not as JSON: the parser's own limit of depth is ours, less a level.
        let text = std::str::from_utf8(&self.message.body).ok()?;
        let digits = text.split_once("\"n\":")?.1;
        digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

async fn tells(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
    let counter = cx.state();
    counter.add(&format!("{} as attempt {}", t.n, cx.attempt()));
    counter.add(&format!("{} under {}", t.n, cx.tid()));
    assert!(cx.tid().to_string().len() <= 128);
    counter.add(&format!("{} in all", t.n));
    if t.n >= 1000 && counter.get(&format!("{} in all", t.n)) == 1 {
        Err("the first time")?;
    }
    cx.emit(WorkDone { n: t.n })?;
    Ok(())
}

/// Serves the queue that nobody was meant to reach.
async fn checks(_: WorkCheck, cx: TaskCx<WorkCheck>) -> Outcome {
    cx.state().add("checked");
    Ok(())
}

/// The numbers of the good jobs, which no bad one has.
const GOOD: u64 = 500_000;

/// Puts each message into the place, each with a good job behind it, lets a worker at them, and looks what became of each.
pub async fn work(place: &Place, cases: &[Case]) {
    let cases: Vec<_> = cases.iter().filter(|case| !case.rabbitmq || place.kind == "rabbitmq").collect();
    let counter = Counter::default();
    let service = Service::<Unit>::new()
        .task(tells, |p| p.concurrency(1).retry(Backoff::constant(millis(1))).max_retries(2).no_breaker())
        .task(checks, |p| p);
    let mut good = Vec::new();
    let publisher = Publisher::<Unit>::connect(std::sync::Arc::clone(&place.broker)).await.unwrap();
    for (number, case) in (GOOD..).zip(&cases) {
        let put = place.hand.put(&case.message).await;
        match (&case.then, put) {
            (Then::Refused(says), Err(said)) => assert!(said.contains(says), "{}: {said}", case.input),
            (Then::Refused(_), Ok(())) => panic!("{} was taken", case.input),
            (_, put) => put.unwrap_or_else(|said| panic!("{} through {}: {said}", case.input, place.kind)),
        }
        publisher.create(WorkDo { n: number }).await.unwrap();
        good.push(number);
    }
    let fails = |case: &&&Case| matches!(case.then, Then::Undecodable(_) | Then::Failed(..));
    let failing = cases.iter().filter(fails).count();
    let running = place.start(service, counter.clone()).await;
    let ran = |n: u64| counter.get(&format!("{n} as attempt 1")) > 0;
    place.eventually("the good ones ran", async || good.iter().all(|n| ran(*n))).await;
    for case in &cases {
        if let Then::Ran(attempt) = case.then {
            let as_attempt = format!("{} as attempt {attempt}", case.n().unwrap());
            place.eventually(case.input, async || counter.get(&as_attempt) > 0).await;
        }
    }
    place.eventually("the bad ones failed", async || place.failed().await.len() >= failing).await;
    let failed = place.failed().await;
    for case in &cases {
        let shown = format!("{}, through {}", case.input, place.kind);
        let kept = failed.iter().find(|job| job.body == case.message.body);
        let (reason, recovery, says) = match &case.then {
            Then::Ran(attempt) => {
                assert!(kept.is_none(), "{shown}: {:?}", kept.map(|job| &job.report));
                let n = case.n().unwrap();
                assert_eq!(counter.get(&format!("{n} as attempt {attempt}")), 1, "{shown}");
                if let Some(tid) = case.tid {
                    assert!(counter.get(&format!("{n} under {tid}")) > 0, "{shown}: not under {tid}");
                }
                continue;
            }
            Then::Refused(_) => continue,
            Then::Undecodable(says) => (GaveUpReason::Undecodable, Recovery::None, says),
            Then::Failed(reason, recovery, says) => (*reason, recovery.clone(), says),
        };
        let report = kept.unwrap_or_else(|| panic!("{shown}: it is lost")).report.as_ref().unwrap();
        let says = says.replace("{type}", std::any::type_name::<WorkDo>());
        assert_eq!((report.gave_up.error.as_str(), report.gave_up.reason), (&*says, reason), "{shown}");
        assert_eq!(report.recovery, recovery, "{shown}");
        assert_eq!(report.queue, *super::place::QUEUE, "{shown}: where a retry puts it back");
    }
    assert_eq!(failed.len(), failing, "through {}", place.kind);
    place.eventually("nothing is left", async || place.waiting().await == failing as u64).await;
    running.shutdown().await;
    // RabbitMQ follows these headers once, for their publisher; what we send on has none.
    let named = cases.iter().filter(|case| case.message.headers.iter().any(|(name, _)| name == "CC"));
    let taken =
        named.filter(|case| !matches!(case.then, Then::Refused(_)) && place.kind == "rabbitmq").count();
    assert_eq!(counter.get("checked") as usize, taken, "through {}", place.kind);
}

/// What failed for its size can be discarded, and comes back from there, and is not retried: it says why.
pub async fn put_away(place: &Place) {
    let failed = ponos::FailedJobs::new(std::sync::Arc::clone(&place.broker), super::place::app());
    for job in place.failed().await {
        let error = failed.retry(job.id).await.expect_err("no handler could read it");
        assert!(error.to_string().contains("the limit is 1048576"), "{error}");
    }
    // More than once where an acknowledgement was lost after the copy was there.
    let put_away = async || {
        for job in place.failed().await {
            failed.discard(job.id).await.unwrap();
        }
        place.failed().await.is_empty()
    };
    place.eventually("all are put away", put_away).await;
}
