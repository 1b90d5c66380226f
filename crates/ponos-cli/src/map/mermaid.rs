//! The map as a flowchart of Mermaid, which Markdown on code hosts draws.

use std::fmt::Write as _;

use super::model::{Kind, Map, MapNode};

/// A flowchart with a subgraph for each application. Nodes are numbers, so a name is only ever a label.
pub(super) fn draw(map: &Map) -> String {
    let mut out = String::from("flowchart LR\n");
    // Writing to a string cannot fail.
    for (number, node) in map.of_kind(Kind::Event) {
        let _ = writeln!(out, "  {}", declaration(number, node));
    }
    for (i, (app, nodes)) in map.apps().into_iter().enumerate() {
        let _ = writeln!(out, "  subgraph a{i}[\"{}\"]", escaped(&super::model::label(app)));
        for number in nodes {
            let _ = writeln!(out, "    {}", declaration(number, &map.nodes[number]));
        }
        out.push_str("  end\n");
    }
    for edge in &map.edges {
        let line = if map.nodes[edge.ends.0].conditional || !edge.declared { "-.->" } else { "-->" };
        let words = edge.figures.words().join(", ");
        let words = if words.is_empty() { words } else { format!("|\"{}\"|", escaped(&words)) };
        let _ = writeln!(out, "  n{} {line}{words} n{}", edge.ends.0, edge.ends.1);
    }
    out
}

fn declaration(number: usize, node: &MapNode) -> String {
    let (open, close) = match node.kind {
        Kind::Outside => ("[/", "/]"),
        Kind::Event => ("([", "])"),
        Kind::Reaction => (">", "]"),
        Kind::Task => ("[", "]"),
    };
    let mut lines = vec![escaped(&node.label())];
    lines.extend(node.figures.words().iter().map(|word| escaped(word)));
    format!("n{number}{open}\"{}\"{close}", lines.join("<br/>"))
}

/// Every sign that Mermaid or HTML could obey, as an entity of Mermaid's.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() && !matches!(c, '.' | '-' | ',' | '%') {
            let _ = write!(out, "#{};", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}
