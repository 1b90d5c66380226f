//! Suspects: jobs whose process died again and again.
//!
//! When a process dies, every message that it had been sent counts one delivery more, whether its handler ran or not.
//! So the count only makes a suspect, and what is decided by it must be counted while nothing else is held: suspects go
//! to a queue of their own beside their job's, `{app}.suspect.…`, and are taken from it one by one, never two at once by
//! one process, and only while it holds nothing else: when there is one, the [gate](crate::gate) closes, and what was
//! delivered before is waited for. There the count is the number of processes that each job killed.
//!
//! The queue is declared when the first suspect of its kind is sent, and the application's standing orders tell all
//! instances that it exists. They look into it over a connection of its own: RabbitMQ ends the whole connection
//! (`INTERNAL_ERROR`, "noproc") of who looks into a queue whose leader is not elected yet, or just gone, and would take
//! everything away that its process has at work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use ponos_core::broker::{BrokerError, Delivery, Settlement, Verdict};
use ponos_core::name::QueueName;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::broker::Shared;
use crate::error;
use crate::gate::Place;
use crate::link::{CALL_DEADLINE, Link};
use crate::orders;
use crate::settle::settle;
use crate::subscription::Intake;
use crate::topology::{Plan, suspects_name};

/// How often a queue of suspects is looked into, where there is one.
const LOOK: Duration = Duration::from_millis(250);

/// How often it is asked whether this process holds nothing more, while a suspect waits for that.
const IDLE_LOOK: Duration = Duration::from_millis(5);

/// Brings the suspects of one subscription, one by one.
#[derive(Debug)]
pub(crate) struct Suspects {
    desk: Arc<Desk>,
    shared: Arc<Shared>,
    open: Open,
    task: JoinHandle<()>,
}

/// Where a subscription asks for suspects, and where they are put down for it.
#[derive(Debug, Default)]
struct Desk {
    state: Mutex<OnDesk>,
    /// Told when the subscription has room, and when it has taken what lay there.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct OnDesk {
    suspect: Option<Delivery>,
    /// Who asked last, and how often anybody has.
    asked: Option<Waker>,
    times: u64,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, OnDesk> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the subscription has room at this moment: one that rests, or whose circuit is open, asks no more.
    async fn is_asked(&self) -> bool {
        let (before, waker) = {
            let mut state = self.state();
            (state.times, state.asked.take())
        };
        waker.into_iter().for_each(Waker::wake);
        self.within(|state| state.times != before).await
    }

    /// Puts a suspect down; it is given back when nobody takes it.
    async fn hand_over(&self, suspect: Delivery) -> Option<Delivery> {
        let waker = {
            let mut state = self.state();
            state.suspect = Some(suspect);
            state.asked.take()
        };
        waker.into_iter().for_each(Waker::wake);
        self.within(|state| state.suspect.is_none()).await;
        self.state().suspect.take()
    }

    async fn within(&self, holds: impl Fn(&OnDesk) -> bool) -> bool {
        let waiting = async {
            while !holds(&self.state()) {
                self.wanted.notified().await;
            }
        };
        timeout(LOOK, waiting).await.is_ok()
    }
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
        let (desk, open) = (Arc::<Desk>::default(), Open::default());
        let bringing = Bringing {
            shared: Arc::clone(shared),
            queue: queue.clone(),
            desk: Arc::clone(&desk),
            open: Arc::clone(&open),
        };
        Self { desk, shared: Arc::clone(shared), open, task: shared.runtime.spawn(bringing.run()) }
    }

    /// The next suspect, if there is one.
    pub(crate) fn poll_next(&mut self, cx: &Context<'_>) -> Option<Delivery> {
        let mut state = self.desk.state();
        state.times += 1;
        match &mut state.asked {
            Some(waker) => waker.clone_from(cx.waker()),
            asked => *asked = Some(cx.waker().clone()),
        }
        let suspect = state.suspect.take();
        drop(state);
        self.desk.wanted.notify_one();
        suspect
    }
}

/// The task that brings them.
struct Bringing {
    shared: Arc<Shared>,
    queue: QueueName,
    desk: Arc<Desk>,
    open: Open,
}

impl Bringing {
    async fn run(self) {
        loop {
            orders::has_suspects(&self.shared, &self.queue).await;
            self.desk.wanted.notified().await;
            match self.bring().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(queue = %self.queue, %error, "the queue of suspects cannot be looked into");
                    leave(&self.shared, &self.open);
                }
            }
            tokio::time::sleep(LOOK).await;
            self.desk.wanted.notify_one();
        }
    }

    /// Brings one, if there is one; whether there was.
    async fn bring(&self) -> Result<bool, BrokerError> {
        if self.waiting(&*self.intake().await?).await? == 0 {
            return Ok(false);
        }
        let Some(place) = self.place().await else { return Ok(false) };
        let intake = self.intake().await?;
        // Another process may be faster: then the gate need not stay closed.
        let mut looked = tokio::time::Instant::now();
        while !self.shared.is_idle() {
            tokio::time::sleep(IDLE_LOOK).await;
            if looked.elapsed() >= LOOK {
                if self.waiting(&intake).await? == 0 {
                    return Ok(false);
                }
                looked = tokio::time::Instant::now();
            }
        }
        if !self.desk.is_asked().await {
            return Ok(false);
        }
        let Some(suspect) = self.get(&intake).await? else { return Ok(false) };
        intake.holds_place(place);
        if let Some(suspect) = self.desk.hand_over(suspect).await {
            // As a copy, whose count is its own. If that fails it goes back with its channel.
            if settle(&self.shared, &suspect, Settlement::just(Verdict::Release)).await.is_err() {
                leave(&self.shared, &self.open);
            }
        }
        Ok(true)
    }

    /// The place of this process, once no other suspect has it; nothing when there are none any more.
    ///
    /// When RabbitMQ closes this channel alone, over its consumer timeout, the suspect that was taken over it can be settled
    /// no more, and would keep its place for ever.
    async fn place(&self) -> Option<Place> {
        loop {
            let current = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if current.is_some_and(|intake| !intake.is_open()) {
                leave(&self.shared, &self.open);
            }
            if let Ok(place) = timeout(LOOK, self.shared.gate.close()).await {
                return place;
            }
        }
    }

    /// The open channel, or another one.
    async fn intake(&self) -> Result<Arc<Intake>, BrokerError> {
        let current = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(intake) = current.filter(|intake| intake.is_open()) {
            return Ok(intake);
        }
        leave(&self.shared, &self.open);
        let link = self.shared.suspects().await?;
        let channel = link.channel(CALL_DEADLINE).await?;
        let intake = Arc::new(Intake::new(&self.shared, &self.queue, &link, channel, 1));
        self.shared.enter(Arc::clone(&intake));
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&intake));
        Ok(intake)
    }

    /// How many there are that nobody holds.
    async fn waiting(&self, intake: &Intake) -> Result<u32, BrokerError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let name = suspects_name(&self.queue);
        let asking = intake.channel.queue_declare(name.into(), passive, FieldTable::default());
        Ok(answer(asking).await?.message_count())
    }

    async fn get(&self, intake: &Arc<Intake>) -> Result<Option<Delivery>, BrokerError> {
        let getting = intake.channel.basic_get(suspects_name(&self.queue).into(), BasicGetOptions::default());
        Ok(answer(getting).await?.and_then(|message| self.shared.accept(intake, message.delivery)))
    }
}

async fn answer<T>(asking: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
    match timeout(CALL_DEADLINE, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error::of_operation("looking for suspects", &error)),
        Err(_) => Err(error::unavailable("looking for suspects: no answer")),
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
