use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the provider behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// It delivers.
    #[default]
    Ok,
    /// It delivers, and answers late.
    Slow,
    /// It answers 500.
    Broken,
    /// It answers 429 with `Retry-After`.
    Busy,
}

/// What `PUT /mode` takes: `{"mode":"broken"}`, `{"mode":"slow","delay_ms":3000}`,
/// `{"mode":"busy","retry_after_s":2,"times":3}`, `{"mode":"ok","broken_for":["billing@acme.example"]}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// How it behaves from now on.
    pub mode: ModeName,
    /// How late a slow answer is, in milliseconds.
    #[serde(default = "default_delay")]
    pub delay_ms: u64,
    /// What `Retry-After` says, in seconds.
    #[serde(default = "default_retry_after")]
    pub retry_after_s: u64,
    /// For how many mails the mode holds, before it is `ok` again; for ever when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// The addresses whose mail is answered with 500 in every mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken_for: Vec<String>,
}

fn default_delay() -> u64 {
    30_000
}

fn default_retry_after() -> u64 {
    1
}

/// What happens to one mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Ok,
    Slow { delay: Duration },
    Broken,
    Busy { retry_after: Duration },
    MailboxFails,
}

/// The mode, and for how many mails it still holds.
#[derive(Debug, Default)]
pub(super) struct Modes(ModeRequest);

impl From<ModeRequest> for Modes {
    fn from(mode: ModeRequest) -> Self {
        Self(mode)
    }
}

impl Modes {
    /// How the provider behaves for the next mail, which goes to `to`.
    pub(super) fn next(&mut self, to: &str) -> Behaviour {
        let Self(now) = self;
        let mode = match &mut now.times {
            Some(0) => ModeName::Ok,
            Some(times) => {
                *times -= 1;
                now.mode
            }
            None => now.mode,
        };
        match mode {
            ModeName::Ok | ModeName::Slow if now.broken_for.iter().any(|address| address == to) => {
                Behaviour::MailboxFails
            }
            ModeName::Ok => Behaviour::Ok,
            ModeName::Slow => Behaviour::Slow { delay: Duration::from_millis(now.delay_ms) },
            ModeName::Broken => Behaviour::Broken,
            ModeName::Busy => Behaviour::Busy { retry_after: Duration::from_secs(now.retry_after_s) },
        }
    }

    pub(super) fn shown(&self) -> ModeRequest {
        let mode = if self.0.times == Some(0) { ModeName::Ok } else { self.0.mode };
        ModeRequest { mode, ..self.0.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(json: &str) -> Modes {
        Modes(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_mode_holds_for_as_many_mails_as_was_said() {
        let mut modes = modes(r#"{"mode":"busy","retry_after_s":2,"times":2}"#);
        let busy = Behaviour::Busy { retry_after: Duration::from_secs(2) };
        assert_eq!([(); 4].map(|()| modes.next("a@b")), [busy, busy, Behaviour::Ok, Behaviour::Ok]);
        assert_eq!(modes.shown().mode, ModeName::Ok);
    }

    #[test]
    fn one_mailbox_can_be_broken_alone() {
        let mut modes = modes(r#"{"mode":"ok","broken_for":["a@b"]}"#);
        assert_eq!((modes.next("a@b"), modes.next("c@d")), (Behaviour::MailboxFails, Behaviour::Ok));
    }
}
