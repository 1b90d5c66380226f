//! Metrics for Prometheus and health for Kubernetes: [`Service::observe`](crate::Service::observe).
//!
//! Counters and histograms are fed where an instance says what happened (`lifecycle.rs`) and nowhere else; gauges are
//! read when somebody asks. Labels hold only what was compiled into the service. Error texts, bodies and ids of
//! transactions are never labels; a transaction is named by the *exemplar* of a counter or of a histogram's bucket.
//!
//! `docs/metrics.md` lists every metric, and says what each health endpoint promises.

mod gauges;
mod health;
mod listener;
mod meter;
mod names;
mod observe;
mod series;
mod text;
mod view;

pub use self::health::{
    CircuitHealth, ConnectionHealth, ConsumerHealth, ConsumerState, Health, HealthStatus,
};
pub use self::names::{COLLECTOR_METRICS, METRICS, Metric, MetricKind};
pub use self::observe::{DEFAULT_METRICS_ADDR, METRICS_ADDR_VARIABLE, Observe};

pub(crate) use self::listener::Listener;
pub(crate) use self::meter::Meter;
pub(crate) use self::view::{Consumer, View};
