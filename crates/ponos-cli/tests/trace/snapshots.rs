//! What is printed, as it is printed: plain and in colours, for a fixed set of records; and for records that want to
//! disturb the terminal.
//!
//! `PONOS_BLESS=1 cargo test -p ponos-cli --test trace snapshots` writes the files anew.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ponos::core::envelope::{ErrorClass, GaveUpReason, Phase};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::journal::{
    AttemptEnd, AttemptRecord, CircuitNotice, CircuitPhase, DelayBy, Entry, HandMade, LimitNotice, Notice,
    OrderNotice, Origin, PublishedRecord, Record, Said, UnpublishedRecord, What,
};
use ponos::core::name::{AppName, QueueName};

use crate::place::Place;

/// 2026-11-22 12:03:11.402 UTC.
const START: u64 = 1_795_348_991_402;

const PAY: &str = "cream.invoice.pay";
const SEND: &str = "pheidi.email.send";

/// Clears the screen, colours, moves the cursor, sets the title, turns the text around, hides, rings.
const EVIL: &str =
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}evil\u{2066}\u{200b}\u{feff}\r\u{8}\u{7f}|`$(x)`";

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

/// Tells a journal what happened, in the name of several instances.
struct Teller {
    tid: Tid,
    entries: Vec<Entry>,
}

impl Teller {
    fn of(tid: u8) -> Self {
        Self { tid: Tid::new(at(0), [tid; 10]), entries: Vec::new() }
    }

    fn say(&mut self, app: &str, said: Said) {
        let id = app.bytes().fold(u64::from(self.tid.to_string().as_bytes()[35]), |id, byte| {
            id.wrapping_mul(131).wrapping_add(u64::from(byte))
        });
        let origin = Origin {
            id,
            app: AppName::parse(app).unwrap(),
            version: Some(if self.tid.short().starts_with("01") { "2.4.1" } else { "2.5.0" }.into()),
            host: format!("{app}-7c9f/12").into(),
            started: at(0),
        };
        let seq = self.entries.iter().filter(|entry| entry.origin.id == id).count() as u64;
        self.entries.push(Entry { origin: Arc::new(origin), seq, said });
    }

    fn record(&mut self, app: &str, millis: u64, id: u8, what: What) {
        let (tid, message) = (self.tid.clone(), MessageId::from_bytes([id; 16]));
        self.say(app, Said::Record(Record { at: at(millis), tid, message, what }));
    }

    fn notice(&mut self, app: &str, millis: u64, notice: Notice) {
        self.say(app, Said::Notice(at(millis), notice));
    }

    fn published(
        &mut self,
        app: &str,
        millis: u64,
        id: u8,
        name: &str,
        from: Option<(u8, &str)>,
        queues: u32,
    ) {
        let event = !name.starts_with(app);
        let what = PublishedRecord {
            name: name.into(),
            event,
            app: Some(AppName::parse(app).unwrap()),
            cause: from.map(|(cause, _)| MessageId::from_bytes([cause; 16])),
            by: from.map(|(_, queue)| queue.into()),
            queues,
            hops: 1,
            size: 120,
        };
        self.record(app, millis, id, What::Published(what));
    }

    fn attempt(&mut self, millis: u64, id: u8, queue: &str, number: u32, took: u64, end: AttemptEnd) {
        self.failed_attempt(millis, id, queue, number, took, end, None);
    }

    #[expect(clippy::too_many_arguments, reason = "a record has as many fields")]
    fn failed_attempt(
        &mut self,
        millis: u64,
        id: u8,
        queue: &str,
        number: u32,
        took: u64,
        end: AttemptEnd,
        error: Option<&str>,
    ) {
        let queue = QueueName::parse(queue).unwrap();
        let app = queue.app().to_string();
        let what = AttemptRecord {
            attempt: number,
            took: Duration::from_millis(took),
            error: error.map(Into::into),
            ready: Some(at(millis.saturating_sub(3))),
            of: Some(6),
            delay_by: matches!(end, AttemptEnd::Retry { .. }).then_some(DelayBy::Backoff),
            ..AttemptRecord::first(queue, Phase::Run, at(millis), end)
        };
        self.record(&app, millis + took, id, What::Attempt(what));
    }

    fn recovered(&mut self, millis: u64, id: u8, queue: &str) {
        let queue = QueueName::parse(queue).unwrap();
        let end = AttemptEnd::Failed { reason: GaveUpReason::Exhausted, recovered: true };
        let app = queue.app().to_string();
        let what = AttemptRecord {
            took: Duration::from_millis(4),
            ..AttemptRecord::first(queue, Phase::Recover, at(millis), end)
        };
        self.record(&app, millis + 4, id, What::Attempt(what));
    }

    /// The payment up to its mail.
    fn payment(&mut self, error: &str) {
        let from = Some((1, PAY));
        self.notice("pheidi", 0, Notice::Hello { manifest: None });
        self.published("cream", 0, 1, PAY, None, 1);
        self.attempt(4, 1, PAY, 1, 184, AttemptEnd::Done);
        self.published("cream", 189, 2, "org.payment.processed", from, 2);
        self.attempt(195, 2, "big-poppa.org.payment.processed", 1, 1, AttemptEnd::Done);
        self.published(
            "big-poppa",
            197,
            3,
            "big-poppa.plan.activate",
            Some((2, "big-poppa.org.payment.processed")),
            1,
        );
        self.attempt(2100, 3, "big-poppa.plan.activate", 1, 61, AttemptEnd::Done);
        self.published("big-poppa", 2162, 4, "org.plan.activated", Some((3, "big-poppa.plan.activate")), 0);
        self.attempt(200, 2, "pheidi.org.payment.processed", 1, 12, AttemptEnd::Done);
        self.published("pheidi", 213, 5, SEND, Some((2, "pheidi.org.payment.processed")), 1);
        let unpublished = UnpublishedRecord {
            name: "org.audit.written".into(),
            event: true,
            cause: Some(MessageId::from_bytes([1; 16])),
            by: Some(PAY.into()),
            open: false,
            error: error.into(),
        };
        self.record("cream", 190, 9, What::Unpublished(unpublished));
    }

    fn good(error: &str) -> Self {
        let mut teller = Self::of(1);
        teller.payment(error);
        teller.attempt(220, 5, SEND, 1, 310, AttemptEnd::Done);
        teller.published("pheidi", 531, 6, "org.receipt.emailed", Some((5, SEND)), 0);
        teller
    }

    fn bad(error: &str) -> Self {
        let mut teller = Self::of(2);
        teller.payment(error);
        let (class, reason) = (ErrorClass::Timeout, GaveUpReason::Exhausted);
        let retry = |due| AttemptEnd::Retry { class, due: at(due) };
        let queue = || QueueName::parse(SEND).unwrap();
        teller.failed_attempt(220, 5, SEND, 1, 5000, retry(6220), Some(error));
        let circuit = |phase, open_for| {
            let (circuit, cause) = ("smtp".into(), "8 of 10 attempts failed".into());
            Notice::Circuit(CircuitNotice { circuit, queues: vec![queue()], phase, open_for, cause })
        };
        teller.notice("pheidi", 6000, circuit(CircuitPhase::Open, Some(Duration::from_secs(30))));
        teller.notice("pheidi", 36_000, circuit(CircuitPhase::HalfOpen, None));
        teller.failed_attempt(36_100, 5, SEND, 2, 5000, retry(43_100), Some(error));
        if let Said::Record(Record { what: What::Attempt(attempt), .. }) =
            &mut teller.entries.last_mut().unwrap().said
        {
            attempt.ready = Some(at(6220));
            attempt.held = Duration::from_millis(2100);
        }
        teller.notice("pheidi", 41_200, circuit(CircuitPhase::Closed, None));
        teller.failed_attempt(43_200, 5, SEND, 3, 5000, AttemptEnd::GaveUp { class, reason }, Some(error));
        teller.recovered(48_300, 5, SEND);
        let order = OrderNotice {
            target: SEND.into(),
            action: "pause".into(),
            stands: true,
            by: "ana@ops".into(),
            reason: error.into(),
            until: None,
        };
        teller.notice("pheidi", 49_000, Notice::Order(order));
        teller.notice(
            "pheidi",
            49_100,
            Notice::Limit(LimitNotice { queue: queue(), until: Some(at(90_000)) }),
        );
        let by_hand = HandMade {
            verb: "retried".into(),
            queue: queue(),
            by: "ana@ops".into(),
            operation: Some("op-19".into()),
            reason: Some(error.into()),
        };
        teller.record("pheidi", 60_000, 5, What::ByHand(by_hand));
        teller.attempt(60_100, 5, SEND, 1, 200, AttemptEnd::Done);
        teller.record("pheidi", 60_400, 5, What::Duplicate { queue: queue() });
        // Three entries of it were lost.
        teller.notice("pheidi", 70_000, Notice::Bye);
        teller.entries.last_mut().unwrap().seq += 3;
        teller
    }
}

async fn place(tellers: impl IntoIterator<Item = Teller>) -> Place {
    let place = Place::sqlite();
    let broker = place.broker().connect().await.unwrap();
    let journal = broker.journal().unwrap();
    for entry in tellers.into_iter().flat_map(|teller| teller.entries) {
        journal.append(entry);
    }
    broker.close().await.unwrap();
    place
}

/// Compares with a file, or writes it.
#[track_caller]
fn compare(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/trace/snapshots").join(name);
    if std::env::var_os("PONOS_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(text == expected, "{name} is not as it was:\n{text}\n--- expected\n{expected}");
}

const VERBS: [(&str, &[&str]); 6] = [
    ("trace-good", &["trace", "01010101"]),
    ("trace-bad", &["trace", "02020202"]),
    ("trace-mermaid", &["trace", "02020202", "--mermaid"]),
    ("trace-json", &["trace", "02020202", "--json"]),
    ("diff", &["diff", "01010101", "02020202"]),
    ("tail", &["tail", "--no-follow"]),
];

#[tokio::test]
async fn what_is_printed_is_as_it_was() {
    let error = "smtp: connection timed out after 5s";
    let place = place([Teller::good(error), Teller::bad(error)]).await;
    for (name, args) in VERBS {
        let plain = place.ponos(args);
        assert!(!plain.out.contains('\u{1b}'), "{}", plain.out);
        compare(&format!("{name}.txt"), &plain.out);
        let colored = place.colored(args);
        compare(&format!("{name}.color.txt"), &colored.out);
        assert_eq!(without_colors(&colored.out), plain.out, "colours change nothing else");
    }
    let narrow = place.with(&[("COLUMNS", "60")], &["trace", "02020202"]);
    compare("trace-narrow.txt", &narrow.out);
    // The first line has the whole id, to be copied.
    assert!(narrow.out.lines().skip(1).all(|line| line.chars().count() <= 60), "{}", narrow.out);
    let forbidden = place.with(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], &["trace", "02020202"]);
    assert!(!forbidden.out.contains('\u{1b}'));
}

#[tokio::test]
async fn nothing_in_a_record_disturbs_the_terminal() {
    let long = format!("{EVIL}{}", "x".repeat(100_000));
    let mut tellers = [Teller::good(&long), Teller::bad(&long)];
    for entry in tellers.iter_mut().flat_map(|teller| &mut teller.entries) {
        let origin = Arc::make_mut(&mut entry.origin);
        origin.host = format!("{}{EVIL}", origin.host).into();
        origin.version = Some(EVIL.into());
        match &mut entry.said {
            Said::Record(Record { what: What::Published(it), .. }) if it.event => {
                it.name = format!("{}{EVIL}", it.name).into();
            }
            Said::Record(Record { what: What::Unpublished(it), .. }) => it.name = EVIL.into(),
            Said::Record(Record { what: What::ByHand(it), .. }) => {
                (it.verb, it.by) = (EVIL.into(), EVIL.into());
            }
            Said::Notice(_, Notice::Circuit(it)) => (it.circuit, it.cause) = (EVIL.into(), EVIL.into()),
            Said::Notice(_, Notice::Order(it)) => (it.by, it.action) = (EVIL.into(), EVIL.into()),
            _ => {}
        }
    }
    let place = place(tellers).await;
    for (name, args) in VERBS {
        for (color, ran) in [(false, place.ponos(args)), (true, place.colored(args))] {
            let out = if color { without_colors(&ran.out) } else { ran.out.clone() };
            let harmful = |c: char| {
                c != '\n'
                    && (c.is_control()
                        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'))
            };
            if let Some(bad) = out.chars().find(|c| harmful(*c)) {
                panic!("{name} prints {bad:?}: {}", out.escape_debug());
            }
            assert!(out.contains("evil") || name == "trace-mermaid", "{name}: {out}");
            if name.starts_with("trace-") && !name.contains("json") && !name.contains("mermaid") {
                assert!(out.lines().all(|line| line.chars().count() <= 100), "{name}: {out}");
            }
            let longest = out.lines().map(str::len).max().unwrap_or(0);
            assert!(longest < 4000 || name == "trace-json", "{name} has a line of {longest} bytes");
        }
    }
}

/// The text without the colours that this program uses, and with every other escape sequence.
fn without_colors(text: &str) -> String {
    let mut text = text.to_owned();
    for code in ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m"] {
        text = text.replace(code, "");
    }
    text
}
