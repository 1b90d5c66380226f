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

/// How long after the deadline the last look at all ledgers may take.
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
        let others = tokio::time::timeout_at(deadline + LAST_LOOK, async {
            if !in_time {
                books.look(stage, &tids).await?;
            }
            Others::ask(stage, &tids).await
        });
        match others.await {
            Ok(Ok(others)) => books.checks = books.check(ledger, &others),
            Ok(Err(error)) => {
                books.checks.push(Check::new(false, format!("the ledgers cannot be read: {error:#}")));
            }
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
        let begun: BTreeSet<&Tid> = self
            .records
            .iter()
            .filter(|record| root_name(record).is_some())
            .map(|record| &record.tid)
            .collect();
        Ok(self.left.is_empty() && self.balance.pending() == 0 && begun.len() == tids.len())
    }

    /// Holds the ledgers against each other.
    fn check(&self, ledger: &Ledger, others: &Others) -> Vec<Check> {
        let mut checks = Vec::from(self.what_was_accepted(ledger));
        checks.push(what_was_delivered(ledger, others));
        checks.extend(self.what_has_failed(others));
        let left: usize = self.left.iter().map(|(_, n)| n).sum();
        checks.push(Check::new(left == 0, format!("jobs left in the queues: {left}")));
        let odd = others.dropped + self.balance.surplus + self.balance.unpublished;
        checks.push(Check::new(odd == 0, format!("records that the journal lacks or has too many: {odd}")));
        checks
    }

    /// The answers that HTTP callers were given, against the journal.
    fn what_was_accepted(&self, ledger: &Ledger) -> [Check; 2] {
        let roots: Vec<_> = self.records.iter().filter_map(root_name).collect();
        let (paid, webhooks) = (ledger.payments.len(), ledger.events.len());
        let payments = roots.iter().filter(|name| **name == "cream.payment.process").count();
        let others = roots.len() - payments;
        [
            Check::new(
                paid == payments,
                format!("payments answered with 202: {paid}; begun in the journal: {payments}"),
            ),
            Check::new(
                webhooks == others,
                format!("webhooks answered as events: {webhooks}; begun in the journal: {others}"),
            ),
        ]
    }

    /// The queue of failed jobs and the flags of the recovery function, against the journal.
    fn what_has_failed(&self, others: &Others) -> [Check; 3] {
        let (kept, failed) = (others.failed.len() as u64, self.balance.failed);
        let recovered: BTreeSet<_> =
            others.failed.iter().filter(|job| is_recovered(job)).filter_map(org_of).collect();
        let names = |orgs: &BTreeSet<String>| match orgs.len() {
            0 => "none".to_owned(),
            _ => orgs.iter().cloned().collect::<Vec<_>>().join(", "),
        };
        let exhausted = others.failed.iter().filter(|job| is_exhausted(job)).count();
        let opened = self.breaker_opened;
        [
            Check::new(
                kept == failed,
                format!("failed jobs kept by the broker: {kept}; in the journal: {failed}"),
            ),
            Check::new(
                recovered == others.flagged,
                format!(
                    "organisations flagged by pheidi: {}; of recovered jobs: {}",
                    names(&others.flagged),
                    names(&recovered)
                ),
            ),
            Check::new(
                opened > 0 && exhausted > 0,
                format!(
                    "what was to be shown: circuits opened: {opened}; jobs that spent all their attempts: {exhausted}"
                ),
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
            (
                "accepted",
                b.accepted,
                "jobs that the broker took: each message counts once for each queue that it went to",
            ),
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
            console
                .line(Tone::Plain, &format!("  {name:<10} {number}   {}", console.paint(Tone::Faint, what)));
        }
        let opened = self.breaker_opened;
        console
            .line(Tone::Plain, &format!("  on the way: {} retries, the circuit opened {opened}×", b.retries));
        console.line(Tone::Strong, "\n── Cross-checked: what others know, against the journal");
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
            let open: Vec<_> =
                open.map(|job| format!("{} ({})", job.queue(), state_name(job.state()))).collect();
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
    let (mails, paid) = (others.delivered.len(), ledger.payments.len());
    let declined = ledger.payments.iter().filter(|(_, payment)| payment.is_declined()).count();
    // A mail may go out and its job fail, when each answer comes too late.
    let extra = delivered.iter().filter(|tid| failed.contains(*tid)).count();
    let exact = delivered.len() == due.len() + extra && due.is_subset(&delivered);
    let each_once = keys.len() == mails && delivered.len() == mails;
    let besides = if extra > 0 { format!(" + {extra} whose answer came too late") } else { String::new() };
    let failed = failed.len();
    let says = format!(
        "mails delivered, each once: {mails} = {paid} payments − {declined} declined − {failed} failed{besides}"
    );
    Check::new(exact && each_once, says)
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

#[cfg(test)]
mod tests {
    use ponos::core::envelope::{GaveUp, MessageName, Phase, Progress, Report};
    use ponos::core::id::{MessageId, Timestamp};
    use ponos::core::journal::{AttemptEnd, AttemptRecord, PublishedRecord};
    use ponos::core::name::TaskName;

    use super::*;
    use crate::demo::traffic::Payment;

    const PAY: &str = "cream.payment.process";
    const SEND: &str = "pheidi.email.send";

    fn tid(n: u8) -> Tid {
        Tid::from_foreign(&format!("payment-{n}")).unwrap()
    }

    fn record(n: u8, what: What) -> Record {
        Record { at: Timestamp::from_millis(1), tid: tid(n), message: id(n, &what), what }
    }

    fn id(n: u8, what: &What) -> MessageId {
        let second = match what {
            What::Published(published) => published.cause.is_some(),
            What::Attempt(attempt) => attempt.queue.as_str() == SEND,
            _ => false,
        };
        MessageId::from_bytes([n + if second { 100 } else { 0 }; 16])
    }

    fn published(n: u8, name: &str, cause: Option<u8>) -> Record {
        let cause = cause.map(|n| MessageId::from_bytes([n; 16]));
        let by = cause.map(|_| PAY.into());
        record(
            n,
            What::Published(PublishedRecord {
                name: name.into(),
                event: false,
                app: None,
                cause,
                by,
                queues: 1,
                hops: 0,
                size: 0,
            }),
        )
    }

    fn ended(n: u8, queue: &str, end: AttemptEnd) -> Record {
        let (queue, started) = (QueueName::parse(queue).unwrap(), Timestamp::from_millis(1));
        record(n, What::Attempt(AttemptRecord::first(queue, Phase::Run, started, end)))
    }

    /// Payment 1 was mailed, payment 2 failed and was recovered, and all ledgers agree.
    fn books() -> (Books, Ledger, Others) {
        let reason = GaveUpReason::Exhausted;
        let records = vec![
            published(1, PAY, None),
            ended(1, PAY, AttemptEnd::Done),
            published(1, SEND, Some(1)),
            ended(1, SEND, AttemptEnd::Done),
            published(2, PAY, None),
            ended(2, PAY, AttemptEnd::Done),
            published(2, SEND, Some(2)),
            ended(2, SEND, AttemptEnd::Failed { reason, recovered: true }),
        ];
        let books = Books { records, breaker_opened: 1, ..Books::default() };
        let paid = |n, org| (tid(n), Payment { org, amount_cents: 100 });
        let ledger = Ledger { payments: vec![paid(1, "acme"), paid(2, "zorg")], ..Ledger::default() };
        let report = Report {
            queue: QueueName::parse(SEND).unwrap(),
            gave_up: GaveUp { reason, error: "500".into(), attempts: 5 },
            recovery: Recovery::Done,
            at: Timestamp::from_millis(1),
            fingerprint: String::new(),
            history: Vec::new(),
            version: None,
            host: String::new(),
        };
        let failed = Envelope {
            id: MessageId::from_bytes([102; 16]),
            name: MessageName::Task(TaskName::parse(SEND).unwrap()),
            tid: tid(2),
            cause: None,
            app: None,
            publisher: None,
            published_at: Timestamp::from_millis(1),
            hops: 1,
            version: None,
            trace: None,
            progress: Progress::default(),
            report: Some(Box::new(report)),
            body: br#"{"tid":"payment-2","org":"zorg"}"#.to_vec().into(),
        };
        let others = Others {
            dropped: 0,
            failed: vec![failed],
            delivered: vec![("key".into(), Some(tid(1)))],
            flagged: BTreeSet::from(["zorg".to_owned()]),
        };
        (books, ledger, others)
    }

    fn closed((mut books, ledger, others): (Books, Ledger, Others)) -> Books {
        books.balance = Balance::from_records(&books.records);
        books.checks = books.check(&ledger, &others);
        books
    }

    #[test]
    fn books_in_which_all_agree_close() {
        let books = closed(books());
        assert!(books.balance_closes(), "{:?}", books.checks);
        let json: serde_json::Value = serde_json::from_str(&books.to_json()).unwrap();
        let numbers = ["accepted", "done", "failed", "recovered", "lost", "breaker_opened"]
            .map(|n| json[n].as_u64().unwrap());
        assert_eq!(numbers, [4, 3, 1, 1, 0, 1]);
    }

    #[test]
    fn a_job_without_an_end_is_lost_and_the_books_do_not_close() {
        let mut case = books();
        case.0.records.remove(3);
        let books = closed(case);
        assert_eq!(books.lost(), 1);
        assert!(!books.balance_closes());
    }

    #[test]
    fn any_ledger_that_disagrees_keeps_the_books_open() {
        type Change = fn(&mut Books, &mut Ledger, &mut Others);
        let changes: [(&str, Change); 11] = [
            ("a payment was promised that nobody knows", |_, l, _| {
                l.payments.push((tid(3), Payment { org: "a", amount_cents: 1 }));
            }),
            ("a webhook was promised that nobody knows", |_, l, _| l.events.push(tid(3))),
            ("a mail is missing", |_, _, o| o.delivered.clear()),
            ("a mail went out twice", |_, _, o| o.delivered.push(("key 2".into(), Some(tid(1))))),
            ("a mail belongs to nobody", |_, _, o| o.delivered.push(("key 2".into(), None))),
            ("a failed job is not kept", |_, _, o| o.failed.clear()),
            ("an organisation is not flagged", |_, _, o| o.flagged.clear()),
            ("a recovery function did not run", |_, _, o| {
                o.failed[0].report.as_mut().unwrap().recovery = Recovery::None;
            }),
            ("the circuit did not open", |b, _, _| b.breaker_opened = 0),
            ("a queue holds a job", |b, _, _| b.left.push((QueueName::parse(SEND).unwrap(), 1))),
            ("the journal dropped records", |_, _, o| o.dropped = 1),
        ];
        for (what, change) in changes {
            let mut case = books();
            change(&mut case.0, &mut case.1, &mut case.2);
            assert!(!closed(case).balance_closes(), "{what}");
        }
    }
}
