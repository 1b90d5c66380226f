//! What metrics and health never tell: bodies, errors' texts, credentials.

use ponos::core::name::QueueName;
use ponos::prelude::*;

use super::http::{get, try_get};
use super::support::*;
use super::{addr, anywhere, until_metric};

const SECRET: &str = "hunter2";

async fn fails(t: OtherNote, _: TaskCx<OtherNote>) -> Outcome {
    Err(format!("cannot write `{}` with password {SECRET}", t.text))?
}

#[tokio::test]
async fn a_planted_secret_is_in_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let breaker = BreakerConfig::default().consecutive(1).open_initial(secs(600)).open_max(secs(600));
    let service =
        Service::<Other>::new().task(fails, |p| p.max_retries(0).breaker(breaker)).observe(anywhere());
    let broker = Broker::sqlite(dir.path().join(format!("{SECRET}.db")));
    let running = service.start(Counter::default(), broker).await.unwrap();
    running.publisher().create(OtherNote { text: SECRET.into() }).await.unwrap();
    let open = [("circuit", "other.note.write"), ("state", "open")];
    until_metric(&running, "ponos_circuit_state", &open, 1.0).await;
    until_metric(&running, "ponos_outcomes_total", &[("outcome", "exhausted")], 1.0).await;
    running.pause(&QueueName::parse("other.note.write").unwrap(), SECRET).await.unwrap();

    let addr = addr(&running);
    let open = try_get(addr, "/metrics", "application/openmetrics-text").await.unwrap().body;
    assert!(open.contains("error_type=\"error\""), "{open}");
    let mut answers = vec![open];
    for path in ["/metrics", "/livez", "/readyz", "/startupz", "/healthz"] {
        answers.push(get(addr, path).await.body);
    }
    for answer in answers {
        assert!(!answer.contains(SECRET), "{answer}");
    }
    running.shutdown().await;
}
