//! `ponos publish`: an event or a task by hand.

use std::io::Read as _;
use std::time::Duration;

use ponos::Secret;
use ponos::core::body::MAX_BODY;
use ponos::core::name::{AppName, EventName, TaskName};
use ponos::trace::CascadeOutcome;
use ponos::{MessageId, RawPublisher, Receipt, Tid};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::names::{Fits, Kind};
use crate::output::{Output, Tone};
use crate::trace::{self, Watched};
use crate::view::View;
use crate::{amount, json, text};

/// In whose name events are emitted unless it is said.
const DEFAULT_APP: &str = "cli";

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// The event's or the task's name
    #[arg(value_name = "NAME")]
    name: String,

    /// The payload, a JSON object without `tid`; `-` reads it from the standard input
    #[arg(value_name = "JSON")]
    payload: String,

    /// Continues this transaction instead of starting a new one
    #[arg(long)]
    tid: Option<String>,

    /// Emits the event in the name of this application [default: cli; a task is always its owner's]
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,

    /// What the name names, where it could name both or its verb is `unchecked`
    #[arg(long)]
    kind: Option<Kind>,

    /// Shows what it sets off until everything has ended; exit code 1 if a job fails or has not ended in time
    #[arg(long, conflicts_with = "json")]
    follow: bool,

    /// How long it is followed at most
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = amount::duration, requires = "follow")]
    limit: Duration,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    name: &'a str,
    kind: Kind,
    tid: &'a Tid,
    id: MessageId,
    queues: u32,
}

enum Name {
    Event(EventName),
    Task(TaskName),
}

/// Publishes, and returns once the broker has confirmed it.
///
/// # Errors
///
/// When name or payload are none, or the broker does not take the message.
pub(crate) async fn run(args: PublishArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let name = name(&args.name, args.kind)?;
    let payload = payload(&args.payload)?;
    let tid = match args.tid {
        Some(text) => Some(tid(&text)?),
        None => None,
    };
    let app = app(&name, args.app)?;

    let session = Session::open(url).await?;
    session.watch().await;
    let publisher = RawPublisher::connect(app, ponos::Broker::from(session.broker().clone())).await?;
    let (published, kind) = match name {
        Name::Event(name) => (publisher.emit(name, &payload, tid).await, Kind::Event),
        Name::Task(name) => (publisher.create(name, &payload, tid).await, Kind::Task),
    };
    let counts = !session.is_rabbitmq();
    let receipt = match published {
        Ok(receipt) => receipt,
        Err(error) => {
            session.close().await;
            return Err(error.into());
        }
    };
    if args.follow {
        print(&args.name, kind, &receipt, counts, out);
        let followed = follow(&receipt.tid, args.limit, &session, out).await;
        session.close().await;
        return followed;
    }
    session.close().await;
    if args.json {
        let Receipt { tid, id, queues } = &receipt;
        let document =
            Document { version: json::VERSION, name: &args.name, kind, tid, id: *id, queues: *queues };
        json::print(&document, out);
    } else {
        print(&args.name, kind, &receipt, counts, out);
    }
    Ok(Exit::Ok)
}

/// Shows what the message sets off until it has settled; a job that fails, or has not ended in time, is a finding.
async fn follow(tid: &Tid, limit: Duration, session: &Session, out: &mut Output) -> Result<Exit, CliError> {
    out.line("");
    let mut view = View::open(session).await?;
    match trace::watch(tid, &mut view, session, Some(limit), out).await? {
        Watched::Settled(CascadeOutcome::Done) => Ok(Exit::Ok),
        Watched::Settled(_) | Watched::Left => Ok(Exit::Findings),
    }
}

fn print(name: &str, kind: Kind, receipt: &Receipt, counts: bool, out: &mut Output) {
    let where_to = match (kind, receipt.queues) {
        (Kind::Event, 0) => out.paint(Tone::Faint, "0 queues: nobody listens"),
        (Kind::Event, 1) if !counts => "at least 1 queue".to_owned(),
        (_, queues) => text::count(u64::from(queues), "queue"),
    };
    let verb = out.paint(Tone::Good, "published");
    out.line(&format!("{verb} {name} to {where_to}"));
    out.line(&format!("  tid  {}", receipt.tid));
    out.line(&format!("  id   {}", receipt.id));
    if receipt.queues > 0 {
        let hint = format!("  see what became of it: ponos trace {}", typed(&receipt.tid));
        let hint = out.paint(Tone::Faint, &hint);
        out.line(&hint);
    }
}

/// What finds the transaction again: the end of an id of ours, the whole of another's, which may look like an option.
fn typed(tid: &Tid) -> String {
    match tid.trace_id() {
        Some(_) => tid.short(),
        None if tid.to_string().starts_with('-') => format!("-- {tid}"),
        None => tid.to_string(),
    }
}

/// With `--kind` the tense is not looked at: the service may have said `verb = unchecked`.
fn name(name: &str, kind: Option<Kind>) -> Result<Name, CliError> {
    let refused = |error: ponos::core::name::NameError| {
        CliError::usage(
            error.to_string(),
            "if a service really uses this name, say --kind event or --kind task",
        )
    };
    match kind {
        Some(Kind::Event) => return EventName::unchecked_verb(name).map(Name::Event).map_err(refused),
        Some(Kind::Task) => return TaskName::unchecked_verb(name).map(Name::Task).map_err(refused),
        None => {}
    }
    match Fits::of(name, None).map_err(refused)? {
        Fits { event: Some(_), task: Some(task) } => Err(CliError::usage(
            format!("`{task}` can be an event's name or that of a task of `{}`", task.app()),
            "say --kind event or --kind task",
        )),
        Fits { event: Some(event), task: None } => Ok(Name::Event(event)),
        Fits { task, .. } => Ok(Name::Task(task.expect("a name that fits nothing is an error"))),
    }
}

fn payload(argument: &str) -> Result<Map<String, Value>, CliError> {
    let mut read = String::new();
    let text = if argument == "-" {
        // One byte more than the limit, to see that there is more.
        let limit = u64::try_from(MAX_BODY).unwrap_or(u64::MAX) + 1;
        std::io::stdin().lock().take(limit).read_to_string(&mut read).map_err(|error| {
            CliError::usage(
                format!("the standard input cannot be read: {error}"),
                "write one JSON object in UTF-8 to it",
            )
        })?;
        read.as_str()
    } else {
        argument
    };
    // The transaction id is written into the body too: 128 characters at most, its key, quotes and a comma.
    if text.len() > MAX_BODY - 140 {
        return Err(CliError::usage(
            format!("the payload is too large: a message has at most {MAX_BODY} bytes"),
            "send a reference to the data instead of the data",
        ));
    }
    let payload: Value = serde_json::from_str(text).map_err(|error| {
        CliError::usage(
            format!("the payload is no JSON: {error}"),
            "write an object such as '{\"org\":\"acme\"}'",
        )
    })?;
    let Value::Object(payload) = payload else {
        return Err(CliError::usage(
            "the payload is no JSON object",
            "write an object such as '{\"org\":\"acme\"}'",
        ));
    };
    if payload.contains_key("tid") {
        return Err(CliError::usage(
            "the payload has a field `tid`, which is the transaction id's place",
            "leave it out, and say --tid TID to continue a transaction",
        ));
    }
    Ok(payload)
}

/// The library drops what must not stand in an id; a person is told instead.
fn tid(text: &str) -> Result<Tid, CliError> {
    Tid::from_foreign(text).filter(|tid| tid.to_string() == text).ok_or_else(|| {
        CliError::usage(
            format!("`{}` is no transaction id", text::line(text, 80)),
            "use a UUID, or at most 128 characters out of letters, digits and `. _ : -`",
        )
    })
}

fn app(name: &Name, said: Option<AppName>) -> Result<AppName, CliError> {
    match (name, said) {
        (Name::Event(_), Some(app)) => Ok(app),
        (Name::Event(_), None) => Ok(AppName::from_static(DEFAULT_APP).expect("it is a good name")),
        (Name::Task(task), Some(app)) if app != task.app() => Err(CliError::usage(
            format!("only `{}` can create the task `{task}`, not `{app}`", task.app()),
            "leave --app out, or emit an event that the application reacts to",
        )),
        (Name::Task(task), _) => Ok(task.app()),
    }
}
