//! The map as one page: the drawing, and tables that say the same.

use std::fmt::Write as _;

use super::model::{Kind, Map, MapNode, label};
use super::svg;

/// Nothing is loaded, nothing runs: the policy says so to the browser too.
const HEAD: &str = "\
<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>Map of the system</title>
<style>
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --faint: #59636e; --line: #8b949e;
  --event: #ddf4ff; --reaction: #f6f8fa; --task: #dafbe1; --outside: #fff8c5; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --faint: #9198a1; --line: #6e7681;
  --event: #0c2d6b; --reaction: #21262d; --task: #0f3d22; --outside: #4b3a00; --bad: #ff7b72; } }
body { margin: 1.5rem; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
figure { margin: 1rem 0; overflow-x: auto; }
svg text { font: 12px ui-monospace, monospace; fill: var(--text); }
svg .figures { fill: var(--faint); }
svg rect { stroke: var(--line); }
svg .event rect { fill: var(--event); } svg .reaction rect { fill: var(--reaction); }
svg .task rect { fill: var(--task); } svg .outside rect { fill: var(--outside); stroke-dasharray: 4 3; }
svg .edge { fill: none; stroke: var(--line); stroke-width: 1.3; marker-end: url(#tip); }
svg .maybe { stroke-dasharray: 6 4; } svg .seen { stroke-dasharray: 2 3; } svg .back { stroke-width: 2; }
svg .drift rect, svg .edge.drift { stroke: var(--bad); }
svg marker path { fill: var(--line); }
svg g:hover rect { stroke-width: 2.5; } svg .edge:hover { stroke-width: 3; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; } caption { text-align: left; font-weight: 600; }
th, td { border: 1px solid var(--line); padding: .2rem .6rem; text-align: left; vertical-align: top; }
td { font: 13px/1.6 ui-monospace, monospace; } .faint { color: var(--faint); } .bad { color: var(--bad); }
</style>
</head>
<body>
<h1>Map of the system</h1>
";

/// The whole page.
pub(super) fn page(map: &Map) -> String {
    let mut out = String::from(HEAD);
    out.push_str(
        "<p class=\"faint\">Round: events. Grey: an application's reaction, dashed where it may create nothing. \
         Green: tasks. Dashed box: emitted outside of tasks. Point at anything for more.</p>\n<figure>\n",
    );
    out.push_str(&svg::draw(map));
    out.push_str("</figure>\n");
    events(map, &mut out);
    tasks(map, &mut out);
    for cycle in &map.cycles {
        let messages: Vec<String> = cycle.messages.iter().map(|name| escape(&label(name))).collect();
        let end = if cycle.guarded { "it can end" } else { "nothing ends it but the hop limit" };
        let class = if cycle.guarded { "faint" } else { "bad" };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<p class=\"{class}\">Cycle: {} ({end})</p>", messages.join(" → "));
    }
    for (bad, remark) in map.remarks() {
        let class = if bad { "bad" } else { "faint" };
        let _ = writeln!(out, "<p class=\"{class}\">{}</p>", escape(&remark));
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn events(map: &Map, out: &mut String) {
    table(out, "Events", &["Event", "Emitted by", "Heard by"]);
    for (number, event) in map.of_kind(Kind::Event) {
        let from = map.before(number).into_iter().map(|(_, node)| cell(&map.nodes[node]));
        let to = map.after(number).into_iter().map(|(_, node)| {
            let marks = map.nodes[node].marks();
            let marks = if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
            format!("{}{marks}", cell(&map.nodes[node]))
        });
        row(out, &cell(event), [from.collect(), to.collect()]);
    }
    out.push_str("</tbody></table>\n");
}

fn tasks(map: &Map, out: &mut String) {
    table(out, "Tasks", &["Task", "Created of", "Emits"]);
    for (number, task) in map.of_kind(Kind::Task) {
        let reactions = map.before(number).into_iter().flat_map(|(_, reaction)| map.before(reaction));
        let from = reactions.map(|(_, event)| cell(&map.nodes[event]));
        let to = map.after(number).into_iter().map(|(_, event)| cell(&map.nodes[event]));
        row(out, &cell(task), [from.collect(), to.collect()]);
    }
    out.push_str("</tbody></table>\n");
}

fn table(out: &mut String, caption: &str, columns: &[&str]) {
    let _ = write!(out, "<table><caption>{caption}</caption><thead><tr>");
    for column in columns {
        let _ = write!(out, "<th scope=\"col\">{column}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
}

fn row(out: &mut String, head: &str, cells: [Vec<String>; 2]) {
    let _ = write!(out, "<tr><th scope=\"row\">{head}</th>");
    for cell in cells {
        let text = if cell.is_empty() {
            "<span class=\"faint\">nobody</span>".to_owned()
        } else {
            cell.join("<br>")
        };
        let _ = write!(out, "<td>{text}</td>");
    }
    out.push_str("</tr>\n");
}

fn cell(node: &MapNode) -> String {
    let words = node.figures.words();
    let words = if words.is_empty() { String::new() } else { format!(" · {}", words.join(" · ")) };
    escape(&format!("{}{words}", node.label()))
}

/// A text for HTML, also between quotes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
