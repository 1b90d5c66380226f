//! What differs between two texts, by lines.

use std::ops::Range;

/// How many lines are shown around what differs.
const AROUND: usize = 2;

/// The most pairs of lines that are compared: beyond that all is taken for changed.
const MOST: usize = 4_000_000;

/// A line of the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
    /// Lines that are the same were left out.
    Skipped,
}

/// The difference of two texts; empty when there is none.
pub(super) fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (mid_old, mid_new) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut all: Vec<Line<'a>> = old[..head].iter().map(|line| Line::Same(line)).collect();
    middle(mid_old, mid_new, &mut all);
    all.extend(old[old.len() - tail..].iter().map(|line| Line::Same(line)));
    around(&all)
}

/// By the longest common subsequence.
fn middle<'a>(old: &[&'a str], new: &[&'a str], all: &mut Vec<Line<'a>>) {
    let width = new.len() + 1;
    if old.len().saturating_mul(new.len()) > MOST {
        all.extend(old.iter().map(|line| Line::Gone(line)));
        all.extend(new.iter().map(|line| Line::New(line)));
        return;
    }
    let mut common = vec![0u32; (old.len() + 1) * width];
    for a in (0..old.len()).rev() {
        for b in (0..new.len()).rev() {
            common[a * width + b] = if old[a] == new[b] {
                common[(a + 1) * width + b + 1] + 1
            } else {
                common[(a + 1) * width + b].max(common[a * width + b + 1])
            };
        }
    }
    let (mut a, mut b) = (0, 0);
    while a < old.len() || b < new.len() {
        if a < old.len() && b < new.len() && old[a] == new[b] {
            all.push(Line::Same(old[a]));
            (a, b) = (a + 1, b + 1);
        } else if b == new.len()
            || (a < old.len() && common[(a + 1) * width + b] >= common[a * width + b + 1])
        {
            all.push(Line::Gone(old[a]));
            a += 1;
        } else {
            all.push(Line::New(new[b]));
            b += 1;
        }
    }
}

/// Leaves out what is far from any change.
fn around<'a>(all: &[Line<'a>]) -> Vec<Line<'a>> {
    let is_change = |line: &Line<'_>| !matches!(line, Line::Same(_));
    let mut shown: Vec<Line<'a>> = Vec::new();
    for (n, line) in all.iter().enumerate() {
        let near: Range<usize> = n.saturating_sub(AROUND)..(n + AROUND + 1).min(all.len());
        if all[near].iter().any(is_change) {
            shown.push(*line);
        } else if shown.last().is_some_and(|last| *last != Line::Skipped) {
            shown.push(Line::Skipped);
        }
    }
    if shown.last() == Some(&Line::Skipped) {
        shown.pop();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_shown_with_what_is_around_it() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni";
        let new = "a\nb\nc\nd\nE\nf\ng\nh\ni\nj";
        use Line::{Gone, New, Same, Skipped};
        assert_eq!(
            lines(old, new),
            [Same("c"), Same("d"), Gone("e"), New("E"), Same("f"), Same("g"), Same("h"), Same("i"), New("j")]
        );
        assert_eq!(lines(old, old), []);
        let far = format!("x\n{old}\ny");
        let other = format!("X\n{old}\nY");
        assert!(lines(&far, &other).contains(&Skipped));
        assert_eq!(lines("", "a"), [New("a")]);
    }
}
