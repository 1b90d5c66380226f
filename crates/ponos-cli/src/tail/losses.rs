//! How many entries of an instance are missing before one of it.

use std::collections::HashMap;

use ponos::core::journal::Entry;

/// The next number of each instance.
#[derive(Debug, Default)]
pub(super) struct Losses {
    next: HashMap<u64, u64>,
}

impl Losses {
    /// How many are missing before this entry; the first of an instance that is seen misses none.
    pub(super) fn before(&mut self, entry: &Entry) -> Option<u64> {
        let next = self.next.entry(entry.origin.id).or_insert(entry.seq);
        let lost = entry.seq.saturating_sub(*next);
        // One that comes late does not set it back.
        *next = (*next).max(entry.seq.saturating_add(1));
        (lost > 0).then_some(lost)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ponos::core::id::Timestamp;
    use ponos::core::journal::{Notice, Origin, Said};
    use ponos::core::name::AppName;

    use super::*;

    #[test]
    fn numbers_that_are_missing_are_counted_for_each_instance() {
        let mut losses = Losses::default();
        let mut missing = |id: u64, seq: u64| {
            let (app, host) = (AppName::from_checked("a"), "h/1".into());
            let origin = Arc::new(Origin { id, app, version: None, host, started: Timestamp::EPOCH });
            losses.before(&Entry { origin, seq, said: Said::Notice(Timestamp::EPOCH, Notice::Bye) })
        };
        assert_eq!(
            [missing(1, 7), missing(1, 8), missing(2, 0), missing(1, 12)],
            [None, None, None, Some(3)]
        );
        assert_eq!([missing(1, 10), missing(1, 13), missing(2, 2)], [None, None, Some(1)]);
    }
}
