//! `ponos topology plan`.

use ponos::RabbitOptions;
use ponos::Secret;
use ponos::rabbitmq::diff::{Diff, Entry, State, Thing};
use ponos::rabbitmq::management::Management;
use ponos::rabbitmq::policies::{self, Policy};
use serde::Serialize;

use super::{PlanArgs, compare, manifests};
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, text};

/// How much of a text from the broker is shown, in bytes.
const SHOWN: usize = 600;

#[derive(Serialize)]
struct Document {
    version: u32,
    vhost: String,
    same: u64,
    entries: Vec<EntryJson>,
    policies: Vec<PolicyJson>,
}

/// One thing that is not as it should be.
#[derive(Serialize)]
pub(super) struct EntryJson {
    kind: &'static str,
    name: String,
    /// The exchange of a binding.
    exchange: Option<String>,
    state: &'static str,
    differences: Vec<DifferenceJson>,
    spoiled_by_policy: Vec<String>,
}

#[derive(Serialize)]
struct DifferenceJson {
    property: String,
    wanted: Option<String>,
    found: Option<String>,
    fatal: bool,
}

#[derive(Serialize)]
struct PolicyJson {
    name: String,
    operator: bool,
    pattern: String,
    definition: serde_json::Value,
    why: String,
    command: String,
}

/// Shows what is wanted beside what exists.
///
/// # Errors
///
/// When a manifest cannot be read or the management plugin is not there.
pub(super) async fn run(
    args: PlanArgs,
    options: &RabbitOptions,
    url: Option<&Secret>,
    out: &mut Output,
) -> Result<Exit, CliError> {
    let applications = manifests::united(crate::manifests::files_or_records(&args.manifests, url).await?)?;
    let management = Management::new(options)?;
    let diff = compare(&applications, options, &management).await?;
    let set = management.operator_policies().await?;
    let policies: Vec<Policy> = applications
        .iter()
        .flat_map(|one| policies::of(&one.app, &one.topology, options.job_queues(), &one.held))
        .filter(|policy| !(policy.operator && set.contains(&policy.name)))
        .collect();
    if args.json {
        let entries: Vec<EntryJson> = diff.entries.iter().filter_map(EntryJson::of).collect();
        let document = Document {
            version: json::VERSION,
            vhost: management.vhost().to_owned(),
            same: same(&diff),
            entries,
            policies: policies.iter().map(|policy| PolicyJson::of(policy, management.vhost())).collect(),
        };
        json::print(&document, out);
    } else {
        print(&diff, out);
        print_policies(&policies, management.vhost(), out);
    }
    Ok(if diff.is_empty() { Exit::Ok } else { Exit::Findings })
}

fn same(diff: &Diff) -> u64 {
    diff.entries.iter().filter(|entry| entry.state == State::Same).count() as u64
}

/// One line for each thing that is not as it should be, and what they add up to.
fn print(diff: &Diff, out: &mut Output) {
    for entry in &diff.entries {
        print_entry(entry, out);
    }
    let same = text::count(same(diff), "thing");
    if diff.is_empty() {
        out.line(&format!("nothing to do: {same} as they should be"));
        return;
    }
    let count = |is: &dyn Fn(&Entry) -> bool| diff.entries.iter().filter(|entry| is(entry)).count();
    let mut parts = Vec::new();
    let mut part = |n: usize, what: &str| {
        if n > 0 {
            parts.push(format!("{n} {what}"));
        }
    };
    part(diff.missing().count(), "to declare (+)");
    part(diff.fatal().count(), "that cannot be used (!)");
    part(
        count(&|entry| matches!(entry.state, State::Differs(_)) && !entry.is_fatal()),
        "used as they are (~)",
    );
    part(count(&|entry| !entry.spoiled.is_empty()), "spoiled by a policy");
    part(diff.unnamed().count(), "that no manifest names (?)");
    out.line(&format!("{}; {same} as they should be", parts.join(", ")));
}

/// One thing, if it is not as it should be.
pub(super) fn print_entry(entry: &Entry, out: &mut Output) {
    let thing = text::line(&entry.thing.to_string(), SHOWN);
    match &entry.state {
        State::Same => {}
        State::Missing => {
            let line = out.paint(Tone::Good, &format!("+ {thing}"));
            out.line(&line);
        }
        State::Differs(differences) => {
            let (mark, tone) = if entry.is_fatal() { ("!", Tone::Bad) } else { ("~", Tone::Strong) };
            let line = out.paint(tone, &format!("{mark} {thing}"));
            out.line(&line);
            for difference in differences {
                let fatal = if difference.fatal { " (cannot be used)" } else { "" };
                out.line(&format!("    {}{fatal}", text::line(&difference.to_string(), SHOWN)));
            }
        }
        State::Unnamed => out.line(&format!("? {thing}")),
    }
    if entry.state == State::Same && !entry.spoiled.is_empty() {
        out.line(&format!("~ {thing}"));
    }
    for harm in &entry.spoiled {
        out.line(&format!("    {}", text::line(harm, SHOWN)));
    }
}

fn print_policies(policies: &[Policy], vhost: &str, out: &mut Output) {
    if policies.is_empty() {
        return;
    }
    out.line("");
    let head = out.paint(Tone::Strong, "policies worth setting");
    out.line(&head);
    for policy in policies {
        let why = out.paint(Tone::Faint, &format!("  # {}", policy.why));
        out.line(&why);
        out.line(&format!("  {}", policy.command(vhost)));
    }
}

impl EntryJson {
    /// `None` for what is as it should be.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let state = match &entry.state {
            State::Same if entry.spoiled.is_empty() => return None,
            State::Same => "same",
            State::Missing => "missing",
            State::Differs(_) if entry.is_fatal() => "unusable",
            State::Differs(_) => "differs",
            State::Unnamed => "unnamed",
        };
        let (kind, name, exchange) = match &entry.thing {
            Thing::Exchange(name) => ("exchange", name.clone(), None),
            Thing::Queue(name) => ("queue", name.clone(), None),
            Thing::Binding(binding) => ("binding", binding.queue.clone(), Some(binding.exchange.clone())),
        };
        let differences = match &entry.state {
            State::Differs(differences) => differences
                .iter()
                .map(|one| DifferenceJson {
                    property: one.property.clone(),
                    wanted: one.wanted.clone(),
                    found: one.found.clone(),
                    fatal: one.fatal,
                })
                .collect(),
            _ => Vec::new(),
        };
        let spoiled_by_policy = entry.spoiled.clone();
        Some(Self { kind, name, exchange, state, differences, spoiled_by_policy })
    }
}

impl PolicyJson {
    fn of(policy: &Policy, vhost: &str) -> Self {
        Self {
            name: policy.name.clone(),
            operator: policy.operator,
            pattern: policy.pattern.clone(),
            definition: serde_json::from_str(&policy.definition).unwrap_or_default(),
            why: policy.why.clone(),
            command: policy.command(vhost),
        }
    }
}
