//! What the checks look at: one look at the queues, and the read model.

use std::sync::Arc;

use ponos::core::id::Timestamp;
use ponos::core::journal::Origin;
use ponos::core::manifest::Manifest;
use ponos_readmodel::{Instance, ReadModelError};

use crate::queues::Look;
use crate::view::View;

/// A system that runs.
#[derive(Debug)]
pub(super) struct Patient<'a> {
    pub(super) now: Timestamp,
    pub(super) look: &'a Look,
    /// What happened, as the records tell.
    pub(super) past: Option<Past<'a>>,
    pub(super) rabbitmq: bool,
}

/// What the records tell of the services.
#[derive(Debug)]
pub(super) struct Past<'a> {
    pub(super) view: &'a View,
    /// All that are known, the ended ones too.
    pub(super) instances: Vec<Instance>,
    pub(super) manifests: Vec<Known>,
}

/// What a version of an application said that it is.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) origin: Arc<Origin>,
    pub(super) manifest: Manifest,
}

impl<'a> Past<'a> {
    /// Reads what is known of instances and versions.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub(super) fn of(view: &'a View) -> Result<Self, ReadModelError> {
        let manifests = view.model.manifests()?.into_iter().filter_map(|known| {
            // What a later version wrote is for its tools.
            let manifest = Manifest::from_json(&known.text).ok()?;
            Some(Known { origin: known.origin, manifest })
        });
        Ok(Self { view, instances: view.model.instances()?, manifests: manifests.collect() })
    }

    /// The instances that are at work.
    pub(super) fn alive(&self, now: Timestamp) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |it| it.ended.is_none() && it.beat.is_some() && !it.is_silent(now))
    }

    /// The manifests of versions that are at work; where none is known to be, the newest of each application.
    pub(super) fn current(&self, now: Timestamp) -> Vec<&Known> {
        let mut current: Vec<&Known> = Vec::new();
        for (place, known) in self.manifests.iter().enumerate() {
            let runs = self
                .alive(now)
                .any(|it| it.origin.app == known.origin.app && it.origin.version == known.origin.version);
            let newest = place == 0 || self.manifests[place - 1].origin.app != known.origin.app;
            if runs || newest {
                current.push(known);
            }
        }
        current
    }
}
