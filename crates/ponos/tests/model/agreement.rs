//! Looking at a broker: whether it shows what the reference has.

use std::time::Duration;

use ponos::core::broker::{Inspect, QueueStats};
use ponos::core::envelope::Envelope;
use ponos::core::id::Timestamp;
use ponos::core::name::QueueName;

use super::driver::{Agreed, Driver, Subject, ensure};
use super::reference::Entry;

/// How often is looked at what must come to something.
const LOOK: Duration = Duration::from_millis(2);

/// More than any queue of a run has.
const ALL: usize = 100_000;

impl<S: Subject> Driver<'_, S> {
    /// The figures of all queues are what they must be, at once or soon.
    pub async fn agree(&mut self) -> Agreed {
        self.resolve().await?;
        let deadline = tokio::time::Instant::now() + self.waits();
        loop {
            let before = self.subject.now();
            let shown = self.figures().await?;
            let Err(why) = self.compare(&shown, before) else { return Ok(()) };
            // What is dropped returns in the background; a call that has returned has done its work.
            ensure!(tokio::time::Instant::now() < deadline, "{why}");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn figures(&self) -> Agreed<Vec<QueueStats>> {
        let broker = &self.handles[self.handles.len() - 1];
        let mut shown = Vec::new();
        if self.model.promises.shows_all {
            let all = self.insisting("figures", || broker.inspect(Inspect::Queues(None))).await?;
            shown.extend(all.into_queues());
        } else {
            for queue in self.model.queues.keys() {
                let one = || broker.inspect(Inspect::Queue(queue.clone()));
                shown.extend(self.insisting("figures", one).await?.into_queues());
            }
        }
        Ok(shown)
    }

    fn compare(&self, shown: &[QueueStats], before: Timestamp) -> Agreed {
        for queue in self.model.queues.keys() {
            let stats = shown.iter().find(|stats| stats.queue == *queue);
            let Some(stats) = stats else { return Err(format!("`{queue}` is not there")) };
            let (least, most) =
                (self.model.figures(queue, before), self.model.figures(queue, self.subject.now()));
            let ready = usize::try_from(stats.ready).unwrap();
            let (Some(delayed), Some(held)) = (stats.delayed, stats.unsettled) else {
                let range = least.ready.saturating_sub(least.unseen)..=most.maybe_ready;
                ensure!(range.contains(&ready), "`{queue}` has {ready} ready and not {range:?}");
                continue;
            };
            let (delayed, held) = (usize::try_from(delayed).unwrap(), usize::try_from(held).unwrap());
            let all = least.ready + least.delayed + least.held;
            let agrees = ready + delayed + held == all
                && (least.held..=least.held + least.unseen.min(most.ready)).contains(&held)
                && (least.ready..=most.ready).contains(&(ready + held - least.held));
            ensure!(agrees, "`{queue}` has {ready} ready, {delayed} delayed, {held} held and not {least:?}");
            let consumers = self.model.consumers.values().filter(|open| open.queue == *queue).count();
            ensure!(
                stats.consumers as usize == consumers,
                "`{queue}`: {} of {consumers} consumers",
                stats.consumers
            );
        }
        Ok(())
    }

    /// Whether nothing of a queue is ready at the broker.
    pub async fn is_empty(&self, queue: &QueueName) -> Agreed<bool> {
        let broker = &self.handles[0];
        let stats = self.insisting("figures", || broker.inspect(Inspect::Queue(queue.clone()))).await?;
        Ok(stats.into_queues().iter().all(|stats| stats.ready == 0))
    }

    /// Looks what there is of that which nobody could tell, where all is shown.
    pub async fn resolve(&mut self) -> Agreed {
        if !self.model.promises.shows_all {
            return Ok(());
        }
        let unsure = self.model.queues.iter().filter(|(_, entries)| entries.iter().any(|e| !e.sure));
        for queue in unsure.map(|(queue, _)| queue.clone()).collect::<Vec<_>>() {
            let mut shown = self.page(0, &queue, ALL, None).await?;
            let mut take = |entry: &Entry| {
                let at = shown.iter().position(|envelope| *envelope == entry.envelope);
                at.map(|at| shown.swap_remove(at)).is_some()
            };
            let entries = self.model.queues.get_mut(&queue).expect("it exists");
            for entry in entries.iter().filter(|entry| entry.sure) {
                ensure!(take(entry), "`{queue}` has lost {:?}", entry.envelope);
            }
            entries.retain_mut(|entry| {
                entry.sure = entry.sure || take(entry);
                entry.sure
            });
            ensure!(shown.is_empty(), "`{queue}` has what nobody sent: {shown:?}");
        }
        let is_there = |key| self.model.queues.values().flatten().any(|entry| entry.key == key);
        for (one, other) in &self.model.either {
            ensure!(is_there(*one) || is_there(*other), "a message was lost while it was settled");
        }
        self.model.either.clear();
        Ok(())
    }

    async fn page(
        &self,
        by: u8,
        queue: &QueueName,
        limit: usize,
        after: Option<&Envelope>,
    ) -> Agreed<Vec<Envelope>> {
        let broker = &self.handles[usize::from(by)];
        let query = Inspect::Messages { queue: queue.clone(), limit, after: after.map(|last| last.id) };
        Ok(self.insisting("look", || broker.inspect(query.clone())).await?.into_messages())
    }

    /// Pages show each message once, as it is.
    pub async fn look(&mut self, by: u8, queue: &QueueName, page: usize) -> Agreed {
        if !self.model.promises.shows_all {
            return self.look_into(by, queue).await;
        }
        let entries = &self.model.queues[queue];
        let mut ids: Vec<_> = entries.iter().map(|entry| entry.envelope.id).collect();
        ids.sort();
        let mut left: Vec<_> = entries.iter().map(|entry| entry.envelope.clone()).collect();
        // A page after a message of which there are two begins after one of them.
        let limit = if ids.windows(2).any(|two| two[0] == two[1]) { ALL } else { page };
        let mut last = None;
        loop {
            let shown = self.page(by, queue, limit, last.as_ref()).await?;
            ensure!(shown.len() <= limit, "a page of {limit} has {}", shown.len());
            for envelope in &shown {
                let at = left.iter().position(|known| known == envelope);
                let Some(at) = at else {
                    return Err(format!("`{queue}` shows {envelope:?} and has {left:?}"));
                };
                left.swap_remove(at);
            }
            last = shown.last().cloned();
            if shown.len() < limit {
                break;
            }
        }
        ensure!(left.is_empty(), "`{queue}` does not show {left:?}");
        Ok(())
    }

    /// The same where only what is ready is shown, and looking takes it out for a moment.
    async fn look_into(&mut self, by: u8, queue: &QueueName) -> Agreed {
        if self.model.consumers.values().any(|consumer| consumer.queue == *queue) {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            let shown = self.page(by, queue, ALL, None).await?;
            // Handed back, they are at no promised place.
            self.model
                .queues
                .get_mut(queue)
                .expect("it exists")
                .iter_mut()
                .for_each(|entry| entry.place = None);
            let entries = &self.model.queues[queue];
            for envelope in &shown {
                let is_known = entries.iter().any(|entry| entry.envelope == *envelope);
                ensure!(is_known, "`{queue}` shows {envelope:?} and has {entries:?}");
            }
            let now = self.subject.now();
            let missing = entries.iter().find(|e| e.sure && e.is_ready(now) && !shown.contains(&e.envelope));
            let Some(missing) = missing else { return Ok(()) };
            ensure!(tokio::time::Instant::now() < deadline, "`{queue}` does not show {missing:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}
