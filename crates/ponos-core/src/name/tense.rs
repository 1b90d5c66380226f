//! Whether an English word is in the past tense, as far as names need it.

use super::words::{BOTH, NOT_PAST, NOT_PREFIXED, PARTICIPLES, PASTS_IN_EED, PREFIXES, PRETERITES};

/// What a word says about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tense {
    Past,
    /// One form for both, such as `reset`: fits an event and a task.
    Both,
    /// A present, a noun, a number, a word that nobody knows.
    Other,
}

/// The tense of one hyphen-word.
pub(super) fn of(word: &str) -> Tense {
    if in_list(NOT_PREFIXED, word) {
        return Tense::Other;
    }
    let own = of_plain(word);
    if own != Tense::Other || in_list(NOT_PAST, word) {
        return own;
    }
    if let Some((_, stem)) = split_prefix(word) {
        let inner = of_plain(stem);
        if inner != Tense::Other || in_list(NOT_PAST, stem) {
            return inner;
        }
    }
    // Three letters are never a regular past: `bed`, `red`; `fed` and `led` are in the list.
    if word.len() >= 4 && word.ends_with("ed") && !word.ends_with("eed") {
        return Tense::Past;
    }
    Tense::Other
}

/// The tense by the lists alone.
fn of_plain(word: &str) -> Tense {
    if in_list(BOTH, word) {
        Tense::Both
    } else if irregular_base(word).is_some() || in_list(PASTS_IN_EED, word) {
        Tense::Past
    } else {
        Tense::Other
    }
}

/// The base of an irregular past without a prefix: `send` of `sent`.
pub(super) fn irregular_base(past: &str) -> Option<&'static str> {
    [PARTICIPLES, PRETERITES].into_iter().find_map(|list| {
        let at = list.binary_search_by_key(&past, |(form, _)| form).ok()?;
        Some(list[at].1)
    })
}

/// `("re", "built")` of `rebuilt`; nothing when what remains is too short to be a verb.
pub(super) fn split_prefix(word: &str) -> Option<(&'static str, &str)> {
    // The longest wins: `under` before `un`.
    let prefix = PREFIXES.iter().filter(|prefix| word.starts_with(**prefix)).max_by_key(|p| p.len())?;
    let stem = &word[prefix.len()..];
    (stem.len() >= 3).then_some((*prefix, stem))
}

pub(super) fn in_list(list: &[&str], word: &str) -> bool {
    list.binary_search(&word).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::name::words::{DOUBLING, REGULAR};

    #[test]
    fn the_lists_are_sorted() {
        let lists = [BOTH, PASTS_IN_EED, NOT_PAST, NOT_PREFIXED, PREFIXES, REGULAR, DOUBLING];
        for list in lists {
            assert!(list.windows(2).all(|w| w[0] < w[1]), "{:?}", list[0]);
        }
        for list in [PARTICIPLES, PRETERITES] {
            assert!(list.windows(2).all(|w| w[0].0 < w[1].0), "{:?}", list[0]);
        }
    }

    #[test]
    fn no_word_is_in_two_lists() {
        let pasts = [PARTICIPLES, PRETERITES].into_iter().flatten().map(|(past, _)| past);
        let mut seen = HashSet::new();
        for word in [BOTH, PASTS_IN_EED, NOT_PAST, NOT_PREFIXED, REGULAR].into_iter().flatten().chain(pasts) {
            assert!(seen.insert(word), "{word} is listed twice");
        }
    }

    #[test]
    fn every_base_is_a_present_or_both() {
        for (past, base) in [PARTICIPLES, PRETERITES].into_iter().flatten() {
            assert_eq!(of(past), Tense::Past, "{past}");
            assert_ne!(of(base), Tense::Past, "{base}, of {past}");
        }
        for verb in REGULAR {
            assert_eq!(of(verb), Tense::Other, "{verb}");
        }
    }

    #[test]
    fn pasts_are_known() {
        for word in
            "processed died used freed agreed guaranteed opted sent paid built lost led fed sped fled \
                     rebuilt resold overpaid overridden resent unpaid undone unbound overwritten mistaken \
                     misunderstood underwent outgrown underfed interwoven synced aged owed undertook prepaid \
                     reborn rethought alleged deleted"
                .split_whitespace()
        {
            assert_eq!(of(word), Tense::Past, "{word}");
        }
    }

    #[test]
    fn words_that_only_look_past_are_not() {
        for word in "seed feed embed need proceed succeed exceed speed bleed breed weed bed red sled heed deed \
                     reed creed greed indeed hundred sacred naked wicked shred imbed misfeed overfeed newsfeed \
                     linseed reembed present relent unknown outcome underground outbound ed ted create update \
                     delete unit result relay send start trial v2 7 unresponsive ending hatred"
            .split_whitespace()
        {
            assert_eq!(of(word), Tense::Other, "{word}");
        }
    }

    #[test]
    fn words_of_both_tenses_fit_both_sides() {
        for word in
            "set reset put read cut split shut cast broadcast hit hurt let quit rid spread upset bet bid \
                     burst cost offset preset input output run rerun come become overcome forecast thrust \
                     sublet shed wed reread outbid miscast overrun unset rebound"
                .split_whitespace()
        {
            assert_eq!(of(word), Tense::Both, "{word}");
        }
    }
}
