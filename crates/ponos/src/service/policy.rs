//! How a queue is worked: the options of tasks and of reactions.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use ponos_core::envelope::GaveUp;
use ponos_core::policy::{Backoff, BreakerConfig, MaxRetries, Rate, RetryPolicy};

use super::handler::{HealthCheck, RecoverFn, health_fn, recover_fn};
use crate::context::TaskCx;
use crate::message::{App, Task};
use crate::outcome::Outcome;
use crate::worker::Resolved;

/// One attempt's time limit unless the task says another: 60 s.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The least time limit that needs `long()`: RabbitMQ closes a channel after 30 minutes without an acknowledgement.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(25 * 60);

/// How many handlers of a queue run at once in a process: twice the cores, at least 8.
#[must_use]
pub(crate) fn default_concurrency() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(2 * cores).unwrap_or(u32::MAX).max(8)
}

/// How many jobs a worker holds: twice its concurrency, at least 64.
#[must_use]
pub(crate) fn default_prefetch(concurrency: u32) -> u32 {
    concurrency.saturating_mul(2).max(64)
}

/// The options that tasks and reactions share, as they were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Common {
    concurrency: Option<u32>,
    prefetch: Option<u32>,
    rate: Option<Rate>,
    dedup: Option<bool>,
}

/// What the npm package reads from the environment, as fallbacks for what a task leaves open.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NpmFallbacks {
    max_runs: Option<u32>,
    min_delay: Option<Duration>,
    max_delay: Option<Duration>,
    timeout: Option<Duration>,
}

impl NpmFallbacks {
    /// Reads `WORKER_MAX_NUM_RETRIES`, `WORKER_MIN_RETRY_DELAY`, `WORKER_MAX_RETRY_DELAY` and `WORKER_TIMEOUT`.
    pub(crate) fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str| match get(name) {
            None => Ok(None),
            Some(text) => text.trim().parse::<u32>().map(Some).map_err(|_| {
                format!(
                    "the variable {name} is `{}`: expected a whole number, or nothing",
                    text.escape_debug()
                )
            }),
        };
        let millis =
            |name: &str| Ok::<_, String>(number(name)?.map(|ms| Duration::from_millis(u64::from(ms))));
        Ok(Self {
            max_runs: number("WORKER_MAX_NUM_RETRIES")?,
            min_delay: millis("WORKER_MIN_RETRY_DELAY")?,
            max_delay: millis("WORKER_MAX_RETRY_DELAY")?,
            timeout: millis("WORKER_TIMEOUT")?,
        })
    }
}

macro_rules! common_options {
    () => {
        /// How many handlers of this queue run at once in a process. Default: twice the cores, at least 8.
        #[must_use]
        pub fn concurrency(mut self, concurrency: u32) -> Self {
            self.common.concurrency = Some(concurrency);
            self
        }

        /// How many jobs a worker holds, started or not, whatever the backlog. Default: twice the concurrency, at least 64.
        #[must_use]
        pub fn prefetch(mut self, prefetch: u32) -> Self {
            self.common.prefetch = Some(prefetch);
            self
        }

        /// How many starts are allowed per period, over all instances: `100.per_second()`. Default: no limit.
        #[must_use]
        pub fn rate_limit(mut self, rate: Rate) -> Self {
            self.common.rate = Some(rate);
            self
        }

        /// Whether messages that this process has done are recognised when they come again. Default: on, where
        /// the broker can send one twice.
        #[must_use]
        pub fn dedup(mut self, on: bool) -> Self {
            self.common.dedup = Some(on);
            self
        }
    };
}

/// How a task's queue is worked. What is left open gets the default that each method names.
pub struct TaskPolicy<T: Task> {
    pub(crate) common: Common,
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) long: bool,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) max_retries: Option<MaxRetries>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) breaker: Option<Option<BreakerConfig>>,
    pub(crate) depends_on: Option<String>,
    pub(crate) recovery_timeout: Option<Duration>,
    pub(crate) recover: Option<RecoverFn<T::App>>,
    pub(crate) health: Option<HealthCheck<T::App>>,
    task: PhantomData<fn(T)>,
}

impl<T: Task> std::fmt::Debug for TaskPolicy<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskPolicy").field("task", &T::NAME).finish_non_exhaustive()
    }
}

impl<T: Task> Default for TaskPolicy<T> {
    fn default() -> Self {
        Self {
            common: Common::default(),
            timeout: None,
            long: false,
            backoff: None,
            max_retries: None,
            max_age: None,
            breaker: None,
            depends_on: None,
            recovery_timeout: None,
            recover: None,
            health: None,
            task: PhantomData,
        }
    }
}

impl<T: Task> TaskPolicy<T> {
    common_options!();

    /// One attempt's time limit. When it is up the handler's future is dropped, so async work stops; what it has
    /// spawned, and blocking work, cannot be stopped. Default: 60 s.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(Some(limit));
        self
    }

    /// No time limit. Such a handler is [`long`](Self::long) too.
    #[must_use]
    pub fn no_timeout(mut self) -> Self {
        self.timeout = Some(None);
        self
    }

    /// Allows a time limit of 25 minutes or more, which a RabbitMQ broker must be configured for
    /// (`consumer_timeout`, 30 minutes unless changed).
    #[must_use]
    pub fn long(mut self) -> Self {
        self.long = true;
        self
    }

    /// When a failed attempt is repeated. Default: after 1 s, doubling up to 5 min, with up to 25 % added.
    #[must_use]
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// How many attempts follow the first; then recovery. Default: 10. `MaxRetries::Unlimited` must be asked for.
    #[must_use]
    pub fn max_retries(mut self, retries: impl Into<MaxRetries>) -> Self {
        self.max_retries = Some(retries.into());
        self
    }

    /// How long a handler may put its job off. Default: 7 days.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// What is done when the handler has given up: log, update the database, raise the alarm. It may emit the task's
    /// events, and has its own time limit and 5 attempts. Default: none; the failure is kept and counted.
    #[must_use]
    pub fn recover<F, Fut>(mut self, recover: F) -> Self
    where
        F: Fn(T, TaskCx<T>, GaveUp) -> Fut + Send + Sync + 'static, // `T` is the task that gave up
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.recover = Some(recover_fn(recover));
        self
    }

    /// The time limit of one attempt at recovery. Default: 60 s.
    #[must_use]
    pub fn recovery_timeout(mut self, limit: Duration) -> Self {
        self.recovery_timeout = Some(limit);
        self
    }

    /// When the listener is cut off because the dependency is sick. Default: on, see [`BreakerConfig`].
    #[must_use]
    pub fn breaker(mut self, breaker: BreakerConfig) -> Self {
        self.breaker = Some(Some(breaker));
        self
    }

    /// Never cuts the listener off.
    #[must_use]
    pub fn no_breaker(mut self) -> Self {
        self.breaker = Some(None);
        self
    }

    /// Asks whether the dependency is healthy again while the breaker is open, every 5 s with a limit of 2 s,
    /// instead of waiting for the open time to end. `Ok` lets the first job through.
    #[must_use]
    pub fn health_check<F, Fut, E>(mut self, check: F) -> Self
    where
        F: Fn(Arc<<T::App as App>::State>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: 'static,
    {
        self.health = Some(health_fn::<T::App, _, _, _>(check));
        self
    }

    /// The outside thing that the handler needs. Handlers of a process that name the same share one breaker and one
    /// rate limit.
    #[must_use]
    pub fn depends_on(mut self, dependency: impl Into<String>) -> Self {
        self.depends_on = Some(dependency.into());
        self
    }

    /// Fills in the defaults and checks everything; each problem names the task and the way out.
    pub(crate) fn resolve(&self, blocking: bool, npm: &NpmFallbacks, problems: &mut Vec<String>) -> Resolved {
        let mut problem = |text: String| problems.push(format!("task `{}`: {text}", T::NAME));
        let (concurrency, prefetch) = self.common.numbers(&mut problem);
        let backoff = self.backoff.unwrap_or_else(|| npm_backoff(npm));
        let max_retries = self.max_retries.unwrap_or_else(|| match npm.max_runs {
            None => MaxRetries::default(),
            Some(0) => MaxRetries::Unlimited,
            Some(runs) => MaxRetries::Limited(runs - 1),
        });
        let default = RetryPolicy::default();
        let retry = RetryPolicy { backoff, max_retries, max_age: self.max_age.unwrap_or(default.max_age) };
        if let Err(error) = retry.validate() {
            problem(error.to_string());
        }
        let timeout = self.timeout.unwrap_or(match npm.timeout {
            None => Some(DEFAULT_TIMEOUT),
            Some(Duration::ZERO) => None,
            limit => limit,
        });
        if timeout == Some(Duration::ZERO) {
            problem(
                "`timeout` is 0, so that no attempt could succeed: raise it, or say `.no_timeout()`".into(),
            );
        }
        let unlimited_by_npm = self.timeout.is_none() && timeout.is_none();
        if !self.long && !unlimited_by_npm && timeout.is_none_or(|limit| limit >= LONG_TIMEOUT) {
            problem(format!(
                "its `timeout` is {}: a broker takes a job away after 30 minutes without an answer; shorten it below \
                 25 minutes, or say `.long()` and raise the broker's `consumer_timeout`",
                timeout.map_or("off".into(), |limit| format!("{limit:?}"))
            ));
        }
        if self.recovery_timeout == Some(Duration::ZERO) {
            problem("`recovery_timeout` is 0, so that no recovery could succeed: raise it".into());
        }
        let breaker = self.breaker.unwrap_or_else(|| Some(BreakerConfig::default()));
        if let Some(Err(error)) = breaker.map(|breaker| breaker.validate()) {
            problem(error.to_string());
        }
        if let Some(dependency) = &self.depends_on
            && ponos_core::name::AppName::parse(dependency).is_err()
        {
            problem(format!(
                "`depends_on(\"{}\")` is no name: use one segment of lower-case letters, digits and hyphens",
                dependency.escape_debug()
            ));
        }
        if self.health.is_some() && breaker.is_none() {
            problem(
                "has a `health_check` and `.no_breaker()`: nothing would ever ask; remove one of them".into(),
            );
        }
        Resolved {
            concurrency,
            prefetch,
            rate: self.common.rate,
            dedup: self.common.dedup.unwrap_or(true),
            timeout,
            recovery_timeout: self.recovery_timeout.unwrap_or(DEFAULT_TIMEOUT),
            retry: Some(retry),
            breaker,
            depends_on: self.depends_on.clone(),
            blocking,
        }
    }
}

/// How a reaction's queue is worked. A reaction is a pure function, so there is nothing to retry, to time or to recover.
#[derive(Debug, Clone, Default)]
pub struct ReactionPolicy {
    pub(crate) common: Common,
    pub(crate) prototype: bool,
}

impl ReactionPolicy {
    common_options!();

    /// Listens without being able to hurt the system when it is forgotten: for trying something on real events.
    ///
    /// Its queue keeps 100,000 messages; the oldest ones make room for new ones and are dropped. When it has had no
    /// consumer for 7 days it is gone, with what is in it, until the service starts again. So neither is *every job ends
    /// as done or failed* true for it, nor does it fill a disk, and nobody needs to be woken for it: the manifest says that
    /// it is a prototype. The tasks that the reaction makes are ordinary ones.
    ///
    /// | broker | where drops are seen |
    /// | --- | --- |
    /// | RabbitMQ | its own counter of what exceeded a length, over all queues: `rabbitmq_global_messages_dead_lettered_maxlen_total` of the Prometheus plugin (with `dead_letter_strategy="disabled"`, since a prototype has no other place for them) |
    /// | SQLite | the log at level `info` of the process that dropped, and the `stats` of its `ponos_sqlite::SqliteBroker` |
    /// | in memory | the log, and [`MemoryBroker::dropped`](crate::MemoryBroker::dropped) |
    ///
    /// # Making it an ordinary reaction
    ///
    /// On SQLite by removing the word. RabbitMQ cannot change what a queue drops, so there the service refuses to start
    /// on a prototype's queue until it has been deleted; the error says so. The other way round the ordinary queue is used
    /// as it is, without a bound, and a warning is logged.
    ///
    /// ```
    /// # use ponos::prelude::*;
    /// # #[event("order.placed")] pub struct OrderPlaced { pub id: u64 }
    /// # #[app("lab")] pub struct Lab;
    /// # #[task("lab.order.score", app = Lab)] pub struct OrderScore { pub id: u64 }
    /// # fn score_it(e: OrderPlaced) -> OrderScore { OrderScore { id: e.id } }
    /// # async fn score(_: OrderScore, _: TaskCx<OrderScore>) -> Outcome { Ok(()) }
    /// let service = Service::<Lab>::new().on_with(score_it, |p| p.prototype().concurrency(1)).task(score, |p| p);
    /// assert!(service.manifest().reactions[0].prototype);
    /// ```
    #[must_use]
    pub fn prototype(mut self) -> Self {
        self.prototype = true;
        self
    }

    pub(crate) fn resolve(&self, event: &str, problems: &mut Vec<String>) -> Resolved {
        let mut problem = |text: String| problems.push(format!("reaction to `{event}`: {text}"));
        let (concurrency, prefetch) = self.common.numbers(&mut problem);
        Resolved {
            concurrency,
            prefetch,
            rate: self.common.rate,
            dedup: self.common.dedup.unwrap_or(true),
            timeout: None,
            recovery_timeout: DEFAULT_TIMEOUT,
            retry: None,
            breaker: None,
            depends_on: None,
            blocking: false,
        }
    }
}

impl Common {
    /// Concurrency and prefetch, checked.
    fn numbers(&self, problem: &mut impl FnMut(String)) -> (u32, u32) {
        if self.concurrency == Some(0) {
            problem("`concurrency` is 0, so that no handler would ever run: the least is 1; to stop it for a while, pause the queue".into());
        }
        let concurrency = self.concurrency.unwrap_or_else(default_concurrency).max(1);
        match self.prefetch {
            Some(0) => {
                problem("`prefetch` is 0, which on a broker means no limit at all: the least is 1".into());
            }
            Some(more) if more > 65_535 => {
                problem(format!("`prefetch` is {more}: the protocol's most is 65535"));
            }
            _ => {}
        }
        if let Some(rate) = self.rate
            && let Err(error) = rate.validate()
        {
            problem(error.to_string());
        }
        (concurrency, self.prefetch.unwrap_or_else(|| default_prefetch(concurrency)).clamp(1, 65_535))
    }
}

fn npm_backoff(npm: &NpmFallbacks) -> Backoff {
    if npm.min_delay.is_none() && npm.max_delay.is_none() {
        return Backoff::default();
    }
    // In the npm package 0, like nothing, means 1 ms for the shortest delay and no limit for the longest.
    let min = npm.min_delay.filter(|min| !min.is_zero()).unwrap_or(Duration::from_millis(1));
    let longest = Duration::from_secs(365 * 86_400);
    Backoff::exponential(min).max(npm.max_delay.filter(|max| !max.is_zero()).unwrap_or(longest).max(min))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npm(variables: &[(&str, &str)]) -> Result<NpmFallbacks, String> {
        NpmFallbacks::from_env(|name| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_npm_packages_variables_keep_their_meaning() {
        let fallbacks = npm(&[
            ("WORKER_MAX_NUM_RETRIES", "3"),
            ("WORKER_MIN_RETRY_DELAY", "100"),
            ("WORKER_MAX_RETRY_DELAY", "5000"),
            ("WORKER_TIMEOUT", "2000"),
        ]);
        let fallbacks = fallbacks.unwrap();
        assert_eq!(fallbacks.max_runs, Some(3), "runs in all, not retries");
        assert_eq!(
            npm_backoff(&fallbacks),
            Backoff::exponential(Duration::from_millis(100)).max(Duration::from_secs(5))
        );
        assert_eq!(fallbacks.timeout, Some(Duration::from_secs(2)));
        assert_eq!(npm_backoff(&npm(&[]).unwrap()), Backoff::default());
        let unlimited = npm_backoff(&npm(&[("WORKER_MAX_RETRY_DELAY", "0")]).unwrap());
        assert!(unlimited.longest() > Duration::from_secs(300 * 86_400), "0 means no limit");
    }

    #[test]
    fn a_variable_that_is_no_number_is_named() {
        let problem = npm(&[("WORKER_TIMEOUT", "soon")]).unwrap_err();
        assert!(problem.contains("WORKER_TIMEOUT") && problem.contains("soon"), "{problem}");
    }
}
