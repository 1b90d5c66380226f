//! `ponos demo`: five services in one process, a provider that breaks, and books that balance.
//!
//! | module | what |
//! | --- | --- |
//! | `stage` | the services, their broker and what is asked of them over HTTP |
//! | `traffic` | the payments and webhooks that are fed in, drawn from the seed |
//! | `script` | the scenes, in order |
//! | `books` | the balance from the journal, and the other ledgers that must agree with it |
//! | `console` | what is said, and how: colours, a closed pipe |

mod books;
mod console;
mod script;
mod stage;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use ponos::{Broker, Secret};
use ponos_example_payments::process;
use tokio::time::Instant;

use self::books::Books;
use self::console::{Console, Tone};
use self::script::Script;
use self::stage::Stage;
use self::traffic::{Traffic, Webhook};
use crate::error::Exit;

/// As a shell reports a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// When the whole demo is over at the latest: with `--ci`, and for people.
const CI_LIMIT: Duration = Duration::from_secs(27);
const LIMIT: Duration = Duration::from_secs(90);

/// How much of the limit is kept for the books and for stopping.
const KEPT_FOR_THE_END: Duration = Duration::from_secs(5);

/// How long stopping may take.
const STOP_LIMIT: Duration = Duration::from_millis(1_500);

const EXIT_CODES: &str = "\
Exit codes:
  0    the balance closes: every accepted job is done or failed, and all ledgers agree
  1    it does not
  2    the command was not understood, or its input cannot be read
  3    the broker cannot be used
  130  interrupted";

/// Five services, one process: payments, mail, webhooks, builds, and a mail provider that breaks.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_CODES)]
pub(crate) struct DemoArgs {
    /// Ends by itself within 30 seconds, without pauses for an audience
    #[arg(long)]
    ci: bool,

    /// Prints the balance as one JSON object, the only line on the standard output; the story goes to the error output
    #[arg(long)]
    json: bool,

    /// Feeds these webhooks: one `{"event":…,"payload":…}` a line [default: ten real ones from GitHub]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Runs on this broker and leaves it there to be looked at, as `sqlite:demo.db` or
    /// `amqp://user:password@host/vhost` [default: a temporary file]
    #[arg(long, value_name = "URL")]
    broker: Option<Secret>,

    /// Repeats the demo that was drawn with this number [default: a new one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Runs the demo.
pub(crate) fn run(args: DemoArgs) -> ExitCode {
    let started = Instant::now();
    let console = Console::open(args.json);
    let ended = Plan::of(args).map_err(|error| (Exit::Usage, error)).and_then(|plan| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| (Exit::Broker, error.into()))?;
        let code = runtime.block_on(perform(plan, started, &console));
        // What still runs belongs to services that were asked to stop.
        runtime.shutdown_timeout(STOP_LIMIT);
        code.map_err(|error| (Exit::Broker, error))
    });
    ended.unwrap_or_else(|(exit, error)| {
        console.error(&format!("{error:#}"));
        exit.into()
    })
}

/// What the arguments ask for, found possible.
struct Plan {
    webhooks: Vec<Webhook>,
    home: Home,
    broker: Broker,
    seed: u64,
    ci: bool,
    json: bool,
}

impl Plan {
    fn of(args: DemoArgs) -> anyhow::Result<Self> {
        let DemoArgs { ci, json, input, broker, seed } = args;
        let webhooks = match &input {
            Some(file) => Webhook::read(file)?,
            None => Webhook::embedded(),
        };
        let home = Home::new(broker)?;
        let broker = home.broker()?;
        let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
        Ok(Self { webhooks, home, broker, seed, ci, json })
    }
}

/// # Errors
///
/// When the demo cannot begin: its broker cannot be used, or its services cannot start.
async fn perform(plan: Plan, started: Instant, console: &Console) -> anyhow::Result<ExitCode> {
    let Plan { webhooks, home, broker, seed, ci, json } = plan;
    let limit = started + if ci { CI_LIMIT } else { LIMIT };
    // Signals are heard from its first poll on, so it is polled before anything is made that has to be cleared away.
    let mut told_to_end = std::pin::pin!(process::until_told_to_end());
    let stage = tokio::select! {
        biased;
        Ok(()) = &mut told_to_end => return Ok(ExitCode::from(INTERRUPTED)),
        stage = tokio::time::timeout_at(limit - KEPT_FOR_THE_END, Stage::set(broker, console.clone())) => stage,
    };
    let stage = stage.context("the services did not start in time")??;
    let mut script = Script::new(Traffic::new(seed, webhooks, !ci), console.clone());
    script.opening(&stage, home.is_temporary(), seed);

    let ended = tokio::select! {
        played = tokio::time::timeout_at(limit - KEPT_FOR_THE_END, script.play(&stage)) => {
            if played.is_err() {
                console.say("demo", Tone::Bad, "the time is up: the story ends here, the books are closed as they stand");
            }
            None
        }
        () = nobody_reads(console, ci) => Some(ExitCode::SUCCESS),
        Ok(()) = &mut told_to_end => Some(ExitCode::from(INTERRUPTED)),
    };
    if let Some(code) = ended {
        let _ = tokio::time::timeout(STOP_LIMIT, stage.strike()).await;
        return Ok(code);
    }
    let books = Books::close(&stage, script.ledger(), limit - 2 * STOP_LIMIT).await;
    script.epilogue(&books, home.kept());
    let code = ExitCode::from(if books.balance_closes() { Exit::Ok } else { Exit::Findings });
    if tokio::time::timeout(STOP_LIMIT, stage.strike()).await.is_err() {
        console.say("demo", Tone::Faint, "the services did not stop in time; the process ends");
    }
    console.finish(json.then(|| books.to_json()), STOP_LIMIT).await;
    Ok(code)
}

/// Waits until there is nobody left to tell the story to. With `--ci` it is the exit code that is waited for.
async fn nobody_reads(console: &Console, ci: bool) {
    if ci {
        std::future::pending::<()>().await;
    }
    console.closed().await;
}

/// How a broker that stays is named.
#[derive(Debug, Clone, Copy)]
enum Kept<'a> {
    ByUrl(&'a str),
    /// By a URL that nobody else should read.
    BySecretUrl,
}

/// Where the broker's file lives.
enum Home {
    /// In a folder that goes with the demo.
    Temporary(tempfile::TempDir),
    /// Where the user said.
    Kept(Secret),
}

impl Home {
    fn new(broker: Option<Secret>) -> anyhow::Result<Self> {
        Ok(match broker {
            Some(url) => Self::Kept(url),
            None => {
                let folder = tempfile::Builder::new().prefix("ponos-demo-").tempdir();
                Self::Temporary(
                    folder.context(
                        "cannot make a temporary folder: name a broker with --broker sqlite:demo.db",
                    )?,
                )
            }
        })
    }

    fn broker(&self) -> anyhow::Result<Broker> {
        match self {
            Self::Temporary(folder) => Ok(Broker::sqlite(folder.path().join("ponos.db"))),
            Self::Kept(url) => crate::broker::from_url(url).context("--broker"),
        }
    }

    fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary(_))
    }

    /// Where everything can be looked at afterwards.
    fn kept(&self) -> Option<Kept<'_>> {
        match self {
            Self::Kept(url) if url.expose().starts_with("memory:") => None,
            // It holds a password.
            Self::Kept(url) if crate::broker::is_rabbitmq(url.expose()) && url.expose().contains('@') => {
                Some(Kept::BySecretUrl)
            }
            Self::Kept(url) => Some(Kept::ByUrl(url.expose())),
            Self::Temporary(_) => None,
        }
    }
}
