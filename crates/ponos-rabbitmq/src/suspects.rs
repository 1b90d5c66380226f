//! Suspects: jobs whose process died again and again.
//!
//! When a process dies, every message that it had been sent counts one delivery more, whether its handler ran or not.
//! So the count only makes a suspect, and what is decided by it must be counted while nothing else is held: suspects go
//! to a queue of their own beside their job's, `{app}.suspect.…`, and are taken from it one by one, when there is a place to
//! run them, and never two at once by one process. There the count is the number of processes that each job killed.
//!
//! The queue is declared when the first suspect of its kind is sent, and the application's standing orders tell all
//! instances that it exists. They look into it over a connection of its own: RabbitMQ ends the whole connection
//! (`INTERNAL_ERROR`, "noproc") of who looks into a queue whose leader is not elected yet, or just gone, and would take
//! everything away that its process has at work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::options::BasicGetOptions;
use ponos_core::broker::{BrokerError, Delivery};
use ponos_core::name::QueueName;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::broker::Shared;
use crate::error;
use crate::link::{CALL_DEADLINE, Link};
use crate::orders;
use crate::subscription::Intake;
use crate::topology::{Plan, suspects_name};

/// How often a queue of suspects is looked into, where there is one.
const LOOK: Duration = Duration::from_millis(250);

/// Brings the suspects of one subscription, one by one.
#[derive(Debug)]
pub(crate) struct Suspects {
    came: mpsc::Receiver<Delivery>,
    /// Told when the subscription has room.
    wanted: Arc<Notify>,
    shared: Arc<Shared>,
    open: Open,
    task: JoinHandle<()>,
}

/// The channel over which suspects come, once there is one.
type Open = Arc<Mutex<Option<Arc<Intake>>>>;

impl Drop for Suspects {
    fn drop(&mut self) {
        self.task.abort();
        leave(&self.shared, &self.open);
    }
}

impl Suspects {
    pub(crate) fn of(shared: &Arc<Shared>, queue: &QueueName) -> Self {
        let (sender, came) = mpsc::channel(1);
        let wanted = Arc::new(Notify::new());
        let open = Open::default();
        let task = bring(Arc::clone(shared), queue.clone(), sender, Arc::clone(&wanted), Arc::clone(&open));
        Self { came, wanted, shared: Arc::clone(shared), open, task: shared.runtime.spawn(task) }
    }

    /// The next suspect, if there is one.
    pub(crate) fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> Option<Delivery> {
        match self.came.poll_recv(cx) {
            std::task::Poll::Ready(delivery) => delivery,
            std::task::Poll::Pending => {
                self.wanted.notify_one();
                None
            }
        }
    }
}

async fn bring(
    shared: Arc<Shared>,
    queue: QueueName,
    sender: mpsc::Sender<Delivery>,
    wanted: Arc<Notify>,
    open: Open,
) {
    loop {
        orders::has_suspects(&shared, &queue).await;
        wanted.notified().await;
        let Some(place) = place(&shared, &open).await else { return };
        let found = match intake(&shared, &queue, &open).await {
            Ok(intake) => {
                next(&shared, &queue, &intake).await.map(|found| found.map(|found| (intake, found)))
            }
            Err(error) => Err(error),
        };
        match found {
            Ok(Some((intake, delivery))) => {
                intake.holds_place(place);
                // Not taken any more: it goes back with its channel.
                if sender.send(delivery).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%queue, %error, "the queue of suspects cannot be looked into");
                leave(&shared, &open);
            }
        }
        drop(place);
        tokio::time::sleep(LOOK).await;
        wanted.notify_one();
    }
}

/// The place of this process, once no other suspect has it; nothing when there are none any more.
///
/// When RabbitMQ closes this channel alone, over its consumer timeout, the suspect that was taken over it can be settled no
/// more, and would keep its place for ever.
async fn place(shared: &Arc<Shared>, open: &Open) -> Option<OwnedSemaphorePermit> {
    loop {
        let current = open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if current.is_some_and(|intake| !intake.is_open()) {
            leave(shared, open);
        }
        if let Ok(place) = timeout(LOOK, Arc::clone(&shared.alone).acquire_owned()).await {
            return place.ok();
        }
    }
}

/// Ends what is open; what it holds returns.
fn leave(shared: &Arc<Shared>, open: &Open) {
    let Some(intake) = open.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    shared.leave(intake.id);
    if intake.end(shared) {
        shared.runtime.spawn(async move { intake.close_channel().await });
    }
}

/// The open channel, or another one.
async fn intake(shared: &Arc<Shared>, queue: &QueueName, open: &Open) -> Result<Arc<Intake>, BrokerError> {
    let current = open.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(intake) = current.filter(|intake| intake.is_open()) {
        return Ok(intake);
    }
    leave(shared, open);
    let link = shared.suspects().await?;
    let channel = link.channel(CALL_DEADLINE).await?;
    let intake = Arc::new(Intake::new(shared, queue, &link, channel, 1));
    shared.enter(Arc::clone(&intake));
    *open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&intake));
    Ok(intake)
}

async fn next(
    shared: &Arc<Shared>,
    queue: &QueueName,
    intake: &Arc<Intake>,
) -> Result<Option<Delivery>, BrokerError> {
    let getting = intake.channel.basic_get(suspects_name(queue).into(), BasicGetOptions::default());
    match timeout(CALL_DEADLINE, getting).await {
        Ok(Ok(Some(message))) => Ok(shared.accept(intake, message.delivery)),
        Ok(Ok(None)) => Ok(None),
        Ok(Err(error)) => Err(error::of_operation("looking for suspects", &error)),
        Err(_) => Err(error::unavailable("looking for suspects: no answer")),
    }
}

impl Shared {
    /// Makes the queue of a queue's suspects exist, and known to all instances.
    pub(crate) async fn ensure_suspects(self: &Arc<Self>, queue: &QueueName) -> Result<(), BrokerError> {
        if orders::knows_suspects(self, queue) {
            return Ok(());
        }
        self.declarer().carry_out(&Plan::suspects(queue)).await?;
        orders::tell_of_suspects(self, queue).await
    }

    /// The connection over which suspects come, made when it is needed first.
    async fn suspects(&self) -> Result<Arc<Link>, BrokerError> {
        let open = async || Link::open(Arc::clone(&self.options), "suspects").await.map(Arc::new);
        let link = Arc::clone(self.suspects.get_or_try_init(open).await?);
        if self.is_closed() {
            link.close().await;
        }
        Ok(link)
    }
}
