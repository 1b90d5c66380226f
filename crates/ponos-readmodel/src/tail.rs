//! A transaction's id backwards: so one index finds the whole id and its end.

use ponos_core::id::Tid;
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};

/// An id backwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tail {
    /// The bytes of a UUID, the last first, each with its two digits swapped.
    Uuid(Vec<u8>),
    /// The characters of any other id, the last first.
    Text(String),
}

impl Tail {
    pub(crate) fn of(tid: &Tid) -> Self {
        match tid.uuid_bytes() {
            Some(bytes) => Self::Uuid(bytes.iter().rev().map(|byte| byte.rotate_left(4)).collect()),
            None => Self::Text(tid.to_string().chars().rev().collect()),
        }
    }

    /// The id of what stands in a file; `None` for what no id gives.
    pub(crate) fn read(value: ValueRef<'_>) -> Option<Tid> {
        match value {
            ValueRef::Blob(bytes) => {
                let mut bytes: [u8; 16] = bytes.try_into().ok()?;
                bytes.reverse();
                Some(Tid::from_uuid_bytes(bytes.map(|byte| byte.rotate_left(4))))
            }
            ValueRef::Text(text) => {
                Tid::from_foreign(&std::str::from_utf8(text).ok()?.chars().rev().collect::<String>())
            }
            _ => None,
        }
    }

    /// The ranges (from, up to and without) of ids that end so: UUIDs first, then texts. None for what ends no id.
    pub(crate) fn ranges(suffix: &str) -> Vec<(Self, Self)> {
        let suffix = suffix.trim().trim_start_matches('…');
        let mut ranges = Vec::new();
        let digits: Option<Vec<u8>> = suffix
            .chars()
            .rev()
            .filter(|c| *c != '-')
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        if let Some(digits) = digits.filter(|digits| !digits.is_empty() && digits.len() <= 32) {
            let behind = next(&digits, 15).unwrap_or_else(|| vec![15; 34]);
            ranges.push((Self::Uuid(bytes(&digits)), Self::Uuid(bytes(&behind))));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if !suffix.is_empty() && suffix.bytes().all(plain) {
            let text: Vec<u8> = suffix.bytes().rev().collect();
            // No allowed character is the last of ASCII, so there always is a text behind.
            if let Some(behind) = next(&text, 0x7f).and_then(|behind| String::from_utf8(behind).ok()) {
                ranges.push((Self::Text(suffix.chars().rev().collect()), Self::Text(behind)));
            }
        }
        ranges
    }
}

/// The first list behind all those that begin so.
fn next(digits: &[u8], highest: u8) -> Option<Vec<u8>> {
    let last = digits.iter().rposition(|digit| *digit < highest)?;
    let mut next = digits[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

fn bytes(digits: &[u8]) -> Vec<u8> {
    digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)).collect()
}

impl ToSql for Tail {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Uuid(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Self::Text(text) => ToSqlOutput::Owned(Value::Text(text.clone())),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(tail: &Tail) -> ValueRef<'_> {
        match tail {
            Tail::Uuid(bytes) => ValueRef::Blob(bytes),
            Tail::Text(text) => ValueRef::Text(text.as_bytes()),
        }
    }

    fn ends_so(tid: &Tid, suffix: &str) -> bool {
        let tail = Tail::of(tid);
        Tail::ranges(suffix).iter().any(|(from, to)| match (&tail, from, to) {
            (Tail::Uuid(tail), Tail::Uuid(from), Tail::Uuid(to)) => from <= tail && tail < to,
            (Tail::Text(tail), Tail::Text(from), Tail::Text(to)) => from <= tail && tail < to,
            _ => false,
        })
    }

    proptest! {
        #[test]
        fn an_id_is_read_back_and_found_by_each_of_its_ends(
            bytes in any::<[u8; 16]>(), text in "[A-Za-z0-9._:-]{1,40}", cut in 0usize..36,
        ) {
            for tid in [Tid::from_uuid_bytes(bytes), Tid::from_foreign(&text).unwrap()] {
                prop_assert_eq!(Tail::read(value(&Tail::of(&tid))), Some(tid.clone()));
                let shown = tid.to_string();
                let suffix = &shown[cut.min(shown.len() - 1)..];
                prop_assert!(ends_so(&tid, suffix) || suffix.chars().all(|c| c == '-'), "{shown} {suffix}");
            }
        }

        #[test]
        fn an_id_is_not_found_by_the_end_of_another(bytes in any::<[u8; 16]>(), digits in "[0-9a-f]{1,8}") {
            let tid = Tid::from_uuid_bytes(bytes);
            prop_assert_eq!(ends_so(&tid, &digits), tid.to_string().ends_with(&digits));
        }
    }

    #[test]
    fn ends_of_nothing_find_nothing() {
        let last = Tid::from_uuid_bytes([0xff; 16]);
        assert!(ends_so(&last, "ffff"));
        for wrong in ["", "%", "x' OR 1", "\u{202e}", " "] {
            assert!(Tail::ranges(wrong).is_empty(), "{wrong}");
        }
    }
}
