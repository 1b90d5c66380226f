//! What the uniform worker promises, on the virtual clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ponos::core::envelope::{GaveUpReason, Recovery};
use ponos::core::journal::{AttemptEnd, What};
use ponos::core::name::QueueName;
use ponos::prelude::*;
use ponos::testing::System;
use support::*;

/// When each attempt of a task started, since the beginning.
async fn starts(system: &System, queue: &str) -> Vec<std::time::Duration> {
    let records = system.records().await;
    let first = records.first().map(|record| record.at).unwrap_or_default();
    let attempts = records.into_iter().filter_map(|record| match record.what {
        What::Attempt(attempt) if attempt.queue.as_str() == queue => Some(attempt.started.since(first)),
        _ => None,
    });
    attempts.collect()
}

#[tokio::test]
async fn a_failing_job_is_tried_with_doubling_delays_that_are_never_shorter_than_asked() {
    async fn always_fails(_: WorkDo, _: TaskCx<WorkDo>) -> Outcome {
        Err("no")?
    }
    let service = Service::<Unit>::new().task(always_fails, |p| p.max_retries(4));
    let system = System::seeded(1).service(service, Counter::default()).start().await;
    system.create(WorkDo { n: 1 }).await;
    system.settled().await;
    let starts = starts(&system, "unit.work.do").await;
    assert_eq!(starts.len(), 5, "runs = max retries + 1");
    for (n, pair) in starts.windows(2).enumerate() {
        let asked = secs(1 << n);
        let waited = pair[1] - pair[0];
        assert!(waited >= asked && waited <= asked.mul_f64(1.25) + millis(2), "attempt {n}: {waited:?}");
    }
    let failed = system.failed::<Unit>().await;
    assert_eq!(failed.len(), 1);
    let report = failed[0].report.as_ref().unwrap();
    assert_eq!((report.gave_up.reason, report.gave_up.attempts), (GaveUpReason::Exhausted, 5));
    assert_eq!((report.gave_up.error.as_str(), &report.recovery), ("no", &Recovery::None));
    assert_eq!(report.history.len(), 5);
}

#[tokio::test]
async fn recovery_runs_after_the_last_attempt_and_may_emit() {
    async fn always_fails(_: WorkDo, _: TaskCx<WorkDo>) -> Outcome {
        Err(std::io::Error::other("disk"))?
    }
    async fn recover(t: WorkDo, cx: TaskCx<WorkDo>, why: GaveUp) -> Outcome {
        assert_eq!((why.attempts, why.error.as_str()), (3, "disk"));
        cx.emit(WorkDone { n: t.n })?;
        Ok(())
    }
    let service = Service::<Unit>::new().task(always_fails, |p| p.max_retries(2).recover(recover));
    let system = System::seeded(2).service(service, Counter::default()).start().await;
    let tid = system.create(WorkDo { n: 1 }).await;
    system.settled().await;
    let failed = system.failed::<Unit>().await;
    assert_eq!(failed[0].report.as_ref().unwrap().recovery, Recovery::Done);
    assert!(system.cascade(&tid).await.find("work.done").is_some(), "what recovery emits goes out");
}

#[tokio::test]
async fn a_recovery_that_fails_has_five_attempts_and_the_handler_never_runs_again() {
    async fn stops(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("run");
        Err("hopeless").stop()
    }
    async fn recover(_: WorkDo, cx: TaskCx<WorkDo>, _: GaveUp) -> Outcome {
        cx.state().add("recover");
        Err("still hopeless")?
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(stops, |p| p.recover(recover));
    let system = System::seeded(3).service(service, counter.clone()).start().await;
    system.create(WorkDo { n: 1 }).await;
    system.settled().await;
    assert_eq!((counter.get("run"), counter.get("recover")), (1, 5));
    let failed = system.failed::<Unit>().await;
    let report = failed[0].report.as_ref().unwrap();
    assert_eq!(report.gave_up.reason, GaveUpReason::Stopped);
    assert_eq!(report.recovery, Recovery::Failed("still hopeless".into()));
}

#[tokio::test]
async fn effects_of_a_failed_attempt_are_not_published_and_those_of_the_good_one_are_published_once() {
    async fn third_time_lucky(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.emit(WorkDone { n: t.n })?;
        if cx.attempt() < 3 {
            Err("not yet")?;
        }
        Ok(())
    }
    let service = Service::<Unit>::new().task(third_time_lucky, |p| p);
    let system = System::seeded(4).service(service, Counter::default()).start().await;
    let tid = system.create(WorkDo { n: 9 }).await;
    system.settled().await;
    let published = system
        .records()
        .await
        .into_iter()
        .filter(|r| matches!(&r.what, What::Published(p) if &*p.name == "work.done"));
    assert_eq!(published.count(), 1);
    assert_eq!(
        system.cascade(&tid).await.to_string(),
        "▸ unit.work.do — done, attempt 3 (error ×2)\n└ ◇ work.done — nobody listens"
    );
}

#[tokio::test]
async fn a_timeout_spends_an_attempt_and_stops_the_work() {
    async fn slow(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.sleep(secs(3600)).await;
        cx.state().add("finished");
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(slow, |p| p.timeout(secs(5)).max_retries(1));
    let system = System::seeded(5).service(service, counter.clone()).start().await;
    system.create(WorkDo { n: 1 }).await;
    system.settled().await;
    assert_eq!(counter.get("finished"), 0);
    let failed = system.failed::<Unit>().await;
    assert!(failed[0].report.as_ref().unwrap().gave_up.error.contains("within 5s"));
    assert!(system.elapsed() >= secs(11) && system.elapsed() < secs(12), "{:?}", system.elapsed());
}

#[tokio::test]
async fn a_panic_is_caught_counts_as_a_failure_and_takes_nobody_with_it() {
    async fn panics(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        assert!(t.n != 1, "odd job {}", t.n);
        cx.state().add("done");
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(panics, |p| p.max_retries(0));
    let system = System::seeded(6).service(service, counter.clone()).start().await;
    for n in 0..4 {
        system.create(WorkDo { n }).await;
    }
    system.settled().await;
    assert_eq!(counter.get("done"), 3);
    assert!(system.failed::<Unit>().await[0].report.as_ref().unwrap().gave_up.error.contains("odd job 1"));
}

#[tokio::test]
async fn a_snooze_spends_no_attempt_and_is_bounded_by_the_jobs_age() {
    async fn early(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("run");
        assert_eq!(cx.attempt(), 1);
        snooze(mins(60 * 24))
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(early, |p| p.max_retries(0));
    let system = System::seeded(7).service(service, counter.clone()).start().await;
    system.create(WorkDo { n: 1 }).await;
    system.settled().await;
    assert_eq!(counter.get("run"), 8, "at once and after each of seven days");
    assert_eq!(
        system.failed::<Unit>().await[0].report.as_ref().unwrap().gave_up.reason,
        GaveUpReason::TooOld
    );
}

#[tokio::test]
async fn retry_after_is_never_early() {
    async fn busy(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        if cx.attempt() == 1 {
            Err("429").retry_after(mins(10))?;
        }
        Ok(())
    }
    let service = Service::<Unit>::new().task(busy, |p| p);
    let system = System::seeded(8).service(service, Counter::default()).start().await;
    system.create(WorkDo { n: 1 }).await;
    system.settled().await;
    let starts = starts(&system, "unit.work.do").await;
    assert!(starts[1] - starts[0] >= mins(10), "{starts:?}");
}

#[tokio::test]
async fn what_cannot_be_decoded_fails_at_once_with_its_bytes_kept() {
    async fn never(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("run");
        Ok(())
    }
    async fn recover(_: WorkDo, cx: TaskCx<WorkDo>, _: GaveUp) -> Outcome {
        cx.state().add("recover");
        Ok(())
    }
    let counter = Counter::default();
    let seen = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&seen);
    let service = Service::<Unit>::new().task(never, |p| p.recover(recover)).on_undecodable(move |message| {
        assert_eq!(&message.body[..], b"\xff not json");
        told.fetch_add(1, Ordering::Relaxed);
    });
    let system = System::seeded(9).service(service, counter.clone()).start().await;
    publish_raw(&system, "unit.work.do", b"\xff not json").await;
    system.settled().await;
    assert_eq!((counter.get("run"), counter.get("recover"), seen.load(Ordering::Relaxed)), (0, 0, 1));
    let failed = system.failed::<Unit>().await;
    assert_eq!(&failed[0].body[..], b"\xff not json");
    assert_eq!(failed[0].report.as_ref().unwrap().gave_up.reason, GaveUpReason::Undecodable);
}

#[tokio::test]
async fn a_thousand_waiting_jobs_hold_no_slot_of_the_healthy_ones() {
    async fn mixed(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        if t.n < 1000 && cx.attempt() == 1 {
            Err("try again in a minute")?;
        }
        cx.state().add(if t.n < 1000 { "sick" } else { "healthy" });
        cx.state().note(t.n);
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new()
        .task(mixed, |p| p.retry(Backoff::constant(mins(1))).no_breaker().concurrency(4).prefetch(8));
    let system = System::seeded(10).service(service, counter.clone()).start().await;
    for n in 0..2000 {
        system.create(WorkDo { n }).await;
    }
    system.advance(secs(30)).await;
    assert_eq!((counter.get("sick"), counter.get("healthy")), (0, 1000), "the healthy ones are through");
    assert!(system.elapsed() < secs(31));
    system.settled().await;
    assert_eq!(counter.get("sick"), 1000);
}

#[tokio::test]
async fn one_slow_job_does_not_slow_its_neighbours() {
    async fn slow_one(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.sleep(if t.n == 0 { secs(5) } else { millis(10) }).await;
        cx.state().add("done");
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(slow_one, |p| p.concurrency(2).prefetch(2));
    let system = System::seeded(11).service(service, counter.clone()).start().await;
    for n in 0..100 {
        system.create(WorkDo { n }).await;
    }
    system.advance(secs(2)).await;
    assert_eq!(counter.get("done"), 99);
}

#[tokio::test]
async fn the_breaker_cuts_the_listener_off_and_the_queue_holds_the_jobs() {
    async fn needs_smtp(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        if cx.state().get("healthy") == 0 {
            Err("connection refused")?;
        }
        cx.state().add("done");
        Ok(())
    }
    let counter = Counter::default();
    let changes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = Arc::clone(&changes);
    let service = Service::<Unit>::new()
        .task(needs_smtp, |p| p.concurrency(4).prefetch(8).max_retries(50).depends_on("smtp"))
        .on_circuit(move |change| told.lock().unwrap().push(change.clone()));
    let system = System::seeded(12).service(service, counter.clone()).start().await;
    for n in 0..100 {
        system.create(WorkDo { n }).await;
    }
    system.advance(secs(5)).await;
    let opened = changes.lock().unwrap().len();
    assert_eq!(opened, 1, "{:?}", changes.lock().unwrap());
    let attempts = starts(&system, "unit.work.do").await.len();
    assert!((10..=13).contains(&attempts), "ten in a row, and what ran beside them: {attempts}");
    let queue = system.queues::<Unit>().await.into_iter().find(|q| q.queue == "unit.work.do").unwrap();
    assert_eq!((queue.unsettled, queue.consumers), (Some(0), 0), "the listener is cut off");
    assert_eq!(queue.messages(), 100, "the queue holds every job");
    counter.add("healthy");
    system.settled().await;
    assert_eq!(counter.get("done"), 100);
    let history: Vec<_> = changes.lock().unwrap().iter().map(|c| format!("{:?}", c.state)).collect();
    assert!(history.last().unwrap().contains("Closed"), "{history:?}");
    let spent_more = system
        .records()
        .await
        .iter()
        .filter(|r| matches!(&r.what, What::Attempt(a) if a.attempt > 3))
        .count();
    assert_eq!(spent_more, 0, "jobs that were held spent no attempt");
}

#[tokio::test]
async fn a_rate_limit_spaces_starts_and_costs_no_attempt() {
    async fn quick(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        assert_eq!(cx.attempt(), 1);
        Ok(())
    }
    let service = Service::<Unit>::new().task(quick, |p| p.rate_limit(10.per_second().burst(1)));
    let system = System::seeded(13).service(service, Counter::default()).start().await;
    for n in 0..100 {
        system.create(WorkDo { n }).await;
    }
    system.settled().await;
    let starts = starts(&system, "unit.work.do").await;
    for window in starts.windows(11) {
        assert!(window[10] - window[0] >= millis(999), "more than 10 in a second: {window:?}");
    }
    assert!(system.elapsed() >= millis(9_900) && system.elapsed() < secs(11), "{:?}", system.elapsed());
}

#[tokio::test]
async fn a_very_slow_rate_rests_instead_of_holding_jobs() {
    async fn quick(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("run");
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(quick, |p| p.rate_limit(1.per_hour()).prefetch(10));
    let system = System::seeded(14).service(service, counter.clone()).start().await;
    for n in 0..3 {
        system.create(WorkDo { n }).await;
    }
    system.advance(mins(30)).await;
    assert_eq!(counter.get("run"), 1);
    let queue = system.queues::<Unit>().await.into_iter().find(|q| q.queue == "unit.work.do").unwrap();
    assert_eq!((queue.ready, queue.unsettled), (2, Some(0)), "what waits long waits in the broker");
    system.settled().await;
    assert_eq!(counter.get("run"), 3);
}

#[tokio::test]
async fn instances_share_a_rate_limit() {
    async fn quick(_: WorkDo, _: TaskCx<WorkDo>) -> Outcome {
        Ok(())
    }
    let service = || Service::<Unit>::new().task(quick, |p| p.rate_limit(10.per_second().burst(1)));
    let system = System::seeded(15)
        .service(service(), Counter::default())
        .service(service(), Counter::default())
        .start()
        .await;
    for n in 0..100 {
        system.create(WorkDo { n }).await;
    }
    system.settled().await;
    assert!(system.elapsed() >= secs(9), "two instances are not twice as fast: {:?}", system.elapsed());
}

#[tokio::test]
async fn a_paused_queue_delivers_nothing_also_to_an_instance_that_starts_later() {
    async fn quick(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("run");
        Ok(())
    }
    let counter = Counter::default();
    let service = || Service::<Unit>::new().task(quick, |p| p);
    let mut system = System::seeded(16).service(service(), counter.clone()).start().await;
    steer(&system, "unit.work.do", true).await;
    system.advance(secs(2)).await;
    system.stop::<Unit>().await;
    system.add(service(), counter.clone()).await;
    system.create(WorkDo { n: 1 }).await;
    system.advance(mins(5)).await;
    assert_eq!(counter.get("run"), 0);
    steer(&system, "unit.work.do", false).await;
    system.advance(secs(2)).await;
    assert_eq!(counter.get("run"), 1);
}

#[tokio::test]
async fn a_shutdown_lets_running_jobs_finish_and_hands_the_rest_back() {
    async fn slow(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.sleep(if t.n == 0 { mins(5) } else { secs(10) }).await;
        cx.state().add("done");
        Ok(())
    }
    let counter = Counter::default();
    let service = || Service::<Unit>::new().task(slow, |p| p.concurrency(2).prefetch(4).timeout(mins(10)));
    let mut system = System::seeded(17).service(service(), counter.clone()).start().await;
    for n in 0..4 {
        system.create(WorkDo { n }).await;
    }
    system.advance(secs(1)).await;
    let before = system.elapsed();
    system.stop::<Unit>().await;
    assert_eq!(system.elapsed() - before, secs(25), "the deadline for the one that does not end");
    assert_eq!(counter.get("done"), 1);
    let queue = system.queues::<Unit>().await.into_iter().find(|q| q.queue == "unit.work.do").unwrap();
    assert_eq!((queue.ready, queue.unsettled), (3, Some(0)));
    system.add(service(), counter.clone()).await;
    system.settled().await;
    assert_eq!(counter.get("done"), 4);
    let spent = system.records().await.iter().any(|r| matches!(&r.what, What::Attempt(a) if a.attempt > 1));
    assert!(!spent, "the cut spent no attempt");
}

#[tokio::test]
async fn transaction_and_causation_are_inherited_with_nobody_passing_them() {
    async fn chain(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        if t.n > 0 {
            cx.create(WorkDo { n: t.n - 1 })?;
        }
        cx.emit(WorkDone { n: t.n })?;
        Ok(())
    }
    fn start(e: WorkWanted) -> WorkDo {
        WorkDo { n: e.n }
    }
    let service = Service::<Unit>::new().on(start).task(chain, |p| p);
    let system = System::seeded(18).service(service, Counter::default()).start().await;
    let tid = system.emit(WorkWanted { n: 1 }).await;
    system.settled().await;
    assert_eq!(
        system.cascade(&tid).await.to_string(),
        "\
◇ work.wanted
└ unit → on work.wanted — done
  └ ▸ unit.work.do — done
    ├ ▸ unit.work.do — done
    │ └ ◇ work.done — nobody listens
    └ ◇ work.done — nobody listens"
    );
}

#[tokio::test]
async fn equal_effects_of_one_run_are_all_published() {
    async fn thrice(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        for _ in 0..3 {
            cx.emit(WorkDone { n: t.n })?;
        }
        Ok(())
    }
    let service = Service::<Unit>::new().task(thrice, |p| p);
    let system = System::seeded(19).service(service, Counter::default()).start().await;
    let tid = system.create(WorkDo { n: 1 }).await;
    system.settled().await;
    assert_eq!(system.cascade(&tid).await.all("work.done").count(), 3);
}

#[tokio::test]
async fn a_reaction_that_panics_fails_its_message_at_once() {
    fn panics(e: WorkWanted) -> Option<WorkDo> {
        assert!(e.n != 1, "one is bad");
        Some(WorkDo { n: e.n })
    }
    async fn quick(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("done");
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().on(panics).task(quick, |p| p);
    let system = System::seeded(20).service(service, counter.clone()).start().await;
    for n in 0..3 {
        system.emit(WorkWanted { n }).await;
    }
    system.settled().await;
    assert_eq!(counter.get("done"), 2);
    let failed = system.failed::<Unit>().await;
    assert_eq!(failed.len(), 1);
    assert!(failed[0].report.as_ref().unwrap().gave_up.error.contains("one is bad"));
}

#[tokio::test]
async fn a_rough_broker_loses_no_job_and_no_effect() {
    async fn works(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().note(t.n);
        cx.create(WorkCheck { n: t.n })?;
        Ok(())
    }
    async fn checks(t: WorkCheck, cx: TaskCx<WorkCheck>) -> Outcome {
        cx.state().note(1000 + t.n);
        Ok(())
    }
    for seed in 0..20 {
        let counter = Counter::default();
        let service = Service::<Unit>::new().task(works, |p| p).task(checks, |p| p);
        let system = System::seeded(seed).rough().service(service, counter.clone()).start().await;
        for n in 0..50 {
            system.create(WorkDo { n }).await;
        }
        system.settled().await;
        let expected: Vec<u64> = (0..50).chain(1000..1050).collect();
        assert_eq!(counter.noted(), expected, "seed {seed}");
        assert_eq!(system.failed::<Unit>().await.len(), 0, "seed {seed}");
    }
}

#[tokio::test]
async fn what_is_done_is_recognised_when_it_comes_again() {
    async fn quick(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("run");
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(quick, |p| p.concurrency(1));
    let system = System::seeded(21)
        .rough_as(ponos::Rough::seeded(21).per_mille(0))
        .service(service, counter.clone())
        .start()
        .await;
    let envelope = raw("unit.work.do", br#"{"tid":"t","n":1}"#);
    for _ in 0..5 {
        publish_until_taken(&system, envelope.clone()).await;
        system.settled().await;
    }
    assert_eq!(counter.get("run"), 1, "done once is done");
}

#[tokio::test]
async fn a_failure_is_told_to_the_npm_packages_event_without_the_payload() {
    async fn stops(_: WorkDo, _: TaskCx<WorkDo>) -> Outcome {
        Err("hopeless").stop()
    }
    let service =
        Service::<Unit>::new().task(stops, |p| p).errored_events(ponos::ErroredEvents::WithoutPayload);
    let listener = Service::<Other>::new().on(hear).task(note, |p| p);
    fn hear(e: WorkerErrored) -> OtherNote {
        OtherNote {
            text: format!("{}: {} {}", e.original_worker_name, e.error.message, e.original_job_payload),
        }
    }
    async fn note(t: OtherNote, cx: TaskCx<OtherNote>) -> Outcome {
        cx.state().add(&t.text);
        Ok(())
    }
    let heard = Counter::default();
    let system = System::seeded(22)
        .service(service, Counter::default())
        .service(listener, heard.clone())
        .start()
        .await;
    let tid = system.create(WorkDo { n: 7 }).await;
    system.settled().await;
    assert_eq!(heard.get("unit.work.do: hopeless {}"), 1);
    let cascade = system.cascade(&tid).await;
    assert!(cascade.find("worker.errored").is_some(), "{cascade}");
}

#[tokio::test]
async fn a_job_that_kills_its_process_runs_alone_and_is_given_up_after_three_losses_in_that_state() {
    async fn quick(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().note(t.n);
        Ok(())
    }
    let counter = Counter::default();
    let broker = Service::<Unit>::new().task(quick, |p| p.concurrency(2));
    let mut system = System::seeded(23).service(broker, counter.clone()).start().await;
    system.stop::<Unit>().await;
    let poison = system.create(WorkDo { n: 13 }).await;
    let innocent = system.create(WorkDo { n: 1 }).await;
    // Both are lost with their consumer three times, as neighbours in one prefetch are.
    for _ in 0..3 {
        lose_all(&system, "unit.work.do").await;
    }
    // Now both are suspects; the worker marks them and runs them alone.
    let service = || Service::<Unit>::new().task(quick, |p| p.concurrency(2));
    steer(&system, "unit.work.do", true).await;
    system.add(service(), counter.clone()).await;
    system.advance(secs(2)).await;
    steer(&system, "unit.work.do", false).await;
    system.advance(secs(2)).await;
    system.settled().await;
    assert_eq!(counter.noted(), [1, 13], "suspicion alone fails nobody");
    let _ = (poison, innocent);
    // A job that is lost three more times while it runs alone is given up.
    system.stop::<Unit>().await;
    let mut suspect = raw("unit.work.do", br#"{"tid":"t","n":99}"#);
    suspect.progress.suspect = Some(0);
    publish_until_taken(&system, suspect).await;
    for _ in 0..3 {
        lose_all(&system, "unit.work.do").await;
    }
    system.add(service(), counter.clone()).await;
    system.settled().await;
    assert_eq!(counter.noted(), [1, 13], "it did not run again");
    assert_eq!(
        system.failed::<Unit>().await[0].report.as_ref().unwrap().gave_up.reason,
        GaveUpReason::Poison
    );
}

#[tokio::test]
async fn a_job_that_is_done_and_loses_its_acknowledgement_does_not_run_again() {
    async fn slow(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("runs");
        cx.sleep(millis(50)).await;
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(slow, |p| p);
    let calm = ponos::Rough::seeded(25).per_mille(0);
    let system = System::seeded(25).rough_as(calm).service(service, counter.clone()).start().await;
    system.create(WorkDo { n: 1 }).await;
    system.advance(millis(10)).await;
    assert_eq!(counter.get("runs"), 1);
    // The subscription breaks; before it is opened anew the job is done, and there is nobody to tell.
    system.broker().break_subscriptions(&QueueName::parse("unit.work.do").unwrap());
    system.settled().await;
    assert_eq!(counter.get("runs"), 1, "it was recognised");
    let ends: Vec<_> = system
        .records()
        .await
        .into_iter()
        .filter_map(|record| match record.what {
            What::Attempt(attempt) => Some(attempt.end),
            _ => None,
        })
        .collect();
    assert!(matches!(ends[..], [AttemptEnd::Done]), "{ends:?}");
}

#[tokio::test]
async fn the_outcome_of_each_attempt_is_recorded() {
    async fn second_time(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        if cx.attempt() == 1 { Err("first")? } else { Ok(()) }
    }
    let service = Service::<Unit>::new().task(second_time, |p| p);
    let system = System::seeded(24).service(service, Counter::default()).start().await;
    system.create(WorkDo { n: 1 }).await;
    system.settled().await;
    let ends: Vec<_> = system
        .records()
        .await
        .into_iter()
        .filter_map(|r| match r.what {
            What::Attempt(a) => Some((a.attempt, a.end, a.error)),
            _ => None,
        })
        .collect();
    assert!(
        matches!(&ends[0], (1, AttemptEnd::Retry { .. }, Some(error)) if &**error == "first"),
        "{ends:?}"
    );
    assert!(matches!(&ends[1], (2, AttemptEnd::Done, None)), "{ends:?}");
}

#[tokio::test]
async fn a_suspect_that_turns_out_to_be_a_duplicate_does_not_hold_up_its_process() {
    async fn slow(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.sleep(secs(1)).await;
        cx.state().note(t.n);
        Ok(())
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(slow, |p| p.concurrency(2).prefetch(8));
    // A broker that may deliver what was done again, and does nothing else wrong.
    let rough = ponos::Rough::seeded(1).per_mille(0);
    let system = System::seeded(1).rough_as(rough).service(service, counter.clone()).start().await;
    let mut suspect = raw("unit.work.do", br#"{"tid":"t","n":1}"#);
    suspect.progress.suspect = Some(0);
    // The second one waits for its turn to run alone until the first one is done.
    publish_until_taken(&system, suspect.clone()).await;
    publish_until_taken(&system, suspect).await;
    system.create(WorkDo { n: 2 }).await;
    system.settled().await;
    assert_eq!(counter.noted(), [1, 2]);
}
