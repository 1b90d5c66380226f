//! `ponos failed retry --when-circuit-closed`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ponos::core::journal::{CircuitNotice, CircuitPhase, Notice};
use ponos::core::name::QueueName;

use crate::place::Place;
use crate::stranger::Stranger;
use crate::system::{EmailSend, Smtp, pheidi};

const RETRY: [&str; 7] = ["failed", "retry", "--all", "--app", "pheidi", "--when-circuit-closed", "--yes"];

fn mail(org: &str) -> EmailSend {
    EmailSend { org: org.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_until_the_circuit_is_closed() {
    let place = Place::sqlite();
    let smtp = Arc::new(Smtp::default());
    let pheidi = pheidi(&place, &smtp).await;
    pheidi.publisher().create(mail("nobody")).await.unwrap();
    place.until(&["failed", "list", "--json"], |ran| ran.out.contains("nobody").then_some(()));

    // Nothing works any more, until it is repaired.
    smtp.failures.store(u32::MAX, Ordering::SeqCst);
    for org in ["a", "b", "c"] {
        pheidi.publisher().create(mail(org)).await.unwrap();
    }
    place.until(&["explain", "pheidi.email.send"], |ran| {
        ran.out.contains("⚡ circuit smtp open in 1 instance").then_some(())
    });

    let mut waiting = place.watching(&RETRY);
    waiting.until("waiting for pheidi.email.send: ⚡ circuit smtp ");
    // Who does not want to wait does not.
    let mut other = place.watching(&RETRY);
    other.until("\n");
    other.interrupt();
    assert_eq!(other.code(), 1);
    assert!(!waiting.seen.contains("retried"), "{}", waiting.seen);

    smtp.failures.store(0, Ordering::SeqCst);
    waiting.until("retried 1 of 1 job, as op-");
    assert_eq!(waiting.code(), 0);
    pheidi.shutdown().await;

    // Nobody lives whose circuit could be open.
    place.until(&["failed", "list", "--json"], |ran| ran.out.contains("nobody").then_some(()));
    let ran = place.ponos(&RETRY);
    assert!(!ran.ok().says("retried 1 of 1 job").out.contains("waiting"), "{ran:?}");
}

/// A mail that can never be sent is among the failed jobs, and nobody works its queue.
async fn one_failed(place: &Place, new: bool) {
    let pheidi = pheidi(place, &Arc::new(Smtp::default())).await;
    if new {
        pheidi.publisher().create(mail("nobody")).await.unwrap();
    }
    let list = ["failed", "list", "--app", "pheidi", "--json"];
    place.until(&list, |ran| ran.out.contains("nobody").then_some(()));
    pheidi.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_an_order_holds_jobs_back_and_a_half_open_circuit_gets_one() {
    held_and_half_open(&Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_an_order_holds_jobs_back_and_a_half_open_circuit_gets_one() {
    held_and_half_open(&Place::rabbitmq().await).await;
}

async fn held_and_half_open(place: &Place) {
    one_failed(place, true).await;
    // By the dependency: which queues have it the manifest tells.
    place
        .ponos(&["circuit", "open", "smtp", "--app", "pheidi", "--reason", "it is down", "--for", "1h"])
        .ok();
    let mut waiting = place.watching(&RETRY);
    waiting.until("waiting for pheidi.email.send: circuit held open by ");
    assert!(waiting.seen.contains(": it is down") && !waiting.seen.contains("retried"), "{}", waiting.seen);
    place.ponos(&["circuit", "resume", "smtp", "--app", "pheidi"]).ok();
    waiting.until("retried 1 of 1 job, as op-");
    assert_eq!(waiting.code(), 0);

    // A circuit that only a job can close, and no job in front of it.
    one_failed(place, false).await;
    let notice = CircuitNotice {
        circuit: "smtp".into(),
        queues: vec![QueueName::parse("pheidi.email.send").unwrap()],
        phase: CircuitPhase::HalfOpen,
        open_for: None,
        cause: "".into(),
    };
    Stranger::new("pheidi", Duration::ZERO).notice(Notice::Circuit(notice)).write(place).await;
    let explain = ["explain", "pheidi.email.send"];
    place.until(&explain, |ran| ran.out.contains("circuit smtp half open in 1 instance").then_some(()));
    let ran = place.ponos(&RETRY);
    assert!(!ran.ok().says("retried 1 of 1 job").out.contains("waiting"), "{ran:?}");
}
