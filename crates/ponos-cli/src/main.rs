//! The command line of Ponos: what there is to see and to do without writing a program.
//!
//! A thin program over the library `ponos`: this file reads the command and ends with the exit code; each verb has a
//! file of its own; `output` is the only way out, `error` the only way to fail.

mod amount;
mod asyncapi;
mod broker;
mod check;
mod completions;
mod demo;
mod doctor;
mod error;
mod explain;
mod failed;
mod json;
mod manifests;
mod map;
mod names;
mod output;
mod publish;
mod queues;
mod serve;
mod steer;
mod system;
mod tail;
mod text;
mod top;
mod topology;
mod trace;
mod view;

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use ponos::Secret;

use self::error::{CliError, Exit};
use self::output::Output;

/// How long the process waits at its end for what the broker does in the background.
const END: Duration = Duration::from_secs(2);

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  there were findings, something was not found, or the broker refused
  2  the command was not understood
  3  the broker cannot be reached or used
  4  nothing was done: it needs --yes

Colours appear on a terminal only, and not with NO_COLOR; CLICOLOR_FORCE=1 puts them into pipes too.";

/// Event-driven microservices whose rules are compile errors.
#[derive(Debug, Parser)]
#[command(name = "ponos", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    /// The broker, sqlite:FILE or amqp://… [default: what PONOS_BROKER names, else sqlite:ponos.db]
    #[arg(long, value_name = "URL", global = true)]
    broker: Option<Secret>,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows what Ponos does, in half a minute
    Demo(demo::DemoArgs),
    /// Checks names of events and tasks
    #[command(after_help = EXIT_CODES)]
    Names(names::NamesArgs),
    /// Finds what is wrong with a system, by the manifests of its services
    #[command(after_help = EXIT_CODES)]
    Check(check::CheckArgs),
    /// Tells what happens when an event or a task is sent
    #[command(after_help = EXIT_CODES)]
    Explain(explain::ExplainArgs),
    /// Describes a system, or an application, as AsyncAPI 3.0.0
    #[command(after_help = EXIT_CODES)]
    Asyncapi(asyncapi::AsyncapiArgs),
    /// Draws a system, by the manifests of its services, and with --live what it does
    #[command(after_help = EXIT_CODES)]
    Map(map::MapArgs),
    /// Emits an event or creates a task
    #[command(after_help = EXIT_CODES)]
    Publish(publish::PublishArgs),
    /// Shows what waits in the queues
    #[command(after_help = EXIT_CODES)]
    Queues(queues::QueuesArgs),
    /// Shows the queues as they change, and pauses and resumes them
    #[command(after_help = EXIT_CODES)]
    Top(top::TopArgs),
    /// Finds what is wrong with a system that runs
    #[command(after_help = EXIT_CODES)]
    Doctor(doctor::DoctorArgs),
    /// Lists, shows, retries, edits, discards and restores jobs that failed
    #[command(after_help = EXIT_CODES)]
    Failed(failed::FailedArgs),
    /// Shows what became of a transaction, as a tree
    #[command(after_help = EXIT_CODES)]
    Trace(trace::TraceArgs),
    /// Shows where two transactions part
    #[command(after_help = EXIT_CODES)]
    Diff(trace::DiffArgs),
    /// Shows what happens, as it happens
    #[command(after_help = EXIT_CODES)]
    Tail(tail::TailArgs),
    /// Keeps the read model current and answers a JSON API, on this machine and with a token only
    #[command(after_help = EXIT_CODES)]
    Serve(serve::ServeArgs),
    /// Shows and changes what exists on RabbitMQ for applications, by their manifests
    #[command(after_help = EXIT_CODES)]
    Topology(topology::TopologyArgs),
    /// Prints a script that completes these commands in a shell
    Completions(completions::CompletionsArgs),
    /// Prints the manual
    Man(completions::ManArgs),
    /// Pauses a queue, in every instance, for a time or until it is resumed
    #[command(after_help = EXIT_CODES)]
    Pause(steer::PauseArgs),
    /// Ends a pause
    #[command(after_help = EXIT_CODES)]
    Resume(steer::ResumeArgs),
    /// Limits how fast jobs start, all instances together, for a time or until it is reset
    #[command(after_help = EXIT_CODES)]
    Rate(steer::RateArgs),
    /// Holds a circuit open, or lets a job through one that is open
    #[command(after_help = EXIT_CODES)]
    Circuit(steer::CircuitArgs),
    /// Lists the standing orders: who gave them, why, and until when
    #[command(after_help = EXIT_CODES)]
    Orders(steer::OrdersArgs),
}

fn main() -> ExitCode {
    let mut out = Output::stdout();
    let done = match Cli::try_parse() {
        // It has its own runtime and its own console, and says how it ends.
        Ok(Cli { verb: Verb::Demo(args), .. }) => return demo::run(args),
        Ok(cli) => run(cli, &mut out),
        Err(error) => help(error, &mut out),
    };
    // First what was found, then what was wrong with it.
    let written = out.finish();
    let exit = match done.and_then(|exit| written.map(|()| exit)) {
        Ok(exit) => exit,
        Err(error) => error.report(),
    };
    exit.into()
}

/// Help that was asked for, help because nothing was asked for, or what is wrong with the command.
fn help(error: clap::Error, out: &mut Output) -> Result<Exit, CliError> {
    let exit = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Exit::Usage,
        _ => return Err(error.into()),
    };
    out.write(&error.to_string());
    Ok(exit)
}

fn run(cli: Cli, out: &mut Output) -> Result<Exit, CliError> {
    let verb = match cli.verb {
        Verb::Names(args) => return names::run(args, out),
        Verb::Completions(args) => return Ok(completions::run(args, out)),
        Verb::Man(args) => return completions::man(args, out),
        // It has threads of its own.
        Verb::Serve(args) => return serve::run(&args, cli.broker.as_ref(), out),
        verb => verb,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        CliError::broker(format!("cannot start a runtime: {error}"), "free some memory, then try again")
    })?;
    let url = cli.broker.as_ref();
    let done = runtime.block_on(async {
        match verb {
            Verb::Publish(args) => publish::run(args, url, out).await,
            Verb::Queues(args) => queues::run(args, url, out).await,
            Verb::Top(args) => top::run(args, url, out).await,
            Verb::Doctor(args) => doctor::run(args, url, out).await,
            Verb::Failed(args) => failed::run(args, url, out).await,
            Verb::Trace(args) => trace::run(args, url, out).await,
            Verb::Diff(args) => trace::diff(args, url, out).await,
            Verb::Tail(args) => tail::run(args, url, out).await,
            Verb::Topology(args) => topology::run(args, url, out).await,
            Verb::Pause(args) => steer::pause(args, url, out).await,
            Verb::Resume(args) => steer::resume(args, url, out).await,
            Verb::Rate(args) => steer::rate(args, url, out).await,
            Verb::Circuit(args) => steer::circuit(args, url, out).await,
            Verb::Orders(args) => steer::orders(args, url, out).await,
            Verb::Check(args) => check::run(&args, url, out).await,
            Verb::Map(args) => map::run(&args, url, out).await,
            Verb::Explain(args) => explain::run(&args, url, out).await,
            Verb::Asyncapi(args) => asyncapi::run(&args, url, out).await,
            Verb::Names(_) | Verb::Completions(_) | Verb::Man(_) | Verb::Serve(_) | Verb::Demo(_) => {
                unreachable!("they ran above")
            }
        }
    });
    // A file that another program holds locked is waited for on a thread of its own, which cannot be stopped.
    runtime.shutdown_timeout(END);
    done
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
