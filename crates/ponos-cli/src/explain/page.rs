//! What manifests, records and the broker tell, as text.

use super::live::{FollowedBy, Live, Queue, Source};
use super::offline::{Explanation, shown};
use crate::output::{Output, Tone};
use crate::{amount, text};

/// How many names that followed are shown.
const FOLLOWERS: usize = 20;

pub(super) fn print(explanation: &Explanation, live: &Live, out: &mut Output) {
    explanation.print_head(out);
    if !live.declared {
        let warning = out.paint(Tone::Bad, "⚠ in no manifest: it was seen in records");
        out.line(&warning);
    }
    published(live, out);
    out.line("");
    queues(explanation, live, out);
    out.line("");
    followed(&live.followed_by, out);
    explanation.print_policies(out);
    explanation.print_warnings(out);
    if live.records_missing > 0 {
        let missing = format!(
            "⚠ {} of that time are missing: figures are lower than what happened",
            text::count(live.records_missing, "record")
        );
        let missing = out.paint(Tone::Bad, &missing);
        out.line(&missing);
    }
}

fn published(live: &Live, out: &mut Output) {
    let sources: Vec<String> = live.sources.iter().map(source).collect();
    let mut line = format!("published     {} in {}", live.published, amount::show_duration(live.window));
    if !sources.is_empty() {
        line.push_str(&format!(": {}", sources.join(", ")));
    }
    if live.unpublished > 0 {
        line.push_str(&format!("; {} not, or perhaps not, taken by the broker", live.unpublished));
    }
    out.line(&line);
}

fn source(source: &Source) -> String {
    let from = source.from.as_deref().map_or_else(|| "(unknown)".to_owned(), shown);
    let drift = if source.declared == Some(false) { " ⚠ in no manifest" } else { "" };
    format!("{from} {}{drift}", source.published)
}

fn queues(explanation: &Explanation, live: &Live, out: &mut Output) {
    if live.queues.is_empty() {
        let who = if explanation.is_event() { "nobody listens" } else { "nobody performs it" };
        out.line(who);
        return;
    }
    let window = amount::show_duration(live.window);
    let head = if explanation.is_event() { "LISTENER" } else { "PERFORMER" };
    let mut rows =
        vec![[head, "QUEUE", "STATE", &window, "OK", "RETRY", "FAILED", "WAIT P95"].map(str::to_owned)];
    rows.extend(live.queues.iter().map(row));
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in &rows {
        // Texts to the left, figures to the right.
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column < 3 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        out.line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn row(queue: &Queue) -> [String; 8] {
    let drift = if queue.declared { "" } else { ", ⚠ in no manifest" };
    let state = format!("{}{drift}", queue.now.words());
    [
        shown(&queue.app),
        shown(&queue.queue),
        state,
        queue.jobs.to_string(),
        share(queue.done, queue.jobs),
        share(queue.retried, queue.attempts),
        queue.failed.to_string(),
        queue.wait_p95.map_or_else(|| "-".to_owned(), text::precise),
    ]
}

fn followed(by: &FollowedBy, out: &mut Output) {
    if by.transactions == 0 {
        out.line("USUALLY FOLLOWED BY: no transaction with it is on record");
        return;
    }
    out.line(&format!("USUALLY FOLLOWED BY (last {})", text::count(by.transactions, "transaction")));
    if by.names.is_empty() {
        out.line("  nothing");
    }
    for one in by.names.iter().take(FOLLOWERS) {
        let mark = if one.kind == "event" { "◇" } else { "▸" };
        let share = share(one.transactions, by.transactions);
        out.line(&format!("{:>3}  {share:>6}  {mark} {}", one.after, shown(&one.name)));
    }
    if by.names.len() > FOLLOWERS {
        out.line(&format!("  … and {} rarer ones", by.names.len() - FOLLOWERS));
    }
    let settles = match (by.p50, by.p95, by.p99) {
        (Some(p50), Some(p95), Some(p99)) => {
            let [p50, p95, p99] = [p50, p95, p99].map(text::precise);
            format!("whole cascade settles: p50 {p50}  p95 {p95}  p99 {p99}")
        }
        _ => "no whole cascade has settled".to_owned(),
    };
    let pending = if by.pending > 0 { format!("; {} not settled", by.pending) } else { String::new() };
    out.line(&format!("{settles}; ends in failure: {}{pending}", share(by.failed, by.transactions)));
}

/// A part in percent. Only all is 100%, and only none is 0%.
fn share(part: u64, of: u64) -> String {
    if of == 0 {
        return "-".to_owned();
    }
    let tenths = u128::from(part) * 1000 / u128::from(of);
    match tenths {
        0 if part > 0 => "<0.1%".to_owned(),
        _ if tenths % 10 == 0 => format!("{}%", tenths / 10),
        _ => format!("{}.{}%", tenths / 10, tenths % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn only_all_is_all_and_only_none_is_none() {
        for (part, of, said) in [
            (0, 0, "-"),
            (0, 5, "0%"),
            (1, 5000, "<0.1%"),
            (4999, 5000, "99.9%"),
            (5, 5, "100%"),
            (1, 2, "50%"),
        ] {
            assert_eq!(share(part, of), said);
        }
    }
}
