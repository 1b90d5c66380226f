//! The name that was probably meant.

/// The known name that is nearest to one that is not known, if it is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |other: &&str| strsim::damerau_levenshtein(name, other);
    let best = known.into_iter().filter(|other| *other != name).min_by_key(near)?;
    (near(&best) <= (name.chars().count() / 6).clamp(1, 3)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_another_word_is_not() {
        let known = ["pheidi.email.send", "pheidi.letter.send", "cream.payment.process"];
        assert_eq!(nearest("pheidi.emial.send", known), Some("pheidi.email.send"));
        assert_eq!(nearest("phedi.email.sned", known), Some("pheidi.email.send"));
        assert_eq!(nearest("pheidi.parcel.weigh", known), None);
        assert_eq!(nearest("pheidi.email.send", ["pheidi.email.send"]), None, "it is no slip");
    }
}
