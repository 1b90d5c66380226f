//! `ponos topology`: what applications need on RabbitMQ, by their manifests.
//!
//! | module | what |
//! | --- | --- |
//! | `manifests` | the files, several of one application united |
//! | `plan` | what would be declared, beside what exists; policies worth setting |
//! | `apply` | declares what is missing |
//! | `prune` | takes queues away that no manifest names |
//! | `permissions` | what an application's user must be allowed to do |

mod apply;
mod manifests;
mod permissions;
mod plan;
mod prune;

use std::path::PathBuf;
use std::time::Duration;

use ponos::Secret;
use ponos::core::broker::BrokerError;
use ponos::core::name::AppName;
use ponos::rabbitmq::diff::Diff;
use ponos::rabbitmq::management::Management;
use ponos::rabbitmq::topology::Plan;
use ponos::{RabbitBroker, RabbitOptions};

use self::manifests::Application;
use crate::broker::url_or_default;
use crate::error::{CliError, Exit};
use crate::output::Output;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct TopologyArgs {
    #[command(subcommand)]
    verb: TopologyVerb,
}

#[derive(Debug, clap::Subcommand)]
enum TopologyVerb {
    /// Shows what would be declared, what differs, what nobody names, and policies worth setting
    ///
    /// Without --manifest by what services told when they started. Exit code 1 when something is not as it should be. Needs
    /// RabbitMQ's management plugin.
    Plan(PlanArgs),
    /// Declares what is missing
    ///
    /// What exists and cannot be used is refused; what differs otherwise is used as it is.
    Apply(ManifestArgs),
    /// Takes an application's queues away that no manifest names, once they are empty
    ///
    /// Give the manifests of all programs and all versions of the application that run. A queue is unbound from its event,
    /// must be empty twice and without consumers, and is then deleted; otherwise its bindings are put back. Needs RabbitMQ's
    /// management plugin.
    Prune(PruneArgs),
    /// Prints what an application's user must be allowed to do, as regular expressions; needs no RabbitMQ
    Permissions(PermissionsArgs),
}

#[derive(Debug, clap::Args)]
struct PlanArgs {
    /// A service's manifest (`PONOS_MANIFEST=1 service > FILE`); may be repeated; `-` reads the standard input
    /// [default: what services told the broker when they started]
    #[arg(long = "manifest", value_name = "FILE")]
    manifests: Vec<PathBuf>,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ManifestArgs {
    /// A service's manifest (`PONOS_MANIFEST=1 service > FILE`); may be repeated; `-` reads the standard input
    #[arg(long = "manifest", value_name = "FILE", required = true)]
    manifests: Vec<PathBuf>,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct PruneArgs {
    #[command(flatten)]
    common: ManifestArgs,

    /// The application
    #[arg(long, value_name = "NAME")]
    app: AppName,

    /// How many seconds a queue may take to become empty
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,

    /// Does it without asking
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct PermissionsArgs {
    #[command(flatten)]
    common: ManifestArgs,

    /// The user's name [default: the application's]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// # Errors
///
/// When a manifest cannot be read, RabbitMQ or its management plugin is not there, or something is not as it should be.
pub(crate) async fn run(
    args: TopologyArgs,
    url: Option<&Secret>,
    out: &mut Output,
) -> Result<Exit, CliError> {
    match args.verb {
        TopologyVerb::Plan(args) => plan::run(args, &options(url)?, url, out).await,
        TopologyVerb::Apply(args) => apply::run(args, options(url)?, out).await,
        TopologyVerb::Prune(args) => prune::run(args, options(url)?, out).await,
        TopologyVerb::Permissions(args) => permissions::run(&args, url, out),
    }
}

/// Where RabbitMQ is.
fn options(url: Option<&Secret>) -> Result<RabbitOptions, CliError> {
    let url = url_or_default(url);
    if !crate::broker::is_rabbitmq(url.expose()) {
        return Err(CliError::usage(
            "`ponos topology` is about RabbitMQ: an SQLite file needs no preparation",
            "name a RabbitMQ with --broker amqp://user:password@host/vhost or PONOS_BROKER",
        ));
    }
    let options = RabbitOptions::from_url(url.expose()).map_err(|error| {
        CliError::usage(error.to_string(), "for example `--broker amqp://user:password@host:5672/vhost`")
    })?;
    Ok(options.start_within(CONNECT).connection_name("ponos topology"))
}

async fn connect(options: RabbitOptions) -> Result<RabbitBroker, CliError> {
    Ok(RabbitBroker::connect(options).await?)
}

async fn close(broker: &RabbitBroker) {
    use ponos::core::broker::Broker as _;
    // What goes wrong here repairs itself.
    let _ = tokio::time::timeout(CONNECT, broker.close()).await;
}

/// What all applications need, and what comes to be when they need it.
fn wanted(applications: &[Application], options: &RabbitOptions) -> (Plan, Plan) {
    let (mut wanted, mut on_demand) = (Plan::default(), Plan::default());
    for application in applications {
        wanted.add(Plan::service(&application.topology, options.job_queues()));
        on_demand.add(Plan::on_demand(&application.app));
    }
    (wanted, on_demand)
}

/// What is wanted beside what exists.
async fn compare(
    applications: &[Application],
    options: &RabbitOptions,
    management: &Management,
) -> Result<Diff, BrokerError> {
    let (wanted, on_demand) = wanted(applications, options);
    let found = management.found().await?;
    let apps: Vec<AppName> = applications.iter().map(|application| application.app.clone()).collect();
    Ok(Diff::of(&wanted, &on_demand, &found, &apps))
}
