//! The suite that every broker must pass, for the brokers that come with Ponos.

use std::sync::Arc;

use ponos::core::broker::Broker;
use ponos::testing::conformance::{self, Guarantee, Subject};
use ponos::{MemoryBroker, Rough};

fn of_memory(broker: MemoryBroker, guarantee: Guarantee) -> Subject {
    let severed = broker.handle();
    let subject = Subject::new(guarantee, move || {
        let broker: Arc<dyn Broker> = Arc::new(broker.handle());
        async move { broker }
    });
    subject.severed_by(move |queue| severed.break_subscriptions(queue))
}

fn memory() -> Subject {
    of_memory(MemoryBroker::new(), Guarantee::ExactlyOnce)
}

/// A broker in memory that behaves as one across a network may.
fn rough(seed: u64) -> Subject {
    of_memory(MemoryBroker::rough(Rough::seeded(seed)), Guarantee::AtLeastOnce)
}

/// Every tenth operation goes wrong in each of the ways.
fn rougher(seed: u64) -> Subject {
    of_memory(MemoryBroker::rough(Rough::seeded(seed).per_mille(100)), Guarantee::AtLeastOnce)
}

/// A file in a directory that goes with the subject. What it counts as lost needs other processes that die: its own
/// tests have them.
fn sqlite() -> Subject {
    let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    Subject::new(Guarantee::ExactlyOnce, move || {
        let dir = Arc::clone(&dir);
        async move {
            let broker = ponos::Broker::sqlite(dir.path().join("ponos.db"));
            broker.connect().await.unwrap_or_else(|error| panic!("{error}"))
        }
    })
}

conformance::tests!(in_memory, super::memory());
conformance::tests!(in_sqlite, super::sqlite());
conformance::tests!(rough rough_seed_1, super::rough(1));
conformance::tests!(rough rough_seed_2, super::rough(2));
conformance::tests!(rough rough_seed_3, super::rough(3));
conformance::tests!(rough rougher_seed_4, super::rougher(4));
conformance::tests!(rough rougher_seed_5, super::rougher(5));
