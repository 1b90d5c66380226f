//! One frame of `top`, as a pure function of what is known.

use ponos_readmodel::TraceSummary;

use super::board::{Board, Mode};
use super::canvas::Canvas;
use crate::output::Tone;
use crate::queues::{COLUMNS, Look, QueueRow, QueueState, rate};
use crate::text;

/// The columns of the sparkline.
const SPARK: usize = 10;

/// The least that a name and a state are given, and the room for states that figures make way for.
const NAME: usize = 12;
const STATE: usize = 14;
const ROOMY_STATE: usize = 26;

/// How much of a text from elsewhere is shown, in bytes.
const SHOWN: usize = 200;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Figures, by their names in [`COLUMNS`], with their widths; where there is no room, the first of `DROPPED` goes first.
const SHOWN_COLUMNS: [(&str, usize); 9] = [
    ("ready", 7),
    ("unsettled", 9),
    ("oldest", 6),
    ("in/s", 5),
    ("out/s", 5),
    ("p95", 6),
    ("retry", 5),
    ("fail", 5),
    ("flight", 7),
];
const DROPPED: [&str; 6] = ["unsettled", "retry", "p95", "flight", "fail", "oldest"];

/// Draws a frame of this size; without a height as many lines as there are.
pub(super) fn draw(board: &Board, width: usize, height: Option<usize>) -> Canvas {
    let mut canvas = Canvas::new(width.max(20));
    let Some(look) = &board.look else {
        canvas.line().put(None, "looking …");
        return canvas;
    };
    head(board, look, &mut canvas);
    match &board.mode {
        Mode::Traces(queue, traces) => {
            canvas.line().put(Some(Tone::Strong), queue.as_str());
            canvas.put(None, ": failed and not ended, the newest first");
            traces_of(traces, look, height, &mut canvas);
        }
        _ => table(board, look, height, &mut canvas),
    }
    if let Some(height) = height {
        canvas.fill(height.saturating_sub(1));
        foot(board, &mut canvas);
    }
    canvas
}

fn head(board: &Board, look: &Look, canvas: &mut Canvas) {
    let totals = &look.totals;
    canvas.line().put(Some(Tone::Strong), &text::line(&board.broker, SHOWN));
    canvas.line();
    if look.blind.is_some() {
        canvas.put(Some(Tone::Faint), "no records: rates and services are not known");
    } else {
        canvas.put(None, &format!("{} alive", text::count(totals.alive, "instance")));
        if totals.silent > 0 {
            canvas.put(Some(Tone::Bad), &format!(", {} silent", totals.silent));
        }
        canvas.put(
            None,
            &format!("   {} in flight   {} records/s", totals.in_flight, rate(totals.records_per_s)),
        );
        let tone = (totals.lost > 0).then_some(Tone::Bad);
        canvas.put(None, "   ").put(tone, &format!("{} lost", totals.lost));
    }
    if !board.filter.is_empty() || board.mode == Mode::Filter {
        canvas.put(None, "   /").put(Some(Tone::Strong), &board.filter);
        if board.mode == Mode::Filter {
            canvas.put(None, "▏");
        }
    }
}

fn table(board: &Board, look: &Look, height: Option<usize>, canvas: &mut Canvas) {
    let rows = board.rows();
    let longest = rows.iter().map(|row| row.stats.queue.as_str().len()).max().unwrap_or(0).max(NAME);
    let columns = columns(canvas.width(), longest);
    let taken: usize = columns.iter().map(|(_, width)| width + 1).sum::<usize>() + 2 + SPARK + 1;
    let name = longest.min(canvas.width().saturating_sub(taken + 1 + STATE)).max(NAME);
    canvas.line().put(None, "  ").column(Some(Tone::Strong), "queue", name, false).put(None, " ");
    canvas.column(Some(Tone::Strong), "depth", SPARK, false);
    for (column, width) in &columns {
        canvas.put(None, " ").column(Some(Tone::Strong), column, *width, true);
    }
    canvas.put(None, "  ").put(Some(Tone::Strong), "state");
    if rows.is_empty() {
        let none = if board.filter.is_empty() { "no queues yet" } else { "no queue has this in its name" };
        canvas.line().put(Some(Tone::Faint), &format!("  {none}"));
    }
    // The selected one is always among those that are shown.
    let room = height.map_or(usize::MAX, |height| height.saturating_sub(canvas.height() + 2).max(1));
    let selected = rows.iter().position(|row| Some(&row.stats.queue) == board.selected.as_ref()).unwrap_or(0);
    let first = (selected + 1).saturating_sub(room);
    for row in rows.iter().skip(first).take(room) {
        // Nobody selects in a frame that is printed.
        let chosen = height.is_some() && Some(&row.stats.queue) == board.selected.as_ref();
        let tone = chosen.then_some(Tone::Strong);
        canvas.line().put(tone, if chosen { "▸ " } else { "  " });
        canvas.column(tone, row.stats.queue.as_str(), name, false).put(None, " ");
        canvas.column(None, &spark(&board.depths(&row.stats.queue, SPARK)), SPARK, false);
        let cells = row.columns();
        for (column, width) in &columns {
            let place = COLUMNS.iter().position(|name| name == column);
            canvas.put(None, " ").column(tone, place.map_or("", |place| &cells[place]), *width, true);
        }
        let state = row.state(look.at);
        if !state.is_empty() {
            canvas.put(None, "  ").put(Some(state_tone(row)), &state);
        }
    }
    let hidden = rows.len().saturating_sub(first.saturating_add(room)) + first;
    if hidden > 0 {
        canvas.line().put(Some(Tone::Faint), &format!("  … {}", text::count(hidden as u64, "more queue")));
    }
}

/// A limit by order lets jobs through.
fn state_tone(row: &QueueRow) -> Tone {
    let harmless = |state: &QueueState| {
        matches!(state, QueueState::Resting { .. })
            || matches!(state, QueueState::Circuit { half_open: true, .. })
    };
    if row.states.iter().all(harmless) { Tone::Faint } else { Tone::Bad }
}

/// The columns for which there is room.
fn columns(width: usize, name: usize) -> Vec<(&'static str, usize)> {
    let mut columns = SHOWN_COLUMNS.to_vec();
    for dropped in DROPPED {
        let taken: usize = columns.iter().map(|(_, width)| width + 1).sum();
        if 2 + name + 1 + SPARK + taken + 2 + ROOMY_STATE <= width {
            break;
        }
        columns.retain(|(column, _)| *column != dropped);
    }
    columns
}

/// The depths as bars: nothing where nobody looked, the highest for the deepest.
fn spark(depths: &[Option<u64>]) -> String {
    let most = depths.iter().flatten().max().copied().unwrap_or(0).max(1);
    let bar = |depth: u64| {
        let high = u128::from(depth) * (BARS.len() as u128 - 1) / u128::from(most);
        // One job is more than none.
        BARS[usize::try_from(high).unwrap_or(0).max(usize::from(depth > 0))]
    };
    depths.iter().map(|depth| depth.map_or(' ', bar)).collect()
}

fn traces_of(traces: &[TraceSummary], look: &Look, height: Option<usize>, canvas: &mut Canvas) {
    if traces.is_empty() {
        canvas.line().put(Some(Tone::Good), "  none");
    }
    let room = height.map_or(usize::MAX, |height| height.saturating_sub(canvas.height() + 1));
    for trace in traces.iter().take(room) {
        canvas.line();
        if trace.failed > 0 {
            canvas.put(Some(Tone::Bad), &format!("  ✖ {} failed ", trace.failed));
        } else {
            canvas.put(None, &format!("  ⋯ {} pending", trace.pending));
        }
        let age = text::duration(look.at.since(trace.last_at));
        let root = trace.root.as_deref().unwrap_or("?");
        let (tid, root) = (text::line(&trace.tid.to_string(), 64), text::line(root, 128));
        canvas.put(None, &format!("  {tid}  {age:>6} ago  {root}"));
    }
}

fn foot(board: &Board, canvas: &mut Canvas) {
    canvas.line();
    match (&board.mode, &board.notice) {
        (Mode::Reason(queue, reason), _) => {
            canvas.put(Some(Tone::Strong), &format!("why pause {queue}? ")).put(None, reason).put(None, "▏");
            canvas.put(Some(Tone::Faint), "  enter pauses, esc does not");
        }
        (Mode::Filter, _) => {
            canvas.put(Some(Tone::Faint), "type a part of the name; enter keeps it, esc ends it");
        }
        (Mode::Traces(..), _) => {
            canvas.put(Some(Tone::Faint), "`ponos trace TID` shows one whole; esc goes back");
        }
        (Mode::Table, Some((well, notice))) => {
            let tone = if *well { Tone::Good } else { Tone::Bad };
            canvas.put(Some(tone), &text::line(notice, SHOWN));
        }
        (Mode::Table, None) => {
            let keys = "↑↓ select   / filter   p pause   r resume   enter transactions   q quit";
            canvas.put(Some(Tone::Faint), keys);
        }
    }
}

#[cfg(test)]
mod tests;
