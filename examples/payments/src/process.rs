//! What the binaries have in common: logs, addresses, an orderly end.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context;
use ponos::Broker;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged unless `RUST_LOG` says otherwise. RabbitMQ's client warns, with the whole message, of each event that
/// nobody listens to.
const DEFAULT_LOG: &str = "info,lapin=error";

/// Logs to the error output, each line of a job with its transaction id, queue and attempt. `RUST_LOG` chooses what:
/// `debug`, or `warn,ponos=debug`.
///
/// # Errors
///
/// When `RUST_LOG` cannot be read.
pub fn log() -> anyhow::Result<()> {
    let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let wanted = wanted.as_deref().unwrap_or(DEFAULT_LOG);
    let filter: Targets = wanted.parse().with_context(|| {
        format!(
            "RUST_LOG is `{}`: name a level, such as `debug` or `warn,ponos=debug`",
            wanted.escape_debug()
        )
    })?;
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(color).with_target(false);
    tracing_subscriber::registry().with(lines).with(filter).init();
    Ok(())
}

/// The broker that `PONOS_BROKER` names.
///
/// # Errors
///
/// When it names none; the error says what to write.
pub fn broker() -> anyhow::Result<Broker> {
    Broker::from_env().with_context(|| format!("{} names no broker", ponos::BROKER_VARIABLE))
}

/// The address in the variable, or this port on the own machine.
///
/// # Errors
///
/// When the variable holds no address.
pub fn address(variable: &str, port: u16) -> anyhow::Result<SocketAddr> {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => text
            .parse()
            .with_context(|| format!("{variable} is `{}`: write 127.0.0.1:PORT", text.escape_debug())),
        _ => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
    }
}

/// Says on the error output why a program could not start: what happened, then its causes.
#[must_use]
pub fn exit_code(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told when this fails too.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
///
/// # Errors
///
/// When the signals cannot be heard.
///
/// # Cancel safety
///
/// Dropping the future leaves a signal that came unheard.
pub async fn until_told_to_end() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("cannot hear SIGTERM")?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            pressed = tokio::signal::ctrl_c() => pressed.context("cannot hear Ctrl-C"),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.context("cannot hear Ctrl-C")
}
