//! `mail-provider`: somebody else's mail provider, to be broken at will.

use std::process::ExitCode;

use ponos_example_payments::{mail_provider, process};

#[tokio::main]
async fn main() -> ExitCode {
    process::exit_code(mail_provider::main().await)
}
