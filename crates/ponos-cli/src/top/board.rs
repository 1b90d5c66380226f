//! What is shown, and what keys do to it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ponos::core::broker::OrderAction;
use ponos::core::id::Timestamp;
use ponos::core::name::QueueName;
use ponos_readmodel::TraceSummary;

use crate::queues::{Look, QueueRow, is_worked};

/// How far back the depth of a queue is drawn.
pub(super) const DRAWN: Duration = Duration::from_secs(60);

/// The longest text that is typed, in bytes.
const TYPED: usize = 200;

/// A key, as far as it means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Back,
    Up,
    Down,
    /// ^C.
    Interrupt,
}

/// What is to be done after a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// An order for a queue, with its reason.
    Order(QueueName, OrderAction, String),
    /// The newest transactions of a queue that failed or have not ended.
    Traces(QueueName),
}

/// What the keys mean at the moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Table,
    /// The filter is typed.
    Filter,
    /// The reason of a pause is typed.
    Reason(QueueName, String),
    /// Transactions of a queue are shown.
    Traces(QueueName, Vec<TraceSummary>),
}

/// All that a frame shows.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) broker: String,
    pub(super) look: Option<Look>,
    depths: HashMap<QueueName, VecDeque<(Timestamp, u64)>>,
    pub(super) filter: String,
    pub(super) mode: Mode,
    pub(super) selected: Option<QueueName>,
    /// What was done last, or went wrong, and whether it did.
    pub(super) notice: Option<(bool, String)>,
}

impl Board {
    pub(super) fn new(broker: String) -> Self {
        Self {
            broker,
            look: None,
            depths: HashMap::new(),
            filter: String::new(),
            mode: Mode::Table,
            selected: None,
            notice: None,
        }
    }

    /// Takes a new look.
    pub(super) fn take(&mut self, look: Look) {
        self.depths.retain(|queue, _| look.queues.iter().any(|row| row.stats.queue == *queue));
        for row in &look.queues {
            let depths = self.depths.entry(row.stats.queue.clone()).or_default();
            depths.push_back((look.at, row.stats.messages()));
            while depths.front().is_some_and(|(at, _)| look.at.since(*at) > DRAWN) {
                depths.pop_front();
            }
        }
        self.look = Some(look);
        self.keep_selection();
    }

    /// The rows that the filter lets through.
    pub(super) fn rows(&self) -> Vec<&QueueRow> {
        let rows = self.look.iter().flat_map(|look| &look.queues);
        rows.filter(|row| row.stats.queue.as_str().contains(&self.filter)).collect()
    }

    /// How deep a queue was, in so many parts of the last minute; `None` where nobody looked.
    pub(super) fn depths(&self, queue: &QueueName, parts: usize) -> Vec<Option<u64>> {
        let mut drawn = vec![None; parts];
        let (Some(look), Some(depths)) = (&self.look, self.depths.get(queue)) else { return drawn };
        for (at, depth) in depths {
            let age = look.at.since(*at).as_millis();
            let part = usize::try_from(age * parts as u128 / (DRAWN.as_millis() + 1)).unwrap_or(0);
            if let Some(place) = parts.checked_sub(part + 1) {
                drawn[place] = drawn[place].max(Some(*depth));
            }
        }
        drawn
    }

    /// Does what a key says.
    pub(super) fn press(&mut self, key: Key) -> Wish {
        if key == Key::Interrupt {
            return Wish::Quit;
        }
        match &mut self.mode {
            Mode::Table => return self.press_in_table(key),
            Mode::Filter => {
                match key {
                    Key::Enter => self.mode = Mode::Table,
                    Key::Escape => {
                        self.filter.clear();
                        self.mode = Mode::Table;
                    }
                    key => typed(&mut self.filter, key),
                }
                self.keep_selection();
            }
            Mode::Reason(queue, reason) => match key {
                Key::Enter if !reason.trim().is_empty() => {
                    let wish = Wish::Order(queue.clone(), OrderAction::Pause, std::mem::take(reason));
                    self.mode = Mode::Table;
                    return wish;
                }
                Key::Escape => self.mode = Mode::Table,
                key => typed(reason, key),
            },
            Mode::Traces(..) => match key {
                Key::Escape | Key::Enter | Key::Back | Key::Char('q') => self.mode = Mode::Table,
                _ => {}
            },
        }
        Wish::Nothing
    }

    fn press_in_table(&mut self, key: Key) -> Wish {
        match key {
            Key::Char('q') | Key::Escape => return Wish::Quit,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Up | Key::Char('k') => self.step(-1),
            Key::Down | Key::Char('j') => self.step(1),
            Key::Enter => return self.selected.clone().map_or(Wish::Nothing, Wish::Traces),
            Key::Char(letter @ ('p' | 'r')) => {
                let Some(queue) = self.selected.clone() else { return Wish::Nothing };
                if !is_worked(&queue) {
                    self.notice =
                        Some((false, format!("{queue}: nobody consumes it, so it cannot be paused")));
                } else if letter == 'r' {
                    return Wish::Order(queue, OrderAction::Resume, String::new());
                } else {
                    self.mode = Mode::Reason(queue, String::new());
                }
            }
            _ => {}
        }
        Wish::Nothing
    }

    fn step(&mut self, by: isize) {
        let rows = self.rows();
        let here =
            self.selected.as_ref().and_then(|queue| rows.iter().position(|it| it.stats.queue == *queue));
        let place = here.unwrap_or(0).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        self.selected = rows.get(place).map(|row| row.stats.queue.clone());
    }

    /// Of a queue that is gone, or was filtered away, the first one takes the place.
    fn keep_selection(&mut self) {
        let rows = self.rows();
        if !rows.iter().any(|row| Some(&row.stats.queue) == self.selected.as_ref()) {
            self.selected = rows.first().map(|row| row.stats.queue.clone());
        }
    }
}

fn typed(text: &mut String, key: Key) {
    match key {
        Key::Char(c) if text.len() < TYPED && !c.is_control() => text.push(c),
        Key::Back => drop(text.pop()),
        _ => {}
    }
}
