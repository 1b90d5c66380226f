//! Health: whether a service lives, is ready, and why not.

use std::time::Duration;

use ponos_core::id::Timestamp;
use ponos_core::journal::CircuitPhase;
use ponos_core::name::QueueName;
use serde::Serialize;

use super::view::{Doing, LATE, View};
use crate::lifecycle::Lifecycle;

/// How a service is: what `/healthz` answers as JSON.
///
/// It holds no bodies, no names of peers and no errors' texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The version of this form: 1.
    pub version: u32,
    /// The application.
    pub app: &'static str,
    /// All in one word.
    pub status: HealthStatus,
    /// Whether the process is to be kept: what `/livez` says. Never the broker's fault.
    pub live: bool,
    /// Whether it works what comes: what `/readyz` says.
    pub ready: bool,
    /// Why it is not live or not ready, in short.
    pub problems: Vec<String>,
    /// Its queues.
    pub consumers: Vec<ConsumerHealth>,
    /// The broker's connections, where it keeps some.
    pub connections: Vec<ConnectionHealth>,
    /// Its circuits.
    pub circuits: Vec<CircuitHealth>,
    /// How many entries of the journal its process has dropped.
    pub lost_records: u64,
}

/// A service's health in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthStatus {
    /// It is live and ready.
    Ok,
    /// Something is missing or stalled.
    Degraded,
    /// It shuts down.
    Draining,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ConsumerHealth {
    /// The queue.
    pub queue: QueueName,
    /// What it does.
    pub state: ConsumerState,
    /// When something was delivered last, in milliseconds since 1970.
    pub last_delivery_ms: Option<u64>,
    /// Jobs that run.
    pub in_flight: u32,
    /// Jobs that were delivered and have not started.
    pub buffered: u32,
    /// Jobs that the process may hold.
    pub prefetch: u32,
    /// For how long the oldest of the jobs that run has run, in milliseconds.
    pub oldest_ms: Option<u64>,
}

/// What a queue's consumer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConsumerState {
    /// It takes what comes.
    Up,
    /// The queue holds something and there is room for it, but nothing is delivered.
    Stalled,
    /// An order stands to take nothing.
    Paused,
    /// Its circuit is open, or its rate limit's next token is far away.
    Resting,
    /// It should be subscribed, and is not.
    Down,
}

/// A connection to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConnectionHealth {
    /// What it is for: `publish` or `consume`.
    pub role: &'static str,
    /// Whether it is there.
    pub up: bool,
    /// Whether the broker takes nothing from it.
    pub blocked: bool,
    /// How often it was restored.
    pub reconnects: u64,
}

/// A circuit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CircuitHealth {
    /// The dependency, or the queue where it depends on nothing named.
    pub circuit: String,
    /// What it is.
    pub state: CircuitPhase,
}

impl Health {
    /// The JSON that `/healthz` answers.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("its keys are strings and it has no floats")
    }
}

impl View {
    /// How the service is now.
    pub(crate) fn health(&self) -> Health {
        let mut problems = Vec::new();
        let draining = self.is_draining();
        // Who drains has deadlines of its own, and its keepers end before the broker is closed.
        let mut live = draining || self.turned_ago() <= LATE;
        if !live {
            problems.push(format!("the event loop has not turned for {} s", self.turned_ago().as_secs()));
        }
        if draining {
            problems.push("shutting down".to_owned());
        }
        let consumers: Vec<_> = self.consumers().collect();
        for (consumer, health) in self.consumers.iter().zip(&consumers) {
            let down_for = consumer.down_for(self.local.clock.now());
            if let (Some(limit), Some(time)) = (self.observe.fail_live_after, down_for)
                && time >= limit
                && !draining
            {
                live = false;
                problems.push(format!("`{}` is not subscribed to for {} s", health.queue, time.as_secs()));
            } else if health.state == ConsumerState::Down && !draining {
                problems.push(format!("`{}` is not subscribed to", health.queue));
            }
        }
        let connections: Vec<_> = self.connections().collect();
        for connection in connections.iter().filter(|connection| !connection.up) {
            problems.push(format!("the connection to {} is down", connection.role));
        }
        let ready = problems.is_empty();
        let stalled = consumers.iter().any(|consumer| consumer.state == ConsumerState::Stalled);
        Health {
            version: 1,
            app: self.app,
            status: match (draining, ready && !stalled) {
                (true, _) => HealthStatus::Draining,
                (false, true) => HealthStatus::Ok,
                (false, false) => HealthStatus::Degraded,
            },
            live,
            ready,
            problems,
            consumers,
            connections,
            circuits: self.circuits().collect(),
            lost_records: self.local.lifecycle.as_ref().map_or(0, Lifecycle::dropped),
        }
    }

    fn consumers(&self) -> impl Iterator<Item = ConsumerHealth> {
        let now = self.local.clock.wall();
        self.consumers.iter().map(move |consumer| {
            let beat = consumer.vitals.beat();
            let state = match consumer.doing(&beat) {
                Doing::Up if consumer.is_stalled() => ConsumerState::Stalled,
                Doing::Up => ConsumerState::Up,
                Doing::Down => ConsumerState::Down,
                Doing::Paused => ConsumerState::Paused,
                Doing::CutOff | Doing::Limited => ConsumerState::Resting,
            };
            let oldest = consumer.vitals.flights().into_iter().map(|flight| flight.started).min();
            ConsumerHealth {
                state,
                last_delivery_ms: beat.last_delivery.map(Timestamp::as_millis),
                in_flight: beat.in_flight,
                buffered: beat.buffered,
                prefetch: beat.prefetch,
                oldest_ms: oldest.map(|started| millis(now.since(started))),
                queue: beat.queue,
            }
        })
    }

    fn connections(&self) -> impl Iterator<Item = ConnectionHealth> {
        self.broker.links().into_iter().map(|link| ConnectionHealth {
            role: link.role,
            up: link.up,
            blocked: link.blocked,
            reconnects: link.reconnects,
        })
    }

    fn circuits(&self) -> impl Iterator<Item = CircuitHealth> {
        self.circuits
            .iter()
            .map(|(name, circuit)| CircuitHealth { circuit: name.clone(), state: circuit.phase() })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
