//! R4: workers on RabbitMQ are killed with jobs in their hands.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario, nothing_else, r1};
use crate::load::Mix;
use crate::system::BrokerKind;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r4",
    title: "workers killed on RabbitMQ",
    what: "Four workers on one node; one, two or all of them are killed with SIGKILL at random moments, and others started \
           in their place. A kill counts if it cut at least one run.",
    passes: "I1–I9; RabbitMQ has no transactions, so that a copy may also be sent twice when its sender is killed before it \
             acknowledges.",
    brokers: &[BrokerKind::RabbitMq],
    long: Figures {
        jobs: 100_000,
        faults: 20,
        pace: 800,
        backlog: 2_000,
        open: 500,
        between: (Duration::from_secs(3), Duration::from_secs(7)),
        patience: PATIENCE,
        mix: Mix { millis: 40, ..Mix::USUAL },
        ..FIGURES
    },
    short: Figures { jobs: 1_500, faults: 4, pace: 500, mix: Mix { millis: 40, ..Mix::USUAL }, ..FIGURES },
    run: r1::kill_workers,
    judge: nothing_else,
};
