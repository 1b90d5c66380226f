//! Counters and histograms by their labels, and how many series a process may have.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ponos_core::id::{Tid, Timestamp};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::exemplar::{CounterWithExemplar, HistogramWithExemplars};
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::names::Metric;

/// What a name becomes when there are too many series.
pub(super) const OTHER: &str = "_other";

/// Labels whose values are names, of which there could be too many. The values of the others are words of Ponos.
const NAMES: [&str; 5] = ["name", "queue", "circuit", "limit", "messaging_destination_name"];

/// A label's value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Word(&'static str),
    Name(Arc<str>),
}

impl Value {
    fn as_str(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Name(name) => name,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<&Arc<str>> for Value {
    fn from(name: &Arc<str>) -> Self {
        Self::Name(Arc::clone(name))
    }
}

/// The labels of one series, in the order of its metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Labels(Vec<(&'static str, Value)>);

impl Labels {
    pub(super) fn of<const N: usize>(metric: &Metric, values: [Value; N]) -> Self {
        debug_assert_eq!(metric.labels.len(), N, "{}", metric.name);
        Self(metric.labels.iter().copied().zip(values).collect())
    }

    /// The same, of names that had no place.
    fn of_others(&self) -> Self {
        let other = |(label, value): &(&'static str, Value)| {
            let value = if NAMES.contains(label) { OTHER.into() } else { value.clone() };
            (*label, value)
        };
        Self(self.0.iter().map(other).collect())
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.iter().try_for_each(|(label, value)| (*label, value.as_str()).encode(encoder.encode_label()))
    }
}

/// The transaction that an exemplar names: its W3C trace id.
#[derive(Debug, Clone)]
pub(super) struct Trace([u8; 16]);

impl EncodeLabelSet for Trace {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let hex = format!("{:032x}", u128::from_be_bytes(self.0));
        ("trace_id", hex.as_str()).encode(encoder.encode_label())
    }
}

/// An example of what was counted. A foreign transaction id is none: it is a text that a peer chose.
pub(super) struct Example(Option<Trace>, SystemTime);

impl Example {
    pub(super) fn of(tid: &Tid, at: Timestamp) -> Self {
        Self(tid.uuid_bytes().copied().map(Trace), UNIX_EPOCH + Duration::from_millis(at.as_millis()))
    }

    pub(super) const fn none() -> Self {
        Self(None, UNIX_EPOCH)
    }

    fn parts(&self) -> (Option<Trace>, Option<SystemTime>) {
        (self.0.clone(), self.0.is_some().then_some(self.1))
    }
}

/// How many series there may be.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicUsize,
    most: usize,
    warned: AtomicBool,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), most, warned: AtomicBool::new(false) })
    }

    /// Takes places for a series of so many lines, if they are free.
    pub(super) fn take(&self, lines: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(lines).filter(|taken| *taken <= self.most);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if !taken && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                series = self.most,
                "too many metric series: further names are counted as `_other`; raise the bound with `Observe::max_series`"
            );
        }
        taken
    }
}

/// The metrics of one name.
#[derive(Debug)]
struct Series<M> {
    family: Family<Labels, M, fn() -> M>,
    /// How many lines each label set has.
    lines: usize,
    places: Arc<Places>,
}

impl<M: Clone> Series<M> {
    /// Does something to the metric with these labels, or to that of the others.
    fn with(&self, labels: &Labels, act: impl FnOnce(&M)) {
        if let Some(metric) = self.family.get(labels) {
            return act(&metric);
        }
        if self.places.take(self.lines) {
            act(&self.family.get_or_create(labels));
        } else {
            act(&self.family.get_or_create(&labels.of_others()));
        }
    }
}

/// Counters of one name.
#[derive(Debug)]
pub(super) struct Counters(Series<CounterWithExemplar<Trace>>, Metric);

impl Counters {
    pub(super) fn register(registry: &mut Registry, metric: Metric, places: &Arc<Places>) -> Self {
        let family = Family::<Labels, CounterWithExemplar<Trace>>::default();
        register(registry, metric, family.clone());
        Self(Series { family, lines: 1, places: Arc::clone(places) }, metric)
    }

    pub(super) fn count<const N: usize>(&self, values: [Value; N], example: &Example) {
        let (trace, at) = example.parts();
        self.0.with(&Labels::of(&self.1, values), |counter| {
            counter.inc_by(1, trace, at);
        });
    }
}

/// Histograms of one name.
#[derive(Debug)]
pub(super) struct Histograms(Series<HistogramWithExemplars<Trace>>, Metric);

impl Histograms {
    pub(super) fn register(
        registry: &mut Registry,
        metric: Metric,
        make: fn() -> HistogramWithExemplars<Trace>,
        buckets: &[f64],
        places: &Arc<Places>,
    ) -> Self {
        let family: Family<Labels, HistogramWithExemplars<Trace>> = Family::new_with_constructor(make);
        register(registry, metric, family.clone());
        // Its buckets, that without a bound, the sum and the count.
        let lines = buckets.len() + 3;
        Self(Series { family, lines, places: Arc::clone(places) }, metric)
    }

    pub(super) fn observe<const N: usize>(&self, values: [Value; N], value: f64, example: &Example) {
        let (trace, at) = example.parts();
        self.0.with(&Labels::of(&self.1, values), |histogram| histogram.observe(value, trace, at));
    }
}

fn register(registry: &mut Registry, metric: Metric, family: impl prometheus_client::registry::Metric) {
    if metric.is_in_seconds() {
        registry.register_with_unit(metric.stem(), metric.help, Unit::Seconds, family);
    } else {
        registry.register(metric.stem(), metric.help, family);
    }
}

/// What was counted before in each of several rows, for counters that are read from elsewhere and must not fall.
#[derive(Debug, Default)]
pub(super) struct Highest(BTreeMap<&'static str, u64>);

impl Highest {
    pub(super) fn of(&mut self, row: &'static str, now: u64) -> u64 {
        let highest = self.0.entry(row).or_insert(0);
        *highest = now.max(*highest);
        *highest
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::OUTCOMES;
    use super::*;

    #[test]
    fn names_that_have_no_place_are_counted_together_and_words_stay_apart() {
        let mut registry = Registry::default();
        let places = Places::new(2);
        let outcomes = Counters::register(&mut registry, OUTCOMES, &places);
        for name in ["a", "b", "c", "d", "a"] {
            let name: Arc<str> = name.into();
            for outcome in ["ok", "retry"] {
                outcomes.count([(&name).into(), (&name).into(), outcome.into()], &Example::none());
            }
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "ponos_outcomes_total{name=\"a\",queue=\"a\",outcome=\"ok\"} 2\n",
            "ponos_outcomes_total{name=\"_other\",queue=\"_other\",outcome=\"ok\"} 3\n",
            "ponos_outcomes_total{name=\"_other\",queue=\"_other\",outcome=\"retry\"} 3\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("\"b\""), "{text}");
    }
}
