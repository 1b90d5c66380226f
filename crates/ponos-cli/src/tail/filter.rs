//! Which entries are shown.

use ponos::core::journal::{AttemptEnd, Entry, Notice, Said, What};
use ponos::core::name::AppName;

use crate::error::CliError;
use crate::text;

/// What an entry came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Word {
    Published,
    Unheard,
    Unpublished,
    Done,
    Retry,
    GaveUp,
    Failed,
    Lost,
    Duplicate,
    Suspected,
    ByHand,
    Circuit,
    Order,
    Limit,
    Start,
    End,
    Beat,
    /// Of a later version.
    #[value(skip)]
    Later,
}

impl Word {
    pub(crate) fn of(entry: &Entry) -> Self {
        match &entry.said {
            Said::Record(record) => match &record.what {
                What::Published(it) if it.event && it.queues == 0 => Self::Unheard,
                What::Published(_) => Self::Published,
                What::Unpublished(_) => Self::Unpublished,
                What::Attempt(it) => match it.end {
                    AttemptEnd::Done => Self::Done,
                    AttemptEnd::Retry { .. } => Self::Retry,
                    AttemptEnd::GaveUp { .. } => Self::GaveUp,
                    AttemptEnd::Failed { .. } => Self::Failed,
                    AttemptEnd::Lost => Self::Lost,
                    _ => Self::Later,
                },
                What::Duplicate { .. } => Self::Duplicate,
                What::Suspected { .. } => Self::Suspected,
                What::ByHand(_) => Self::ByHand,
                _ => Self::Later,
            },
            Said::Notice(_, notice) => match notice {
                Notice::Hello { .. } => Self::Start,
                Notice::Bye => Self::End,
                Notice::Beat(_) => Self::Beat,
                Notice::Circuit(_) => Self::Circuit,
                Notice::Order(_) => Self::Order,
                Notice::Limit(_) => Self::Limit,
                _ => Self::Later,
            },
            Said::Later(_) => Self::Later,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Unheard => "unheard",
            Self::Unpublished => "unpublished",
            Self::Done => "done",
            Self::Retry => "retry",
            Self::GaveUp => "gave-up",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Duplicate => "duplicate",
            Self::Suspected => "suspected",
            Self::ByHand => "by-hand",
            Self::Circuit => "circuit",
            Self::Order => "order",
            Self::Limit => "limit",
            Self::Start => "start",
            Self::End => "end",
            Self::Beat => "beat",
            Self::Later => "later",
        }
    }
}

/// Which entries are shown.
#[derive(Debug)]
pub(crate) struct Filter {
    names: Vec<String>,
    words: Vec<Word>,
    app: Option<AppName>,
    tid: Option<String>,
    beats: bool,
}

impl Filter {
    /// # Errors
    ///
    /// When a pattern can match nothing.
    pub(crate) fn new(
        names: &[String],
        words: Vec<Word>,
        app: Option<AppName>,
        tid: Option<String>,
        beats: bool,
    ) -> Result<Self, CliError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '*');
        if let Some(bad) = names.iter().find(|name| name.is_empty() || !name.chars().all(allowed)) {
            return Err(CliError::usage(
                format!("`{}` matches no name", text::line(bad, 80)),
                "write a name, with `*` for any part of it: --name 'org.*'",
            ));
        }
        Ok(Self { names: names.to_vec(), words, app, tid: tid.map(|tid| tid.to_ascii_lowercase()), beats })
    }

    pub(crate) fn wants(&self, entry: &Entry) -> bool {
        let word = Word::of(entry);
        let asked = if self.words.is_empty() {
            (word != Word::Beat || self.beats) && word != Word::Later
        } else {
            self.words.contains(&word)
        };
        let tid = self.tid.as_deref().is_none_or(|tid| match &entry.said {
            Said::Record(record) => record.tid.to_string().to_ascii_lowercase().ends_with(tid),
            _ => false,
        });
        asked && tid && self.is_of_app(entry) && self.has_name(entry)
    }

    /// Losses are shown unless only something else was asked for.
    pub(crate) fn wants_losses(&self, entry: &Entry) -> bool {
        self.is_of_app(entry)
    }

    fn is_of_app(&self, entry: &Entry) -> bool {
        self.app.as_ref().is_none_or(|app| entry.origin.app == *app)
    }

    fn has_name(&self, entry: &Entry) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let any = |text: &str| self.names.iter().any(|pattern| matches(pattern, text));
        if any(entry.origin.app.as_str()) {
            return true;
        }
        match &entry.said {
            Said::Record(record) => match &record.what {
                What::Published(it) => any(&it.name) || it.by.as_deref().is_some_and(any),
                What::Unpublished(it) => any(&it.name),
                What::Attempt(it) => any(it.queue.as_str()),
                What::Duplicate { queue } | What::Suspected { queue, .. } => any(queue.as_str()),
                What::ByHand(it) => any(it.queue.as_str()),
                _ => false,
            },
            Said::Notice(_, notice) => match notice {
                Notice::Circuit(it) => any(&it.circuit) || it.queues.iter().any(|queue| any(queue.as_str())),
                Notice::Order(it) => any(&it.target),
                Notice::Limit(it) => any(it.queue.as_str()),
                _ => false,
            },
            Said::Later(_) => false,
        }
    }
}

/// Whether a text is what a pattern says, in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(mut last) = parts.next() else { return rest.is_empty() };
    for part in parts {
        match rest.find(last) {
            Some(at) => rest = &rest[at + last.len()..],
            None => return false,
        }
        last = part;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("org.*", "org.payment.processed", true),
            ("org.*", "organization.created", false),
            ("*.processed", "org.payment.processed", true),
            ("org.*.processed", "org.payment.processed", true),
            ("*pay*", "org.payment.processed", true),
            ("org", "org.payment", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("a*b*b", "ab", false),
            ("a*b*b", "axbxb", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
