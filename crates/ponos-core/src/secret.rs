//! A text that is shown to nobody.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A password, a token, or a URL that may hold one.
///
/// It can be carried in options and errors, because neither `Debug` nor `Display` shows it or tells how long it is. Who needs
/// the text says so with [`expose`](Self::expose), which is what to search for when asking where secrets go.
///
/// It is not compared, because that would take the longer the more of it was guessed, and not serialised:
///
/// ```compile_fail
/// serde_json::to_string(&ponos_core::Secret::new("hunter2")).unwrap();
/// ```
///
/// Its memory is freed and not overwritten first. Who can read a process's memory has its connections too.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself. It belongs into what is sent to its owner, and into no log, error or file.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What stands for it.
const SHOWN: &str = "‹secret›";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_to_nobody_in_any_form() {
        #[derive(Debug)]
        #[allow(dead_code, reason = "it is only shown")]
        struct Options {
            password: Secret,
            more: Option<Vec<Secret>>,
        }
        let options = Options { password: "hunter2".into(), more: Some(vec![Secret::new("hunter2")]) };
        let error = std::io::Error::other(format!("no entry with {}", options.password));
        for shown in [
            format!("{options:?}"),
            format!("{options:#?}"),
            format!("{} {:>40} {:.3}", options.password, options.password, options.password),
            format!("{error} {error:?}"),
        ] {
            assert!(shown.contains(SHOWN) && !shown.contains("hunter"), "{shown}");
        }
        // Not even its length.
        assert_eq!(format!("{:?}", Secret::new("")), format!("{:?}", Secret::new("x".repeat(99))));
        assert_eq!("hunter2".parse::<Secret>().unwrap().expose(), "hunter2");
    }
}
