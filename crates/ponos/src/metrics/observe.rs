//! What a service shows of itself, and where.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ponos_core::manifest::Manifest;
use ponos_core::name::QueueName;

use super::gauges::{LINES_PER_CIRCUIT, LINES_PER_QUEUE};
use super::meter::{Meter, Origin, QueueNames};

/// The variable of the environment that says where metrics and health are served, for every service of the process:
/// an address such as `0.0.0.0:9464`, or `off`. It goes before what the service says.
pub const METRICS_ADDR_VARIABLE: &str = "PONOS_METRICS_ADDR";

/// Where metrics and health are served unless somebody says otherwise: to this machine only.
pub const DEFAULT_METRICS_ADDR: &str = "127.0.0.1:9464";

/// For how long nothing comes before a queue that holds something is said to be stalled.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// How many series a process has at most.
const MAX_SERIES: usize = 2000;

/// What a service shows of itself: [`Service::observe`](crate::Service::observe).
///
/// ```
/// # use ponos::prelude::*;
/// # #[app("shop")] pub struct Shop;
/// use ponos::metrics::Observe;
///
/// let service = Service::<Shop>::new().observe(Observe::at("0.0.0.0:9464"));
/// ```
#[derive(Debug, Clone)]
#[must_use = "a service shows nothing until it is given to `observe`"]
pub struct Observe {
    /// As it was given; `None` for no listener.
    addr: Option<String>,
    pub(super) stalled_after: Duration,
    pub(super) fail_live_after: Option<Duration>,
    pub(super) max_series: usize,
    pub(super) revision: String,
}

impl Default for Observe {
    /// At [`DEFAULT_METRICS_ADDR`].
    fn default() -> Self {
        Self::at(DEFAULT_METRICS_ADDR)
    }
}

impl Observe {
    /// Serves `/metrics` and health at this IP address and port; port 0 is any that is free.
    ///
    /// There is no authentication: name an address that only Prometheus and Kubernetes reach.
    pub fn at(addr: impl Into<String>) -> Self {
        Self {
            addr: Some(addr.into()),
            stalled_after: STALLED_AFTER,
            fail_live_after: None,
            max_series: MAX_SERIES,
            revision: String::new(),
        }
    }

    /// Serves nothing, for a process with an HTTP server of its own: see
    /// [`Running::metrics_text`](crate::Running::metrics_text) and [`Running::health`](crate::Running::health).
    pub fn without_listener() -> Self {
        Self { addr: None, ..Self::default() }
    }

    /// After how long without a delivery a queue that holds something counts as stalled. Default: 60 s.
    pub fn stalled_after(mut self, time: Duration) -> Self {
        self.stalled_after = time.max(Duration::from_millis(100));
        self
    }

    /// Fails `/livez` when a queue could not be subscribed to for this long, so that the process is started anew.
    /// Default: never, because a broker that is away does not come back by a restart of its users.
    pub fn fail_live_after_consumer_down(mut self, time: Duration) -> Self {
        self.fail_live_after = Some(time);
        self
    }

    /// How many series there are at most; names beyond are counted together, as `_other`. Default: 2,000.
    ///
    /// A queue has about eighty, most of them buckets of histograms.
    pub fn max_series(mut self, series: usize) -> Self {
        self.max_series = series;
        self
    }

    /// The source's revision for `ponos_build_info`, beside the [version](crate::Service::version).
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }

    /// What the environment makes of what a service says.
    pub(crate) fn or_env(said: Option<Self>, env: Option<String>) -> Option<Self> {
        match env.as_deref().map(str::trim) {
            None | Some("") => said,
            Some("off") => None,
            Some(addr) => Some(Self { addr: Some(addr.to_owned()), ..said.unwrap_or_default() }),
        }
    }

    /// The counters of a service with this manifest, on the broker of this name.
    pub(crate) fn meter(&self, manifest: &Manifest, broker: &str) -> Meter {
        let reactions = manifest.reactions.iter().map(|reaction| (&reaction.queue, &reaction.event));
        let tasks = manifest.tasks.iter().map(|task| (&task.queue, &task.name));
        let queues: BTreeMap<_, _> = reactions
            .chain(tasks)
            .filter_map(|(queue, name)| {
                let key = QueueName::parse(queue).ok()?;
                Some((key, QueueNames { queue: queue.as_str().into(), name: name.as_str().into() }))
            })
            .collect();
        // Gauges have their places first: there is one of each kind for each queue.
        let gauges = queues.len() * (LINES_PER_QUEUE + LINES_PER_CIRCUIT);
        let places = self.max_series.saturating_sub(gauges);
        Meter::new(&manifest.app, Origin::of(broker), queues, places)
    }

    /// Where to listen, or what is wrong with that.
    pub(crate) fn listens_at(&self) -> Result<Option<SocketAddr>, String> {
        let parse = |addr: &String| {
            addr.parse().map_err(|_| {
                format!(
                    "metrics cannot be served at `{}`: name an IP address and a port, such as `{DEFAULT_METRICS_ADDR}`, with `Observe::at` or `{METRICS_ADDR_VARIABLE}`",
                    addr.escape_debug()
                )
            })
        };
        self.addr.as_ref().map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_goes_before_the_service_and_can_say_off() {
        let at = |said: Option<Observe>, env: Option<&str>| {
            Observe::or_env(said, env.map(Into::into)).map(|observe| observe.listens_at())
        };
        let port = |addr: Option<Result<Option<SocketAddr>, String>>| addr.unwrap().unwrap().unwrap().port();
        assert!(at(None, None).is_none());
        assert_eq!(port(at(Some(Observe::default()), Some(""))), 9464);
        assert_eq!(port(at(Some(Observe::at("127.0.0.1:1")), Some("0.0.0.0:2"))), 2);
        assert_eq!(port(at(None, Some(" [::1]:3 "))), 3);
        assert!(at(Some(Observe::default()), Some("off")).is_none());
        assert!(at(Some(Observe::without_listener()), None).unwrap().unwrap().is_none());
        let problem = at(None, Some("localhost")).unwrap().unwrap_err();
        assert!(problem.contains("`localhost`") && problem.contains("PONOS_METRICS_ADDR"), "{problem}");
    }
}
