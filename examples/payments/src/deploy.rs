//! `deploy` builds what was pushed.
//!
//! The build is a pause here. A push that deletes a branch or a tag leaves nothing to build, so its reaction makes no task.

use std::time::Duration;

use anyhow::Context;
use ponos::prelude::*;

use crate::{Pace, Served, process};

/// What `deploy` reads of a push; the event has more fields.
#[event("github.pushed")]
#[derive(Debug, Clone)]
struct GithubPushed {
    repo: String,
    r#ref: String,
    commit: String,
    deleted: bool,
}

/// A build is ready.
#[event("build.completed")]
#[derive(Debug, PartialEq)]
struct BuildCompleted {
    repo: String,
    commit: String,
}

/// The application.
#[app("deploy", state = Builder)]
#[derive(Debug)]
pub struct Deploy;

/// Builds a commit.
#[task("deploy.build.start", app = Deploy, emits(BuildCompleted))]
#[derive(Debug, PartialEq)]
struct BuildStart {
    repo: String,
    commit: String,
    r#ref: String,
}

/// What builds.
#[derive(Debug)]
pub struct Builder {
    takes: Duration,
}

fn build_what_was_pushed(push: GithubPushed) -> Option<BuildStart> {
    let GithubPushed { repo, r#ref, commit, deleted } = push;
    (!deleted).then_some(BuildStart { repo, commit, r#ref })
}

async fn build(task: BuildStart, cx: TaskCx<BuildStart>) -> Outcome {
    cx.sleep(cx.state().takes).await;
    tracing::info!(repo = task.repo, r#ref = task.r#ref, "built");
    cx.emit(BuildCompleted { repo: task.repo, commit: task.commit })?;
    Ok(())
}

/// The definition.
pub fn service(pace: Pace) -> Service<Deploy> {
    Service::new().version(env!("CARGO_PKG_VERSION")).on(build_what_was_pushed).task(build, |p| match pace {
        Pace::Production => p.timeout(mins(10)).concurrency(4).max_retries(3),
        Pace::Demo => {
            p.timeout(secs(2)).concurrency(4).max_retries(3).retry(Backoff::exponential(millis(200)))
        }
    })
}

/// Starts the service.
///
/// # Errors
///
/// When the broker cannot be used.
pub async fn start(
    service: Service<Deploy>,
    pace: Pace,
    broker: impl Into<Broker>,
) -> anyhow::Result<Served<Deploy>> {
    let takes = match pace {
        Pace::Production => millis(500),
        Pace::Demo => millis(20),
    };
    let running = service.start(Builder { takes }, broker).await?;
    Ok(Served::new(None, running))
}

/// The whole program `deploy`.
///
/// # Errors
///
/// When it cannot start.
pub async fn main() -> anyhow::Result<()> {
    let service = service(Pace::Production).manifest_if_asked();
    process::log()?;
    let served = start(service, Pace::Production, process::broker()?).await.context("deploy")?;
    tracing::info!("deploy builds what is pushed");
    process::until_told_to_end().await?;
    served.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(deleted: bool) -> GithubPushed {
        GithubPushed { repo: "a/b".into(), r#ref: "refs/heads/main".into(), commit: "c0ffee".into(), deleted }
    }

    #[test]
    fn a_push_is_built_unless_it_deletes() {
        assert_eq!(build_what_was_pushed(push(true)), None);
        assert_eq!(build_what_was_pushed(push(false)).unwrap().commit, "c0ffee");
    }

    #[tokio::test]
    async fn a_build_completes() {
        let cx = TaskCx::test(Builder { takes: Duration::ZERO });
        build(build_what_was_pushed(push(false)).unwrap(), cx.clone()).await.unwrap();
        assert_eq!(
            cx.emitted::<BuildCompleted>(),
            [BuildCompleted { repo: "a/b".into(), commit: "c0ffee".into() }]
        );
    }
}
