//! `ponos failed retry --when-circuit-closed`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::place::Place;
use crate::system::{EmailSend, Smtp, pheidi};

const RETRY: [&str; 6] = ["failed", "retry", "--all", "--when-circuit-closed", "--yes", "--json"];

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

    let mut waiting = place.watching(&RETRY[..5]);
    waiting.until("waiting for pheidi.email.send: ⚡ circuit smtp ");
    // Who does not want to wait does not.
    let mut other = place.watching(&RETRY[..5]);
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
    place.ponos(&RETRY).ok().says("\"result\":\"done\"");
}
