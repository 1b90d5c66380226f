//! The tree as a Mermaid flowchart, for tickets and pull requests.

use std::fmt::Write as _;

use super::cascade::Cascade;
use super::lines::{self, Item, Tone};

impl Cascade {
    /// The tree as a [Mermaid](https://mermaid.js.org) flowchart, without ids and times.
    ///
    /// Messages and jobs are nodes, an arrow says "caused". Texts from records are quoted and cannot become syntax.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut out = String::from("flowchart TD\n");
        for &n in &self.order {
            let message = &self.messages[n];
            self.node_of(&format!("m{n}"), Item::Message(n), &mut out);
            let own = message.own_job();
            for (j, job) in message.jobs.iter().enumerate() {
                let from = if Some(j) == own {
                    format!("m{n}")
                } else {
                    let id = format!("m{n}j{j}");
                    self.node_of(&id, Item::Job(n, j), &mut out);
                    let _ = writeln!(out, "  m{n} --> {id}");
                    id
                };
                for child in &job.children {
                    let _ = writeln!(out, "  {from} --> m{child}");
                }
            }
            for child in &message.outside {
                let _ = writeln!(out, "  m{n} -.-> m{child}");
            }
            if message.unseen() > 0 {
                let id = format!("m{n}u");
                self.node_of(&id, Item::Unseen(n), &mut out);
                let _ = writeln!(out, "  m{n} --> {id}");
            }
        }
        out.push_str("  classDef good stroke:#2a7,stroke-width:2px\n");
        out.push_str("  classDef bad stroke:#c33,stroke-width:2px\n");
        out.push_str("  classDef open stroke:#c90,stroke-width:2px,stroke-dasharray:4\n");
        out
    }

    fn node_of(&self, id: &str, item: Item, out: &mut String) {
        let line = lines::of(self, item, None);
        let class = match line.tone {
            Tone::Plain => "",
            Tone::Good => ":::good",
            Tone::Bad => ":::bad",
            Tone::Open => ":::open",
        };
        let _ = writeln!(out, "  {id}[\"{}\"]{class}", quoted(&line.plain()));
    }
}

/// A text in a quoted label: what Mermaid or HTML would read is written as an entity.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '<' | '>' | '&' | '#' | '`' | '\\' | '[' | ']' | '{' | '}' | '|' | ';' => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}
