//! A manifest of somebody else's making, and everything that tools make of it.

use std::time::Duration;

use ponos_core::manifest::Manifest;
use ponos_core::name::QueueName;
use ponos_rabbitmq::QueueType;
use ponos_rabbitmq::diff::{Diff, Found};
use ponos_rabbitmq::permissions::Permissions;
use ponos_rabbitmq::policies;
use ponos_rabbitmq::topology::Plan;

/// The input is the manifest's text.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let manifest = match Manifest::from_json(text) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let written = manifest.to_json();
    assert_eq!(Manifest::from_json(&written).expect("what was written is read"), manifest);
    assert!(manifest.effective_hop_limit() > 0);
    let (Ok(emitted), Ok(topology)) = (manifest.emitted(), manifest.topology()) else {
        return;
    };
    let app = topology.app.clone().expect("a manifest has one");
    assert!(emitted.iter().all(|event| topology.events.contains(event)));
    for queue in topology.tasks.iter().chain(topology.subscriptions.iter().map(|(queue, _)| queue)) {
        assert_eq!(queue.app(), app);
        assert_eq!(&QueueName::parse(queue.as_str()).expect("it is a queue's name"), queue);
    }
    for queue_type in [QueueType::Quorum, QueueType::Classic] {
        let plan = Plan::service(&topology, queue_type);
        let diff = Diff::of(&plan, &Plan::on_demand(&app), &Found::default(), std::slice::from_ref(&app));
        assert_eq!(diff.missing().count() > 0, !plan.exchanges.is_empty() || !plan.queues.is_empty());
        let held: Vec<_> = manifest
            .tasks
            .iter()
            .filter_map(|task| {
                let timeout = Duration::from_millis(task.policy.timeout_ms?);
                let held = policies::held_for(timeout, task.policy.prefetch, task.policy.concurrency);
                Some((QueueName::parse(&task.queue).ok()?, held))
            })
            .collect();
        for policy in policies::of(&app, &topology, queue_type, &held) {
            assert!(serde_json::from_str::<serde_json::Value>(&policy.definition).is_ok(), "{policy:?}");
            assert!(policy.command("/").starts_with("rabbitmqctl "));
        }
    }
    let permissions = Permissions::of(&app, &topology, &emitted);
    assert!(permissions.configure.starts_with("^(") && permissions.configure.ends_with(")$"));
}
