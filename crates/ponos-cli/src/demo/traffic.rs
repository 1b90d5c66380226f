//! What is fed in, drawn from the seed: who pays how much, in which order webhooks come, how long is paused.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use ponos_example_payments::cream::CARD_LIMIT_CENTS;
use ponos_example_payments::hooks::REAL_WEBHOOKS;

/// Organisations that pay.
const ORGS: [&str; 16] = [
    "acme",
    "aperture",
    "bluth",
    "cyberdyne",
    "duff",
    "globex",
    "hooli",
    "initech",
    "monarch",
    "oscorp",
    "soylent",
    "stark",
    "tyrell",
    "umbrella",
    "wonka",
    "zorg",
];

/// A webhook as GitHub sends it.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    /// The header `X-GitHub-Event`.
    pub(super) kind: String,
    /// The body.
    pub(super) body: String,
}

#[derive(serde::Deserialize)]
struct Line<'a> {
    event: String,
    #[serde(borrow)]
    payload: &'a serde_json::value::RawValue,
}

impl Webhook {
    /// Those that the program brings along.
    pub(super) fn embedded() -> Vec<Self> {
        Self::parse(REAL_WEBHOOKS).expect("the example's tests read the same lines")
    }

    /// Those in a file of the same form.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line of it; the error names the line.
    pub(super) fn read(file: &Path) -> anyhow::Result<Vec<Self>> {
        let shown = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read --input {shown}"))?;
        let webhooks = Self::parse(&text).with_context(|| format!("--input {shown}"))?;
        anyhow::ensure!(
            !webhooks.is_empty(),
            "--input {shown} has no webhook: write one {{\"event\":…,\"payload\":…}} a line"
        );
        Ok(webhooks)
    }

    fn parse(text: &str) -> anyhow::Result<Vec<Self>> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(n, line)| {
                let Line { event, payload } = serde_json::from_str(line).with_context(|| {
                    format!("line {} is no webhook: write one {{\"event\":…,\"payload\":…}} a line", n + 1)
                })?;
                Ok(Self { kind: event, body: payload.get().to_owned() })
            })
            .collect()
    }
}

/// A payment to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payment {
    pub(super) org: &'static str,
    pub(super) amount_cents: u64,
}

impl Payment {
    /// Whether the card takes it.
    pub(super) fn is_declined(&self) -> bool {
        self.amount_cents > CARD_LIMIT_CENTS
    }
}

/// The source of everything that is drawn.
#[derive(Debug)]
pub(super) struct Traffic {
    rng: fastrand::Rng,
    /// The last one is the one whose mailbox fails.
    orgs: [&'static str; ORGS.len()],
    webhooks: Vec<Webhook>,
    for_people: bool,
}

impl Traffic {
    pub(super) fn new(seed: u64, mut webhooks: Vec<Webhook>, for_people: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut orgs = ORGS;
        rng.shuffle(&mut orgs);
        rng.shuffle(&mut webhooks);
        Self { rng, orgs, webhooks, for_people }
    }

    pub(super) fn webhooks(&mut self) -> Vec<Webhook> {
        std::mem::take(&mut self.webhooks)
    }

    /// A number of this range.
    pub(super) fn count(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.rng.u64(range)
    }

    /// A payment that the card takes, by somebody who can be written to.
    pub(super) fn payment(&mut self) -> Payment {
        let org = self.orgs[self.rng.usize(..self.orgs.len() - 1)];
        Payment { org, amount_cents: self.rng.u64(5..200) * 100 }
    }

    /// A payment above the card's limit.
    pub(super) fn declined(&mut self) -> Payment {
        Payment { amount_cents: CARD_LIMIT_CENTS + self.rng.u64(1..1_000) * 100, ..self.payment() }
    }

    /// A payment by the one whose mailbox fails.
    pub(super) fn unreachable(&mut self) -> Payment {
        Payment { org: self.orgs[self.orgs.len() - 1], ..self.payment() }
    }

    /// Between two payments.
    pub(super) fn pause(&mut self) -> Duration {
        Duration::from_millis(if self.for_people { self.rng.u64(30..120) } else { self.rng.u64(5..30) })
    }

    /// For reading what has just been said.
    pub(super) fn breath(&self) -> Duration {
        if self.for_people { Duration::from_millis(900) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_again() {
        let draw = |seed| {
            let mut traffic = Traffic::new(seed, Webhook::embedded(), false);
            let payments: Vec<_> =
                (0..20).map(|_| traffic.payment()).map(|p| (p.org, p.amount_cents)).collect();
            let kinds: Vec<_> = traffic.webhooks().into_iter().map(|w| w.kind).collect();
            (payments, kinds, traffic.unreachable().org)
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let (payments, _, unreachable) = draw(7);
        assert!(payments.iter().all(|(org, _)| *org != unreachable));
    }

    #[test]
    fn a_line_that_is_no_webhook_is_named() {
        let error = Webhook::parse("{\"event\":\"ping\",\"payload\":{}}\n\n{\"event\":1}").unwrap_err();
        assert!(error.to_string().starts_with("line 3 is no webhook"), "{error}");
    }
}
