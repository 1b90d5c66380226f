//! The map as lines: who emits what, who hears it, and what is made of it.

use super::model::{Kind, Map, MapNode, label};

/// One line for each listener of each event, grouped by who emits.
pub(super) fn draw(map: &Map) -> String {
    let emitters = emitters(map);
    let listeners = |event: usize| {
        let mut after = map.after(event);
        after.sort_by(|a, b| map.nodes[a.1].name.cmp(&map.nodes[b.1].name));
        after
    };
    let events = || emitters.iter().flat_map(|(_, events)| events.iter().copied());
    let app_width = emitters.iter().map(|(app, _)| width(app)).max().unwrap_or(0);
    let event_width = events().map(|event| width(&titled(&map.nodes[event]))).max().unwrap_or(0);
    let listener_width = events()
        .flat_map(listeners)
        .map(|(_, reaction)| width(&listener(&map.nodes[reaction])))
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for (app, events) in &emitters {
        for (i, &event) in events.iter().enumerate() {
            let (first, last) = (i == 0, i + 1 == events.len());
            let branch = match (first, last) {
                (true, true) => "───◇",
                (true, false) => "─┬─◇",
                (false, false) => " ├─◇",
                (false, true) => " └─◇",
            };
            let name = if first { app.as_str() } else { "" };
            let title = titled(&map.nodes[event]);
            let head = format!("{} {branch} {title} {}", pad(name, app_width), rule(&title, event_width));
            let below = format!(
                "{} {}  {} ",
                pad("", app_width),
                if last { "  " } else { " │" },
                pad("", event_width + 2)
            );
            let listeners = listeners(event);
            if listeners.is_empty() {
                out.push_str(&format!("{head}──► (nobody)\n"));
            }
            for (j, (edge, reaction)) in listeners.iter().enumerate() {
                let fork = match (j == 0, j + 1 == listeners.len()) {
                    (true, true) => "──►",
                    (true, false) => "┬─►",
                    (false, false) => "├─►",
                    (false, true) => "└─►",
                };
                let drift = if edge.declared { "" } else { " ⚠ in no manifest" };
                let made = made(map, *reaction, listener_width);
                let line = format!("{}{fork} {made}{drift}", if j == 0 { &head } else { &below });
                out.push_str(line.trim_end());
                out.push('\n');
            }
        }
    }
    out + &below(map)
}

/// Who emits, by name, and the events of each; what nobody emits comes last.
fn emitters(map: &Map) -> Vec<(String, Vec<usize>)> {
    let mut emitters: Vec<(String, Vec<usize>)> = Vec::new();
    for (app, nodes) in map.apps() {
        let emitted = nodes.iter().filter(|node| map.nodes[**node].kind != Kind::Reaction);
        let mut events: Vec<usize> =
            emitted.flat_map(|node| map.after(*node)).map(|(_, event)| event).collect();
        events.retain(|event| map.nodes[*event].kind == Kind::Event);
        events.sort_unstable();
        events.dedup();
        if !events.is_empty() {
            emitters.push((label(app), events));
        }
    }
    let orphans =
        map.of_kind(Kind::Event).map(|(event, _)| event).filter(|event| map.before(*event).is_empty());
    let orphans: Vec<usize> = orphans.collect();
    if !orphans.is_empty() {
        emitters.push(("(nobody)".to_owned(), orphans));
    }
    emitters
}

fn titled(node: &MapNode) -> String {
    let mut parts = vec![node.label()];
    parts.extend(node.figures.words());
    parts.join("  ")
}

fn listener(node: &MapNode) -> String {
    let prototype = if node.prototype { " (prototype)" } else { "" };
    format!("{}{prototype}", titled(node))
}

/// A listener and its tasks; a broken line where it may create none.
fn made(map: &Map, reaction: usize, listener_width: usize) -> String {
    let node = &map.nodes[reaction];
    let tasks: Vec<String> =
        map.after(reaction).into_iter().map(|(_, task)| titled(&map.nodes[task])).collect();
    let arrow = if node.conditional { "╌╌▸" } else { "──▸" };
    match tasks.is_empty() {
        true => listener(node),
        false => format!("{} {arrow} {}", pad(&listener(node), listener_width), tasks.join(", ")),
    }
}

/// What has no place in the lines.
fn below(map: &Map) -> String {
    let mut out = String::new();
    let own = map.of_kind(Kind::Task).filter(|(task, _)| map.before(*task).is_empty());
    let own: Vec<String> = own.map(|(_, task)| titled(task)).collect();
    if !own.is_empty() {
        out.push_str(&format!("started by their own application: {}\n", own.join(", ")));
    }
    for cycle in &map.cycles {
        let messages: Vec<String> = cycle.messages.iter().map(|name| label(name)).collect();
        let end = if cycle.guarded { "can end" } else { "⚠ nothing ends it but the hop limit" };
        out.push_str(&format!("cycle: {} ({end})\n", messages.join(" → ")));
    }
    for (_, remark) in map.remarks() {
        out.push_str(&format!("{remark}\n"));
    }
    out
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}

fn rule(text: &str, to: usize) -> String {
    "─".repeat(to.saturating_sub(width(text)) + 1)
}
