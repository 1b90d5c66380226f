//! Options of a definition, and of a broker's URL.

use std::time::Duration;

use ponos::prelude::*;

use super::row::{Comes, Row};
use super::support::*;

const HERE: &str = "crates/ponos/tests/bad_input/options.rs";

async fn does(_: WorkDo, _: TaskCx<WorkDo>) -> Outcome {
    Ok(())
}

async fn does_too(_: WorkDo, _: TaskCx<WorkDo>) -> Outcome {
    Ok(())
}

/// A task that reads like an event after the application's name.
#[task("unit.work.reset", app = Unit)]
struct WorkReset {}

#[event("work.reset")]
struct WorkWasReset {}

async fn resets(_: WorkReset, _: TaskCx<WorkReset>) -> Outcome {
    Ok(())
}

fn on_reset(_: WorkWasReset) -> Option<WorkDo> {
    None
}

fn on_reset_too(_: WorkWasReset) -> Option<WorkCheck> {
    None
}

type Policy = ponos::TaskPolicy<WorkDo>;

/// A task with this option. An empty outcome: it does not start.
fn with(
    number: u8,
    input: &'static str,
    option: impl FnOnce(Policy) -> Policy,
    starts: &'static str,
) -> (u8, &'static str, Service<Unit>, &'static str) {
    (number, input, Service::new().task(does, option), starts)
}

fn definitions() -> Vec<(u8, &'static str, Service<Unit>, &'static str)> {
    let no = "";
    let unit = Service::<Unit>::new;
    let backoff = || Backoff::exponential(secs(1));
    vec![
        with(45, "`max_retries(0)`", |p| p.max_retries(0), "starts: one run, then recovery"),
        with(45, "`max_retries(u32::MAX)`", |p| p.max_retries(u32::MAX), "starts: as good as `Unlimited`"),
        with(
            45,
            "a backoff whose shortest delay is 0",
            |p| p.retry(Backoff::none()),
            "starts: the next attempt is at once",
        ),
        with(
            45,
            "a shortest delay over the longest",
            move |p| p.retry(Backoff::exponential(mins(10)).max(mins(5))),
            no,
        ),
        with(45, "a factor under 1", move |p| p.retry(backoff().factor(0.5)), no),
        with(45, "a factor that is no number", move |p| p.retry(backoff().factor(f64::NAN)), no),
        with(45, "a factor without end", move |p| p.retry(backoff().factor(f64::INFINITY)), no),
        with(45, "a jitter under 0", move |p| p.retry(backoff().jitter(-0.1)), no),
        with(45, "a jitter that is no number", move |p| p.retry(backoff().jitter(f64::NAN)), no),
        with(46, "`timeout` of 0", |p| p.timeout(Duration::ZERO), no),
        with(46, "`timeout` of 25 minutes, which RabbitMQ may cut", |p| p.timeout(mins(25)), no),
        with(46, "`recovery_timeout` of 0", |p| p.recovery_timeout(Duration::ZERO), no),
        with(47, "`prefetch(0)`, no limit on RabbitMQ", |p| p.prefetch(0), no),
        with(47, "`prefetch(65_536)`", |p| p.prefetch(65_536), no),
        with(47, "`concurrency(0)`", |p| p.concurrency(0), no),
        (
            47,
            "`prefetch(0)` of a reaction",
            unit().on_with(on_reset, |p| p.prefetch(0)).task(does, |p| p),
            no,
        ),
        (50, "two handlers of one task", unit().task(does, |p| p).task(does_too, |p| p), no),
        (50, "two reactions to one event", unit().on(on_reset).on(on_reset_too).task(does, |p| p), no),
        (50, "a task and a reaction with one queue", unit().task(resets, |p| p).on(on_reset), no),
    ]
}

/// There are no options of queues: what a queue is declared with is a constant. What is left is the URL.
const URLS: [(u8, &str, &str); 6] = [
    (43, "an option of queues in the URL", "amqp://host/vhost?x-max-length=5"),
    (43, "an option of the file in the URL", "sqlite:ponos.db?synchronous=off"),
    (44, "a delivery limit in the URL", "amqp://host/vhost?x-delivery-limit=-1"),
    (43, "a type of queue that is none", "amqp://host/vhost?queue_type=stream"),
    (54, "a URL without a scheme", "rabbit.example.com"),
    (54, "a broker of another kind", "kafka://host:9092"),
];

pub async fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (number, input, service, starts) in definitions() {
        let refused = "does not start".to_owned();
        let (outcome, says) = match service.start(Counter::default(), Broker::memory()).await {
            Ok(running) => {
                running.shutdown().await;
                (starts.to_owned(), String::new())
            }
            Err(error) => (refused, error.to_string()),
        };
        let shown_by = (HERE, "a_definition_that_cannot_work_is_refused_by_name_and_the_others_start");
        rows.push(Row { number, input: input.to_owned(), comes: Comes::Definition, outcome, says, shown_by });
    }
    for (number, input, url) in URLS {
        rows.push(Row {
            number,
            input: format!("{input}: `{url}`"),
            comes: Comes::Start,
            outcome: "error at once".into(),
            says: Broker::from_url(url).expect_err(input).to_string(),
            shown_by: (HERE, "a_url_that_says_what_nobody_knows_is_refused"),
        });
    }
    rows
}

#[tokio::test]
async fn a_definition_that_cannot_work_is_refused_by_name_and_the_others_start() {
    for (_, input, service, starts) in definitions() {
        match service.start(Counter::default(), Broker::memory()).await {
            Ok(running) => {
                assert!(!starts.is_empty(), "{input} started");
                running.publisher().create(WorkDo { n: 1 }).await.unwrap();
                running.shutdown().await;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(starts.is_empty(), "{input}: {text}");
                assert!(text.starts_with("the service `unit` cannot start:\n  "), "{input}: {text}");
                assert_eq!(text.lines().count(), 2, "{input}: one problem: {text}");
            }
        }
    }
}

#[test]
fn a_url_that_says_what_nobody_knows_is_refused() {
    for (_, input, url) in URLS {
        let error = Broker::from_url(url).expect_err(input);
        assert_eq!(error.kind(), ponos::core::broker::BrokerErrorKind::Invalid, "{input}: {error}");
        assert!(!error.to_string().contains(url), "a URL may hold a password: {error}");
    }
}
