//! A transaction while it goes on.

use std::time::Duration;

use ponos::Tid;
use ponos::trace::CascadeOutcome;
use tokio::time::Instant;

use super::picture;
use crate::broker::Session;
use crate::error::CliError;
use crate::output::{Output, Tone};
use crate::view::View;

/// How often it is looked for something new.
const PAUSE: Duration = Duration::from_millis(150);

/// How long it must have been at its end: what follows from the last record may be on its way.
const SETTLED: Duration = Duration::from_millis(1500);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Every job has ended, this way.
    Settled(CascadeOutcome),
    /// It was interrupted, or its time was up.
    Left,
}

/// Shows the tree anew whenever it has changed: in place on a terminal, one after the other elsewhere. Ends when every job
/// has ended, when `limit` is over, or when it is interrupted.
///
/// # Errors
///
/// When the broker does not answer, or the files cannot be used.
pub(crate) async fn watch(
    tid: &Tid,
    view: &mut View,
    session: &Session,
    limit: Option<Duration>,
    out: &mut Output,
) -> Result<Watched, CliError> {
    let watching = follow(tid, view, session, limit, out);
    tokio::select! {
        watched = watching => watched,
        _ = tokio::signal::ctrl_c() => Ok(Watched::Left),
    }
}

async fn follow(
    tid: &Tid,
    view: &mut View,
    session: &Session,
    limit: Option<Duration>,
    out: &mut Output,
) -> Result<Watched, CliError> {
    let end = limit.map(|limit| Instant::now() + limit);
    // What the picture says without its times, which go on by themselves.
    let mut shown = String::new();
    let mut settled: Option<Instant> = None;
    loop {
        let cascade = view.cascade(tid, session).await?;
        let text = format!("{cascade}{:?}", cascade.tally());
        if text != shown {
            let picture = picture(&cascade, out);
            out.redraw(&picture, !shown.is_empty());
            shown = text;
            settled = None;
        }
        let outcome = cascade.outcome();
        let over = !matches!(outcome, CascadeOutcome::Pending | CascadeOutcome::Empty);
        if over && settled.get_or_insert_with(Instant::now).elapsed() >= SETTLED {
            return Ok(Watched::Settled(outcome));
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            let hint = out.paint(Tone::Faint, "not everything has ended: look again with `ponos trace`");
            out.line(&hint);
            return Ok(Watched::Left);
        }
        if out.is_closed() {
            return Ok(Watched::Left);
        }
        tokio::time::sleep(PAUSE).await;
        view.catch_up(session).await?;
    }
}
