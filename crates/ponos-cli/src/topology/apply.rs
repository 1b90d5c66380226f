//! `ponos topology apply`.

use ponos::RabbitOptions;
use ponos::rabbitmq::diff::{Diff, Entry, State};
use ponos::rabbitmq::management::Management;
use serde::Serialize;

use super::plan::{EntryJson, print_entry};
use super::{ManifestArgs, close, compare, connect, manifests, wanted};
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, text};

#[derive(Serialize)]
struct Document {
    version: u32,
    /// Whether it was known what exists; without the management plugin it is not.
    compared: bool,
    /// What was missing and is there now.
    declared: Vec<EntryJson>,
    /// What differs and is used as it is.
    differs: Vec<EntryJson>,
}

/// Declares what is missing. What exists and cannot be used is found before anything is declared where the management
/// plugin is there, and otherwise on the way.
///
/// # Errors
///
/// When a manifest cannot be read, something that exists cannot be used, or RabbitMQ does not let this user.
pub(super) async fn run(
    args: ManifestArgs,
    options: RabbitOptions,
    out: &mut Output,
) -> Result<Exit, CliError> {
    let applications = manifests::read(&args.manifests)?;
    let compared = match Management::new(&options) {
        Ok(management) => compare(&applications, &options, &management).await,
        Err(error) => Err(error),
    };
    let diff = match &compared {
        Ok(diff) => diff.clone(),
        Err(error) => {
            if !args.json {
                let note = format!("what exists is not known: {}", text::one_line(&error.to_string()));
                let note = out.paint(Tone::Faint, &note);
                out.line(&note);
            }
            Diff::default()
        }
    };
    let fatal: Vec<&Entry> = diff.fatal().collect();
    if !fatal.is_empty() {
        for entry in &fatal {
            print_entry(entry, out);
        }
        return Err(CliError::refused(
            format!("nothing was declared: {} cannot be used", text::count(fatal.len() as u64, "thing")),
            "drain and delete what is in the way; for queues that a Node service created say `?queue_type=classic` in the broker's URL",
        ));
    }
    let (plan, _) = wanted(&applications, &options);
    let broker = connect(options).await?;
    let done = broker.carry_out(&plan).await;
    close(&broker).await;
    done?;
    let is_difference =
        |entry: &&Entry| matches!(entry.state, State::Differs(_)) || !entry.spoiled.is_empty();
    if args.json {
        let missing = diff.entries.iter().filter(|entry| entry.state == State::Missing);
        let document = Document {
            version: json::VERSION,
            compared: compared.is_ok(),
            declared: missing.filter_map(EntryJson::of).collect(),
            differs: diff.entries.iter().filter(is_difference).filter_map(EntryJson::of).collect(),
        };
        json::print(&document, out);
        return Ok(Exit::Ok);
    }
    for entry in diff.entries.iter().filter(|entry| entry.state == State::Missing || is_difference(entry)) {
        print_entry(entry, out);
    }
    let things = plan.exchanges.len() + plan.queues.len() + plan.bindings.len();
    match (compared.is_ok(), diff.missing().count() as u64) {
        (true, 0) => out.line("nothing to do: everything was there"),
        (true, missing) => out.line(&format!("declared {}", text::count(missing, "thing"))),
        (false, _) => out.line(&format!("{} are there now", text::count(things as u64, "thing"))),
    }
    Ok(Exit::Ok)
}
