//! The command line of Ponos.

mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Event-driven microservices whose rules are compile errors.
#[derive(Debug, Parser)]
#[command(name = "ponos", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what Ponos does, in half a minute
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
    }
}
