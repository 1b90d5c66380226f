//! A picture of characters, each with a tone: drawn by pure functions, shown by whoever has a terminal.

use crate::output::Tone;

/// Lines of cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Canvas {
    width: usize,
    lines: Vec<Vec<(Option<char>, Option<Tone>)>>,
}

impl Canvas {
    pub(super) const fn new(width: usize) -> Self {
        Self { width, lines: Vec::new() }
    }

    pub(super) const fn width(&self) -> usize {
        self.width
    }

    pub(super) fn height(&self) -> usize {
        self.lines.len()
    }

    /// Begins a new line.
    pub(super) fn line(&mut self) -> &mut Self {
        self.lines.push(Vec::new());
        self
    }

    /// Adds empty lines until there are so many.
    pub(super) fn fill(&mut self, height: usize) {
        while self.lines.len() < height {
            self.lines.push(Vec::new());
        }
    }

    /// Appends a text to the last line, as far as it fits; `…` says that something is missing. What a terminal would obey
    /// has no place in a cell.
    pub(super) fn put(&mut self, tone: Option<Tone>, text: &str) -> &mut Self {
        let Some(line) = self.lines.last_mut() else { return self };
        for c in text.chars() {
            let columns = if crate::text::is_unsafe(c) { 0 } else { columns(c) };
            if line.len() + columns > self.width {
                if let Some(last) = line.last_mut() {
                    *last = (Some('…'), tone);
                }
                break;
            }
            if columns > 0 {
                line.push((Some(c), tone));
                line.extend(std::iter::repeat_n((None, tone), columns - 1));
            }
        }
        self
    }

    /// Appends a text in a column of this width.
    pub(super) fn column(&mut self, tone: Option<Tone>, text: &str, width: usize, right: bool) -> &mut Self {
        let mut cut = Self::new(width);
        cut.line().put(tone, text);
        let cells = cut.lines.pop().unwrap_or_default();
        let gap = " ".repeat(width - cells.len());
        if right {
            self.put(None, &gap);
        }
        let text: String = cells.iter().filter_map(|(c, _)| *c).collect();
        self.put(tone, &text);
        if !right {
            self.put(None, &gap);
        }
        self
    }

    /// The lines as text, with tones where `paint` gives them.
    pub(super) fn text(&self, paint: impl Fn(Tone, &str) -> String) -> Vec<String> {
        self.lines
            .iter()
            .map(|line| {
                let mut out = String::new();
                for run in line.chunk_by(|one, other| one.1 == other.1) {
                    let text: String = run.iter().filter_map(|(c, _)| *c).collect();
                    match run[0].1 {
                        Some(tone) => out.push_str(&paint(tone, &text)),
                        None => out.push_str(&text),
                    }
                }
                out.truncate(out.trim_end_matches(' ').len());
                out
            })
            .collect()
    }
}

/// How many columns a character takes, near enough: what is wider in some terminal spoils one line, and no other.
const fn columns(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_in_its_place() {
        let mut canvas = Canvas::new(10);
        canvas.line().column(None, "name", 3, false).put(None, "|").column(None, "7", 3, true);
        canvas.line().put(Some(Tone::Bad), "漢字漢字漢字");
        canvas.line().put(None, "a\x1b[2J\u{202e}b");
        canvas.fill(4);
        let plain = canvas.text(|_, text| text.to_owned());
        assert_eq!(plain, ["na…|  7", "漢字漢字漢…", "a[2Jb", ""].map(str::to_owned));
        assert_eq!(canvas.text(|_, text| format!("<{text}>"))[1], "<漢字漢字漢…>");
    }
}
