//! Each violation, planted into a ledger that holds without it.

use super::*;
use crate::ledger::{Call, Ending, Entry, Micros, Record, Scope, Step};
use crate::load::Kind;

/// A ledger that is written by hand.
#[derive(Clone)]
struct Plant(Vec<Record>);

const TID: &str = "tid-0";

impl Plant {
    fn on(broker: &str) -> Self {
        let begun = Entry::Begun { seed: 1, scenario: "r1".to_owned(), broker: broker.to_owned() };
        Self(vec![]).add(0, 0, begun)
    }

    fn add(mut self, at: Micros, by: u32, entry: Entry) -> Self {
        self.0.push(Record { at, by, entry });
        self
    }

    fn asked(self, kind: Kind) -> Self {
        self.add(10, 9, Entry::Asked { job: 0, kind })
    }

    fn answered(self, answer: Answer) -> Self {
        self.add(20, 9, Entry::Answered { job: 0, answer, tid: TID.to_owned() })
    }

    /// A job of this kind that was asked for and confirmed.
    fn job(self, kind: Kind) -> Self {
        self.asked(kind).answered(Answer::Confirmed)
    }

    /// A run from `at` on, of 10 µs; without an ending it is cut.
    fn run(self, at: Micros, by: u32, step: Step, attempt: u32, ending: Option<Ending>) -> Self {
        self.run_as(at, by, step, attempt, ending, "id-0", TID)
    }

    #[expect(clippy::too_many_arguments, reason = "a line has so many words")]
    fn run_as(
        self,
        at: Micros,
        by: u32,
        step: Step,
        attempt: u32,
        ending: Option<Ending>,
        id: &str,
        tid: &str,
    ) -> Self {
        let run = u32::try_from(at).unwrap();
        let call = Call { job: 0, step, attempt };
        let begun = Entry::Started { run, call, id: id.to_owned(), tid: tid.to_owned() };
        let this = self.add(at, by, begun);
        match ending {
            Some(ending) => this.add(at + 10, by, Entry::Ended { run, ending }),
            None => this,
        }
    }

    fn made(self, at: Micros, by: u32) -> Self {
        self.run(at, by, Step::Make, 1, Some(Ending::Succeeded))
    }

    /// A kill of a process.
    fn kill(self, at: Micros, by: u32) -> Self {
        let fault = u32::try_from(at).unwrap();
        let kill =
            Entry::Fault { fault, kind: "kill".to_owned(), scope: Scope::Process(by), what: String::new() };
        self.add(at, 0, kill).add(at + 5, 0, Entry::Over { fault })
    }

    fn failed(self, recovered: bool) -> Self {
        let failed = Entry::Failed { job: 0, step: Step::Make, recovered, reason: "stopped".to_owned() };
        self.add(1_000, 0, failed)
    }

    fn left(self, messages: u64) -> Self {
        self.add(1_001, 0, Entry::Left { queue: "forge.piece.make".to_owned(), messages })
    }

    /// What the checker finds, with the queues empty.
    fn found(self) -> Vec<String> {
        self.left(0).found_as_it_is()
    }

    fn found_as_it_is(self) -> Vec<String> {
        check(&Book::of(self.0)).violations
    }
}

const AGAIN: Option<Ending> = Some(Ending::Again(100));
const GOOD: Option<Ending> = Some(Ending::Succeeded);
const GAVE_UP: Option<Ending> = Some(Ending::GaveUp);

fn plain() -> Kind {
    Kind::default()
}

#[test]
fn what_is_as_it_should_be_is_no_violation() {
    let sqlite = || Plant::on("sqlite");
    let rabbit = || Plant::on("rabbitmq");
    let none: Vec<String> = Vec::new();
    assert_eq!(sqlite().job(plain()).made(30, 1).found(), none);
    assert_eq!(sqlite().asked(plain()).answered(Answer::Unknown).found(), none, "it was never there");
    assert_eq!(sqlite().asked(plain()).kill(20, 9).found(), none, "its publisher was killed");
    assert_eq!(sqlite().asked(plain()).kill(20, 9).made(30, 1).found(), none, "and it was there");
    let retried = sqlite().job(plain().failing_once()).run(30, 1, Step::Make, 1, AGAIN);
    assert_eq!(retried.run(140, 1, Step::Make, 2, GOOD).found(), none);
    let doomed = sqlite().job(plain().doomed()).run(30, 1, Step::Make, 1, GAVE_UP);
    assert_eq!(doomed.run(50, 1, Step::WriteOff, 1, GOOD).failed(true).found(), none);
    let emitting = sqlite().job(plain().emitting()).made(30, 1);
    assert_eq!(emitting.run_as(50, 2, Step::Shelve, 1, GOOD, "id-1", TID).found(), none);
    let cut = sqlite().job(plain()).run(30, 1, Step::Make, 1, None).kill(35, 1).made(50, 2);
    assert_eq!(check(&Book::of(cut.clone().left(0).0)).extra, BTreeMap::from([(Why::Cut, 1)]));
    assert_eq!(cut.found(), none);
    let unsettled = sqlite().job(plain()).made(30, 1).kill(45, 1).made(60, 2);
    assert_eq!(check(&Book::of(unsettled.left(0).0)).extra, BTreeMap::from([(Why::NotSettled, 1)]));
    // Three processes died with it, and the one that sent it on as a suspect before it had acknowledged it.
    let suspect = rabbit().job(plain()).made(30, 5).kill(41, 1).kill(42, 2).kill(43, 3).kill(44, 4);
    assert_eq!(check(&Book::of(suspect.made(80, 6).left(0).0)).extra, BTreeMap::from([(Why::SentTwice, 1)]));
    // The first attempt was sent again by nobody, but ran twice, and so did what followed.
    let follows = rabbit().job(plain().failing_once()).run(30, 1, Step::Make, 1, AGAIN).kill(45, 1);
    let follows = follows.run(50, 2, Step::Make, 1, AGAIN).run(170, 3, Step::Make, 2, GOOD);
    let follows = follows.run(190, 4, Step::Make, 2, GOOD).left(0);
    let extra = BTreeMap::from([(Why::NotSettled, 1), (Why::Follows, 1)]);
    assert_eq!(check(&Book::of(follows.0)).extra, extra);
    // Two copies: the fault hit the earlier one's run after the other had begun.
    let crossed = rabbit().job(plain().as_event()).run(30, 1, Step::Make, 1, None).kill(32, 3).made(33, 2);
    assert_eq!(crossed.kill(50, 1).made(60, 4).found(), none);
    // One process had the event that sent it, and one of the two copies too.
    let both = rabbit().job(plain().as_event()).run(30, 1, Step::Make, 1, None).kill(35, 1);
    assert_eq!(both.made(50, 2).made(70, 3).found(), none);
    let recovered = rabbit().job(plain().doomed()).run(30, 1, Step::Make, 1, GAVE_UP);
    let recovered = recovered.run(50, 1, Step::WriteOff, 1, GOOD).kill(62, 1);
    let recovered = recovered.run(70, 2, Step::WriteOff, 1, GOOD).failed(true).failed(true);
    assert_eq!(recovered.found(), none);
    // The process with the reaction died between the copy and its acknowledgement.
    let twice = rabbit().job(plain().as_event()).made(30, 1).kill(60, 3).made(80, 2);
    assert_eq!(check(&Book::of(twice.left(0).0)).extra, BTreeMap::from([(Why::SentTwice, 1)]));
}

#[test]
fn each_violation_is_found() {
    let sqlite = || Plant::on("sqlite");
    let rabbit = || Plant::on("rabbitmq");
    let retried_on_rabbit = || rabbit().job(plain().failing_once()).run(30, 1, Step::Make, 1, AGAIN);
    let retried = || sqlite().job(plain().failing_once()).run(30, 1, Step::Make, 1, AGAIN);
    let doomed = || sqlite().job(plain().doomed()).run(30, 1, Step::Make, 1, GAVE_UP);
    for (what, plant) in [
        ("I1: job 0 is lost", sqlite().job(plain())),
        ("I1: job 0 is lost", sqlite().job(plain()).run(30, 1, Step::Make, 1, None)),
        ("I1: job 0 is lost", sqlite().asked(plain()).kill(20, 9).run(30, 1, Step::Make, 1, None)),
        ("I1: the publish of job 0 was never answered", sqlite().asked(plain())),
        ("I1: job 0 was recovered", sqlite().job(plain()).made(30, 1).run(50, 1, Step::WriteOff, 1, GOOD)),
        ("I1: job 0 (to fail: false) is 1 times", sqlite().job(plain()).made(30, 1).failed(true)),
        ("I1: job 0 (to fail: true) is 0 times", doomed().run(50, 1, Step::WriteOff, 1, GOOD)),
        ("I1: job 0 (to fail: true) is 1 times", doomed().run(50, 1, Step::WriteOff, 1, GOOD).failed(false)),
        (
            "I1: job 0 (to fail: true) is 2 times",
            doomed().run(50, 1, Step::WriteOff, 1, GOOD).failed(true).failed(true),
        ),
        ("I1: job 0 succeeded, which it never does", sqlite().job(plain().doomed()).made(30, 1).failed(true)),
        (
            "I2: job 0 ran, although its publish was refused",
            sqlite().asked(plain()).answered(Answer::Refused).made(30, 1),
        ),
        ("I2: Call { job: 0", sqlite().made(30, 1)),
        ("I2: job 0 failed 1 times and was never", sqlite().failed(true)),
        (
            "I3: Call { job: 0, step: WriteOff",
            doomed().run(50, 1, Step::WriteOff, 1, GOOD).run(70, 2, Step::WriteOff, 1, GOOD).failed(true),
        ),
        ("I4: the event of job 0 is lost", sqlite().job(plain().emitting()).made(30, 1)),
        (
            "I4: an event of job 0 arrived",
            sqlite().job(plain()).made(30, 1).run(50, 2, Step::Shelve, 1, GOOD),
        ),
        (
            "I5: job 0 had attempt 2, of 1",
            sqlite().job(plain()).run(30, 1, Step::Make, 1, AGAIN).run(140, 1, Step::Make, 2, GOOD),
        ),
        (
            "I5: job 0 had attempt 2 before attempt 1",
            sqlite().job(plain().failing_once()).run(40, 1, Step::Make, 2, GOOD).run(
                140,
                1,
                Step::Make,
                1,
                AGAIN,
            ),
        ),
        (
            "I5: job 0 had attempt 2, although attempt 1",
            sqlite().job(plain().failing_once()).made(30, 1).run(140, 1, Step::Make, 2, GOOD),
        ),
        (
            "I6: job 0 has the transaction",
            sqlite().job(plain()).run_as(30, 1, Step::Make, 1, GOOD, "id-0", "other"),
        ),
        (
            "I6: job 0 has the transaction",
            sqlite().job(plain()).run_as(30, 1, Step::Make, 1, GOOD, "id-0", ""),
        ),
        ("I6: job 0 came as two messages", retried().run_as(140, 1, Step::Make, 2, GOOD, "id-1", TID)),
        ("I7: Call { job: 0", sqlite().job(plain()).made(30, 1).made(60, 2)),
        ("I7: Call { job: 0", sqlite().job(plain()).made(30, 1).kill(45, 3).made(60, 2)),
        ("I7: Call { job: 0", sqlite().job(plain()).made(30, 1).made(60, 2).kill(90, 1)),
        ("I7: Call { job: 0", sqlite().job(plain()).made(30, 1).kill(45, 1).made(60, 2).made(80, 3)),
        ("I7: Call { job: 0", rabbit().job(plain()).made(30, 1).kill(45, 3).made(60, 2)),
        // Not enough deaths for a suspect that somebody was hit with; nothing explains two runs.
        (
            "I7: Call { job: 0",
            rabbit().job(plain()).made(30, 5).kill(41, 1).kill(42, 2).kill(43, 3).made(80, 6),
        ),
        (
            "I7: Call { job: 0",
            rabbit().job(plain().as_event()).made(30, 1).kill(45, 3).made(60, 2).made(80, 4),
        ),
        // Its sender died and did not run again, so that nothing was sent again.
        (
            "I7: Call { job: 0",
            retried_on_rabbit().run(140, 2, Step::Make, 2, GOOD).kill(145, 1).run(
                160,
                3,
                Step::Make,
                2,
                GOOD,
            ),
        ),
        (
            "I7: Call { job: 0",
            retried_on_rabbit()
                .kill(45, 1)
                .run(50, 2, Step::Make, 1, AGAIN)
                .run(170, 3, Step::Make, 2, GOOD)
                .run(190, 4, Step::Make, 2, GOOD)
                .run(210, 5, Step::Make, 2, GOOD),
        ),
        // The run that was cut sent nothing.
        (
            "I7: Call { job: 0",
            rabbit()
                .job(plain().failing_once())
                .run(30, 1, Step::Make, 1, None)
                .kill(45, 1)
                .run(50, 2, Step::Make, 1, AGAIN)
                .run(170, 3, Step::Make, 2, GOOD)
                .run(190, 4, Step::Make, 2, GOOD),
        ),
        (
            "I1: job 0 (to fail: true) is 2 times",
            rabbit()
                .job(plain().doomed())
                .run(30, 1, Step::Make, 1, GAVE_UP)
                .run(50, 1, Step::WriteOff, 1, GOOD)
                .kill(62, 1)
                .failed(true)
                .failed(true),
        ),
        ("I7: Call { job: 0", sqlite().job(plain()).made(30, 1).kill(90_000_000, 1).made(90_000_100, 2)),
        (
            "I8: job 0 had attempt 2 too early",
            sqlite().job(plain().failing_once()).run(30, 1, Step::Make, 1, Some(Ending::Again(5_000))).run(
                1_200,
                1,
                Step::Make,
                2,
                GOOD,
            ),
        ),
    ] {
        let found = plant.found();
        assert!(found.iter().any(|violation| violation.starts_with(what)), "{what}: {found:?}");
    }
    let left = sqlite().job(plain()).made(30, 1);
    assert!(left.clone().left(3).found_as_it_is()[0].starts_with("I9: 3 messages are left"));
    assert!(left.found_as_it_is()[0].starts_with("I9: nobody has looked"));
    let torn = sqlite().add(5, 1, Entry::Ended { run: 1, ending: Ending::Succeeded });
    assert!(torn.found()[0].starts_with("the ledger: "));
    let deadly = rabbit().job(plain().deadly()).made(30, 1).failed(true);
    assert!(deadly.found()[0].starts_with("I1: job 0 succeeded"));
}
