//! `hooks` takes GitHub's webhooks.

use std::process::ExitCode;

use ponos_example_payments::{hooks, process};

#[tokio::main]
async fn main() -> ExitCode {
    process::exit_code(hooks::main().await)
}
