//! One line of the ledger.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use rustix::time::{ClockId, clock_gettime};

use crate::load::Kind;

/// Microseconds on the clock that all processes of this machine share, and that nobody sets.
pub(crate) type Micros = u64;

/// What it is on that clock. It is asked of the kernel, so that a shim before the C library does not change it.
pub(crate) fn now() -> Micros {
    let time = clock_gettime(ClockId::Monotonic);
    let positive = |part: i64| u64::try_from(part).unwrap_or(0);
    positive(time.tv_sec) * 1_000_000 + positive(time.tv_nsec) / 1_000
}

/// Who says what, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) at: Micros,
    /// The number of the process; one that was started again has another. The driver is 0.
    pub(crate) by: u32,
    pub(crate) entry: Entry,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The driver begins: seed, scenario, broker (`sqlite` or `rabbitmq`).
    Begun { seed: u64, scenario: String, broker: String },
    /// A process is there and plays this role.
    Up { role: String },
    /// A publisher is about to publish.
    Asked { job: u32, kind: Kind },
    /// It got an answer; the transaction id comes with a confirm.
    Answered { job: u32, answer: Answer, tid: String },
    /// A worker begins a call; `run` is its number in this process.
    Started { run: u32, call: Call, id: String, tid: String },
    /// The call is at its end, and its worker is about to be told so.
    Ended { run: u32, ending: Ending },
    /// The driver is about to do something to somebody.
    Fault { fault: u32, kind: String, scope: Scope, what: String },
    /// A worker is about to end itself, because of the job that it runs.
    Dying,
    /// It has taken it back, or it is complete.
    Over { fault: u32 },
    /// What is in a queue after all has come to its end.
    Left { queue: String, messages: u64 },
    /// A job in the queue of failed jobs.
    Failed { job: u32, step: Step, recovered: bool, reason: String },
    /// What a process needs of its machine.
    Sample { process: u32, rss_kib: u64, fds: u64 },
    /// A circuit has changed: `closed`, `open`, `half_open`.
    Circuit { state: String },
    /// Anything that a reader may want to know.
    Note { text: String },
}

/// What the publisher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Confirmed,
    /// It may be there.
    Unknown,
    /// It is not there.
    Refused,
}

/// Whom a fault can have touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everybody: a broker, a network, a disk, a dependency.
    All,
    /// This process.
    Process(u32),
    /// No process and no connection: nothing may run again because of it.
    Nobody,
}

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    Make,
    WriteOff,
    Shelve,
}

/// Which function of which job, and for which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) job: u32,
    pub(crate) step: Step,
    pub(crate) attempt: u32,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Succeeded,
    /// Another attempt, not before so long.
    Again(Micros),
    /// No other attempt.
    GaveUp,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Make => "make",
            Self::WriteOff => "write-off",
            Self::Shelve => "shelve",
        })
    }
}

impl FromStr for Step {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "make" => Self::Make,
            "write-off" => Self::WriteOff,
            "shelve" => Self::Shelve,
            other => bail!("no step is called `{other}`"),
        })
    }
}

/// A line without its end: a letter, the time, the process, and what belongs to the letter.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, by, entry } = self;
        let mut head = |letter: char| write!(f, "{letter} {at} {by} ");
        match entry {
            Entry::Begun { seed, scenario, broker } => {
                head('B')?;
                write!(f, "{seed} {scenario} {broker}")
            }
            Entry::Up { role } => {
                head('U')?;
                f.write_str(role)
            }
            Entry::Asked { job, kind } => {
                head('A')?;
                write!(f, "{job} {kind}")
            }
            Entry::Answered { job, answer, tid } => {
                head(match answer {
                    Answer::Confirmed => 'C',
                    Answer::Unknown => '?',
                    Answer::Refused => 'R',
                })?;
                write!(f, "{job} {tid}")
            }
            Entry::Started { run, call: Call { job, step, attempt }, id, tid } => {
                head('S')?;
                write!(f, "{run} {job} {step} {attempt} {id} {tid}")
            }
            Entry::Ended { run, ending } => {
                head('E')?;
                match ending {
                    Ending::Succeeded => write!(f, "{run} succeeded 0"),
                    Ending::Again(delay) => write!(f, "{run} again {delay}"),
                    Ending::GaveUp => write!(f, "{run} gave-up 0"),
                }
            }
            Entry::Fault { fault, kind, scope, what } => {
                head('F')?;
                match scope {
                    Scope::All => write!(f, "{fault} {kind} * {what}"),
                    Scope::Nobody => write!(f, "{fault} {kind} - {what}"),
                    Scope::Process(process) => write!(f, "{fault} {kind} {process} {what}"),
                }
            }
            Entry::Dying => head('X'),
            Entry::Over { fault } => {
                head('O')?;
                write!(f, "{fault}")
            }
            Entry::Left { queue, messages } => {
                head('L')?;
                write!(f, "{queue} {messages}")
            }
            Entry::Failed { job, step, recovered, reason } => {
                head('D')?;
                write!(f, "{job} {step} {recovered} {reason}")
            }
            Entry::Sample { process, rss_kib, fds } => {
                head('M')?;
                write!(f, "{process} {rss_kib} {fds}")
            }
            Entry::Circuit { state } => {
                head('K')?;
                f.write_str(state)
            }
            Entry::Note { text } => {
                head('N')?;
                f.write_str(&text.replace(['\n', '\r'], " "))
            }
        }
    }
}

/// The words of a line, one after the other.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn word(&mut self) -> &'a str {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        word
    }

    fn read<T: FromStr<Err: Into<anyhow::Error>>>(&mut self) -> anyhow::Result<T> {
        let word = self.word();
        word.parse().map_err(|error: T::Err| error.into().context(format!("`{word}`")))
    }

    fn text(&mut self) -> String {
        self.word().to_owned()
    }

    fn rest(self) -> String {
        self.0.to_owned()
    }
}

impl FromStr for Record {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        parse(line).with_context(|| format!("the ledger's line `{line}`"))
    }
}

fn parse(line: &str) -> anyhow::Result<Record> {
    let mut words = Words(line);
    let letter = words.word();
    let (at, by) = (words.read()?, words.read()?);
    let entry = match letter {
        "B" => Entry::Begun { seed: words.read()?, scenario: words.text(), broker: words.text() },
        "U" => Entry::Up { role: words.rest() },
        "A" => Entry::Asked { job: words.read()?, kind: words.read()? },
        "C" => Entry::Answered { job: words.read()?, answer: Answer::Confirmed, tid: words.rest() },
        "?" => Entry::Answered { job: words.read()?, answer: Answer::Unknown, tid: words.rest() },
        "R" => Entry::Answered { job: words.read()?, answer: Answer::Refused, tid: words.rest() },
        "S" => Entry::Started {
            run: words.read()?,
            call: Call { job: words.read()?, step: words.read()?, attempt: words.read()? },
            id: words.text(),
            tid: words.rest(),
        },
        "E" => {
            let run = words.read()?;
            let ending = match words.word() {
                "succeeded" => Ending::Succeeded,
                "again" => Ending::Again(words.read()?),
                "gave-up" => Ending::GaveUp,
                other => bail!("no call ends as `{other}`"),
            };
            Entry::Ended { run, ending }
        }
        "F" => {
            let (fault, kind) = (words.read()?, words.text());
            let scope = match words.word() {
                "*" => Scope::All,
                "-" => Scope::Nobody,
                process => Scope::Process(process.parse()?),
            };
            Entry::Fault { fault, kind, scope, what: words.rest() }
        }
        "X" => Entry::Dying,
        "O" => Entry::Over { fault: words.read()? },
        "L" => Entry::Left { queue: words.text(), messages: words.read()? },
        "D" => Entry::Failed {
            job: words.read()?,
            step: words.read()?,
            recovered: words.read()?,
            reason: words.rest(),
        },
        "M" => Entry::Sample { process: words.read()?, rss_kib: words.read()?, fds: words.read()? },
        "K" => Entry::Circuit { state: words.rest() },
        "N" => Entry::Note { text: words.rest() },
        other => bail!("no line begins with `{other}`"),
    };
    Ok(Record { at, by, entry })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_as_it_was_written() {
        let call = Call { job: 7, step: Step::WriteOff, attempt: 2 };
        let (id, tid) = ("0198-id".to_owned(), "0198-tid".to_owned());
        let word = || "word".to_owned();
        let entries = [
            Entry::Begun { seed: u64::MAX, scenario: word(), broker: word() },
            Entry::Up { role: word() },
            Entry::Asked { job: 7, kind: crate::load::Mix::default().kind(1, 7) },
            Entry::Answered { job: 7, answer: Answer::Confirmed, tid: tid.clone() },
            Entry::Answered { job: 7, answer: Answer::Unknown, tid: String::new() },
            Entry::Answered { job: 7, answer: Answer::Refused, tid: "the reason, in words".to_owned() },
            Entry::Started { run: 1, call, id, tid },
            Entry::Ended { run: 1, ending: Ending::Succeeded },
            Entry::Ended { run: 1, ending: Ending::Again(200_000) },
            Entry::Ended { run: 1, ending: Ending::GaveUp },
            Entry::Fault { fault: 1, kind: word(), scope: Scope::All, what: "two words".to_owned() },
            Entry::Fault { fault: 2, kind: word(), scope: Scope::Process(9), what: String::new() },
            Entry::Fault { fault: 3, kind: word(), scope: Scope::Nobody, what: String::new() },
            Entry::Dying,
            Entry::Over { fault: 2 },
            Entry::Left { queue: word(), messages: 0 },
            Entry::Failed { job: 7, step: Step::Make, recovered: true, reason: "poison".to_owned() },
            Entry::Sample { process: 3, rss_kib: 1, fds: 2 },
            Entry::Circuit { state: word() },
            Entry::Note { text: "two words".to_owned() },
        ];
        for entry in entries {
            let record = Record { at: 12, by: 3, entry };
            assert_eq!(record.to_string().parse::<Record>().unwrap(), record);
        }
        assert!("Z 1 2".parse::<Record>().is_err());
        assert!("S 1 2 3".parse::<Record>().is_err());
    }

    #[test]
    fn a_note_is_one_line() {
        let record = Record { at: 1, by: 0, entry: Entry::Note { text: "a\nb".to_owned() } };
        assert_eq!(record.to_string(), "N 1 0 a b");
    }
}
