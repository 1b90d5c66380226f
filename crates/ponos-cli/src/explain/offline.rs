//! What manifests tell of an event or a task.

use std::collections::BTreeSet;

use serde::Serialize;

use super::policy::words;
use crate::error::CliError;
use crate::json;
use crate::output::{Output, Tone};
use crate::system::{Cycle, Depths, Emitter, Graph, Node, System, Task, nearest};
use crate::text;

/// How much of a text from a manifest is shown, in bytes.
const SHOWN: usize = 500;

/// Who sends it, who takes it, and what becomes of it.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    version: u32,
    name: String,
    #[serde(flatten)]
    about: About,
    /// The hops that it has taken at most when it is sent.
    hops: u32,
    follows: Vec<Follows>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum About {
    Event {
        emitted_by: Vec<EmitterJson>,
        listeners: Vec<Listener>,
    },
    Task {
        performed_by: Vec<String>,
        created_of: Vec<Origin>,
        emits: Vec<String>,
        recovers: bool,
        policy: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct EmitterJson {
    app: String,
    task: Option<String>,
}

#[derive(Debug, Serialize)]
struct Listener {
    app: String,
    queue: String,
    creates: Vec<String>,
    conditional: bool,
    prototype: bool,
    policy: String,
}

#[derive(Debug, Serialize)]
struct Origin {
    event: String,
    app: String,
}

/// A message that this one can lead to.
#[derive(Debug, Serialize)]
struct Follows {
    /// Hops from here.
    after: u32,
    kind: &'static str,
    name: String,
    /// What follows it stands further up already.
    again: bool,
}

impl Explanation {
    /// What manifests tell; `None` where none knows the name.
    pub(super) fn of(name: &str, system: &System) -> Option<Self> {
        let graph = Graph::of(system);
        // A name can be both; an event is what others see of it.
        let (node, about) = match (system.events.get(name), system.tasks.get(name)) {
            (Some(event), _) => {
                let emitted_by = event.emitters.iter().map(EmitterJson::from).collect();
                let listeners = event.listeners.iter().map(|(app, reaction)| Listener {
                    app: app.clone(),
                    queue: reaction.queue.clone(),
                    creates: reaction.creates.iter().cloned().collect(),
                    conditional: reaction.conditional,
                    prototype: reaction.prototype,
                    policy: words(&reaction.policy),
                });
                let listeners = listeners.collect();
                (Node::Event(name.to_owned()), About::Event { emitted_by, listeners })
            }
            (None, Some(task)) => (Node::Task(name.to_owned()), About::from(task)),
            (None, None) => return None,
        };
        let number = graph.find(&node)?;
        let (follows, reached) = follows(&graph, number);
        Some(Self {
            version: json::VERSION,
            name: name.to_owned(),
            about,
            hops: Depths::of(&graph).hops[number],
            warnings: warnings(system, &graph, &reached),
            follows,
        })
    }

    /// A name of which no manifest tells.
    pub(super) fn undeclared(name: &str, event: bool) -> Self {
        let about = if event {
            About::Event { emitted_by: Vec::new(), listeners: Vec::new() }
        } else {
            About::from(&Task::default())
        };
        let (version, name) = (json::VERSION, name.to_owned());
        Self { version, name, about, hops: 0, follows: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn is_event(&self) -> bool {
        matches!(self.about, About::Event { .. })
    }

    /// The queues that take it, as manifests tell.
    pub(super) fn queues(&self) -> Vec<String> {
        match &self.about {
            About::Event { listeners, .. } => listeners.iter().map(|one| one.queue.clone()).collect(),
            About::Task { performed_by, created_of, .. } => {
                let is_known = !performed_by.is_empty() || !created_of.is_empty();
                is_known.then(|| self.name.clone()).into_iter().collect()
            }
        }
    }

    /// Whether manifests say that it is published from there; `None` where they could not: a task that is created without a
    /// reaction is in none.
    pub(super) fn declares_source(&self, from: &str) -> Option<bool> {
        match &self.about {
            About::Event { emitted_by, .. } => Some(emitted_by.iter().any(|one| match &one.task {
                Some(task) => task == from,
                None => one.app == from,
            })),
            About::Task { created_of, .. } => created_of
                .iter()
                .any(|one| {
                    from.strip_prefix(&*one.app).and_then(|rest| rest.strip_prefix('.')) == Some(&one.event)
                })
                .then_some(true),
        }
    }

    pub(super) fn print(&self, out: &mut Output) {
        self.print_head(out);
        match &self.about {
            About::Event { listeners, .. } => print_listeners(listeners, out),
            About::Task { recovers, policy: Some(policy), .. } => {
                out.line(&format!("policy        {}{}", text::line(policy, SHOWN), recovery(*recovers)));
            }
            About::Task { .. } => {}
        }
        self.print_follows(out);
        self.print_warnings(out);
    }

    /// What it is, who sends it, and where it stands.
    pub(super) fn print_head(&self, out: &mut Output) {
        let kind = match self.about {
            About::Event { .. } => "event",
            About::Task { .. } => "task",
        };
        let head = out.paint(Tone::Strong, &format!("{kind} {}", shown(&self.name)));
        out.line(&head);
        let hops = match self.hops {
            0 => "it starts a chain".to_owned(),
            hops => format!("{hops} before it at most"),
        };
        match &self.about {
            About::Event { emitted_by, .. } => {
                let emitters: Vec<String> = emitted_by.iter().map(EmitterJson::words).collect();
                out.line(&format!("emitted by    {}", or_nobody(&emitters)));
                out.line(&format!("hops          {hops}"));
            }
            About::Task { performed_by, created_of, emits, .. } => {
                let origins: Vec<String> = created_of
                    .iter()
                    .map(|Origin { event, app }| format!("{} (reaction of {})", shown(event), shown(app)))
                    .collect();
                let origins = if origins.is_empty() {
                    "its own application starts it".to_owned()
                } else {
                    origins.join(", ")
                };
                out.line(&format!("performed by  {}", or_nobody(performed_by)));
                out.line(&format!("created of    {origins}"));
                out.line(&format!("hops          {hops}"));
                out.line(&format!(
                    "may emit      {}",
                    if emits.is_empty() { "nothing".to_owned() } else { or_nobody(emits) }
                ));
            }
        }
    }

    /// How each queue is worked.
    pub(super) fn print_policies(&self, out: &mut Output) {
        let lines: Vec<String> = match &self.about {
            About::Event { listeners, .. } => listeners
                .iter()
                .map(|one| {
                    let prototype = if one.prototype { " (prototype)" } else { "" };
                    format!("{}{prototype}: {}", shown(&one.app), text::line(&one.policy, SHOWN))
                })
                .collect(),
            About::Task { policy, recovers, .. } => policy
                .iter()
                .map(|policy| format!("{}{}", text::line(policy, SHOWN), recovery(*recovers)))
                .collect(),
        };
        if !lines.is_empty() {
            out.line("");
            out.line("POLICY");
        }
        for line in lines {
            out.line(&format!("  {line}"));
        }
    }

    fn print_follows(&self, out: &mut Output) {
        if !self.follows.is_empty() {
            out.line("");
            out.line("WHAT FOLLOWS, BY HOPS FROM HERE");
        }
        for Follows { after, kind, name, again } in &self.follows {
            let mark = if *kind == "event" { "◇" } else { "▸" };
            let again = if *again { "  ↑" } else { "" };
            // However deep it goes, the line has an end.
            let indent = "  ".repeat((*after as usize).min(40));
            out.line(&format!("{after:>3}{indent}{mark} {}{again}", shown(name)));
        }
    }

    /// What is not as it should be.
    pub(super) fn print_warnings(&self, out: &mut Output) {
        if !self.warnings.is_empty() {
            out.line("");
        }
        for warning in &self.warnings {
            let line = out.paint(Tone::Bad, &format!("⚠ {}", text::line(warning, SHOWN)));
            out.line(&line);
        }
    }
}

fn print_listeners(listeners: &[Listener], out: &mut Output) {
    if listeners.is_empty() {
        out.line("heard by      nobody");
        return;
    }
    let width = |of: &dyn Fn(&Listener) -> String, head: &str| {
        listeners.iter().map(|one| of(one).chars().count()).max().unwrap_or(0).max(head.len())
    };
    let app = |one: &Listener| shown(&one.app);
    let queue = |one: &Listener| shown(&one.queue);
    let (apps, queues) = (width(&app, "LISTENER"), width(&queue, "QUEUE"));
    out.line("");
    out.line(&format!("{:apps$}  {:queues$}  CREATES", "LISTENER", "QUEUE"));
    for one in listeners {
        let creates: Vec<String> = one.creates.iter().map(|task| shown(task)).collect();
        let nothing = if one.conditional { " or nothing" } else { "" };
        let prototype = if one.prototype { " (prototype)" } else { "" };
        out.line(&format!(
            "{:apps$}  {:queues$}  {}{nothing}{prototype}",
            app(one),
            queue(one),
            creates.join(", ")
        ));
        let policy = out.paint(Tone::Faint, &format!("{:apps$}  {}", "", text::line(&one.policy, SHOWN)));
        out.line(&policy);
    }
}

impl From<&Emitter> for EmitterJson {
    fn from(emitter: &Emitter) -> Self {
        Self { app: emitter.app.clone(), task: emitter.task.clone() }
    }
}

impl EmitterJson {
    fn words(&self) -> String {
        match &self.task {
            Some(task) => format!("{} ({})", shown(&self.app), shown(task)),
            None => format!("{} (outside of its tasks)", shown(&self.app)),
        }
    }
}

impl From<&Task> for About {
    fn from(task: &Task) -> Self {
        let origins = task.made_of.iter();
        Self::Task {
            performed_by: task.performers.iter().cloned().collect(),
            created_of: origins
                .map(|(event, app)| Origin { event: event.clone(), app: app.clone() })
                .collect(),
            emits: task.emits.iter().cloned().collect(),
            recovers: task.recovers,
            policy: task.policy.as_ref().map(words),
        }
    }
}

/// Everything that follows, each message with what follows it once; and all nodes on the way.
fn follows(graph: &Graph, start: usize) -> (Vec<Follows>, BTreeSet<usize>) {
    let mut follows = Vec::new();
    let mut reached = BTreeSet::from([start]);
    let next = |node: usize, hops: u32| graph.next[node].iter().rev().map(move |next| (*next, hops));
    let mut open: Vec<(usize, u32)> = next(start, 1).collect();
    while let Some((node, hops)) = open.pop() {
        let new = reached.insert(node);
        if graph.nodes[node].is_message() {
            let kind = if matches!(graph.nodes[node], Node::Event(_)) { "event" } else { "task" };
            let again = !new && !graph.next[node].is_empty();
            follows.push(Follows { after: hops, kind, name: graph.nodes[node].name().to_owned(), again });
        }
        if new {
            open.extend(next(node, hops + u32::from(graph.nodes[node].is_message())));
        }
    }
    (follows, reached)
}

/// What is not as it should be, here and in what follows.
fn warnings(system: &System, graph: &Graph, reached: &BTreeSet<usize>) -> Vec<String> {
    let mut warnings = Vec::new();
    for node in reached.iter().map(|number| &graph.nodes[*number]) {
        match node {
            Node::Event(name) => {
                let event = &system.events[name];
                if event.emitters.is_empty() {
                    warnings.push(format!("nobody publishes {}", shown(name)));
                }
                if event.listeners.is_empty() {
                    warnings.push(format!("nobody listens to {}", shown(name)));
                }
            }
            Node::Task(name) if system.tasks[name].performers.is_empty() => {
                warnings.push(format!("nobody performs {}", shown(name)));
            }
            _ => {}
        }
    }
    for cycle in Cycle::all(system, graph) {
        if cycle.nodes.iter().any(|node| graph.find(node).is_some_and(|number| reached.contains(&number))) {
            let way: Vec<String> = cycle.messages().into_iter().map(shown).collect();
            let end = if cycle.guarded {
                "a reaction on it can end it"
            } else {
                "nothing ends it but the hop limit"
            };
            warnings.push(format!("cycle: {} ({end})", way.join(" → ")));
        }
    }
    warnings
}

/// Nobody knows the name; `who` says who was asked.
pub(super) fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>, who: &str) -> CliError {
    let help = nearest(name, known).map_or_else(
        || "`ponos map` shows all names, if the manifests are those of all applications".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    CliError::refused(format!("{who} an event or a task `{}`", shown(name)), help)
}

fn recovery(recovers: bool) -> &'static str {
    if recovers { "; has a recovery function" } else { "; without a recovery function" }
}

fn or_nobody(names: &[String]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { text::line(&names.join(", "), SHOWN) }
}

pub(super) fn shown(name: &str) -> String {
    text::line(name, SHOWN)
}
