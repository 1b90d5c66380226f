//! Durations and rates as people write them: `30m`, `5/s`.

use std::time::Duration;

use ponos::Rate;

/// The longest time of an order: a year.
const LONGEST: u64 = 365 * 86_400;

/// Reads `90s`, `30m`, `1h` or `7d`.
///
/// # Errors
///
/// When it is another text, nothing, or more than a year.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let seconds = count.parse::<u64>().ok().zip(unit_seconds(unit)).and_then(|(n, unit)| n.checked_mul(unit));
    match seconds {
        Some(1..=LONGEST) => Ok(Duration::from_secs(seconds.unwrap_or_default())),
        Some(_) => Err("between a second and a year: `90s`, `30m`, `1h` or `7d`".into()),
        None => Err("write a number and its unit: `90s`, `30m`, `1h` or `7d`".into()),
    }
}

/// A duration as [`duration`] reads it.
pub(crate) fn show_duration(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 86_400 == 0 && seconds > 86_400 => format!("{}d", seconds / 86_400),
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// Reads `5/s`, `100/min`, `20/h`, or with another period `5/10s`.
///
/// # Errors
///
/// When it is another text, or lets nothing through.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let form = || "write so many starts per time: `5/s`, `100/min`, `20/h` or `5/10s`".to_owned();
    let (count, period) = text.split_once('/').ok_or_else(form)?;
    let count = count.parse::<u32>().map_err(|_| form())?;
    let period = match unit_seconds(period) {
        Some(seconds) => Duration::from_secs(seconds),
        None => duration(period).map_err(|_| form())?,
    };
    if count == 0 {
        return Err("nothing would ever start: `ponos pause` says that better".into());
    }
    Ok(Rate::new(count, period))
}

fn unit_seconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "s" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3600,
        "d" | "day" => 86_400,
        _ => return None,
    })
}

/// A rate as [`rate`] reads it.
pub(crate) fn show_rate(rate: Rate) -> String {
    let (count, seconds) = (rate.count(), rate.period().as_secs());
    match seconds {
        1 => format!("{count}/s"),
        60 => format!("{count}/min"),
        3600 => format!("{count}/h"),
        86_400 => format!("{count}/d"),
        _ if rate.period().subsec_nanos() == 0 => format!("{count}/{seconds}s"),
        _ => format!("{count}/{}ms", rate.period().as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("30min", 1800), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
            assert_eq!(duration(&show_duration(Duration::from_secs(seconds))), duration(text));
        }
        for text in [
            "",
            "30",
            "m",
            "0s",
            "-1s",
            "1.5h",
            "1w",
            "366d",
            "1 h",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_read_and_shown_alike() {
        for (text, count, seconds) in
            [("5/s", 5, 1), ("100/min", 100, 60), ("20/h", 20, 3600), ("5/10s", 5, 10)]
        {
            let read = rate(text).unwrap();
            assert_eq!((read.count(), read.period()), (count, Duration::from_secs(seconds)), "{text}");
            assert_eq!(show_rate(read), text);
        }
        assert_eq!(rate("7/m").map(show_rate), Ok("7/min".into()));
        for text in ["", "5", "5/", "/s", "0/s", "5/w", "5/0s", "-5/s", "5.5/s", "5/s/s", "99999999999/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
