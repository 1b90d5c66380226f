//! `deploy` builds what was pushed.

use std::process::ExitCode;

use ponos_example_payments::{deploy, process};

#[tokio::main]
async fn main() -> ExitCode {
    process::exit_code(deploy::main().await)
}
