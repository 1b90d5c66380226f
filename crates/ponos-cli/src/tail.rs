//! `ponos tail`: what happens, as it happens.

mod filter;
mod line;
mod losses;

use std::time::Duration;

use ponos::Secret;
use ponos::core::id::Timestamp;
use ponos::core::journal::{Entry, From};
use serde::Serialize;

use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{amount, json, text};

pub(crate) use self::filter::{Filter, Word};
pub(crate) use self::line::Document as EntryJson;
use self::losses::Losses;

/// How long a look for new entries waits for the next.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    /// Only these names, queues, applications or circuits; `*` stands for any text: `org.*,pheidi.*`
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    name: Vec<String>,

    /// Only what came to this: published, unheard, unpublished, done, retry, gave-up, failed, lost, duplicate, by-hand,
    /// circuit, order, limit, start, end, beat
    #[arg(long, value_name = "WORD,…", value_delimiter = ',')]
    outcome: Vec<Word>,

    /// Only this application's
    #[arg(long, value_name = "NAME")]
    app: Option<ponos::core::name::AppName>,

    /// Only transactions whose id ends so
    #[arg(long, value_name = "TID")]
    tid: Option<String>,

    /// Begins so long ago, such as 10m or 1h, with what is still kept [default: now]
    #[arg(long, value_name = "TIME", value_parser = amount::duration)]
    since: Option<Duration>,

    /// Ends when everything that is there was shown
    #[arg(long)]
    no_follow: bool,

    /// Also shows that instances are alive
    #[arg(long)]
    beats: bool,

    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Shows entries until it is interrupted.
///
/// # Errors
///
/// When the broker does not answer, or keeps no records.
pub(crate) async fn run(args: TailArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let filter = Filter::new(&args.name, args.outcome, args.app, args.tid, args.beats)?;
    let session = Session::open(url).await?;
    let shown = tokio::select! {
        shown = follow(&session, &filter, args.since, args.no_follow, args.json, out) => shown,
        // An interrupt is how it ends: nothing was left undone.
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    session.close().await;
    shown.map(|()| Exit::Ok)
}

async fn follow(
    session: &Session,
    filter: &Filter,
    since: Option<Duration>,
    no_follow: bool,
    as_json: bool,
    out: &mut Output,
) -> Result<(), CliError> {
    let journal = session.journal()?;
    let now = text::now();
    let since = since.map(|ago| {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_sub(ago))
    });
    let from = match since {
        Some(since) => From::Time(since),
        None if no_follow => From::Start,
        None => From::End,
    };
    let mut reader = session.ask(journal.open(from)).await?;
    let mut losses = Losses::default();
    if !as_json && !no_follow {
        let hint = out.paint(Tone::Faint, "waiting for what happens; ^C ends it");
        out.hint(&hint);
    }
    loop {
        let entries = session.ask(reader.next()).await?;
        if out.is_closed() {
            return Ok(());
        }
        if entries.is_empty() {
            out.flush();
            if no_follow {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        for entry in &entries {
            let lost = losses.before(entry);
            if since.is_some_and(|since| entry.said.at() < since) {
                continue;
            }
            if let Some(lost) = lost.filter(|_| filter.wants_losses(entry)) {
                show_loss(entry, lost, as_json, out);
            }
            if filter.wants(entry) {
                show(entry, as_json, out);
            }
        }
    }
}

#[derive(Serialize)]
struct Loss<'a> {
    version: u32,
    at: Timestamp,
    lost: u64,
    origin: &'a ponos::core::journal::Origin,
}

fn show_loss(entry: &Entry, lost: u64, as_json: bool, out: &mut Output) {
    let (at, origin) = (entry.said.at(), &*entry.origin);
    if as_json {
        json::print(&Loss { version: json::VERSION, at, lost, origin }, out);
    } else {
        let (records, host) = (text::count(lost, "record"), text::line(&origin.host, 80));
        let line = format!("{}  ⋯ {records} of {} on {host} lost", line::clock(at), origin.app);
        let line = out.paint(Tone::Bad, &line);
        out.line(&line);
    }
}

fn show(entry: &Entry, as_json: bool, out: &mut Output) {
    if as_json {
        json::print(&line::Document::of(entry), out);
    } else {
        line::print(entry, out);
    }
}
