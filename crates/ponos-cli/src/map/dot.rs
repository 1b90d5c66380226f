//! The map for Graphviz.

use std::fmt::Write as _;

use super::model::{Kind, Map, MapNode};

/// A digraph with a cluster for each application. Nodes are numbers, so a name is only ever a label.
pub(super) fn draw(map: &Map) -> String {
    let mut out = String::from(
        "digraph ponos {\n  rankdir=LR;\n  node [fontname=\"sans-serif\", fontsize=11];\n  edge [fontname=\"sans-serif\", fontsize=9];\n",
    );
    // Writing to a string cannot fail.
    for (number, node) in map.of_kind(Kind::Event) {
        let _ = writeln!(out, "  {}", declaration(number, node));
    }
    for (i, (app, nodes)) in map.apps().into_iter().enumerate() {
        let _ = writeln!(out, "  subgraph cluster_{i} {{\n    label={};", quoted(&super::model::label(app)));
        for number in nodes {
            let _ = writeln!(out, "    {}", declaration(number, &map.nodes[number]));
        }
        out.push_str("  }\n");
    }
    for edge in &map.edges {
        let mut options = Vec::new();
        if map.nodes[edge.ends.0].conditional {
            options.push("style=dashed".to_owned());
        }
        if edge.closes_cycle {
            options.push("constraint=false".to_owned());
        }
        if edge.drift {
            options.push("color=red".to_owned());
        } else if !edge.declared {
            options.push("style=dotted".to_owned());
        }
        let words = edge.figures.words();
        if !words.is_empty() {
            options.push(format!("label={}", quoted(&words.join(", "))));
        }
        let options = if options.is_empty() { String::new() } else { format!(" [{}]", options.join(", ")) };
        let _ = writeln!(out, "  n{} -> n{}{options};", edge.ends.0, edge.ends.1);
    }
    out.push_str("}\n");
    out
}

fn declaration(number: usize, node: &MapNode) -> String {
    let shape = match node.kind {
        Kind::Outside => "house",
        Kind::Event => "ellipse",
        Kind::Reaction => "cds",
        Kind::Task => "box",
    };
    let mut lines = vec![node.label()];
    lines.extend(node.figures.words());
    let label = lines.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("\\n");
    format!("n{number} [label=\"{label}\", shape={shape}, tooltip={}];", quoted(&node.description()))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
