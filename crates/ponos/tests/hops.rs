//! The hop limit: a chain that goes round in circles comes to an end and is heard of.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use ponos::ErroredEvents;
use ponos::core::envelope::{GaveUpReason, Recovery};
use ponos::core::policy::DEFAULT_HOP_LIMIT;
use ponos::prelude::*;
use ponos::testing::System;
use support::*;

/// Starts the work again that has just been done.
fn again(e: WorkDone) -> WorkDo {
    WorkDo { n: e.n }
}

async fn does(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
    cx.state().add("run");
    cx.emit(WorkDone { n: t.n })?;
    Ok(())
}

#[tokio::test]
async fn a_loop_stops_at_the_default_limit_with_a_report() {
    let counter = Counter::default();
    let service = Service::<Unit>::new().on(again).task(does, |p| p);
    let system = System::seeded(1).service(service, counter.clone()).start().await;
    system.create(WorkDo { n: 1 }).await;
    system.settled().await;
    // The task at 0 hops, its event at 1, and so on.
    assert_eq!(counter.get("run"), DEFAULT_HOP_LIMIT / 2);
    let failed = system.failed::<Unit>().await;
    assert_eq!(failed.len(), 1);
    let report = failed[0].report.as_ref().unwrap();
    assert_eq!((report.gave_up.reason, report.gave_up.attempts), (GaveUpReason::HopLimit, 1));
    assert_eq!(report.recovery, Recovery::None);
    let error = &report.gave_up.error;
    for part in ["64 messages long", "`unit.work.done` → `unit.work.do` → `unit.work.do`", "`hop_limit` (64)"]
    {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn the_job_at_the_limit_runs_its_recovery_and_what_follows_does_not() {
    async fn recover(t: WorkDo, cx: TaskCx<WorkDo>, why: GaveUp) -> Outcome {
        assert_eq!(why.reason, GaveUpReason::HopLimit);
        cx.state().add("recovered");
        // The very event that starts it again.
        cx.emit(WorkDone { n: t.n })?;
        Ok(())
    }
    for (limit, runs) in [(1, 1), (2, 1), (6, 3), (7, 4)] {
        let counter = Counter::default();
        let service = Service::<Unit>::new().on(again).task(does, |p| p.recover(recover)).hop_limit(limit);
        let system = System::seeded(2).service(service, counter.clone()).start().await;
        system.create(WorkDo { n: 1 }).await;
        system.settled().await;
        assert_eq!(counter.get("run"), runs, "limit {limit}");
        let failed = system.failed::<Unit>().await;
        let mut ends: Vec<_> =
            failed.iter().map(|f| (f.hops, &f.report.as_ref().unwrap().recovery)).collect();
        ends.sort_by_key(|(hops, _)| *hops);
        if limit % 2 == 0 {
            // The task is the one at the limit: what its recovery emits is refused where it is heard.
            assert_eq!(ends, [(limit, &Recovery::Done), (limit + 1, &Recovery::None)]);
            assert_eq!(counter.get("recovered"), 1);
        } else {
            assert_eq!(ends, [(limit, &Recovery::None)], "a reaction has no recovery");
        }
    }
}

#[tokio::test]
async fn who_hears_of_failures_does_not_hear_of_its_own_for_ever() {
    fn hear(e: WorkerErrored) -> OtherNote {
        OtherNote { text: e.original_worker_name }
    }
    async fn note(_: OtherNote, cx: TaskCx<OtherNote>) -> Outcome {
        cx.state().add("note");
        Err("no disk").stop()
    }
    let counter = Counter::default();
    let service = Service::<Other>::new()
        .on(hear)
        .task(note, |p| p)
        .errored_events(ErroredEvents::WithoutPayload)
        .hop_limit(10);
    let system = System::seeded(3).service(service, counter.clone()).start().await;
    system.create(OtherNote { text: "first".into() }).await;
    system.settled().await;
    assert_eq!(counter.get("note"), 5);
    let failed = system.failed::<Other>().await;
    let beyond =
        failed.iter().filter(|f| f.report.as_ref().unwrap().gave_up.reason == GaveUpReason::HopLimit);
    assert_eq!(beyond.map(|f| f.hops).max(), Some(11), "{} failed", failed.len());
}

#[tokio::test]
async fn a_limit_of_nothing_is_a_problem_of_the_definition() {
    let service = Service::<Unit>::new().task(does, |p| p).hop_limit(0);
    let broker = std::sync::Arc::new(ponos::MemoryBroker::new());
    let error = service.start(Counter::default(), broker).await.unwrap_err().to_string();
    assert!(error.contains("`hop_limit` is 0"), "{error}");
}
