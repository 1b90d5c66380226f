//! Whether the records can be trusted: are there some, is something missing, do the clocks agree.

use std::collections::BTreeMap;
use std::time::Duration;

use ponos_readmodel::ReadModelError;

use super::broker::bytes;
use super::finding::{Code, Report};
use super::patient::{Past, Patient};
use crate::text;
use crate::view::ago;

/// From how long ago losses are told.
const RECENT: Duration = Duration::from_secs(3600);

/// By how much clocks may differ.
const SKEW: Duration = Duration::from_secs(2);

/// Says that there are none, and what cannot be looked at for that.
pub(super) fn none(why: &str, report: &mut Report) {
    report.warning(
        Code::NoRecords,
        "records",
        format!("nothing tells what happened: {why}"),
        "without them the services work as well, and nobody can see how".into(),
    );
    for what in [
        "lost records",
        "clocks",
        "stalled consumers",
        "silent instances",
        "versions at work",
        "events that nobody hears",
        "queues whose owner is gone",
        "hop limits",
        "circuits",
    ] {
        report.unseen(what, "there are no records");
    }
}

pub(super) fn check(
    patient: &Patient<'_>,
    past: &Past<'_>,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    let model = &past.view.model;
    let storage = model.storage()?;
    let mut text = format!("records: {}", text::count(storage.entries, "entry").replace("entrys", "entries"));
    if let Some(oldest) = storage.oldest {
        text.push_str(&format!(" from {} on", text::utc(oldest)));
    }
    if let Some(newest) = storage.newest {
        text.push_str(&format!(", the newest {} old", text::precise(patient.now.since(newest))));
    }
    text.push_str(&format!("; the read model has {}", bytes(storage.bytes)));
    report.fine(text);
    let mut lost: BTreeMap<String, u64> = BTreeMap::new();
    for gap in model.gaps(ago(RECENT), patient.now)? {
        *lost.entry(format!("{} at {}", gap.origin.app, gap.origin.host)).or_default() += gap.entries();
    }
    for (whose, count) in lost {
        report.warning(
            Code::RecordsLost,
            whose,
            format!("{} lost in the last hour", were(count)),
            "traces of that time are incomplete: it wrote faster than the broker took, or was killed".into(),
        );
    }
    let mut ahead: BTreeMap<&str, Duration> = BTreeMap::new();
    for instance in &past.instances {
        let by = instance.last_at.since(patient.now);
        if by > SKEW {
            let host = instance.origin.host.split('/').next().unwrap_or_default();
            let known = ahead.entry(host).or_default();
            *known = by.max(*known);
        }
    }
    for (host, by) in ahead {
        report.warning(
            Code::ClockSkew,
            host,
            format!("its clock is {} ahead of this machine's", text::precise(by)),
            "set the clocks with NTP: delays and times in traces are wrong by as much".into(),
        );
    }
    Ok(())
}

fn were(count: u64) -> String {
    if count == 1 { "1 record was".to_owned() } else { format!("{count} records were") }
}
