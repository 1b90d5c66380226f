//! Gauges: what is so at the moment somebody asks.

use std::fmt;
use std::sync::{Arc, PoisonError};

use ponos_core::journal::CircuitPhase;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::names::{self, Metric, MetricKind};
use super::series::{Labels, Value};
use super::view::{Doing, View};

/// How many lines a queue has in the gauges, and a circuit.
pub(crate) const LINES_PER_QUEUE: usize = 8;
pub(crate) const LINES_PER_CIRCUIT: usize = 3;

/// The gauges of a service, and counters that are kept elsewhere.
#[derive(Debug)]
pub(super) struct Gauges(pub(super) Arc<View>);

impl Collector for Gauges {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Out(encoder);
        self.consumers(&mut out)?;
        self.connections(&mut out)?;
        self.circuits(&mut out)?;
        self.instance(&mut out)
    }
}

impl Gauges {
    fn consumers(&self, out: &mut Out<'_>) -> Result<(), fmt::Error> {
        let queues: Vec<_> = self
            .0
            .consumers
            .iter()
            .map(|consumer| {
                let beat = consumer.vitals.beat();
                let queue: Arc<str> = beat.queue.as_str().into();
                let doing = consumer.doing(&beat);
                (queue, doing, consumer.is_stalled() && doing == Doing::Up, beat)
            })
            .collect();
        let of = |queue: &Arc<str>, value: f64| ([Value::from(queue)], value);
        out.gauge(names::IN_FLIGHT, queues.iter().map(|(queue, .., beat)| of(queue, beat.in_flight.into())))?;
        out.gauge(names::PREFETCH, queues.iter().map(|(queue, .., beat)| of(queue, beat.prefetch.into())))?;
        out.gauge(names::CONSUMER_UP, queues.iter().map(|(queue, .., beat)| of(queue, one(beat.up))))?;
        out.gauge(
            names::CONSUMER_STALLED,
            queues.iter().map(|(queue, _, stalled, _)| of(queue, one(*stalled))),
        )?;
        let last = queues.iter().filter_map(|(queue, .., beat)| {
            beat.last_delivery.map(|at| of(queue, at.as_millis() as f64 / 1000.0))
        });
        out.gauge(names::LAST_DELIVERY, last)?;
        let reasons = [("order", Doing::Paused), ("circuit", Doing::CutOff), ("rate_limit", Doing::Limited)];
        let paused = queues.iter().flat_map(|(queue, doing, ..)| {
            reasons.map(|(kind, reason)| ([queue.into(), kind.into()], one(*doing == reason)))
        });
        out.gauge(names::PAUSED, paused)
    }

    fn connections(&self, out: &mut Out<'_>) -> Result<(), fmt::Error> {
        let links = self.0.broker.links();
        out.gauge(names::CONNECTION_UP, links.iter().map(|link| ([link.role.into()], one(link.up))))?;
        out.gauge(
            names::CONNECTION_BLOCKED,
            links.iter().map(|link| ([link.role.into()], one(link.blocked))),
        )?;
        out.counter(names::RECONNECTS, links.iter().map(|link| ([link.role.into()], link.reconnects)))
    }

    fn circuits(&self, out: &mut Out<'_>) -> Result<(), fmt::Error> {
        let phases = [CircuitPhase::Closed, CircuitPhase::Open, CircuitPhase::HalfOpen];
        let states = self.0.circuits.iter().flat_map(|(name, circuit)| {
            let (name, now): (Arc<str>, _) = (name.as_str().into(), circuit.phase());
            phases.map(|phase| ([Value::from(&name), phase.as_str().into()], one(phase == now)))
        });
        out.gauge(names::CIRCUIT_STATE, states)
    }

    fn instance(&self, out: &mut Out<'_>) -> Result<(), fmt::Error> {
        if let Some(lifecycle) = self.0.local.lifecycle.as_ref().filter(|lifecycle| lifecycle.is_kept()) {
            let (said, dropped) = (lifecycle.said(), lifecycle.dropped());
            let mut highest = self.0.highest.lock().unwrap_or_else(PoisonError::into_inner);
            let rows = [
                (["sent".into()], highest.of("sent", said.saturating_sub(dropped))),
                (["dropped".into()], highest.of("dropped", dropped)),
            ];
            drop(highest);
            out.counter(names::LIFECYCLE_RECORDS, rows)?;
        }
        let version: Arc<str> = self.0.local.version.clone().unwrap_or_else(|| "".into());
        let revision: Arc<str> = self.0.observe.revision.as_str().into();
        out.gauge(names::BUILD_INFO, [([(&version).into(), (&revision).into()], 1.0)])
    }
}

const fn one(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

/// Writes families that have rows.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge<const N: usize>(
        &mut self,
        metric: Metric,
        rows: impl IntoIterator<Item = ([Value; N], f64)>,
    ) -> Result<(), fmt::Error> {
        self.family(metric, rows, |value| ConstGauge::new(*value))
    }

    fn counter<const N: usize>(
        &mut self,
        metric: Metric,
        rows: impl IntoIterator<Item = ([Value; N], u64)>,
    ) -> Result<(), fmt::Error> {
        self.family(metric, rows, |value| ConstCounter::new(*value))
    }

    fn family<const N: usize, V, M: EncodeMetric>(
        &mut self,
        metric: Metric,
        rows: impl IntoIterator<Item = ([Value; N], V)>,
        make: impl Fn(&V) -> M,
    ) -> Result<(), fmt::Error> {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let unit = metric.is_in_seconds().then_some(Unit::Seconds);
        let kind = match metric.kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Histogram => MetricType::Histogram,
        };
        let mut family = self.0.encode_descriptor(metric.stem(), metric.help, unit.as_ref(), kind)?;
        for (values, value) in rows {
            let labels = Labels::of(&metric, values);
            make(&value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
