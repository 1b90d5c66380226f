//! Texts of others, made safe for a terminal; and times for people.

use std::time::Duration;

use ponos::core::envelope;
use ponos::core::id::Timestamp;

/// Whether a terminal obeys this character, or it turns the direction of what stands beside it, or it hides.
pub(crate) const fn is_unsafe(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
    )
}

/// A text of somebody else in one line of at most `max` bytes, with `…` where something is missing.
pub(crate) fn line(text: &str, max: usize) -> String {
    let mut lines = text.lines();
    let mut out = tame(lines.next().unwrap_or_default());
    if cut(&mut out, max) || lines.next().is_some() {
        out.push('…');
    }
    out
}

/// A text of somebody else as lines, each after `indent`, of at most `max` bytes in all.
pub(crate) fn block(text: &str, indent: &str, max: usize) -> String {
    let mut tamed = tame(text);
    if cut(&mut tamed, max) {
        tamed.push_str("\n…");
    }
    let mut out = String::with_capacity(tamed.len());
    for line in tamed.lines() {
        out.push_str(indent);
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// All of it in one line: for messages of errors.
pub(crate) fn one_line(text: &str) -> String {
    let joined = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    line(&joined, 4096)
}

/// Escapes whatever is unsafe but the ends of lines: [`envelope::tame`] knows control characters only.
fn tame(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in envelope::tame(text, usize::MAX).chars() {
        if c != '\n' && is_unsafe(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A text with what stands between `://` and `@` masked.
pub(crate) fn without_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        out.push_str(before);
        // A password may hold anything that a URL may not, but no end of the argument.
        let end = after.find([' ', '\'', '"', '\n']).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(credentials) => {
                out.push('…');
                rest = &after[credentials..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

/// Cuts to at most `max` bytes at a character's border; whether there was more.
fn cut(text: &mut String, max: usize) -> bool {
    let too_long = text.len() > max;
    if too_long {
        text.truncate(text.floor_char_boundary(max));
    }
    too_long
}

/// `1 job`, `2 jobs`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A duration in its largest unit, rounded down: `850ms`, `12s`, `3min`, `5h`, `9d`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}min", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A duration in two or three digits: `0.4ms`, `184ms`, `5.0s`, `2m 41s`, `1h 02m`, `3d 04h`.
pub(crate) fn precise(time: Duration) -> String {
    ponos::trace::duration(time)
}

/// A moment as `2026-01-01 12:03:11.402 UTC`.
///
/// The date comes from the algorithm `civil_from_days` of Howard Hinnant
/// (<https://howardhinnant.github.io/date_algorithms.html>).
pub(crate) fn utc(at: Timestamp) -> String {
    let millis = at.as_millis();
    let (days, of_day) = (millis / 86_400_000, millis % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03} UTC", of_day % 1000)
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "a\x1b[2J\u{9b}31m\u{202e}\u{200b}b\r";

    #[test]
    fn credentials_are_masked_wherever_a_url_stands() {
        for (text, shown) in [
            ("unexpected argument 'amqp://u:p/w@h/v' found", "unexpected argument 'amqp://…@h/v' found"),
            ("amqp://u:p@@h and redis://:p@h", "amqp://…@h and redis://…@h"),
            ("sqlite://a.db, no@body", "sqlite://a.db, no@body"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }

    #[test]
    fn nothing_of_another_steers_the_terminal() {
        for text in [line(EVIL, 200), block(EVIL, "  ", 200), one_line(EVIL)] {
            assert!(!text.chars().any(|c| c != '\n' && is_unsafe(c)), "{text:?}");
            assert!(text.contains("[2J") && text.contains("\\u{202e}"), "{text:?}");
        }
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(line("short", 20), "short");
        assert_eq!(line("one\ntwo", 20), "one…");
        assert_eq!(line("0123456789", 5), "01234…");
        assert_eq!(block("one\ntwo\n", "  ", 100), "  one\n  two\n");
        assert_eq!(block("one\ntwo\n", "  ", 5), "  one\n  t\n  …\n");
    }

    #[test]
    fn moments_and_durations_are_for_people() {
        assert_eq!(utc(Timestamp::EPOCH), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(utc(Timestamp::from_millis(951_782_400_000)), "2000-02-29 00:00:00.000 UTC");
        assert_eq!(utc(Timestamp::from_millis(1_767_268_991_402)), "2026-01-01 12:03:11.402 UTC");
        let shown: Vec<_> = [999, 1000, 59_999, 60_000, 7_200_000, 172_800_000]
            .map(|ms| duration(Duration::from_millis(ms)))
            .into();
        assert_eq!(shown, ["999ms", "1s", "59s", "1min", "2h", "2d"]);
        assert_eq!((count(1, "job"), count(0, "queue")), ("1 job".to_owned(), "0 queues".to_owned()));
    }
}
