//! What may go wrong with a broker across a network, drawn from a seed.

use std::sync::{Mutex, PoisonError};

/// How rough a [`MemoryBroker`](super::MemoryBroker) is: how often each fault happens, out of 1,000.
#[derive(Debug, Clone, Copy)]
pub struct Rough {
    seed: u64,
    /// A publish is refused.
    refused: u32,
    /// A publish is refused because the broker is full.
    blocked: u32,
    /// A publish is not answered; half of them are taken all the same.
    unknown: u32,
    /// A subscription ends, and its unsettled messages are delivered again.
    lost: u32,
    /// An acknowledgement does not arrive, or is not answered.
    unacknowledged: u32,
}

impl Rough {
    /// Every fault, each in 30 of 1,000 operations; the loss of a subscription, which hits all that it holds, in 5.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self { seed, refused: 30, blocked: 30, unknown: 30, lost: 5, unacknowledged: 30 }
    }

    /// Every fault so often, out of 1,000 operations.
    #[must_use]
    pub const fn per_mille(self, faults: u32) -> Self {
        Self {
            refused: faults,
            blocked: faults,
            unknown: faults,
            lost: faults,
            unacknowledged: faults,
            ..self
        }
    }
}

/// Draws faults.
#[derive(Debug)]
pub(super) struct Dice {
    rough: Rough,
    random: Mutex<fastrand::Rng>,
}

/// What happens to a publish.
#[derive(Debug)]
pub(super) enum Publish {
    Fine,
    Refused,
    Blocked,
    UnknownAndTaken,
    UnknownAndLost,
}

/// What happens to an acknowledgement.
#[derive(Debug)]
pub(super) enum Acknowledgement {
    Fine,
    LostOnTheWay,
    Unanswered,
}

impl Dice {
    pub(super) fn new(rough: Rough) -> Self {
        Self { rough, random: Mutex::new(fastrand::Rng::with_seed(rough.seed)) }
    }

    fn roll(&self) -> u32 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).u32(0..1000)
    }

    pub(super) fn publish(&self) -> Publish {
        let Rough { refused, blocked, unknown, .. } = self.rough;
        match self.roll() {
            n if n < refused => Publish::Refused,
            n if n < refused + blocked => Publish::Blocked,
            n if n < refused + blocked + unknown / 2 => Publish::UnknownAndTaken,
            n if n < refused + blocked + unknown => Publish::UnknownAndLost,
            _ => Publish::Fine,
        }
    }

    pub(super) fn loses_subscription(&self) -> bool {
        self.roll() < self.rough.lost
    }

    pub(super) fn acknowledgement(&self) -> Acknowledgement {
        let faults = self.rough.unacknowledged;
        match self.roll() {
            n if n < faults / 2 => Acknowledgement::LostOnTheWay,
            n if n < faults => Acknowledgement::Unanswered,
            _ => Acknowledgement::Fine,
        }
    }
}
