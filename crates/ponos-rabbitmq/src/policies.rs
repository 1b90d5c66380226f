//! Policies worth setting: what an operator may change while services run, and so is in no declaration.
//!
//! There are few. What a queue must have to keep its jobs is declared; a policy can only take it away (of a `delivery-limit`
//! the smaller one counts), and [`diff`](crate::diff) tells when one does. Two are left:
//!
//! * `consumer-timeout`, where handlers may hold a job for longer than RabbitMQ waits for an acknowledgement;
//! * `max-length-bytes` on queues that refuse what is too much, so that one backlog does not fill the disk of all. It is an
//!   operator policy, because a queue has one policy of either kind and those are joined. Never on `{app}.failed`, which
//!   would drop its oldest jobs.

use std::time::Duration;

use ponos_core::broker::Topology;
use ponos_core::name::{AppName, QueueName};

use crate::options::QueueType;
use crate::permissions::{escaped, quoted};

/// How long RabbitMQ waits for an acknowledgement: 30 minutes by default, and some for the network.
const ENOUGH: Duration = Duration::from_secs(25 * 60);

/// What a guarded queue may hold. A proposal: it depends on the disk.
pub const GUARD_BYTES: u64 = 10 * 1024 * 1024 * 1024;

/// A policy to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Whether it is an operator policy.
    pub operator: bool,
    /// To which queues it applies, as a regular expression.
    pub pattern: String,
    /// What it sets, as JSON.
    pub definition: String,
    /// What it is good for.
    pub why: String,
}

impl Policy {
    /// The command that sets it.
    #[must_use]
    pub fn command(&self, vhost: &str) -> String {
        let verb = if self.operator { "set_operator_policy" } else { "set_policy" };
        format!(
            "rabbitmqctl {verb} -p {} {} {} {} --apply-to queues",
            quoted(vhost),
            quoted(&self.name),
            quoted(&self.pattern),
            quoted(&self.definition)
        )
    }
}

/// How long a worker may hold a job: those that it holds are worked so many at once, each within its limit.
#[must_use]
pub fn held_for(timeout: Duration, prefetch: u32, concurrency: u32) -> Duration {
    timeout.saturating_mul(prefetch.div_ceil(concurrency.max(1)).max(1))
}

/// The policies worth setting for an application. `held` says for how long its queues' jobs may be held.
#[must_use]
pub fn of(
    app: &AppName,
    topology: &Topology,
    queue_type: QueueType,
    held: &[(QueueName, Duration)],
) -> Vec<Policy> {
    let mut policies = Vec::new();
    for (queue, held) in held.iter().filter(|(_, held)| *held > ENOUGH) {
        // A quarter more, in whole minutes.
        let minutes = held.as_secs().saturating_add(held.as_secs() / 4).div_ceil(60);
        policies.push(Policy {
            name: format!("ponos-{queue}-timeout"),
            operator: false,
            pattern: format!("^{}$", escaped(queue.as_str())),
            definition: format!(r#"{{"consumer-timeout":{}}}"#, minutes.saturating_mul(60_000)),
            why: format!(
                "a worker may hold a job of {queue} for {} minutes (prefetch ÷ concurrency × timeout), RabbitMQ takes it away after 30; needs RabbitMQ 3.12, before that `consumer_timeout` in rabbitmq.conf",
                held.as_secs().div_ceil(60)
            ),
        });
    }
    // Classic queues would drop their oldest jobs.
    if queue_type == QueueType::Quorum {
        let prefix = format!("{app}.");
        let queues = topology.subscriptions.iter().map(|(queue, _)| queue).chain(&topology.tasks);
        let mut names: Vec<String> = queues
            .filter(|queue| !topology.prototypes.contains(queue))
            .filter_map(|queue| queue.as_str().strip_prefix(&prefix))
            .map(escaped)
            .collect();
        names.sort();
        names.push(r"retry\.[0-9]+".to_owned());
        policies.push(Policy {
            name: format!("ponos-{app}-guard"),
            operator: true,
            pattern: format!(r"^{}\.({})$", escaped(app.as_str()), names.join("|")),
            definition: format!(r#"{{"max-length-bytes":{GUARD_BYTES}}}"#),
            why: format!(
                "optional: a backlog of {app} then does not fill the disk; a full queue refuses what is published to it, so who emits an event that it hears waits too. Choose the bytes for your disk"
            ),
        });
    }
    policies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_proposed_where_jobs_may_be_held_for_too_long() {
        let app = AppName::from_checked("unit");
        let short = held_for(Duration::from_secs(60), 64, 8);
        let long = held_for(Duration::from_secs(600), 64, 16);
        assert_eq!((short.as_secs(), long.as_secs()), (480, 2400));
        let held = [
            (QueueName::from_checked("unit.job.do"), short),
            (QueueName::from_checked("unit.film.cut"), long),
        ];
        let topology = Topology {
            app: Some(app.clone()),
            tasks: held.iter().map(|(queue, _)| queue.clone()).collect(),
            ..Topology::default()
        };
        let policies = of(&app, &topology, QueueType::Quorum, &held);
        let commands: Vec<String> = policies.iter().map(|policy| policy.command("/")).collect();
        assert_eq!(
            commands,
            [
                r#"rabbitmqctl set_policy -p / ponos-unit.film.cut-timeout '^unit\.film\.cut$' '{"consumer-timeout":3000000}' --apply-to queues"#,
                r#"rabbitmqctl set_operator_policy -p / ponos-unit-guard '^unit\.(film\.cut|job\.do|retry\.[0-9]+)$' '{"max-length-bytes":10737418240}' --apply-to queues"#,
            ]
        );
        assert!(of(&app, &topology, QueueType::Classic, &[]).is_empty());
    }

    #[test]
    fn a_timeout_without_end_is_no_overflow() {
        let held = held_for(Duration::from_millis(u64::MAX), u32::MAX, 1);
        let queue = QueueName::from_checked("unit.job.do");
        let policies = of(&queue.app(), &Topology::default(), QueueType::Classic, &[(queue, held)]);
        assert_eq!(policies.len(), 1);
    }
}
