//! `ponos topology prune`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use ponos::RabbitOptions;
use ponos::core::broker::BrokerError;
use ponos::core::name::AppName;
use ponos::rabbitmq::diff::Thing;
use ponos::rabbitmq::management::{Management, Totals};
use ponos::rabbitmq::prune::{Pruned, prune};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{PruneArgs, close, compare, connect, manifests};
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, text};

/// How much of a queue's name is shown, in bytes.
const SHOWN: usize = 255;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    app: &'a AppName,
    dry_run: bool,
    /// Jobs of the application that wait for their time. Those of a queue that is taken away come to the failed ones.
    delayed: u64,
    queues: &'a [Row],
}

#[derive(Serialize)]
struct Row {
    queue: String,
    messages: u64,
    result: &'static str,
    problem: Option<String>,
}

/// Takes queues of one application away that no manifest names.
///
/// # Errors
///
/// When a manifest or the management plugin is missing, nobody said yes, or a queue is left.
pub(super) async fn run(args: PruneArgs, options: RabbitOptions, out: &mut Output) -> Result<Exit, CliError> {
    let PruneArgs { common, app, wait, yes } = args;
    let applications = manifests::read(&common.manifests)?;
    let own: Vec<_> = applications.into_iter().filter(|application| application.app == app).collect();
    if own.is_empty() {
        return Err(CliError::usage(
            format!("no manifest of `{app}` was given: every queue of it would be one that nobody names"),
            format!("give the manifests of all programs and versions of `{app}` that run with --manifest"),
        ));
    }
    let management = Management::new(&options)?;
    let diff = compare(&own, &options, &management).await?;
    let totals = management.totals().await?;
    let mut queues: Vec<String> = diff
        .unnamed()
        .filter_map(|thing| match thing {
            Thing::Queue(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    queues.sort();
    let delayed = delayed(&app, &totals);
    let messages = |queue: &String| totals.get(queue).map_or(0, |totals| totals.messages);
    if queues.is_empty() {
        if common.json {
            print_json(&app, false, delayed, &[], out);
        } else {
            out.line(&format!("nothing to do: every queue of {app} is named by a manifest"));
        }
        return Ok(Exit::Ok);
    }
    if !common.json && !yes {
        for queue in &queues {
            let messages = text::count(messages(queue), "message");
            out.line(&format!("would delete {} ({messages})", text::line(queue, SHOWN)));
        }
    }
    if !common.json && delayed > 0 {
        out.line(&format!(
            "{} of {app} wait for their time: those that are of a deleted queue come to {app}.failed then",
            text::count(delayed, "job")
        ));
    }
    let agreed = yes || (!common.json && asked(&queues, out));
    if !agreed {
        let planned: Vec<Row> = queues.iter().map(|queue| planned(queue, messages(queue))).collect();
        if common.json {
            print_json(&app, true, delayed, &planned, out);
        }
        return Err(CliError::unconfirmed(format!(
            "nothing was done: this would delete {}",
            text::count(queues.len() as u64, "queue")
        )));
    }
    let broker = connect(options).await?;
    let mut running = JoinSet::new();
    for queue in queues {
        let (broker, management, app) = (broker.clone(), management.clone(), app.clone());
        running.spawn(async move {
            let done = prune(&broker, &management, &app, &queue, Duration::from_secs(wait)).await;
            (queue, done)
        });
    }
    let mut rows = Vec::new();
    while let Some(joined) = running.join_next().await {
        let Ok((queue, done)) = joined else { continue };
        let row = row(queue, done);
        if !common.json {
            print_row(&row, out);
        }
        rows.push(row);
    }
    close(&broker).await;
    rows.sort_by(|one, other| one.queue.cmp(&other.queue));
    if common.json {
        print_json(&app, false, delayed, &rows, out);
    }
    let left = rows.iter().filter(|row| row.problem.is_some()).count();
    if left > 0 {
        return Err(CliError::refused(
            format!("{left} of {} not deleted", text::count(rows.len() as u64, "queue")),
            "let the version that works them run until they are empty and stop it, then try again",
        ));
    }
    Ok(Exit::Ok)
}

/// Jobs on the delay ladder.
fn delayed(app: &AppName, totals: &BTreeMap<String, Totals>) -> u64 {
    let ladder = format!("{app}.retry.");
    totals.iter().filter(|(name, _)| name.starts_with(&ladder)).map(|(_, totals)| totals.messages).sum()
}

/// Asks on a terminal; elsewhere nobody could answer.
fn asked(queues: &[String], out: &mut Output) -> bool {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stdout().is_terminal() {
        return false;
    }
    out.write(&format!("delete {}? [y/N] ", text::count(queues.len() as u64, "queue")));
    out.flush();
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn planned(queue: &str, messages: u64) -> Row {
    Row { queue: queue.to_owned(), messages, result: "planned", problem: None }
}

fn row(queue: String, done: Result<Pruned, BrokerError>) -> Row {
    let (result, messages, problem) = match done {
        Ok(Pruned::Deleted) => ("deleted", 0, None),
        Ok(Pruned::Gone) => ("gone", 0, None),
        Ok(Pruned::Unworked(messages)) => {
            let jobs = text::count(messages, "job");
            ("left", messages, Some(format!("{jobs} in it and nobody works it; nothing was changed")))
        }
        Ok(Pruned::Busy { messages, consumers }) => {
            let (left, consumers) =
                (text::count(messages, "message"), text::count(consumers.into(), "consumer"));
            (
                "left",
                messages,
                Some(format!("{left} and {consumers} were left; its bindings are as they were")),
            )
        }
        Err(error) => ("left", 0, Some(error.to_string())),
    };
    Row { queue, messages, result, problem }
}

fn print_row(row: &Row, out: &mut Output) {
    let queue = text::line(&row.queue, SHOWN);
    let line = match &row.problem {
        None if row.result == "gone" => format!("{queue} was gone already"),
        None => format!("{} {queue}", out.paint(Tone::Good, "deleted")),
        Some(problem) => {
            format!("{} {queue}: {}", out.paint(Tone::Bad, "not deleted"), text::one_line(problem))
        }
    };
    out.line(&line);
}

fn print_json(app: &AppName, dry_run: bool, delayed: u64, queues: &[Row], out: &mut Output) {
    json::print(&Document { version: json::VERSION, app, dry_run, delayed, queues }, out);
}
