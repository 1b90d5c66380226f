//! Figures by name and queue, and the edges of the map that they make.

use std::collections::BTreeMap;
use std::sync::Arc;

use ponos_core::id::Timestamp;

use crate::database::{sql, unsql};
use crate::error::ReadModelError;
use crate::facts::app_of;
use crate::read_model::ReadModel;
use crate::rollup::{QUEUE_COLUMNS, QueueCounts, hour};

/// An event or a task, who publishes it, and what its queues do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameFigures {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is an event.
    pub event: bool,
    /// Who published it.
    pub sources: Vec<SourceFigures>,
    /// What became of it, by queue.
    pub queues: Vec<(Arc<str>, QueueCounts)>,
}

/// Somebody who publishes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SourceFigures {
    /// The queue of the handler, or the application; `None` where neither is known.
    pub from: Option<Arc<str>>,
    /// Messages that the broker took.
    pub published: u64,
    /// Messages that it did not take, or of which nobody knows.
    pub unpublished: u64,
    /// Into how many queues they went, summed up.
    pub copies: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// A line of the map: somebody publishes a name, and a queue takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edge {
    /// The queue of the handler that publishes, or the application; `None` where neither is known.
    pub from: Option<Arc<str>>,
    /// The event or the task.
    pub name: Arc<str>,
    /// Whether it is an event.
    pub event: bool,
    /// The queue; `None` where nobody was seen to take it.
    pub to: Option<Arc<str>>,
    /// How many messages `from` published.
    pub published: u64,
    /// How many jobs of the queue have ended, whoever published them.
    pub jobs: u64,
    /// How many of those failed.
    pub failed: u64,
}

impl Edge {
    /// Which share of the queue's jobs failed.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn failed_share(&self) -> f64 {
        if self.jobs == 0 { 0.0 } else { self.failed as f64 / self.jobs as f64 }
    }
}

impl ReadModel {
    /// What was published and what became of it, by name, from the hour of this time on.
    ///
    /// An attempt's record names its queue. A task's queue has its name; `{app}.{event}` is that event's, whether its
    /// publishing was seen or not.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn names(&self, since: Timestamp) -> Result<Vec<NameFigures>, ReadModelError> {
        let from = sql(hour(since.as_millis()));
        let mut names: BTreeMap<(Arc<str>, bool), NameFigures> = BTreeMap::new();
        let entry = |name: Arc<str>, event: bool| NameFigures {
            name,
            event,
            sources: Vec::new(),
            queues: Vec::new(),
        };
        for (name, event, source) in self.sources_since(from)? {
            let figures = names.entry((Arc::clone(&name), event)).or_insert_with(|| entry(name, event));
            figures.sources.push(source);
        }
        for (queue, counts) in self.queues(since)? {
            let rest = queue.get(app_of(&queue).len() + 1..).unwrap_or_default();
            let (event, name): (bool, Arc<str>) = if names.contains_key(&(Arc::clone(&queue), false)) {
                (false, Arc::clone(&queue))
            } else if names.contains_key(&(rest.into(), true))
                || ponos_core::name::EventName::parse(rest).is_ok()
            {
                (true, rest.into())
            } else {
                (false, Arc::clone(&queue))
            };
            let figures = names.entry((Arc::clone(&name), event)).or_insert_with(|| entry(name, event));
            figures.queues.push((queue, counts));
        }
        Ok(names.into_values().collect())
    }

    /// What queues did, by name, from the hour of this time on.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn queues(&self, since: Timestamp) -> Result<Vec<(Arc<str>, QueueCounts)>, ReadModelError> {
        let from = sql(hour(since.as_millis()));
        let mut queues: BTreeMap<Arc<str>, QueueCounts> = BTreeMap::new();
        self.on_central(|central| {
            let query = format!("SELECT queue, {QUEUE_COLUMNS} FROM queue_hour WHERE hour >= ?1");
            let mut statement = central.connection.prepare_cached(&query)?;
            let mut rows = statement.query([from])?;
            while let Some(row) = rows.next()? {
                let queue: Arc<str> = row.get::<_, String>(0)?.into();
                queues.entry(queue).or_default().merge(&QueueCounts::read(row, 1)?);
            }
            Ok(())
        })?;
        Ok(queues.into_iter().collect())
    }

    /// The map: who publishes what, and who takes it, from the hour of this time on.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn edges(&self, since: Timestamp) -> Result<Vec<Edge>, ReadModelError> {
        let mut edges = Vec::new();
        for mut figures in self.names(since)? {
            if figures.sources.is_empty() {
                figures.sources.push(SourceFigures::default());
            }
            for source in &figures.sources {
                let edge = |to: Option<&(Arc<str>, QueueCounts)>| Edge {
                    from: source.from.clone(),
                    name: Arc::clone(&figures.name),
                    event: figures.event,
                    to: to.map(|(queue, _)| Arc::clone(queue)),
                    published: source.published,
                    jobs: to.map_or(0, |(_, counts)| counts.jobs()),
                    failed: to.map_or(0, |(_, counts)| counts.failed),
                };
                if figures.queues.is_empty() {
                    edges.push(edge(None));
                }
                edges.extend(figures.queues.iter().map(|queue| edge(Some(queue))));
            }
        }
        Ok(edges)
    }

    fn sources_since(&self, hour: i64) -> Result<Vec<(Arc<str>, bool, SourceFigures)>, ReadModelError> {
        self.on_central(|central| {
            let query = "SELECT name, event, source, sum(published), sum(unpublished), sum(copies), sum(bytes)
                         FROM name_hour WHERE hour >= ?1 GROUP BY name, event, source ORDER BY name, event, source";
            let mut statement = central.connection.prepare_cached(query)?;
            let rows = statement.query_map([hour], |row| {
                let source: String = row.get(2)?;
                let figures = SourceFigures {
                    from: (!source.is_empty()).then(|| source.into()),
                    published: unsql(row.get(3)?),
                    unpublished: unsql(row.get(4)?),
                    copies: unsql(row.get(5)?),
                    bytes: unsql(row.get(6)?),
                };
                Ok((row.get::<_, String>(0)?.into(), row.get(1)?, figures))
            })?;
            rows.collect()
        })
    }
}
