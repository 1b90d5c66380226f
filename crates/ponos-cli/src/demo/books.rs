//! The balance, from the journal; and the ledgers of others, which must agree with it.

use std::collections::BTreeSet;
use std::time::Duration;

use ponos::Tid;
use ponos::core::envelope::{Envelope, GaveUpReason, Recovery};
use ponos::core::journal::{Record, What};
use ponos::core::name::QueueName;
use ponos::trace::{Balance, Cascade, JobState};
use tokio::time::Instant;

use super::console::{Console, Tone};
use super::script::Ledger;
use super::stage::Stage;

/// How often is looked whether everything has settled.
const LOOK_EVERY: Duration = Duration::from_millis(60);

/// How long the last look at all ledgers may take.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// How many transactions that have not ended are named.
const NAMED_PENDING: usize = 5;

/// The books, closed.
#[derive(Debug, Default)]
pub(super) struct Books {
    balance: Balance,
    breaker_opened: u64,
    records: Vec<Record>,
    checks: Vec<Check>,
    /// What keeps jobs, where something has not settled.
    left: Vec<(QueueName, usize)>,
}

/// Something that must hold.
#[derive(Debug)]
struct Check {
    holds: bool,
    says: String,
}

impl Check {
    fn new(holds: bool, says: impl Into<String>) -> Self {
        Self { holds, says: says.into() }
    }
}

/// What is needed beside the balance to cross-check it.
struct Others {
    dropped: u64,
    failed: Vec<Envelope>,
    delivered: Vec<(String, Option<Tid>)>,
    flagged: BTreeSet<String>,
}

impl Books {
    /// Waits until everything has settled, until `deadline` at the latest, and closes the books as they stand then.
    pub(super) async fn close(stage: &Stage, ledger: &Ledger, deadline: Instant) -> Self {
        let tids = ledger.tids();
        let mut books = Self { breaker_opened: stage.seen().opened(), ..Self::default() };
        let look = async {
            loop {
                let settled = books.look(stage, &tids).await;
                if settled.is_ok_and(|settled| settled) {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let in_time = tokio::time::timeout_at(deadline, look).await.is_ok();
        let others = tokio::time::timeout(LAST_LOOK, async {
            if !in_time {
                books.look(stage, &tids).await?;
            }
            Others::ask(stage, &tids).await
        });
        match others.await {
            Ok(Ok(others)) => books.checks = books.check(ledger, &others),
            Ok(Err(error)) => books.checks.push(Check::new(false, format!("the ledgers cannot be read: {error:#}"))),
            Err(_) => books.checks.push(Check::new(false, "the ledgers were not read in time")),
        }
        if !in_time {
            books.checks.push(Check::new(false, "not everything has settled in time"));
        }
        books
    }

    /// Looks at the queues and, once they are empty, at the journal. Answers whether everything has settled.
    async fn look(&mut self, stage: &Stage, tids: &BTreeSet<Tid>) -> anyhow::Result<bool> {
        self.left = stage.left(tids).await?;
        let (records, _) = stage.records(tids).await?;
        self.balance = Balance::from_records(&records);
        self.records = records;
        let begun: BTreeSet<&Tid> = self.records.iter().filter(|record| root_name(record).is_some()).map(|record| &record.tid).collect();
        Ok(self.left.is_empty() && self.balance.pending() == 0 && begun.len() == tids.len())
    }

    /// Holds the ledgers against each other.
    fn check(&self, ledger: &Ledger, others: &Others) -> Vec<Check> {
        let mut checks = Vec::from(self.what_was_accepted(ledger));
        checks.push(what_was_delivered(ledger, others));
        checks.extend(self.what_has_failed(others));
        let left: usize = self.left.iter().map(|(_, n)| n).sum();
        checks.push(Check::new(left == 0, format!("the queues hold {left} of the demo's jobs")));
        let odd = others.dropped + self.balance.surplus + self.balance.unpublished;
        checks.push(Check::new(odd == 0, format!("the journal misses {odd} records, or has them twice")));
        checks
    }

    /// The answers that HTTP callers were given, against the journal.
    fn what_was_accepted(&self, ledger: &Ledger) -> [Check; 2] {
        let roots: Vec<_> = self.records.iter().filter_map(root_name).collect();
        let (paid, webhooks) = (ledger.payments.len(), ledger.events.len());
        let payments = roots.iter().filter(|name| **name == "cream.payment.process").count();
        let others = roots.len() - payments;
        [
            Check::new(paid == payments, format!("{paid} payments were answered with 202; the journal has {payments}")),
            Check::new(webhooks == others, format!("{webhooks} webhooks were answered as events; the journal has {others}")),
        ]
    }

    /// The queue of failed jobs and the flags of the recovery function, against the journal.
    fn what_has_failed(&self, others: &Others) -> [Check; 3] {
        let (kept, failed) = (others.failed.len() as u64, self.balance.failed);
        let recovered: BTreeSet<_> = others.failed.iter().filter(|job| is_recovered(job)).filter_map(org_of).collect();
        let names = |orgs: &BTreeSet<String>| orgs.iter().cloned().collect::<Vec<_>>().join(", ");
        let exhausted = others.failed.iter().filter(|job| is_exhausted(job)).count();
        let opened = self.breaker_opened;
        [
            Check::new(kept == failed, format!("{kept} failed jobs are kept; the journal counts {failed}")),
            Check::new(
                recovered == others.flagged,
                format!("flagged by pheidi: {}; the recovered jobs are those of: {}", names(&others.flagged), names(&recovered)),
            ),
            Check::new(
                opened > 0 && exhausted > 0,
                format!("the circuit has opened ({opened}×), and a job has spent all its attempts ({exhausted})"),
            ),
        ]
    }

    /// How many accepted jobs neither are done nor have failed.
    fn lost(&self) -> u64 {
        let Balance { accepted, done, failed, .. } = self.balance;
        accepted.saturating_sub(done + failed)
    }

    /// Whether nothing is lost and every ledger agrees.
    pub(super) fn balance_closes(&self) -> bool {
        self.lost() == 0 && self.balance.pending() == 0 && self.checks.iter().all(|check| check.holds)
    }

    pub(super) fn to_json(&self) -> String {
        let b = &self.balance;
        serde_json::json!({
            "accepted": b.accepted,
            "done": b.done,
            "failed": b.failed,
            "recovered": b.recovered,
            "lost": self.lost(),
            "breaker_opened": self.breaker_opened,
            "retries": b.retries,
        })
        .to_string()
    }

    /// The trees of all transactions, the earliest first.
    pub(super) fn cascades(&self) -> impl Iterator<Item = Cascade> {
        Cascade::split(self.records.clone()).into_iter()
    }

    /// Says what is in them.
    pub(super) fn tell(&self, console: &Console) {
        let b = &self.balance;
        console.line(Tone::Strong, "\n── The balance");
        let rows = [
            ("accepted", b.accepted, "jobs that the broker took: each message counts once for each queue that it went to"),
            ("done", b.done, ""),
            ("failed", b.failed, "kept in the queue of failed jobs, to be looked at, fixed and retried"),
            ("recovered", b.recovered, "of those: their recovery function has run"),
            ("lost", self.lost(), "accepted − done − failed"),
        ];
        for (name, number, what) in rows {
            let tone = match (name, number) {
                ("lost", 0) => Tone::Good,
                ("lost", _) => Tone::Bad,
                _ => Tone::Plain,
            };
            let number = console.paint(tone, &format!("{number:>6}"));
            console.line(Tone::Plain, &format!("  {name:<10} {number}   {}", console.paint(Tone::Faint, what)));
        }
        let opened = self.breaker_opened;
        console.line(Tone::Plain, &format!("  on the way: {} retries, the circuit opened {opened}×", b.retries));
        console.line(Tone::Strong, "\n── Cross-checked against ledgers that know nothing of the journal");
        for Check { holds, says } in &self.checks {
            let (mark, tone) = if *holds { ("✔", Tone::Good) } else { ("✖", Tone::Bad) };
            console.line(Tone::Plain, &format!("  {} {says}", console.paint(tone, mark)));
        }
        self.tell_what_is_left(console);
        let (tone, text) = if self.balance_closes() {
            (Tone::Good, "The balance closes: nothing is lost.")
        } else {
            (Tone::Bad, "The balance does not close.")
        };
        console.line(tone, &format!("\n  {text}"));
    }

    fn tell_what_is_left(&self, console: &Console) {
        for (queue, jobs) in &self.left {
            console.line(Tone::Bad, &format!("    {queue} still holds {jobs}"));
        }
        if self.balance.pending() == 0 {
            return;
        }
        for cascade in self.cascades().filter(|cascade| cascade.tally().pending() > 0).take(NAMED_PENDING) {
            let open = cascade.jobs().filter(|job| job.state().is_pending());
            let open: Vec<_> = open.map(|job| format!("{} ({})", job.queue(), state_name(job.state()))).collect();
            let tid = cascade.tid().map(ToString::to_string).unwrap_or_default();
            console.line(Tone::Bad, &format!("    {tid} has not ended: {}", open.join(", ")));
        }
    }
}

impl Others {
    async fn ask(stage: &Stage, tids: &BTreeSet<Tid>) -> anyhow::Result<Self> {
        let (_, dropped) = stage.records(&BTreeSet::new()).await?;
        let mails = stage.deliveries().await?.into_iter();
        let delivered = mails.map(|mail| (mail.key, mail.tid.as_deref().and_then(Tid::from_foreign)));
        // On a broker that others have used there may be older jobs, which are sent too.
        let ours = |tid: &Option<Tid>| tid.as_ref().is_none_or(|tid| tids.contains(tid));
        Ok(Self {
            dropped,
            failed: stage.failed(tids).await?,
            delivered: delivered.filter(|(_, tid)| ours(tid)).collect(),
            flagged: stage.flagged().into_iter().collect(),
        })
    }
}

/// The mails at the provider, against the payments that were promised one.
fn what_was_delivered(ledger: &Ledger, others: &Others) -> Check {
    let failed: BTreeSet<&Tid> = others.failed.iter().map(|envelope| &envelope.tid).collect();
    let taken = ledger.payments.iter().filter(|(_, payment)| !payment.is_declined());
    let due: BTreeSet<&Tid> = taken.map(|(tid, _)| tid).filter(|tid| !failed.contains(tid)).collect();
    let keys: BTreeSet<&String> = others.delivered.iter().map(|(key, _)| key).collect();
    let delivered: BTreeSet<&Tid> = others.delivered.iter().filter_map(|(_, tid)| tid.as_ref()).collect();
    let (mails, paid, failed) = (others.delivered.len(), ledger.payments.len(), failed.len());
    let declined = ledger.payments.iter().filter(|(_, payment)| payment.is_declined()).count();
    let says = format!("the mail provider has delivered {mails} mails = {paid} payments − {declined} declined − {failed} failed, each once");
    Check::new(delivered == due && keys.len() == mails && mails == due.len(), says)
}

/// The name of what begins a transaction.
fn root_name(record: &Record) -> Option<&str> {
    match &record.what {
        What::Published(published) if published.cause.is_none() => Some(&published.name),
        _ => None,
    }
}

fn is_recovered(envelope: &Envelope) -> bool {
    envelope.report.as_ref().is_some_and(|report| report.recovery == Recovery::Done)
}

fn is_exhausted(envelope: &Envelope) -> bool {
    envelope.report.as_ref().is_some_and(|report| report.gave_up.reason == GaveUpReason::Exhausted)
}

fn org_of(envelope: &Envelope) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(&envelope.body).ok()?;
    Some(body["org"].as_str()?.to_owned())
}

fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Waiting { .. } => "waits for its next attempt",
        JobState::Recovering => "its recovery has not ended",
        JobState::NotYet => "not started",
        JobState::Lost => "its result came too late",
        _ => "no record of its end",
    }
}
