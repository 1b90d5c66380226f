//! Which queues there are, also where the broker cannot list them.

use std::collections::BTreeSet;

use ponos::core::broker::{BrokerErrorKind, Inspect, QueueStats};
use ponos::core::manifest::Manifest;
use ponos::core::name::{AppName, QueueName};

use crate::broker::Session;
use crate::error::CliError;
use crate::view::{View, broken};

/// Queues, and what is wrong with the list.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) queues: Vec<QueueStats>,
    /// Why there may be more.
    pub(crate) partly: Option<String>,
}

/// The queues of the broker, or of an application, which must have some. Where the broker cannot list them, those that
/// manifests and beats name are asked for, one by one.
///
/// # Errors
///
/// When the broker does not answer, or can list nothing and nothing is known.
pub(crate) async fn list(
    session: &Session,
    view: Option<&View>,
    app: Option<&AppName>,
) -> Result<Listed, CliError> {
    let error = match session.ask(session.broker().inspect(Inspect::Queues(app.cloned()))).await {
        Ok(answer) => {
            let queues = answer.into_queues();
            return match app.filter(|_| queues.is_empty()) {
                // It says that there is no such application.
                Some(app) => Ok(Listed { queues: session.queues_of(app).await?, partly: None }),
                None => Ok(Listed { queues, partly: None }),
            };
        }
        Err(error) => error,
    };
    let names = match view {
        Some(view) if error.kind() == BrokerErrorKind::Invalid => known(view, app)?,
        _ => BTreeSet::new(),
    };
    if names.is_empty() {
        // As every verb that needs a list says it.
        let queues = session.queues(app).await?;
        return Ok(Listed { queues, partly: None });
    }
    let mut queues = Vec::new();
    for name in names {
        let answer = session.ask(session.broker().inspect(Inspect::Queue(name))).await?;
        queues.extend(answer.into_queues());
    }
    Ok(Listed { queues, partly: Some(error.to_string()) })
}

/// The queues that manifests and beats name, and those that each of their applications has.
fn known(view: &View, app: Option<&AppName>) -> Result<BTreeSet<QueueName>, CliError> {
    let mut names = BTreeSet::new();
    for known in view.model.manifests().map_err(broken)? {
        names.insert(QueueName::failed(&known.origin.app));
        if let Ok(manifest) = Manifest::from_json(&known.text) {
            let reactions = manifest.reactions.iter().map(|reaction| &reaction.queue);
            let queues = reactions.chain(manifest.tasks.iter().map(|task| &task.queue));
            names.extend(queues.filter_map(|queue| QueueName::parse(queue).ok()));
        }
    }
    for instance in view.model.instances().map_err(broken)? {
        let beat = instance.beat.iter().flat_map(|(_, beat)| &beat.queues);
        names.extend(beat.map(|queue| queue.queue.clone()));
    }
    let apps: BTreeSet<AppName> = names.iter().map(QueueName::app).collect();
    for app in &apps {
        names.extend([QueueName::failed(app), QueueName::discarded(app)]);
    }
    names.retain(|name| app.is_none_or(|app| name.app() == *app));
    Ok(names)
}
