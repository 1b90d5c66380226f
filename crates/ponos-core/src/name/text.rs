//! The text behind a name.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::{Error, Visitor};

use super::check::{self, Verb, What};

/// Cloning never copies the text. Names from the macros are static and cost nothing.
#[derive(Clone)]
pub(super) enum Text {
    /// Written in the program.
    Static(&'static str),
    /// Read at run time.
    Shared(Arc<str>),
}

impl Text {
    pub(super) fn shared(text: &str) -> Self {
        Self::Shared(Arc::from(text))
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }

    pub(super) fn first_segment(&self) -> Self {
        match self {
            Self::Static(text) => Self::Static(check::first_segment(text)),
            Self::Shared(text) => Self::shared(check::first_segment(text)),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// Reads a foreign name of this sort: well-formed, the tense not checked, one allocation.
pub(super) struct TextVisitor(pub(super) What);

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a Ponos {}", self.0.noun())
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Text, E> {
        check::check(name, self.0, Verb::Unchecked).map_err(E::custom)?;
        Ok(Text::shared(name))
    }
}
