//! `ponos top`: the queues as they change.
//!
//! | module | what |
//! | --- | --- |
//! | `board` | what is shown, and what keys do to it |
//! | `frame` | one frame, as a pure function of the board |
//! | `canvas` | a picture of characters |
//! | `screen` | the terminal: taken, drawn on, given back |

mod board;
mod canvas;
mod frame;
mod screen;

use std::time::Duration;

use ponos::Secret;
use ponos::core::broker::OrderAction;
use ponos::core::name::{AppName, QueueName};
use ponos_readmodel::{TraceFilter, TraceOutcome, TraceSummary};

use self::board::{Board, Mode, Wish};
use self::screen::{Input, Screen};
use crate::broker::{Place, Session};
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::queues::{LookJson, Looker};
use crate::steer::plan;
use crate::view::{View, broken};
use crate::{amount, json};

/// How many transactions of a queue are shown.
const TRACES: usize = 50;

#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Prints one frame and ends
    #[arg(long)]
    once: bool,

    /// How often it is looked
    #[arg(long, value_name = "TIME", value_parser = amount::duration, default_value = "1s")]
    interval: Duration,

    /// Shows the queues of this application only
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,

    /// Prints one JSON object, as `ponos queues --json` does
    #[arg(long, requires = "once")]
    json: bool,
}

/// Shows the queues until it is told to end.
///
/// # Errors
///
/// When there is no terminal, the broker cannot be reached, or the application is not there.
pub(crate) async fn run(args: TopArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    if !args.once && !out.is_terminal() {
        return Err(CliError::usage(
            "the output is no terminal: there is nothing to draw on",
            "`ponos top --once` prints one frame; `ponos queues --json` is for programs",
        ));
    }
    let session = Session::open(url).await?;
    let done = if args.once { once(&session, &args, out).await } else { watch(&session, &args, out).await };
    session.close().await;
    done.map(|()| Exit::Ok)
}

fn board(session: &Session) -> Board {
    Board::new(match session.place() {
        Place::File(file) => file.display().to_string(),
        Place::Server(name) => name.clone(),
    })
}

async fn once(session: &Session, args: &TopArgs, out: &mut Output) -> Result<(), CliError> {
    let look = Looker::open(session).await.look(session, args.app.as_ref()).await?;
    if args.json {
        json::print(&LookJson::of(&look), out);
        return Ok(());
    }
    let mut board = board(session);
    board.take(look);
    for line in frame::draw(&board, out.width(), None).text(|_, text| text.to_owned()) {
        out.line(&line);
    }
    Ok(())
}

async fn watch(session: &Session, args: &TopArgs, out: &mut Output) -> Result<(), CliError> {
    let mut looker = Looker::open(session).await;
    let mut board = board(session);
    // What is wrong from the start is said without a frame.
    board.take(looker.look(session, args.app.as_ref()).await?);
    let mut screen = Screen::open(out)?;
    let mut ticks = tokio::time::interval(args.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let ended = ended();
    tokio::pin!(ended);
    loop {
        let (columns, lines) = screen::size();
        screen.show(&frame::draw(&board, columns, Some(lines)), out);
        if out.is_closed() {
            return Ok(());
        }
        tokio::select! {
            () = &mut ended => return Ok(()),
            input = screen.input() => match input {
                None => return Ok(()),
                Some(Input::Resized) => {}
                Some(Input::Key(key)) => {
                    board.notice = None;
                    match board.press(key) {
                        Wish::Nothing => {}
                        Wish::Quit => return Ok(()),
                        Wish::Order(queue, action, reason) => {
                            board.notice = Some(order(session, queue, action, reason).await);
                            ticks.reset_immediately();
                        }
                        Wish::Traces(queue) => match traces(looker.view(), &queue) {
                            Ok(traces) => board.mode = Mode::Traces(queue, traces),
                            Err(why) => board.notice = Some((false, why)),
                        },
                    }
                }
            },
            _ = ticks.tick() => match looker.look(session, args.app.as_ref()).await {
                Ok(look) => board.take(look),
                // It may be back at the next look; what was seen last stays.
                Err(error) => board.notice = Some((false, error.problem().to_owned())),
            },
        }
    }
}

/// Gives an order; whether it was taken, and what to say.
async fn order(session: &Session, queue: QueueName, action: OrderAction, reason: String) -> (bool, String) {
    let done = if action == OrderAction::Pause { "paused" } else { "resumed" };
    let given =
        async { plan(queue.clone().into(), action, (reason, None), session).await?.carry_out(session).await };
    match given.await {
        Ok(_) => (true, format!("{done} {queue}")),
        Err(error) => (false, error.problem().to_owned()),
    }
}

/// The newest transactions of a queue that failed or have not ended.
fn traces(view: Option<&View>, queue: &QueueName) -> Result<Vec<TraceSummary>, String> {
    let view = view.ok_or("there are no records")?;
    let mut found: Vec<TraceSummary> = Vec::new();
    for outcome in [TraceOutcome::Failed, TraceOutcome::Pending] {
        let filter = TraceFilter {
            name: Some(queue.to_string()),
            outcome: Some(outcome),
            limit: TRACES,
            ..TraceFilter::default()
        };
        let page = view.model.traces(&filter).map_err(|error| broken(error).problem().to_owned())?;
        found.extend(page.traces);
    }
    found.sort_by(|one, other| other.last_at.cmp(&one.last_at).then(one.tid.cmp(&other.tid)));
    found.dedup_by(|one, other| one.tid == other.tid);
    found.truncate(TRACES);
    Ok(found)
}

/// Resolves when the process is told to end.
async fn ended() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let wait = async |kind: SignalKind| match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = wait(SignalKind::terminate()) => {}
            () = wait(SignalKind::hangup()) => {}
        }
    }
    #[cfg(not(unix))]
    {
        let _ = tokio::signal::ctrl_c().await;
    }
}
