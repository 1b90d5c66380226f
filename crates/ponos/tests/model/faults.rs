//! Steps in which something breaks: connections, processes, leases, handles that are closed.

use std::future::poll_fn;

use ponos::core::name::QueueName;

use super::super::reference::Entry;
use super::{Agreed, Driver, Severed, Subject, ensure};

impl<S: Subject> Driver<'_, S> {
    pub(super) async fn crash(&mut self, at: u8, take: usize) -> Agreed {
        let (handle, queue) = (usize::from(at) % 2, self.queue(at));
        let gone: Vec<u64> = match self.subject.sever(handle, &queue) {
            Severed::Nothing => return self.kill_holder(&queue, take),
            Severed::Queue => {
                self.consumers.iter().filter(|open| open.queue == queue).map(|o| o.id).collect()
            }
            Severed::Handle(handle) => {
                for (_, queue, entry) in self.on_their_way.extract_if(.., |(by, ..)| *by == handle) {
                    self.model
                        .queues
                        .get_mut(&queue)
                        .expect("it exists")
                        .push(Entry { place: None, ..entry });
                }
                self.consumers.iter().filter(|open| open.handle == handle).map(|open| open.id).collect()
            }
        };
        for id in gone {
            self.ends(id).await?;
            self.lost(id);
        }
        Ok(())
    }

    /// Another process takes some messages and dies.
    fn kill_holder(&mut self, queue: &QueueName, take: usize) -> Agreed {
        let figures = self.model.figures(queue, self.now());
        let is_moved = *queue == QueueName::failed(&queue.app());
        let take = take.min(figures.ready);
        if take == 0 || figures.unseen > 0 || is_moved {
            return Ok(());
        }
        let Some(taken) = self.subject.kill_holder(queue, take) else { return Ok(()) };
        ensure!(taken.len() == take, "another process got {} of {take}", taken.len());
        self.model.lose(queue, &taken, self.subject.now())
    }

    pub(super) async fn expire(&mut self) -> Agreed {
        // Who waits would take what is handed back, while everybody is still taken for dead.
        while let Some(at) = self.consumers.iter().position(|o| self.model.consumers[&o.id].unseen > 0) {
            self.close(at);
        }
        self.agree().await?;
        let Some(reaper) = self.subject.reaper() else { return Ok(()) };
        self.model.expire();
        self.retire();
        let back = self.agree().await;
        reaper.close().await.map_err(|error| format!("the reaper: {error}"))?;
        back
    }

    pub(super) async fn reopen(&mut self, by: u8) -> Agreed {
        let handle = usize::from(by);
        let closed = self.within("close", self.handles[handle].close()).await?;
        closed.map_err(|error| format!("close: {error}"))?;
        let ids: Vec<_> = self.consumers.iter().filter(|open| open.handle == handle).map(|o| o.id).collect();
        for id in ids {
            self.ends(id).await?;
            self.model.end(id, 0);
        }
        self.retire();
        self.handles[handle] = self.subject.open(handle).await;
        Ok(())
    }

    /// A subscription comes to its end.
    async fn ends(&mut self, id: u64) -> Agreed {
        let Some(at) = self.consumers.iter().position(|open| open.id == id) else { return Ok(()) };
        let mut open = self.consumers.remove(at);
        let mut out = Vec::new();
        // What had come before may still be given out.
        let ending =
            async { while poll_fn(|cx| open.subscription.poll_next(cx, 9, &mut out)).await.is_ok() {} };
        self.within("the end of a subscription", ending).await
    }
}
