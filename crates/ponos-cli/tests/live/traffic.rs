//! Traffic of which every count is known.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ponos::Running;

use crate::place::Place;
use crate::system::{BigPoppa, Cream, InvoicePay, Pheidi, Smtp, big_poppa, cream, metrics, pheidi};

/// The services that go on running.
pub(crate) struct Traffic {
    pub(crate) cream: Running<Cream>,
    pub(crate) big_poppa: Running<BigPoppa>,
    pub(crate) pheidi: Running<Pheidi>,
}

pub(crate) fn pay(org: &str) -> InvoicePay {
    InvoicePay { org: org.into(), card: "4111111111111111".into(), cents: 4200 }
}

impl Traffic {
    /// Six payments: the first mail is sent at its second attempt, the last one never. `metrics` was there once, and hears
    /// all of them without doing anything.
    pub(crate) async fn six_payments(place: &Place) -> Self {
        let smtp = Arc::new(Smtp::default());
        let traffic = Self {
            cream: cream(place).await,
            big_poppa: big_poppa(place).await,
            pheidi: pheidi(place, &smtp).await,
        };
        metrics(place).await.shutdown().await;
        smtp.failures.store(1, Ordering::SeqCst);
        for org in ["acme", "b", "c", "d", "e", "nobody"] {
            let tid = traffic.cream.publisher().create(pay(org)).await.unwrap().tid.to_string();
            place.until(&["trace", &tid, "--json"], |ran| {
                let tree = (ran.code == 0).then(|| ran.json())?;
                let mut jobs =
                    tree["messages"].as_array()?.iter().flat_map(|it| it["jobs"].as_array().unwrap());
                let mut ended = jobs.clone().filter(|job| job["state"] != "not_yet");
                (jobs.any(|job| job["queue"] == "pheidi.email.send")
                    && ended.clone().count() == 5
                    && ended.all(|job| job["state"] == "done" || job["state"] == "failed"))
                .then_some(())
            });
        }
        traffic
    }

    pub(crate) async fn stop(self) {
        self.cream.shutdown().await;
        self.big_poppa.shutdown().await;
        self.pheidi.shutdown().await;
    }
}
