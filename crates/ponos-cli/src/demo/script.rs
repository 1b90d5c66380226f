//! The scenes, in order. Each waits for what it tells of, and goes on without it when its time is up: the books at the
//! end, and not the story, say whether all is well.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use ponos::core::id::Timestamp;
use ponos::trace::{Cascade, CascadeOutcome, RenderOptions};
use ponos::{CircuitState, Tid};
use ponos_example_payments::mail_provider::{ModeName, ModeRequest};
use ponos_example_payments::{Org, pheidi};
use tokio::time::Instant;

use super::Kept;
use super::books::Books;
use super::console::{Console, Tone};
use super::stage::{Stage, Taken};
use super::traffic::{Payment, Traffic};

/// How often is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// How long a scene waits for what it tells of.
const SCENE_LIMIT: Duration = Duration::from_secs(9);

/// How long webhooks are fed.
const WEBHOOKS_LIMIT: Duration = Duration::from_secs(6);

/// How many payments there are in each scene; the seed draws from these.
const WHILE_WELL: RangeInclusive<u64> = 8..=14;
const WHILE_BUSY: RangeInclusive<u64> = 2..=4;
const WHILE_HELD: RangeInclusive<u64> = 6..=12;
const BESIDE_THE_UNREACHABLE: RangeInclusive<u64> = 2..=5;

/// How many payments are tried until the circuit opens.
const UNTIL_OPEN: usize = 40;

/// How many refused webhooks are told of one by one.
const TOLD_REFUSALS: u64 = 3;

/// What the driver was promised: the first of the independent ledgers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Payments that were answered with 202.
    pub(super) payments: Vec<(Tid, Payment)>,
    /// Payments that were not.
    pub(super) not_accepted: u64,
    /// Webhooks that became events.
    pub(super) events: Vec<Tid>,
    /// Webhooks that map to nothing.
    pub(super) ignored: u64,
    /// Webhooks that were refused.
    pub(super) refused: u64,
}

impl Ledger {
    /// All transactions that were begun.
    pub(super) fn tids(&self) -> BTreeSet<Tid> {
        self.payments.iter().map(|(tid, _)| tid).chain(&self.events).cloned().collect()
    }

    /// Transactions that must end with a mail, as far as the driver knows.
    fn mails(&self, unreachable: &str) -> usize {
        self.payments
            .iter()
            .filter(|(_, payment)| !payment.is_declined() && payment.org != unreachable)
            .count()
    }
}

/// The director.
pub(super) struct Script {
    traffic: Traffic,
    console: Console,
    ledger: Ledger,
    /// Who pays and cannot be written to.
    unreachable: Payment,
    scenes: usize,
}

impl Script {
    pub(super) fn new(mut traffic: Traffic, console: Console) -> Self {
        let unreachable = traffic.unreachable();
        Self { traffic, console, ledger: Ledger::default(), unreachable, scenes: 0 }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Says who is there and what is different from work.
    pub(super) fn opening(&self, stage: &Stage, temporary: bool, seed: u64) {
        let console = &self.console;
        let broker = stage.broker_name();
        console.line(Tone::Strong, "Ponos demo: five programs in one process, joined by HTTP and one broker");
        let fate = if temporary { "  (deleted at the end)" } else { "" };
        console.line(Tone::Plain, &format!("  {:<14} {broker}{fate}", "broker"));
        for (name, url, what) in stage.urls() {
            console.line(Tone::Plain, &format!("  {name:<14} {url}  {what}"));
        }
        console.line(
            Tone::Plain,
            &format!("  {:<14} send mail for payments, build what is pushed", "pheidi, deploy"),
        );
        console.line(
            Tone::Plain,
            &format!("  {:<14} {seed}  (--seed {seed} draws the same payments again)", "seed"),
        );
        let runs = pheidi::DEMO_RUNS;
        let row = pheidi::DEMO_ROW;
        console.line(
            Tone::Faint,
            &format!(
                "  The policies are shortened to be watched: {runs} attempts from 0.2 s apart (at work 9, from 1 s), a circuit that \
                 opens\n  after {row} failures in a row for 2.5 s (at work 10, for 10 s and longer)."
            ),
        );
    }

    /// Plays all scenes.
    pub(super) async fn play(&mut self, stage: &Stage) {
        self.all_is_well(stage).await;
        self.the_provider_is_busy(stage).await;
        self.the_provider_breaks(stage).await;
        self.one_mailbox_fails(stage).await;
    }

    fn scene(&mut self, stage: &Stage, title: &str) {
        self.scenes += 1;
        stage.seen().new_scene();
        self.console.scene(self.scenes, title);
    }

    async fn all_is_well(&mut self, stage: &Stage) {
        self.scene(stage, "All is well");
        self.feed_webhooks(stage).await;
        let paid = self.pay_some(stage, WHILE_WELL).await;
        let declined = self.traffic.declined();
        self.pay(stage, declined).await;
        let Self { console, .. } = self;
        console.say(
            "cream",
            Tone::Plain,
            &format!("▸ {} payments taken, each a job cream.payment.process", paid + 1),
        );
        let amount = declined.amount_cents / 100;
        console.say(
            "cream",
            Tone::Plain,
            &format!("◇ org.payment.failed: the card of {} does not take ${amount}", declined.org),
        );
        self.delivered(stage, "every payment has its receipt").await;
        tokio::time::sleep(self.traffic.breath()).await;
    }

    async fn feed_webhooks(&mut self, stage: &Stage) {
        let webhooks = self.traffic.webhooks();
        let (all, until) = (webhooks.len(), Instant::now() + WEBHOOKS_LIMIT);
        let mut sent = 0;
        for webhook in webhooks {
            if Instant::now() > until {
                break;
            }
            let kind = webhook.kind.clone();
            match stage.webhook(webhook).await {
                Taken::Event(tid) => self.ledger.events.push(tid),
                Taken::Ignored => self.ledger.ignored += 1,
                Taken::Refused(why) => {
                    self.ledger.refused += 1;
                    if self.ledger.refused <= TOLD_REFUSALS {
                        let kind = ponos::core::envelope::tame(&kind, 40);
                        let why = ponos::core::envelope::tame(&why, 120);
                        self.console.say(
                            "hooks",
                            Tone::Open,
                            &format!("a webhook `{kind}` is refused: {why}"),
                        );
                    }
                }
            }
            sent += 1;
        }
        let Ledger { events, ignored, refused, .. } = &self.ledger;
        let text = format!(
            "{sent} GitHub webhooks: {} became events, {ignored} map to nothing, {refused} refused",
            events.len()
        );
        self.console.say("hooks", Tone::Plain, &text);
        if sent < all {
            let text =
                format!("{} more webhooks are left out: {WEBHOOKS_LIMIT:?} for them are over", all - sent);
            self.console.say("hooks", Tone::Open, &text);
        }
    }

    async fn the_provider_is_busy(&mut self, stage: &Stage) {
        self.scene(stage, "The mail provider is busy: 429, Retry-After 1 s");
        let times = self.traffic.count(WHILE_BUSY);
        self.provider(
            stage,
            ModeRequest { retry_after_s: 1, times: Some(times), ..self.mode(ModeName::Busy) },
        )
        .await;
        self.pay_some(stage, times..=times).await;
        self.until(SCENE_LIMIT, async || stage.seen().failures() >= times).await;
        self.delivered(stage, "no attempt came before its second was over").await;
        tokio::time::sleep(self.traffic.breath()).await;
    }

    async fn the_provider_breaks(&mut self, stage: &Stage) {
        self.scene(stage, "The mail provider breaks");
        self.provider(stage, self.mode(ModeName::Broken)).await;
        self.console.say("mail-provider", Tone::Bad, "answers every mail with 500");
        let mut circuit = stage.seen().circuit;
        let is_open = |state: &CircuitState| matches!(state, CircuitState::Open { .. });
        for _ in 0..UNTIL_OPEN {
            if is_open(&circuit.borrow()) {
                break;
            }
            let payment = self.traffic.payment();
            self.pay(stage, payment).await;
        }
        let _ = tokio::time::timeout(SCENE_LIMIT, circuit.wait_for(is_open)).await;

        let more = self.pay_some(stage, WHILE_HELD).await;
        self.console.say(
            "cream",
            Tone::Plain,
            &format!("▸ {more} more payments taken: nobody upstream notices"),
        );
        self.until(Duration::from_millis(900), async || {
            stage
                .mail_queue()
                .await
                .is_some_and(|queue| queue.ready >= more && queue.unsettled.unwrap_or(0) == 0)
        })
        .await;
        let mut held = 0;
        if let Some(queue) = stage.mail_queue().await {
            held = queue.messages();
            // RabbitMQ keeps what waits for its time in queues of its own.
            let or_elsewhere = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
            let text = format!(
                "the queue {} holds {held} jobs: {} ready, {} waiting for their next attempt, {} in work",
                pheidi::QUEUE,
                queue.ready,
                or_elsewhere(queue.delayed),
                or_elsewhere(queue.unsettled)
            );
            self.console.say("broker", Tone::Strong, &text);
        }
        tokio::time::sleep(self.traffic.breath()).await;

        self.provider(stage, self.mode(ModeName::Ok)).await;
        self.console.say("mail-provider", Tone::Good, "repaired");
        let closed = circuit.wait_for(|state| *state == CircuitState::Closed);
        let _ = tokio::time::timeout(SCENE_LIMIT, closed).await;
        self.delivered(stage, &format!("the {held} held jobs are delivered, nobody sent anything again"))
            .await;
        let failures = stage.seen().failures();
        self.console.say(
            "demo",
            Tone::Faint,
            &format!("{failures} attempts failed in this scene, no job did"),
        );
        tokio::time::sleep(self.traffic.breath()).await;
    }

    async fn one_mailbox_fails(&mut self, stage: &Stage) {
        self.scene(stage, "One mailbox fails for good");
        let org = self.unreachable.org;
        self.console.say(
            "mail-provider",
            Tone::Bad,
            &format!("answers every mail to {} with 500, all others with 201", address(org)),
        );
        self.pay(stage, self.unreachable).await;
        self.pay_some(stage, BESIDE_THE_UNREACHABLE).await;
        self.until(SCENE_LIMIT, async || stage.flagged().iter().any(|flagged| flagged == org)).await;
        if stage.flagged().iter().any(|flagged| flagged == org) {
            self.console.say(
                "pheidi",
                Tone::Plain,
                &format!("⚑ the recovery function has run: {org} is flagged, the failed job is kept"),
            );
        }
        self.delivered(stage, "the others have their receipts; the circuit stayed closed").await;
    }

    /// Makes a number of payments that is drawn from `range`; answers how many.
    async fn pay_some(&mut self, stage: &Stage, range: RangeInclusive<u64>) -> u64 {
        let count = self.traffic.count(range);
        for _ in 0..count {
            let payment = self.traffic.payment();
            self.pay(stage, payment).await;
        }
        count
    }

    /// Pays and waits a little.
    async fn pay(&mut self, stage: &Stage, payment: Payment) {
        match stage.pay(payment).await {
            Ok(tid) => self.ledger.payments.push((tid, payment)),
            Err(error) => {
                self.ledger.not_accepted += 1;
                self.console.say("demo", Tone::Bad, &format!("a payment was not accepted: {error:#}"));
            }
        }
        tokio::time::sleep(self.traffic.pause()).await;
    }

    /// In every mode the one mailbox fails.
    fn mode(&self, mode: ModeName) -> ModeRequest {
        ModeRequest { mode, broken_for: vec![address(self.unreachable.org)], ..ModeRequest::default() }
    }

    async fn provider(&self, stage: &Stage, mode: ModeRequest) {
        if let Err(error) = stage.provider(&mode).await {
            self.console.say("demo", Tone::Bad, &format!("the mail provider does not listen: {error:#}"));
        }
    }

    /// Waits until the provider has delivered all that can be delivered, and says so.
    async fn delivered(&self, stage: &Stage, moral: &str) {
        let wanted = self.ledger.mails(self.unreachable.org);
        let tids = self.ledger.tids();
        let count = async || {
            let mails = stage.deliveries().await.unwrap_or_default();
            mails
                .iter()
                .filter(|mail| {
                    mail.tid.as_deref().and_then(Tid::from_foreign).is_some_and(|tid| tids.contains(&tid))
                })
                .count()
        };
        self.until(SCENE_LIMIT, async || count().await >= wanted).await;
        let delivered = count().await;
        let (tone, moral) =
            if delivered >= wanted { (Tone::Good, moral) } else { (Tone::Open, "the rest is not there yet") };
        self.console.say("pheidi", tone, &format!("✔ {delivered} of {wanted} mails delivered: {moral}"));
    }

    async fn until(&self, limit: Duration, mut done: impl AsyncFnMut() -> bool) {
        let until = Instant::now() + limit;
        while !done().await && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// One payment as a tree, the books, and what to try next.
    pub(super) fn epilogue(&self, books: &Books, kept: Option<Kept<'_>>) {
        let console = &self.console;
        let told = books.cascades().max_by_key(|cascade| {
            let paid = cascade.find("cream.payment.process").is_some();
            let attempts: usize = cascade.jobs().map(|job| job.attempts().len()).sum();
            (paid, cascade.outcome() == CascadeOutcome::Done, attempts)
        });
        if let Some(cascade) = &told {
            console.line(Tone::Strong, "\n── One payment, everything that it set off, by its transaction id");
            let now = Timestamp::from(SystemTime::now());
            console.write(cascade.render(RenderOptions {
                color: console.color(),
                timing: true,
                width: console.width(),
                now,
            }));
        }
        books.tell(console);
        let tid = told.as_ref().and_then(Cascade::tid);
        console.line(Tone::Strong, "\n── What next");
        match (kept, tid) {
            (Some(kept), Some(tid)) => {
                let broker = match kept {
                    Kept::ByUrl(url) => format!(" --broker {}", for_a_shell(url)),
                    Kept::BySecretUrl => {
                        console.line(Tone::Plain, "  with PONOS_BROKER set to the URL of this broker:");
                        String::new()
                    }
                };
                console.line(Tone::Plain, &format!("  ponos trace {}{broker}", tid.short()));
                console.line(Tone::Plain, &format!("  ponos explain org.payment.processed{broker}"));
                console.line(Tone::Plain, &format!("  ponos map{broker}"));
                console.line(Tone::Plain, &format!("  ponos failed list --app pheidi{broker}"));
            }
            _ => console.line(
                Tone::Plain,
                "  ponos demo --broker sqlite:demo.db      the same on a file that stays, to be looked at",
            ),
        }
        console.line(Tone::Plain, "  ponos demo --input webhooks.jsonl       with webhooks of your own");
        console.line(
            Tone::Plain,
            "  examples/payments/README.md             the five programs in five terminals",
        );
    }
}

/// A text as one word of a shell's command line.
fn for_a_shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn address(org: &str) -> String {
    Org::try_from(org.to_owned()).map(|org| pheidi::address_of(&org)).unwrap_or_default()
}
