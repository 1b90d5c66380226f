//! The map as a drawing.

use std::fmt::Write as _;

use super::html::escape;
use super::layout::{Point, layout};
use super::model::{Kind, Map, MapNode};

/// The width of a letter and the height of a line of the drawing's font, in its own units.
const LETTER: f64 = 7.3;
const LINE: f64 = 16.0;
const PADDING: f64 = 10.0;

/// An inline `<svg>`. Its looks are in the page's style sheet.
pub(super) fn draw(map: &Map) -> String {
    let lines: Vec<Vec<String>> = map.nodes.iter().map(lines).collect();
    let sizes: Vec<Point> = lines.iter().map(|lines| size(lines)).collect();
    let placed = layout(map, &sizes);
    let Point { x: width, y: height } = placed.size;
    let mut out = format!(
        "<svg role=\"img\" aria-label=\"The system as a graph; the tables below say the same\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\">\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n"
    );
    for (edge, bends) in map.edges.iter().zip(&placed.bends) {
        let (from, to) = edge.ends;
        let forth = placed.nodes[from].x < placed.nodes[to].x;
        let side = |node: usize, right: bool| Point {
            x: placed.nodes[node].x + if right { sizes[node].x } else { 0.0 },
            y: placed.nodes[node].y,
        };
        let mut points = vec![side(from, forth)];
        points.extend(bends);
        points.push(side(to, !forth));
        let mut class = String::from("edge");
        let marks = [
            (map.nodes[from].conditional, " maybe"),
            (edge.closes_cycle, " back"),
            (edge.drift, " drift"),
            (!edge.declared && !edge.drift, " seen"),
        ];
        class.extend(marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark));
        let mut title = format!("{} → {}", map.nodes[from].label(), map.nodes[to].label());
        for word in edge.figures.words() {
            title = format!("{title}, {word}");
        }
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<path class=\"{class}\" d=\"{}\"><title>{}</title></path>",
            curve(&points),
            escape(&title)
        );
    }
    for (number, node) in map.nodes.iter().enumerate() {
        draw_node(node, &lines[number], placed.nodes[number], sizes[number], &mut out);
    }
    out.push_str("</svg>\n");
    out
}

fn lines(node: &MapNode) -> Vec<String> {
    let mut lines = vec![node.label()];
    let words = node.figures.words();
    if !words.is_empty() {
        lines.push(words.join(" · "));
    }
    lines
}

fn size(lines: &[String]) -> Point {
    let letters = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    Point { x: letters as f64 * LETTER + 2.0 * PADDING, y: lines.len() as f64 * LINE + PADDING }
}

fn draw_node(node: &MapNode, lines: &[String], at: Point, size: Point, out: &mut String) {
    let class = match node.kind {
        Kind::Outside => "outside",
        Kind::Event => "event",
        Kind::Reaction => "reaction",
        Kind::Task => "task",
    };
    let drift = if node.declared { "" } else { " drift" };
    let round = match node.kind {
        Kind::Event => size.y / 2.0,
        Kind::Reaction => 8.0,
        Kind::Outside | Kind::Task => 2.0,
    };
    let top = at.y - size.y / 2.0;
    let _ = write!(
        out,
        "<g class=\"{class}{drift}\"><title>{}</title><rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"{round:.1}\"/>",
        escape(&node.description()),
        at.x,
        size.x,
        size.y
    );
    for (i, line) in lines.iter().enumerate() {
        let y = top + PADDING / 2.0 + LINE * (i as f64 + 0.75);
        let faint = if i == 0 { "" } else { " class=\"figures\"" };
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{y:.1}\"{faint}>{}</text>", at.x + PADDING, escape(line));
    }
    out.push_str("</g>\n");
}

/// Leaves and arrives horizontally.
fn curve(points: &[Point]) -> String {
    let mut path = String::new();
    for (i, point) in points.iter().enumerate() {
        let Some(before) = i.checked_sub(1).map(|before| points[before]) else {
            let _ = write!(path, "M{:.1} {:.1}", point.x, point.y);
            continue;
        };
        if (before.y - point.y).abs() < 0.05 {
            let _ = write!(path, "L{:.1} {:.1}", point.x, point.y);
        } else {
            let middle = f64::midpoint(before.x, point.x);
            let _ = write!(
                path,
                "C{middle:.1} {:.1} {middle:.1} {:.1} {:.1} {:.1}",
                before.y, point.y, point.x, point.y
            );
        }
    }
    path
}
