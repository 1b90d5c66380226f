//! How much a message may say about itself.
//!
//! Ponos writes no more than this. A stranger may fill every header, and a job whose next copy no longer fits into
//! [`MAX_HEADERS`](crate::wire::MAX_HEADERS) could neither be retried nor put away: so whoever reads a message cuts it
//! down. The limits add up to less than that, each text doubled by the escapes of JSON.

use super::{
    AttemptNote, Discarded, GaveUp, MAX_HISTORY, MAX_HISTORY_ERROR, MAX_REPORT_ERROR, Progress, Recovery,
    Report, Retried, tame,
};

/// The largest report as JSON, in bytes.
pub const MAX_REPORT: usize = 24 * 1024;

/// The longest name of an operation, a host or somebody, in bytes.
const MAX_WHO: usize = 128;

/// The longest reason that somebody gives, in bytes.
const MAX_REASON: usize = 1024;

impl Progress {
    /// Cuts everything to its limit.
    pub(crate) fn shorten(&mut self) {
        shorten_history(&mut self.history);
        if let Some(gave_up) = &mut self.gave_up {
            gave_up.shorten();
        }
        if let Some(retried) = &mut self.retried {
            let Retried { op, at: _, by, times: _, failed_at: _, error } = &mut **retried;
            cut(op, MAX_WHO);
            cut(by, MAX_WHO);
            cut(error, MAX_HISTORY_ERROR);
        }
        if let Some(discarded) = &mut self.discarded {
            let Discarded { op, at: _, by, reason } = &mut **discarded;
            cut(op, MAX_WHO);
            cut(by, MAX_WHO);
            cut(reason, MAX_REASON);
        }
    }
}

impl GaveUp {
    fn shorten(&mut self) {
        cut(&mut self.error, MAX_REPORT_ERROR);
    }
}

impl Report {
    /// Cuts everything to its limit, and the whole to [`MAX_REPORT`]: the oldest attempts go first, then the error's end.
    pub fn shorten(&mut self) {
        self.gave_up.shorten();
        if let Recovery::Failed(error) = &mut self.recovery {
            cut(error, MAX_REPORT_ERROR);
        }
        cut(&mut self.fingerprint, MAX_WHO);
        cut(&mut self.host, MAX_WHO);
        if let Some(version) = &mut self.version {
            cut(version, MAX_WHO);
        }
        shorten_history(&mut self.history);
        let size = |report: &Self| serde_json::to_string(report).map_or(0, |text| text.len());
        while size(self) > MAX_REPORT {
            if self.history.len() > 1 {
                self.history.remove(0);
            } else if self.recovery != Recovery::None {
                self.recovery = Recovery::None;
            } else {
                // Alone it is at most twice its own limit: it cannot come to this, but must end if it does.
                self.gave_up.error.clear();
                self.history.clear();
                break;
            }
        }
    }
}

fn shorten_history(history: &mut Vec<AttemptNote>) {
    history.truncate(MAX_HISTORY);
    for note in history {
        cut(&mut note.error, MAX_HISTORY_ERROR);
        cut(&mut note.host, MAX_WHO);
    }
}

fn cut(text: &mut String, max: usize) {
    if text.len() > max || text.chars().any(|c| c != '\n' && c.is_control()) {
        *text = tame(text, max);
    }
}
