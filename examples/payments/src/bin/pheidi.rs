//! `pheidi` sends mail.

use std::process::ExitCode;

use ponos_example_payments::{pheidi, process};

#[tokio::main]
async fn main() -> ExitCode {
    process::exit_code(pheidi::main().await)
}
