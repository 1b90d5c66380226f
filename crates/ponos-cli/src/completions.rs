//! `ponos completions` and `ponos man`: the command line itself, for shells and for `man`.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::error::{CliError, Exit};
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Writes a page for each command into this directory [default: prints the main one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints a script that completes the commands in a shell.
pub(crate) fn run(args: CompletionsArgs, out: &mut Output) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "ponos", &mut script);
    out.write(&String::from_utf8_lossy(&script));
    Exit::Ok
}

/// Prints the manual's main page, or writes all pages.
///
/// # Errors
///
/// When the directory cannot be written.
pub(crate) fn man(args: ManArgs, out: &mut Output) -> Result<Exit, CliError> {
    match args.out {
        None => {
            let mut page = Vec::new();
            // Into memory: nothing can go wrong.
            let _ = clap_mangen::Man::new(crate::Cli::command()).render(&mut page);
            out.write(&String::from_utf8_lossy(&page));
        }
        Some(dir) => {
            let written = std::fs::create_dir_all(&dir).and_then(|()| {
                clap_mangen::generate_to(crate::Cli::command().disable_help_subcommand(true), &dir)
            });
            written.map_err(|error| {
                CliError::refused(
                    format!("the pages cannot be written to `{}`: {error}", dir.display()),
                    "name a directory that you may write to",
                )
            })?;
            out.line(&format!("written to {}: read one with `man -l FILE`", dir.display()));
        }
    }
    Ok(Exit::Ok)
}
