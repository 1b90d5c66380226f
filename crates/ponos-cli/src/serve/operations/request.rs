//! What is asked for, read and checked before anything is looked up.

use std::time::Duration;

use ponos::core::broker::{OrderAction, OrderTarget};
use ponos::core::name::AppName;
use serde::Deserialize;

use super::super::problem::Problem;
use crate::amount;
use crate::error::CliError;
use crate::failed::asked::{Deed, Wish};
use crate::steer::{self, TargetArgs};

/// What is to be done.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) verb: &'static str,
    pub(super) reason: String,
    pub(super) dry_run: bool,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Failed(Deed, Wish),
    Order(OrderTarget, OrderAction, Option<Duration>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    verb: Verb,
    selector: Selector,
    rate: Option<String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    reason: String,
    /// How long an order stands.
    r#for: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verb {
    Retry,
    Discard,
    Restore,
    Pause,
    Resume,
    Rate,
    RateReset,
    CircuitOpen,
    CircuitReset,
    CircuitResume,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Discard => "discard",
            Self::Restore => "restore",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Rate => "rate",
            Self::RateReset => "rate_reset",
            Self::CircuitOpen => "circuit_open",
            Self::CircuitReset => "circuit_reset",
            Self::CircuitResume => "circuit_resume",
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Selector {
    /// Ids of jobs, digits of groups.
    #[serde(default)]
    jobs: Vec<String>,
    #[serde(default)]
    all: bool,
    app: Option<AppName>,
    name: Option<String>,
    since: Option<String>,
    queue: Option<String>,
    dependency: Option<String>,
}

/// Reads a request.
///
/// # Errors
///
/// When it is no JSON, asks for what there is not, or leaves out what is needed.
pub(super) fn read(body: &[u8]) -> Result<Task, Problem> {
    let request: Request = serde_json::from_slice(body).map_err(|error| {
        Problem::bad(format!("{error}: /api/v1/openapi.json tells the form of an operation"))
    })?;
    let Request { verb, selector, rate, dry_run, reason, r#for } = request;
    let rate =
        rate.as_deref().map(amount::rate).transpose().map_err(|it| Problem::bad(format!("rate: {it}")))?;
    let time = r#for.as_deref().map(amount::duration).transpose();
    let time = time.map_err(|error| Problem::bad(format!("for: {error}")))?;
    let not_of = |given: bool, what: &str| match given {
        true => Err(Problem::bad(format!("`{what}` says nothing to `{}`: leave it out", verb.as_str()))),
        false => Ok(()),
    };
    let what = match verb {
        Verb::Retry | Verb::Discard | Verb::Restore => {
            not_of(time.is_some(), "for")?;
            not_of(rate.is_some() && verb != Verb::Retry, "rate")?;
            let wish = wish(selector)?;
            let deed = match verb {
                Verb::Retry => Deed::Retry(rate),
                Verb::Discard => Deed::discard(&reason)?,
                _ => Deed::Restore,
            };
            What::Failed(deed, wish)
        }
        _ => {
            not_of(rate.is_some() && verb != Verb::Rate, "rate")?;
            let stands = matches!(verb, Verb::Pause | Verb::Rate | Verb::CircuitOpen);
            not_of(time.is_some() && !stands, "for")?;
            if stands && reason.trim().is_empty() {
                return Err(Problem::bad(
                    "the reason is empty: say why in a few words, others will find it so and wonder",
                ));
            }
            let target = target(selector, verb)?;
            let action = match (verb, rate) {
                (Verb::Pause, _) => OrderAction::Pause,
                (Verb::Resume, _) => OrderAction::Resume,
                (Verb::Rate, Some(rate)) => OrderAction::Rate(rate),
                (Verb::Rate, None) => {
                    return Err(Problem::bad("rate: say how many starts per time, such as 5/s"));
                }
                (Verb::RateReset, _) => OrderAction::RateReset,
                (Verb::CircuitOpen, _) => OrderAction::CircuitOpen,
                (Verb::CircuitReset, _) => OrderAction::CircuitReset,
                _ => OrderAction::CircuitResume,
            };
            let time = if verb == Verb::CircuitReset { Some(steer::RESET_FOR) } else { time };
            What::Order(target, action, time)
        }
    };
    Ok(Task { verb: verb.as_str(), reason, dry_run, what })
}

fn wish(selector: Selector) -> Result<Wish, Problem> {
    let Selector { jobs, all, app, name, since, queue, dependency } = selector;
    if queue.is_some() || dependency.is_some() {
        return Err(Problem::bad(
            "failed jobs are selected by `jobs` or `all`, with `app`, `name` and `since`",
        ));
    }
    // All of them only where somebody says so.
    if jobs.is_empty() != all {
        return Err(Problem::bad(
            "selector: name `jobs`, ids or groups of /api/v1/failed, or say `all: true`",
        ));
    }
    let since = since.as_deref().map(amount::duration).transpose();
    let since = since.map_err(|error| Problem::bad(format!("since: {error}")))?;
    Ok(Wish { which: jobs, app, name, since })
}

fn target(selector: Selector, verb: Verb) -> Result<OrderTarget, Problem> {
    let Selector { jobs, all, app, name, since, queue, dependency } = selector;
    let one = || Problem::bad("selector: name a `queue`, or a `dependency` with its `app`");
    if !jobs.is_empty() || all || name.is_some() || since.is_some() {
        return Err(one());
    }
    let pausing = matches!(verb, Verb::Pause | Verb::Resume);
    let target = match (queue, dependency) {
        (Some(queue), None) if queue.contains('.') => TargetArgs::of(queue, app)?,
        (None, Some(_)) if pausing => {
            return Err(Problem::bad(
                "a queue is paused, a dependency is not: hold its circuit open with circuit_open",
            ));
        }
        (None, Some(dependency)) if !dependency.contains('.') && app.is_some() => {
            TargetArgs::of(dependency, app)?
        }
        _ => return Err(one()),
    };
    let done = match verb {
        Verb::Pause => Some("paused"),
        Verb::Rate => Some("limited"),
        Verb::CircuitOpen => Some("cut off"),
        Verb::CircuitReset => Some("reset"),
        _ => None,
    };
    let checked: Result<(), CliError> = done.map_or(Ok(()), |done| steer::check_is_worked(&target, done));
    checked?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_checked_before_anything_is_done() {
        for (body, says) in [
            ("", "openapi.json"),
            ("[]", "openapi.json"),
            (r#"{"verb":"retry"}"#, "selector"),
            (r#"{"verb":"burn","selector":{"all":true}}"#, "unknown variant"),
            (r#"{"verb":"retry","selector":{"all":true},"when":1}"#, "unknown field"),
            (r#"{"verb":"retry","selector":{"al":true}}"#, "unknown field"),
            (r#"{"verb":"retry","selector":{}}"#, "all: true"),
            (r#"{"verb":"retry","selector":{"all":true,"jobs":["abcd"]}}"#, "all: true"),
            (r#"{"verb":"retry","selector":{"queue":"a.b"}}"#, "`jobs` or `all`"),
            (r#"{"verb":"retry","selector":{"all":true},"rate":"0/s"}"#, "rate"),
            (r#"{"verb":"retry","selector":{"all":true},"for":"1h"}"#, "leave it out"),
            (r#"{"verb":"discard","selector":{"all":true}}"#, "reason"),
            (r#"{"verb":"pause","selector":{"queue":"shop.parcel.send"}}"#, "reason"),
            (r#"{"verb":"pause","selector":{"queue":"shop.failed"},"reason":"x"}"#, "nobody works"),
            (
                r#"{"verb":"pause","selector":{"app":"shop","dependency":"smtp"},"reason":"x"}"#,
                "circuit_open",
            ),
            (r#"{"verb":"rate","selector":{"queue":"shop.parcel.send"},"reason":"x"}"#, "such as 5/s"),
            (r#"{"verb":"circuit_open","selector":{"dependency":"smtp"},"reason":"x"}"#, "with its `app`"),
            (r#"{"verb":"resume","selector":{"queue":"shop"}}"#, "name a `queue`"),
        ] {
            let problem = format!("{:?}", read(body.as_bytes()).unwrap_err());
            assert!(problem.contains(says), "{body}: {problem}");
        }
    }

    #[test]
    fn what_is_complete_is_taken() {
        for body in [
            r#"{"verb":"retry","selector":{"jobs":["abcd"]},"rate":"5/s","dry_run":true}"#,
            r#"{"verb":"discard","selector":{"all":true,"app":"shop","since":"1h"},"reason":"old"}"#,
            r#"{"verb":"pause","selector":{"queue":"shop.parcel.send"},"reason":"x","for":"1h"}"#,
            r#"{"verb":"rate","selector":{"app":"shop","dependency":"smtp"},"rate":"5/s","reason":"x"}"#,
            r#"{"verb":"circuit_reset","selector":{"app":"shop","dependency":"smtp"}}"#,
        ] {
            read(body.as_bytes()).unwrap_or_else(|problem| panic!("{body}: {problem:?}"));
        }
    }
}
