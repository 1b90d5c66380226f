//! What a handler publishes and what cannot be published.

use ponos::core::envelope::GaveUpReason;
use ponos::prelude::*;

use super::place::{job, places};
use super::support::*;

/// An event whose fields are not known before.
#[event("work.measured")]
struct WorkMeasured {
    #[serde(flatten)]
    fields: std::collections::BTreeMap<String, String>,
}

#[task("unit.work.measure", app = Unit, emits(WorkMeasured, WorkDone))]
struct WorkMeasure {
    field: String,
}

#[tokio::test]
async fn a_handler_whose_event_cannot_be_written_gives_up_at_once_and_sends_nothing() {
    async fn measures(t: WorkMeasure, cx: TaskCx<WorkMeasure>) -> Outcome {
        cx.state().add("run");
        cx.emit(WorkDone { n: 1 })?;
        cx.emit(WorkMeasured { fields: [(t.field, String::new())].into() })?;
        Ok(())
    }
    fn hears(_: WorkDone) -> OtherNote {
        OtherNote { text: "heard".into() }
    }
    async fn never(_: OtherNote, cx: TaskCx<OtherNote>) -> Outcome {
        cx.state().add("heard");
        Ok(())
    }
    for place in places().await {
        let counter = Counter::default();
        let listener = Service::<Other>::new().on(hears).task(never, |p| p);
        let listener = place.start(listener, counter.clone()).await;
        let service = Service::<Unit>::new().task(measures, |p| p);
        let running = place.start(service, counter.clone()).await;
        running.publisher().create(WorkMeasure { field: "tid".into() }).await.unwrap();
        running.publisher().create(WorkMeasure { field: "width".into() }).await.unwrap();
        place.eventually("one failed", async || place.failed().await.len() == 1).await;
        place.eventually("the other is heard", async || counter.get("heard") == 1).await;
        let failed = place.failed().await;
        let report = failed[0].report.as_ref().unwrap();
        assert_eq!(report.gave_up.reason, GaveUpReason::Stopped, "waiting does not make it writable");
        assert!(report.gave_up.error.contains("WorkMeasured` cannot be published"), "{report:?}");
        assert_eq!(counter.get("run"), 2);
        assert_eq!(counter.get("heard"), 1, "what the failed attempt emitted before did not go out");
        running.shutdown().await;
        listener.shutdown().await;
    }
}

#[tokio::test]
async fn the_hook_for_what_cannot_be_read_gets_the_bytes_and_the_reason() {
    async fn never(_: WorkDo, _: TaskCx<WorkDo>) -> Outcome {
        panic!("it cannot be read");
    }
    for place in places().await {
        let counter = Counter::default();
        let told = counter.clone();
        let service = Service::<Unit>::new()
            .task(never, |p| p)
            .on_undecodable(move |message| told.add(&format!("{:?}: {}", message.body, message.error)));
        assert!(place.publish(job(1, "[1]")).await.is_confirmed());
        let running = place.start(service, counter.clone()).await;
        let said = "b\"[1]\": the body is JSON but no object";
        place.eventually("it was told", async || counter.get(said) == 1).await;
        running.shutdown().await;
    }
}
