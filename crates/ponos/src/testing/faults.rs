//! What can go wrong between a service and its broker, and how often it does.

use std::time::Duration;

/// A fault that a [`FaultyBroker`](super::FaultyBroker) injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// The process dies before what it publishes has left it.
    CrashBeforePublish,
    /// The process dies when the broker has the message, before it has heard so.
    CrashBeforeConfirm,
    /// The process dies right after it has heard so.
    CrashAfterConfirm,
    /// The broker does not take a message, and says so.
    PublishRefused,
    /// A message does not arrive, and nobody says so.
    PublishLost,
    /// A message arrives, and its confirm does not.
    ConfirmLost,
    /// A message arrives up to a minute after its publisher was told that there is no answer.
    PublishLate,
    /// A message arrives twice.
    PublishDuplicated,
    /// The process dies with a result that it has not begun to settle.
    CrashBeforeSettle,
    /// The process dies when all effects are sent. Only without transactions, like the next one.
    CrashAfterEffects,
    /// The process dies when the copy of its message is sent, before it acknowledges the original.
    CrashAfterCopy,
    /// The process dies when its settlement is carried out, before it has heard so.
    CrashAfterSettle,
    /// The connection breaks before a settlement arrives.
    SettleLost,
    /// A settlement does not arrive, and nobody says so. Without transactions the connection breaks some time after the
    /// worker was told that all is well: an acknowledgement has no answer.
    SettleUnanswered,
    /// A settlement is carried out, and its answer does not arrive.
    SettleAnswerLost,
    /// A settlement arrives after the worker's patience has ended.
    SettleLate,
    /// A subscription ends; what it holds is delivered again.
    SubscriptionLost,
    /// A subscription cannot be opened for now.
    SubscribeRefused,
    /// A delivery waits for up to ten seconds on its way, and others overtake it.
    DeliveryDelayed,
    /// What is delivered together comes in another order.
    DeliveryReordered,
    /// The broker is away for up to half a minute: all calls fail, all subscriptions end.
    BrokerDown,
    /// The process dies when a handler has begun. Only in a [`Simulation`](super::Simulation), like the next ones.
    CrashInHandler,
    /// The process dies when a recovery function has begun.
    CrashInRecovery,
    /// The process dies at any moment.
    CrashAnytime,
    /// The process is shut down in order and started again, as when a new version is deployed.
    Restart,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::CrashBeforePublish,
        Self::CrashBeforeConfirm,
        Self::CrashAfterConfirm,
        Self::PublishRefused,
        Self::PublishLost,
        Self::ConfirmLost,
        Self::PublishLate,
        Self::PublishDuplicated,
        Self::CrashBeforeSettle,
        Self::CrashAfterEffects,
        Self::CrashAfterCopy,
        Self::CrashAfterSettle,
        Self::SettleLost,
        Self::SettleUnanswered,
        Self::SettleAnswerLost,
        Self::SettleLate,
        Self::SubscriptionLost,
        Self::SubscribeRefused,
        Self::DeliveryDelayed,
        Self::DeliveryReordered,
        Self::BrokerDown,
        Self::CrashInHandler,
        Self::CrashInRecovery,
        Self::CrashAnytime,
        Self::Restart,
    ];

    /// How often it happens where nothing is said: in so many of 1,000 cases.
    const fn default_rate(self) -> u32 {
        match self {
            // These hit everything that is in flight.
            Self::BrokerDown => 1,
            Self::SubscriptionLost => 5,
            Self::CrashAnytime | Self::Restart => 250,
            Self::DeliveryDelayed | Self::DeliveryReordered => 50,
            Self::CrashInRecovery => 100,
            _ => 20,
        }
    }
}

/// Which faults happen, how often, and how long what goes well takes.
///
/// ```
/// use ponos::testing::{Fault, Faults};
///
/// let faults = Faults::none(7).rate(Fault::ConfirmLost, 500).without_transactions();
/// assert_eq!(faults.rate_of(Fault::ConfirmLost), 500);
/// assert_eq!(faults.rate_of(Fault::BrokerDown), 0);
/// ```
#[derive(Debug, Clone)]
pub struct Faults {
    pub(super) seed: u64,
    /// In so many of 1,000 cases, by [`Fault::ALL`].
    rates: [u32; Fault::ALL.len()],
    pub(super) latency: Duration,
    pub(super) transactions: bool,
}

impl Faults {
    /// None yet; their chance will be drawn from `seed`.
    #[must_use]
    pub const fn none(seed: u64) -> Self {
        Self { seed, rates: [0; Fault::ALL.len()], latency: Duration::from_millis(20), transactions: true }
    }

    /// Every fault, most in 20 of 1,000 cases.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Fault::ALL
            .into_iter()
            .fold(Self::none(seed), |faults, fault| faults.rate(fault, fault.default_rate()))
    }

    /// About half of the faults, each more or less often than usual, with or without transactions: what is drawn from
    /// `seed`. Faults that hide one another when all are there are found so.
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed_fa17);
        let mut faults = Self::none(seed);
        for fault in Fault::ALL {
            let rate = fault.default_rate() * random.u32(1..=4);
            if random.bool() {
                faults = faults.rate(fault, rate);
            }
        }
        faults.latency = Duration::from_millis(random.u64(1..=200));
        faults.transactions = random.bool();
        faults
    }

    /// This fault in so many of 1,000 cases.
    #[must_use]
    pub fn rate(mut self, fault: Fault, per_mille: u32) -> Self {
        self.rates[fault as usize] = per_mille.min(1000);
        self
    }

    /// In how many of 1,000 cases it happens.
    #[must_use]
    pub const fn rate_of(&self, fault: Fault) -> u32 {
        self.rates[fault as usize]
    }

    /// How long each way between a process and the broker takes at most. Default: 20 ms.
    #[must_use]
    pub const fn latency(mut self, most: Duration) -> Self {
        self.latency = most;
        self
    }

    /// Settles as a broker without transactions does: effects are confirmed first, then a copy of the message where it
    /// is to come again or has failed, and the original is acknowledged last. Default: in one step.
    #[must_use]
    pub const fn without_transactions(mut self) -> Self {
        self.transactions = false;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_own_rate() {
        for (at, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, at);
            assert_eq!(Faults::none(1).rate(fault, 2000).rate_of(fault), 1000);
            assert!(Faults::seeded(1).rate_of(fault) > 0);
        }
    }

    #[test]
    fn a_swarm_differs_from_seed_to_seed() {
        let on = |seed| Fault::ALL.map(|fault| Faults::swarm(seed).rate_of(fault));
        assert_eq!(on(1), on(1));
        assert_ne!(on(1), on(2));
    }
}
