//! Six hours, and the name of the file that holds their entries.

use ponos_core::id::Timestamp;

const SLOT_MS: u64 = 6 * 3_600_000;
const SLOTS_PER_DAY: u64 = 4;

/// The last slot of the year 9999: later ones have no name.
const LAST: u64 = 2_932_897 * SLOTS_PER_DAY - 1;

/// Six hours, counted from the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u64);

impl Slot {
    pub(crate) fn of(at: Timestamp) -> Self {
        Self((at.as_millis() / SLOT_MS).min(LAST))
    }

    /// When the next one begins.
    pub(crate) fn end(self) -> Timestamp {
        Timestamp::from_millis((self.0 + 1) * SLOT_MS)
    }

    /// `2026-11-23T06`.
    pub(crate) fn name(self) -> String {
        let (year, month, day) = civil(self.0 / SLOTS_PER_DAY);
        format!("{year:04}-{month:02}-{day:02}T{:02}", self.0 % SLOTS_PER_DAY * 6)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (date, hour) = name.split_once('T')?;
        let mut parts = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        if year > 9999 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let slot = Self(days(year, month, day)? * SLOTS_PER_DAY + hour.parse::<u64>().ok()? / 6);
        (slot.name() == name).then_some(slot)
    }
}

/// Year, month and day of a day since the epoch (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + (month <= 2) as u64, month, of_year - (153 * from_march + 2) / 5 + 1)
}

fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_named_by_its_first_hour() {
        let at = |millis| Slot::of(Timestamp::from_millis(millis)).name();
        assert_eq!(at(0), "1970-01-01T00");
        assert_eq!(at(1_795_416_590_000), "2026-11-23T06");
        assert_eq!(at(951_782_400_000), "2000-02-29T00");
        assert_eq!(at(u64::MAX), "9999-12-31T18");
    }

    #[test]
    fn every_name_is_read_back() {
        for day in (0..2_932_897).step_by(97).chain([LAST / 4]) {
            let slot = Slot(day * 4 + day % 4);
            assert_eq!(Slot::parse(&slot.name()), Some(slot));
            assert_eq!(Slot::of(Timestamp::from_millis(slot.end().as_millis() - 1)), slot);
        }
        for wrong in
            ["", "x", "2026-11-23", "2026-11-23T07", "2026-02-31T06", "2026-11-23T06.db", "1969-12-31T18"]
        {
            assert_eq!(Slot::parse(wrong), None, "{wrong}");
        }
    }
}
