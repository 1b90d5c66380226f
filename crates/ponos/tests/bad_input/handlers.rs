//! Handlers that panic, and handlers that go on after their time.

use std::sync::Arc;

use ponos::core::envelope::{Envelope, GaveUpReason, Recovery};
use ponos::prelude::*;
use tokio::sync::Notify;

use super::place::places;
use super::row::{Comes, Row};
use super::support::*;

const HERE: &str = "crates/ponos/tests/bad_input/handlers.rs";

/// How each number fails, and how the error that is kept begins; `None` for what is done or recovered later.
const PANICS: [(u64, &str, Option<&str>); 6] = [
    (1, "a handler panics with a text the first time", None),
    (2, "a handler panics each time, and its recovery too", None),
    (3, "a handler panics with what is no text", Some("panicked: without a message")),
    (4, "a handler panics before it awaits anything", Some("panicked: at once")),
    (5, "a handler's panic says control characters and 20,000 letters", Some("panicked: \\u{1b}[2Jxxxx")),
    (6, "a handler panics after it has emitted", Some("panicked: number 6")),
];

fn panics(t: &WorkDo, counter: &Counter) {
    match t.n {
        1 if counter.get("1") > 1 => {}
        3 => std::panic::panic_any(7_u8),
        4 => panic!("at once"),
        5 => panic!("\u{1b}[2J{}", "x".repeat(20_000)),
        n if n < 100 => panic!("number {n}"),
        _ => {}
    }
}

fn number(job: &Envelope) -> u64 {
    serde_json::from_slice::<serde_json::Value>(&job.body).unwrap()["n"].as_u64().unwrap()
}

/// Runs the panics and answers the errors that are kept, by number.
async fn kept(place: &super::place::Place) -> Vec<(u64, String, Recovery)> {
    async fn handles(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add(&t.n.to_string());
        cx.emit(WorkDone { n: t.n })?;
        panics(&t, cx.state());
        cx.state().note(t.n);
        Ok(())
    }
    async fn recovers(t: WorkDo, cx: TaskCx<WorkDo>, why: GaveUp) -> Outcome {
        cx.state().add(&format!("recovery of {}", t.n));
        assert_eq!(why.reason, GaveUpReason::Exhausted);
        assert_ne!(t.n, 2, "nor this");
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(handles, |p| {
        p.concurrency(2).retry(Backoff::none()).max_retries(1).no_breaker().recover(recovers)
    });
    let running = place.start(service, counter.clone()).await;
    for (n, ..) in PANICS {
        running.publisher().create(WorkDo { n }).await.unwrap();
        running.publisher().create(WorkDo { n: 100 + n }).await.unwrap();
    }
    let done = [1, 101, 102, 103, 104, 105, 106];
    place.eventually("the good ones and the first are done", async || counter.noted() == done).await;
    place.eventually("the recovery of 2 began", async || counter.get("recovery of 2") > 0).await;
    // Recovery's own retries are not this test's: number 2 is still at them, or has ended.
    let failed = async || {
        let mut failed = place.failed().await;
        failed.retain(|job| number(job) != 2);
        failed
    };
    place.eventually("the others failed", async || failed().await.len() >= PANICS.len() - 2).await;
    let kept = failed()
        .await
        .into_iter()
        .map(|job| {
            let n = number(&job);
            let report = job.report.unwrap();
            assert_eq!((report.gave_up.reason, report.gave_up.attempts), (GaveUpReason::Exhausted, 2), "{n}");
            (n, report.gave_up.error, report.recovery)
        })
        .collect();
    assert_eq!(counter.get("2"), 2, "the handler does not run again while its recovery does");
    running.shutdown().await;
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_a_failed_attempt_and_harms_no_neighbour() {
    for place in places().await {
        let kept = kept(&place).await;
        for (n, input, says) in PANICS {
            let found = kept.iter().find(|(other, ..)| *other == n);
            let Some(says) = says else {
                assert!(found.is_none(), "{input} through {}", place.kind);
                continue;
            };
            let (_, error, recovery) = found.unwrap_or_else(|| panic!("{input}: it is lost"));
            assert!(error.starts_with(says), "{input}: {error}");
            assert!(error.len() < 10_000 && !error.contains('\u{1b}'), "{input}: {} bytes", error.len());
            assert_eq!(*recovery, Recovery::Done, "{input}");
        }
    }
}

const TOO_LATE: &str = "published after the handler had returned, by work that it left behind: the message is dropped; \
    await that work in the handler";

#[tokio::test]
async fn what_a_handler_does_after_its_time_changes_nothing() {
    /// Its own work goes on after its time is up, and emits then.
    async fn leaves_work(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        if t.n != 49 {
            cx.state().note(t.n);
            return Ok(());
        }
        let attempt = cx.attempt();
        let go = Arc::new(Notify::new());
        let late = tokio::spawn({
            let (cx, go) = (cx.clone(), Arc::clone(&go));
            async move {
                go.notified().await;
                cx.emit(WorkDone { n: 49 }).unwrap();
                cx.state().add("late");
            }
        });
        if attempt == 1 {
            /// Lets the work go on as soon as this future is dropped, which is when its time is up.
            struct Then(Arc<Notify>);
            impl Drop for Then {
                fn drop(&mut self) {
                    self.0.notify_one();
                }
            }
            let _then = Then(go);
            std::future::pending::<()>().await;
        }
        late.abort();
        cx.state().note(t.n);
        Ok(())
    }
    fn hears(_: WorkDone) -> OtherNote {
        OtherNote { text: "heard".into() }
    }
    async fn notes(_: OtherNote, cx: TaskCx<OtherNote>) -> Outcome {
        cx.state().add("heard");
        Ok(())
    }
    for place in places().await {
        let counter = Counter::default();
        let listener =
            place.start(Service::<Other>::new().on(hears).task(notes, |p| p), counter.clone()).await;
        let service = Service::<Unit>::new().task(leaves_work, |p| {
            p.timeout(millis(50)).retry(Backoff::none()).max_retries(1).concurrency(1)
        });
        let running = place.start(service, counter.clone()).await;
        running.publisher().create(WorkDo { n: 49 }).await.unwrap();
        running.publisher().create(WorkDo { n: 50 }).await.unwrap();
        place.eventually("both are done", async || counter.noted() == [49, 50]).await;
        place.eventually("the work that was left behind goes on", async || counter.get("late") == 1).await;
        place.eventually("nothing waits", async || place.waiting().await == 0).await;
        running.shutdown().await;
        listener.shutdown().await;
        assert_eq!(
            counter.get("heard"),
            0,
            "what is emitted too late is not published, through {}",
            place.kind
        );
    }
}

pub fn rows() -> Vec<Row> {
    let row = |number, input: &str, outcome: &str, says: &str, test| Row {
        number,
        input: input.to_owned(),
        comes: Comes::Running,
        outcome: outcome.to_owned(),
        says: says.to_owned(),
        shown_by: (HERE, test),
    };
    let panic = "a_panic_is_a_failed_attempt_and_harms_no_neighbour";
    let mut rows: Vec<_> = PANICS
        .iter()
        .map(|(n, input, says)| match says {
            None if *n == 2 => row(48, input, "its recovery is tried again, the handler is not", "", panic),
            None => row(48, input, "a failed attempt: it runs again", "", panic),
            Some(says) => {
                row(48, input, "a failed attempt each time, then recovery", &format!("{says}…"), panic)
            }
        })
        .collect();
    rows.push(row(
        49,
        "a handler emits after its time was up, by work that it left behind",
        "not published, and logged as an error; the next attempt counts",
        TOO_LATE,
        "what_a_handler_does_after_its_time_changes_nothing",
    ));
    rows
}
