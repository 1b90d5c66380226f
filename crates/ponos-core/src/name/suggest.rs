//! Guesses what a refused name should have been.
//!
//! Only a message is made of it, so it may miss; but whatever it says passes the check that it answers.

use super::check::{Fault, Verb, What, diagnose, last_segment};
use super::tense::{self, Tense, in_list};
use super::words::{BOTH, DOUBLING, PARTICIPLES, REGULAR};

/// Names that would pass, the best first; often none.
pub(super) fn names(name: &str, what: What, verb: Verb, fault: Fault) -> Vec<String> {
    let mut names = match fault {
        Fault::Malformed => {
            let Some(spelled) = respell(name) else {
                return Vec::new();
            };
            match diagnose(&spelled, what, verb) {
                Ok(()) => return vec![spelled],
                Err(fault) => names(&spelled, what, verb, fault),
            }
        }
        Fault::Segments(_) if what == What::App => vec![name.replace('.', "-")],
        Fault::NumericVerb => {
            name.rsplit_once('.').map(|(rest, number)| format!("{rest}-{number}")).into_iter().collect()
        }
        Fault::NotPast => happened(name),
        Fault::Past => to_do(name).into_iter().collect(),
        Fault::Empty
        | Fault::TooLong
        | Fault::AppTooLong
        | Fault::Segments(_)
        | Fault::Broker
        | Fault::Framework
        | Fault::ReservedModel
        | Fault::Unroutable => Vec::new(),
    };
    names.retain(|name| diagnose(name, what, verb).is_ok());
    names
}

/// Kebab case: `userAccount/Created_by` → `user-account.created-by`. What is neither a letter nor a digit nor a
/// separator is dropped; a foreign letter is beyond us.
fn respell(name: &str) -> Option<String> {
    let chars: Vec<char> = name.chars().collect();
    let mut spelled = String::with_capacity(name.len() + 8);
    for (i, &c) in chars.iter().enumerate() {
        match c {
            'a'..='z' | '0'..='9' => spelled.push(c),
            'A'..='Z' => {
                let before = i.checked_sub(1).map_or(' ', |i| chars[i]);
                let next_is_small = chars.get(i + 1).is_some_and(char::is_ascii_lowercase);
                if before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || before.is_ascii_uppercase() && next_is_small
                {
                    spelled.push('-');
                }
                spelled.push(c.to_ascii_lowercase());
            }
            '.' | '/' | ':' => spelled.push('.'),
            '-' | '_' => spelled.push('-'),
            c if c.is_whitespace() => spelled.push('-'),
            c if c.is_alphanumeric() => return None,
            // Part of an escape sequence: what follows is no part of a name either.
            '\u{1b}' => return None,
            _ => {}
        }
    }
    let segments = spelled.split('.').map(|segment| words(segment).collect::<Vec<_>>().join("-"));
    Some(segments.filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("."))
}

fn words(segment: &str) -> impl Iterator<Item = &str> {
    segment.split('-').filter(|word| !word.is_empty())
}

/// Event names for one that does not say what has happened.
fn happened(name: &str) -> Vec<String> {
    let last = last_segment(name);
    let front = &name[..name.len() - last.len()];
    let words: Vec<&str> = last.split('-').collect();
    // English puts the verb last (`review-requested`), unless a little word follows it (`converted-to-draft`).
    let verbs = if words.iter().any(|word| LITTLE_WORDS.contains(word)) { &words[..1] } else { &words[..] };
    for (i, word) in verbs.iter().enumerate().rev() {
        if let Some(past) = past_of(word) {
            let mut words = words.clone();
            words[i] = &past;
            return vec![format!("{front}{}", words.join("-"))];
        }
    }
    if let Some(moved) = past_to_the_end(name) {
        return vec![moved];
    }
    let word = words.last().copied().unwrap_or(last);
    if ends_in(word, &["tion", "sion", "ment"]) {
        vec![format!("{name}-completed")]
    } else if ends_in(word, &["ive", "able", "ible", "ful", "less", "ous"]) {
        vec![format!("{name}-reported"), format!("{front}became-{last}")]
    } else {
        vec![format!("{name}-changed"), format!("{name}-reported")]
    }
}

/// Words after which the verb is not the last word of its segment.
const LITTLE_WORDS: &[&str] = &[
    "as", "at", "by", "down", "for", "from", "in", "into", "of", "off", "on", "out", "over", "to", "up",
    "with",
];

/// `user.v2.created` of `user.created.v2`.
fn past_to_the_end(name: &str) -> Option<String> {
    let mut segments: Vec<&str> = name.split('.').collect();
    let at = segments.iter().rposition(|s| s.split('-').any(|word| tense::of(word) == Tense::Past))?;
    if at == 0 {
        return None;
    }
    let verb = segments.remove(at);
    segments.push(verb);
    Some(segments.join("."))
}

/// The task name for one whose verb's first word is a past.
fn to_do(name: &str) -> Option<String> {
    let last = last_segment(name);
    let word = last.split('-').next()?;
    let front = &name[..name.len() - last.len()];
    Some(format!("{front}{}{}", base_of(word)?, &last[word.len()..]))
}

/// `created` of `create`, `sent` of `send`, `ended` of `ending`; nothing when the word is no verb that we know.
fn past_of(word: &str) -> Option<String> {
    if let Some(past) = past_of_base(word) {
        return Some(past);
    }
    if let Some((prefix, stem)) = tense::split_prefix(word)
        && let Some(past) = past_of_base(stem)
    {
        return Some(format!("{prefix}{past}"));
    }
    if word.len() >= 6 && ends_in(word, &["ify", "ize"]) {
        return Some(regular_past(word));
    }
    let stem = word.strip_suffix("ing").filter(|stem| stem.contains(is_vowel))?;
    let bases = [Some(stem.to_owned()), Some(format!("{stem}e")), undouble(stem).map(str::to_owned)];
    let known = bases.into_iter().flatten().find_map(|base| past_of_base(&base));
    Some(
        known.unwrap_or_else(|| {
            if ends_in_consonant_y(stem) { regular_past(stem) } else { format!("{stem}ed") }
        }),
    )
}

fn past_of_base(word: &str) -> Option<String> {
    if in_list(BOTH, word) {
        Some(word.to_owned())
    } else if in_list(REGULAR, word) {
        Some(regular_past(word))
    } else {
        PARTICIPLES.iter().find(|(_, base)| *base == word).map(|(past, _)| (*past).to_owned())
    }
}

fn regular_past(base: &str) -> String {
    if base.ends_with('e') {
        format!("{base}d")
    } else if ends_in_consonant_y(base) {
        format!("{}ied", &base[..base.len() - 1])
    } else if in_list(DOUBLING, base) || is_short_syllable(base) {
        format!("{base}{}ed", &base[base.len() - 1..])
    } else {
        format!("{base}ed")
    }
}

/// One syllable that ends in consonant, vowel, consonant doubles the last: `stop`, `plan`; not `fix`, `play`.
fn is_short_syllable(word: &str) -> bool {
    let bytes = word.as_bytes();
    let vowel = |at: usize| is_vowel(char::from(bytes[at]));
    let n = bytes.len();
    n >= 3
        && !vowel(n - 1)
        && !matches!(bytes[n - 1], b'w' | b'x')
        && vowel(n - 2)
        && (0..n - 2).all(|at| !vowel(at))
}

/// `create` of `created`, `send` of `sent`; nothing when the base would be a guess.
fn base_of(past: &str) -> Option<String> {
    if let Some(base) = tense::irregular_base(past) {
        return Some(base.to_owned());
    }
    if let Some((prefix, stem)) = tense::split_prefix(past)
        && let Some(base) = tense::irregular_base(stem)
    {
        return Some(format!("{prefix}{base}"));
    }
    regular_base(past).or_else(|| {
        let (prefix, stem) = tense::split_prefix(past)?;
        Some(format!("{prefix}{}", regular_base(stem)?))
    })
}

fn regular_base(past: &str) -> Option<String> {
    let stem = past.strip_suffix("ed")?;
    let with_e = format!("{stem}e");
    if in_list(REGULAR, stem) {
        return Some(stem.to_owned());
    }
    if in_list(REGULAR, &with_e) {
        return Some(with_e);
    }
    if let Some(stem) = stem.strip_suffix('i') {
        return Some(format!("{stem}y"));
    }
    if let Some(single) = undouble(stem) {
        // `filled` and `passed` are doubled already without `-ed`.
        let own = !in_list(REGULAR, single) && ends_in(stem, &["ll", "ss", "ff", "zz"]);
        return Some(if own { stem } else { single }.to_owned());
    }
    if ends_in(stem, &["iz", "is", "v", "u", "bl", "dl", "tl", "pl", "gl", "cl", "dg", "rg"]) {
        return Some(with_e);
    }
    ends_in(
        stem,
        &[
            "ct", "nd", "nt", "rt", "st", "pt", "ft", "lt", "ck", "sk", "rk", "nk", "sh", "rm", "rn", "er",
            "y",
        ],
    )
    .then(|| stem.to_owned())
}

/// `stop` of `stopp`.
fn undouble(stem: &str) -> Option<&str> {
    let bytes = stem.as_bytes();
    let n = bytes.len();
    (n >= 3 && bytes[n - 1] == bytes[n - 2] && !is_vowel(char::from(bytes[n - 1]))).then(|| &stem[..n - 1])
}

fn ends_in(word: &str, endings: &[&str]) -> bool {
    endings.iter().any(|ending| word.ends_with(ending))
}

fn ends_in_consonant_y(word: &str) -> bool {
    let mut end = word.chars().rev();
    end.next() == Some('y') && end.next().is_some_and(|c| !is_vowel(c))
}

fn is_vowel(c: char) -> bool {
    matches!(c, 'a' | 'e' | 'i' | 'o' | 'u' | 'y')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str) -> Vec<String> {
        let fault = diagnose(name, What::Event, Verb::Checked).unwrap_err();
        names(name, What::Event, Verb::Checked, fault)
    }

    fn task(name: &str) -> Vec<String> {
        let fault = diagnose(name, What::Task, Verb::Checked).unwrap_err();
        names(name, What::Task, Verb::Checked, fault)
    }

    #[test]
    fn an_event_is_put_into_the_past() {
        for (wrong, right) in [
            ("organization.trial.ending", "organization.trial.ended"),
            ("user.create", "user.created"),
            ("email.send", "email.sent"),
            ("email.resend", "email.resent"),
            ("deploy.stopping", "deploy.stopped"),
            ("file.copying", "file.copied"),
            ("host.dying", "host.died"),
            ("job.running", "job.run"),
            ("page.feeding", "page.fed"),
            ("pull.review-request", "pull.review-requested"),
            ("user.sign-up", "user.signed-up"),
            ("pull.convert-to-page", "pull.converted-to-page"),
            ("plan.start-trial", "plan.started-trial"),
            ("cache.warm-up", "cache.warm-up-changed"),
            ("user.created.v2", "user.v2.created"),
            ("app.deployment", "app.deployment-completed"),
            ("text.verify", "text.verified"),
            ("text.tokenize", "text.tokenized"),
        ] {
            assert_eq!(event(wrong)[0], right, "{wrong}");
        }
        assert_eq!(event("dock.unresponsive"), ["dock.unresponsive-reported", "dock.became-unresponsive"]);
    }

    #[test]
    fn a_task_is_put_into_the_present() {
        for (wrong, right) in [
            ("api.user.created", "api.user.create"),
            ("api.user.created-again", "api.user.create-again"),
            ("api.email.sent", "api.email.send"),
            ("api.email.rebuilt", "api.email.rebuild"),
            ("api.email.recreated", "api.email.recreate"),
            ("api.job.cancelled", "api.job.cancel"),
            ("api.job.canceled", "api.job.cancel"),
            ("api.job.filled", "api.job.fill"),
            ("api.job.applied", "api.job.apply"),
            ("api.host.died", "api.host.die"),
            ("api.host.freed", "api.host.free"),
            ("api.host.zapped", "api.host.zap"),
            ("api.text.tokenized", "api.text.tokenize"),
        ] {
            assert_eq!(task(wrong), [right], "{wrong}");
        }
        // `reap` or `reape`: better no word than a wrong one.
        assert_eq!(task("api.host.reaped"), Vec::<String>::new());
    }

    #[test]
    fn a_foreign_spelling_becomes_kebab_case() {
        for (wrong, right) in [
            ("Org.paymentProcessed", "org.payment-processed"),
            ("org.payment_processed", "org.payment-processed"),
            ("HTTPServer.Died", "http-server.died"),
            ("s3Bucket/ObjectCreated", "s3-bucket.object-created"),
            ("order::created", "order.created"),
            ("order..created.", "order.created"),
            (" order.created\r\n", "order.created"),
            ("order--line.created\u{1f600}", "order-line.created"),
            ("USER.CREATE", "user.created"),
        ] {
            assert_eq!(event(wrong), [right], "{wrong}");
        }
        for hopeless in ["bestellung.gel\u{f6}scht", "\u{1b}[31m.died", "_._", "Created"] {
            assert_eq!(event(hopeless), Vec::<String>::new(), "{hopeless}");
        }
    }

    #[test]
    fn every_verb_that_we_know_goes_there_and_back() {
        for verb in REGULAR {
            let past = past_of(verb).unwrap();
            assert_eq!(tense::of(&past), Tense::Past, "{past}");
            assert_eq!(base_of(&past).as_deref(), Some(*verb), "{past}");
        }
        for (_, base) in PARTICIPLES {
            let past = past_of(base).unwrap();
            assert_ne!(tense::of(&past), Tense::Other, "{past}");
            if !in_list(BOTH, base) {
                assert_eq!(base_of(&past).as_deref(), Some(*base), "{past}");
            }
        }
    }
}
