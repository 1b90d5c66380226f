//! `cream` takes payments.

use std::process::ExitCode;

use ponos_example_payments::{cream, process};

#[tokio::main]
async fn main() -> ExitCode {
    process::exit_code(cream::main().await)
}
