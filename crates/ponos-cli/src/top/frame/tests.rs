//! Frames as they look, and what keys do to them.

use ponos::core::broker::{OrderAction, QueueStats};
use ponos::core::id::Timestamp;
use ponos::core::name::QueueName;

use super::super::board::{Key, Wish};
use super::*;
use crate::queues::Totals;

/// Clears the screen, a title, turns the text around.
const EVIL: &str = "smoke\u{1b}[2J\u{1b}]0;t\u{7}\u{202e}evil 漢字";

fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

fn row(name: &str, ready: u64, at: Timestamp) -> QueueRow {
    let stats = QueueStats {
        queue: queue(name),
        ready,
        delayed: Some(0),
        unsettled: Some(2),
        consumers: 2,
        oldest: (ready > 0).then(|| Timestamp::from_millis(at.as_millis() - 190_000)),
    };
    QueueRow {
        in_per_s: Some(4.8),
        out_per_s: Some(1.1),
        p95_ms: Some(5000.0),
        retry_share: Some(0.62),
        fail_share: Some(0.011),
        in_flight: Some(2),
        prefetch: Some(20),
        ..QueueRow::new(stats, at)
    }
}

fn look(second: u64) -> Look {
    let at = Timestamp::from_millis(1_767_268_800_000 + second * 1000);
    let mut held = row("pheidi.email.send", 942 * second / 60, at);
    held.states = vec![
        QueueState::Ordered {
            what: "paused".into(),
            by: "ada\u{9b}31m@vm".into(),
            reason: EVIL.into(),
            at,
            until: None,
        },
        QueueState::Circuit {
            circuit: "smtp".into(),
            half_open: false,
            since: Some(Timestamp::from_millis(at.as_millis() - 18_000)),
            instances: 2,
        },
    ];
    let mut alone = row("metrics.org.payment.processed", 1204, at);
    (alone.in_flight, alone.prefetch, alone.p95_ms) = (None, None, None);
    alone.states = vec![QueueState::Unworked];
    let well = row("cream.invoice.pay", 0, at);
    Look {
        at,
        queues: vec![well, alone, held],
        orders: Vec::new(),
        totals: Totals { alive: 3, silent: 1, in_flight: 4, records_per_s: 45.2, lost: 7 },
        blind: None,
        partly: None,
    }
}

fn board() -> Board {
    let mut board = Board::new("demo\u{1b}[31m.db".into());
    for second in [0, 20, 40, 60] {
        board.take(look(second));
    }
    board
}

fn plain(board: &Board, width: usize, height: Option<usize>) -> String {
    let lines = draw(board, width, height).text(|_, text| text.to_owned());
    lines.join("\n")
}

fn press(board: &mut Board, keys: &str) -> Wish {
    keys.chars().map(|c| board.press(Key::Char(c))).last().unwrap_or(Wish::Nothing)
}

#[test]
fn a_narrow_frame_has_the_most_important_columns() {
    let expected = r"demo\u{1b}[31m.db
3 instances alive, 1 silent   4 in flight   45 records/s   7 lost
  queue                         depth        ready  in/s out/s  state
▸ cream.invoice.pay             █  █  █  █       0   4.8   1.1
  metrics.org.payment.processed █  █  █  █    1204   4.8   1.1  nobody works it
  pheidi.email.send             ▂  ▃  ▅  █     942   4.8   1.1  paused by ada\u…


↑↓ select   / filter   p pause   r resume   enter transactions   q quit";
    assert_eq!(plain(&board(), 80, Some(9)), expected);
}

#[test]
fn a_wide_frame_has_more_of_them() {
    let expected = r"demo\u{1b}[31m.db
3 instances alive, 1 silent   4 in flight   45 records/s   7 lost
  queue                         depth        ready oldest  in/s out/s    p95  fail  flight  state
▸ cream.invoice.pay             █  █  █  █       0      –   4.8   1.1   5.0s  1.1%    2/20
  metrics.org.payment.processed █  █  █  █    1204   3min   4.8   1.1      –  1.1%       –  nobody works it
  pheidi.email.send             ▂  ▃  ▅  █     942   3min   4.8   1.1   5.0s  1.1%    2/20  paused by ada\u{9b}31m@vm: …

↑↓ select   / filter   p pause   r resume   enter transactions   q quit";
    assert_eq!(plain(&board(), 120, Some(8)), expected);
}

#[test]
fn tones_say_what_is_chosen_and_what_is_wrong() {
    let tones = draw(&board(), 80, Some(9)).text(|tone, text| format!("<{tone:?} {text}>"));
    assert_eq!(tones[1], "3 instances alive<Bad , 1 silent>   4 in flight   45 records/s   <Bad 7 lost>");
    assert!(tones[3].starts_with("<Strong ▸ cream.invoice.pay>"), "{tones:?}");
    assert!(tones[4].ends_with("<Bad nobody works it>"), "{tones:?}");
}

#[test]
fn no_text_of_others_reaches_the_terminal_and_no_line_is_too_long() {
    let mut board = board();
    press(&mut board, "/");
    press(&mut board, EVIL);
    board.filter.push('\u{9b}');
    for width in [1, 20, 37, 80, 120, 300] {
        for height in [None, Some(1), Some(3), Some(24)] {
            let frame = plain(&board, width, height);
            assert!(!frame.chars().any(|c| c != '\n' && text::is_unsafe(c)), "{frame:?}");
            let widest = frame.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!(widest <= width.max(20), "{widest} in {width}: {frame}");
        }
    }
}

#[test]
fn more_queues_than_lines_scroll_with_the_selection() {
    let mut board = board();
    assert!(plain(&board, 80, Some(6)).contains("… 2 more queues"));
    press(&mut board, "jj");
    let frame = plain(&board, 80, Some(6));
    assert!(frame.contains("▸ pheidi.email.send") && !frame.contains("cream.invoice.pay"), "{frame}");
}

#[test]
fn a_queue_is_found_paused_with_a_reason_and_resumed() {
    let mut board = board();
    assert_eq!(press(&mut board, "/mail"), Wish::Nothing);
    board.press(Key::Enter);
    assert_eq!(board.rows().len(), 1);
    assert_eq!(press(&mut board, "p"), Wish::Nothing);
    assert!(
        plain(&board, 80, Some(9)).ends_with("why pause pheidi.email.send? ▏  enter pauses, esc does not")
    );
    assert_eq!(board.press(Key::Enter), Wish::Nothing, "a reason is asked for");
    press(&mut board, "smtp is down?");
    board.press(Key::Back);
    let paused = Wish::Order(queue("pheidi.email.send"), OrderAction::Pause, "smtp is down".into());
    assert_eq!(board.press(Key::Enter), paused);
    let resumed = Wish::Order(queue("pheidi.email.send"), OrderAction::Resume, String::new());
    assert_eq!(press(&mut board, "r"), resumed);
    assert_eq!(board.press(Key::Enter), Wish::Traces(queue("pheidi.email.send")));
    assert_eq!(press(&mut board, "q"), Wish::Quit);
}

#[test]
fn a_reason_that_is_begun_can_be_given_up_and_an_interrupt_always_ends() {
    let mut board = board();
    press(&mut board, "pq");
    assert_eq!(board.press(Key::Escape), Wish::Nothing);
    assert_eq!(board.mode, Mode::Table);
    assert_eq!(board.press(Key::Escape), Wish::Quit);
    for mode in [Mode::Filter, Mode::Reason(queue("a.b.done"), String::new())] {
        board.mode = mode;
        assert_eq!(board.press(Key::Interrupt), Wish::Quit);
    }
}

#[test]
fn where_failed_jobs_are_kept_nothing_is_paused() {
    let mut board = Board::new("x".into());
    let mut look = look(0);
    look.queues = vec![row("shop.failed", 1, look.at)];
    board.take(look);
    assert_eq!(press(&mut board, "p"), Wish::Nothing);
    assert!(plain(&board, 80, Some(8)).contains("it cannot be paused"));
}

#[test]
fn transactions_are_listed_and_without_records_it_is_said() {
    let mut board = board();
    let mut look = look(61);
    look.blind = Some("none are kept".into());
    board.take(look);
    board.mode = Mode::Traces(queue("cream.invoice.pay"), Vec::new());
    let frame = plain(&board, 80, Some(8));
    assert!(frame.contains("no records: rates and services are not known"), "{frame}");
    assert!(frame.contains("cream.invoice.pay: failed and not ended") && frame.contains("  none"), "{frame}");
}
