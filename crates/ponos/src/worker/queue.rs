//! The worker of one queue: it owns the intake, the buffer and the jobs in flight.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::{Delivery, Settlement, SubscribeOptions, Subscription, Verdict};
use ponos_core::envelope::{Envelope, Progress};
use ponos_core::journal::{Flight, LimitNotice, Notice, What};
use ponos_core::policy::{BreakerState, DedupWindow, Moment, Outcome as CircuitOutcome, Permit, Rate};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::attempt::{self, Ended, MAX_SUSPECT_LOSSES, Place};
use super::policy::{MAX_HELD_BYTES, TOKEN_WAIT};
use super::settle::{SETTLE_DEADLINE, Settled};
use super::spec::QueueSpec;
use super::waits::{changed, take, timer_or_never};
use super::{Limiter, Rest, Shared};

/// How long a broker may take to open a subscription.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(10);

/// How long other jobs wait while a suspect is sent on: longer, and its queue does not answer.
const SENDING_ON: Duration = Duration::from_secs(5);

/// The pauses between tries to subscribe.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a queue's worker is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Control {
    /// An order stands to deliver nothing.
    pub(crate) paused: bool,
    /// An order stands that holds its circuit open.
    pub(crate) held_open: bool,
    /// The service stops: no intake; what still runs at this moment is cut off.
    pub(crate) stop_by: Option<Moment>,
}

/// The worker of one queue.
pub(crate) struct QueueWorker {
    spec: Arc<QueueSpec>,
    shared: Arc<Shared>,
    control: watch::Receiver<Control>,
    /// The open subscription, and the prefetch that it was opened with. It stays open while jobs run, because they
    /// are settled through it.
    intake: Option<(Box<dyn Subscription>, u32)>,
    /// Not before then is a lost subscription opened anew, and how long to wait if that fails.
    resubscribe: (Moment, Duration),
    /// Not before then is anything taken: the rate limit's next token is too far away.
    rest_until: Option<Moment>,
    /// The rate limits when the loop last looked, and how many jobs are held under them.
    rates: [Option<Rate>; 2],
    held: u32,
    /// Delivered and not started, in order, each with the [`blocked`](Self::blocked) time when it came.
    buffer: VecDeque<(Delivery, Duration)>,
    /// The bytes of the bodies in the buffer.
    buffered_bytes: usize,
    /// For how long in all the front of the buffer has waited for its rate limit or its turn, and since when it does now.
    blocked: (Duration, Option<Moment>),
    /// Jobs in flight, by slot.
    slots: Vec<Option<InFlight>>,
    running: usize,
    /// Jobs report here; it has a place for each slot, so reporting never waits.
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    done: Option<DedupWindow>,
    /// Whether the next job is a suspect that waits for the others of the process to end.
    waits_alone: bool,
    /// Whether the shutdown's deadline has passed and running jobs were cut off.
    aborted: bool,
    /// Whether the intake was cut off when the loop last looked, to withdraw from shared turns once.
    was_off: bool,
}

struct InFlight {
    task: JoinHandle<()>,
    permit: Option<Permit>,
    /// What it is remembered by when it is done.
    id: [u8; 16],
}

/// A job that has ended, or was cut off.
struct Report {
    slot: usize,
    ended: Option<Ended>,
}

/// Reports when the job's task ends, however it ends.
struct Reporter {
    to: mpsc::Sender<Report>,
    report: Report,
}

impl Reporter {
    /// Reports how the job ended.
    fn tell(mut self, ended: Ended) {
        self.report.ended = Some(ended);
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let report = Report { slot: self.report.slot, ended: self.report.ended.take() };
        // There is a place for each slot; after the worker has gone nobody asks.
        let _ = self.to.try_send(report);
    }
}

/// What keeps the job at the front of the buffer from starting.
enum Blocked {
    /// Nothing that time or another job of this queue would not change.
    No,
    /// Until this moment.
    Until(Moment),
}

impl QueueWorker {
    pub(crate) fn new(spec: Arc<QueueSpec>, shared: Arc<Shared>, control: watch::Receiver<Control>) -> Self {
        let slots = spec.policy.concurrency as usize;
        let done = (spec.policy.dedup && shared.broker.may_duplicate()).then(DedupWindow::default);
        Self {
            control,
            intake: None,
            resubscribe: (Moment::ORIGIN, FIRST_PAUSE),
            rest_until: None,
            rates: [None; 2],
            held: spec.policy.prefetch,
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            blocked: (Duration::ZERO, None),
            slots: Vec::new(),
            running: 0,
            reports: mpsc::channel(slots.max(1)),
            done,
            waits_alone: false,
            aborted: false,
            was_off: false,
            spec,
            shared,
        }
    }

    /// Works until the service stops.
    pub(crate) async fn run(mut self) {
        let mut circuit = self.spec.circuit.as_ref().map(|(circuit, _)| circuit.watch());
        let mut tokens = self.spec.limiter.watch();
        let mut own_tokens = self.spec.own_limiter.as_ref().map(|limiter| limiter.watch());
        let mut solo = self.shared.solo.watch();
        let mut incoming = Vec::new();
        let mut ended = Vec::new();
        loop {
            let control = *self.control.borrow_and_update();
            let mode = circuit.as_mut().map_or(BreakerState::Closed, |mode| *mode.borrow_and_update());
            let own_rate = own_tokens.as_mut().and_then(|tokens| tokens.borrow_and_update().rate);
            self.look_at_limits([tokens.borrow_and_update().rate, own_rate]);
            solo.borrow_and_update();
            let now = self.shared.local.clock.now();
            let off = self.is_off(control, mode, now);
            if off {
                // A worker that only waits for a token stays subscribed: it counts among those who share the limit.
                let resting = control == Control::default() && !matches!(mode, BreakerState::Open { .. });
                self.cut_off(resting).await;
                if control.stop_by.is_some() && self.running == 0 {
                    self.intake = None;
                    return;
                }
            }
            let mut wake = control.stop_by.filter(|_| !self.aborted).or(self.rest_until);
            if !off {
                if let Blocked::Until(moment) = self.start_jobs(mode) {
                    wake = Some(moment);
                }
                self.keep_open(mode, now).await;
                if self.intake.is_none() {
                    wake = Some(wake.map_or(self.resubscribe.0, |wake| wake.min(self.resubscribe.0)));
                }
            }
            let want = if off { 0 } else { self.want(mode) };
            let up = self.intake.is_some();
            let rest = match mode {
                _ if !off || control.paused || control.stop_by.is_some() => Rest::No,
                BreakerState::Open { .. } => Rest::Circuit,
                _ if control.held_open => Rest::Circuit,
                _ => Rest::Limit,
            };
            self.spec.vitals.update(self.running, self.buffer.len(), up, control.paused, rest);
            let timer = wake.map(|moment| self.shared.local.clock.sleep_until(moment));
            tokio::select! {
                biased;
                changed = self.control.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = self.reports.1.recv_many(&mut ended, 64) => {
                    let now = self.shared.local.clock.now();
                    for report in ended.drain(..) {
                        self.end(report, now);
                    }
                }
                lost = take(&mut self.intake, want, &mut incoming) => self.accept(lost, &mut incoming),
                () = changed(circuit.as_mut()) => {}
                // Where nothing is limited nobody waits for news, and it is enough to look before the next start.
                () = changed(Some(&mut tokens)), if self.rates[0].is_some() => {}
                () = changed(own_tokens.as_mut()), if self.rates[1].is_some() => {}
                () = changed(Some(&mut solo)) => {}
                () = timer_or_never(timer) => {
                    if control.stop_by.is_some_and(|by| self.shared.local.clock.now() >= by) {
                        tracing::warn!(queue = %self.spec.queue, jobs = self.running, "the shutdown's deadline has passed: jobs are cut off and handed back");
                        self.abort();
                    }
                }
            }
        }
    }

    /// Takes note of the rate limits. Under another one there is no reason to go on resting.
    fn look_at_limits(&mut self, rates: [Option<Rate>; 2]) {
        if rates != self.rates {
            self.rates = rates;
            self.held = rates.map(|rate| self.spec.policy.held(rate)).into_iter().min().unwrap_or(1);
            self.spec.vitals.holds(self.held);
            if self.rest_until.is_some() {
                self.rest(None, self.shared.local.clock.now());
            }
        }
    }

    /// Whether nothing is to be taken or started.
    fn is_off(&mut self, control: Control, mode: BreakerState, now: Moment) -> bool {
        if self.rest_until.is_some_and(|until| now >= until) {
            self.rest(None, now);
        }
        control.paused
            || control.held_open
            || control.stop_by.is_some()
            || matches!(mode, BreakerState::Open { .. })
            || self.rest_until.is_some()
    }

    /// Rests until then for the rate limit, or goes on; and tells the journal.
    fn rest(&mut self, until: Option<Moment>, now: Moment) {
        self.rest_until = until;
        let local = &self.shared.local;
        if let Some(lifecycle) = &local.lifecycle {
            let wall = local.clock.wall();
            let until = until.map(|until| wall + until.since(now));
            let queue = self.spec.queue.clone();
            lifecycle.notice(wall, Notice::Limit(LimitNotice { queue, until }));
        }
    }

    /// Hands back what has not started; the subscription itself stays until nothing runs.
    async fn cut_off(&mut self, stays_subscribed: bool) {
        self.unblock();
        if !std::mem::replace(&mut self.was_off, true) {
            self.withdraw();
        }
        if self.running == 0 && !stays_subscribed {
            // Dropping it hands everything back at once.
            self.buffer.clear();
            self.buffered_bytes = 0;
            self.intake = None;
            return;
        }
        // From the back, so that the places in the queue are kept whatever the broker does with a release.
        while let Some((delivery, _)) = self.buffer.pop_back() {
            let release = self.shared.broker.settle(&delivery, Settlement::just(Verdict::Release));
            match self.shared.local.clock.timeout(SETTLE_DEADLINE, release).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, queue = %self.spec.queue, "a job could not be handed back; it returns by itself");
                }
                None => {
                    tracing::debug!(queue = %self.spec.queue, "a job was not handed back in time; it returns by itself");
                }
            }
        }
        self.buffered_bytes = 0;
    }

    /// Gives up the turns that this queue waits for.
    fn withdraw(&mut self) {
        if let Some((circuit, member)) = &self.spec.circuit {
            circuit.withdraw(*member);
        }
        self.shared.solo.withdraw(&mut self.waits_alone);
    }

    /// Opens the subscription, or opens it anew with another prefetch once nothing is held.
    async fn keep_open(&mut self, mode: BreakerState, now: Moment) {
        self.was_off = false;
        let prefetch = if mode == BreakerState::Closed { self.held } else { 1 };
        let idle = self.running == 0 && self.buffer.is_empty();
        if idle && self.intake.as_ref().is_some_and(|(_, opened_with)| *opened_with != prefetch) {
            self.intake = None;
        }
        if self.intake.is_some() || now < self.resubscribe.0 {
            return;
        }
        let clock = &self.shared.local.clock;
        let subscribing =
            self.shared.broker.subscribe(&self.spec.queue, SubscribeOptions::prefetch(prefetch));
        let problem = match clock.timeout(SUBSCRIBE_DEADLINE, subscribing).await {
            Some(Ok(subscription)) => {
                self.intake = Some((subscription, prefetch));
                self.resubscribe = (now, FIRST_PAUSE);
                self.spec.limiters().for_each(Limiter::subscribed);
                return;
            }
            Some(Err(error)) => error.to_string(),
            None => format!("no answer within {SUBSCRIBE_DEADLINE:?}"),
        };
        self.wait_to_resubscribe(&problem);
    }

    fn wait_to_resubscribe(&mut self, problem: &str) {
        let pause = self.resubscribe.1;
        tracing::warn!(queue = %self.spec.queue, problem, ?pause, "not subscribed; trying again");
        let clock = &self.shared.local.clock;
        // Half of it at random, so that a fleet does not return as one.
        let jitter = pause.mul_f64(clock.roll() as f64 / u64::MAX as f64 / 2.0);
        self.resubscribe = (clock.now() + pause / 2 + jitter, (pause * 2).min(LONGEST_PAUSE));
    }

    /// How many deliveries to ask for: in batches, because asking has a price of its own.
    fn want(&self, mode: BreakerState) -> usize {
        let held = if mode == BreakerState::Closed { self.held as usize } else { 1 };
        let free = held.saturating_sub(self.running + self.buffer.len());
        let batch = (held / 4).max(1);
        if self.buffered_bytes > MAX_HELD_BYTES || (free < batch && !self.buffer.is_empty()) {
            0
        } else {
            free
        }
    }

    fn accept(&mut self, lost: Option<String>, incoming: &mut Vec<Delivery>) {
        let clock = &self.shared.local.clock;
        if !incoming.is_empty() {
            self.spec.vitals.delivered(clock.wall());
        }
        let blocked = self.blocked_until(clock.now());
        for delivery in incoming.drain(..) {
            self.buffered_bytes += delivery.envelope.body.len();
            match self.kind(&delivery) {
                // Sent on before anything else starts that might kill the process meanwhile.
                Kind::Suspect => self.buffer.push_front((delivery, blocked)),
                _ => self.buffer.push_back((delivery, blocked)),
            }
        }
        if let Some(reason) = lost {
            // What was delivered and not started is no longer ours; what runs finds out when it settles.
            self.buffer.clear();
            self.buffered_bytes = 0;
            self.intake = None;
            self.withdraw();
            self.wait_to_resubscribe(&reason);
        }
    }

    /// Starts what may start, in order.
    fn start_jobs(&mut self, mode: BreakerState) -> Blocked {
        let concurrency =
            if mode == BreakerState::Closed { self.spec.policy.concurrency as usize } else { 1 };
        let mut blocked = Blocked::No;
        while self.running < concurrency
            && let Some((delivery, _)) = self.buffer.front()
        {
            let kind = self.kind(delivery);
            let mut permit = None;
            if matches!(kind, Kind::Run | Kind::Alone) {
                match self.ask(&kind, self.buffer.len().min(concurrency - self.running)) {
                    Ok(granted) => permit = granted,
                    Err(reason) => {
                        let now = self.shared.local.clock.now();
                        self.blocked.1.get_or_insert(now);
                        blocked = reason;
                        break;
                    }
                }
            } else {
                // It may have waited for its turn before it was known as a duplicate: nobody else would have one.
                self.withdraw();
            }
            let Some((delivery, before)) = self.buffer.pop_front() else {
                break;
            };
            self.buffered_bytes -= delivery.envelope.body.len();
            let held = match self.blocked {
                (Duration::ZERO, None) => Duration::ZERO,
                _ => self.blocked_until(self.shared.local.clock.now()).saturating_sub(before),
            };
            self.unblock();
            self.spawn(delivery, &kind, permit, held);
        }
        blocked
    }

    /// For how long in all the front of the buffer has waited for its rate limit or its turn.
    fn blocked_until(&self, now: Moment) -> Duration {
        self.blocked.0 + self.blocked.1.map_or(Duration::ZERO, |since| now.since(since))
    }

    fn unblock(&mut self) {
        if self.blocked.1.is_some() {
            self.blocked = (self.blocked_until(self.shared.local.clock.now()), None);
        }
    }

    fn kind(&self, delivery: &Delivery) -> Kind {
        let envelope = &delivery.envelope;
        if self.done.as_ref().is_some_and(|done| done.contains(&identity(envelope))) {
            Kind::Duplicate
        } else if envelope.progress.suspect.is_some() {
            Kind::Alone
        } else if delivery.losses >= MAX_SUSPECT_LOSSES {
            Kind::Suspect
        } else {
            Kind::Run
        }
    }

    fn is_limited(&self) -> bool {
        self.rates != [None; 2]
    }

    /// When all limits allow a start; `None` while that is not known.
    fn earliest(&self, now: Moment, ready: usize) -> Option<Moment> {
        let ready = u32::try_from(ready).unwrap_or(u32::MAX);
        self.spec.limiters().try_fold(now, |at, limiter| Some(at.max(limiter.earliest(now, ready)?)))
    }

    /// Asks the rate limits, the process and the circuit for a start, in this order; `ready` jobs could start now.
    fn ask(&mut self, kind: &Kind, ready: usize) -> Result<Option<Permit>, Blocked> {
        if self.is_limited() {
            let now = self.shared.local.clock.now();
            match self.earliest(now, ready) {
                None => return Err(Blocked::No), // woken when the limiter knows
                Some(at) if at > now => {
                    if at.since(now) > TOKEN_WAIT {
                        self.rest(Some(at), now);
                    }
                    return Err(Blocked::Until(at));
                }
                Some(_) => {}
            }
        }
        let free = match kind {
            Kind::Alone => self.shared.solo.enter_alone(&mut self.waits_alone),
            _ => self.shared.solo.enter(),
        };
        if !free {
            return Err(Blocked::No); // woken when the others have ended
        }
        let alone = matches!(kind, Kind::Alone);
        let permit = match &self.spec.circuit {
            None => None,
            Some((circuit, member)) => match circuit.permit(*member) {
                Some(permit) => Some(permit),
                None => {
                    self.shared.solo.leave(alone);
                    return Err(Blocked::No); // woken when it is this queue's turn
                }
            },
        };
        if self.is_limited() {
            let now = self.shared.local.clock.now();
            // The shared one first: nobody else takes from the other one.
            if let Err(at) = self.spec.limiters().try_for_each(|limiter| limiter.take(now)) {
                // Another queue with the same limit was faster.
                self.shared.solo.leave(alone);
                if let (Some((circuit, _)), Some(permit)) = (&self.spec.circuit, permit) {
                    circuit.report(permit, CircuitOutcome::Ignored, now);
                }
                return Err(Blocked::Until(at));
            }
        }
        Ok(permit)
    }

    fn spawn(&mut self, delivery: Delivery, kind: &Kind, permit: Option<Permit>, held: Duration) {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let report = Report { slot, ended: None };
        let reporter = Reporter { to: self.reports.0.clone(), report };
        let (spec, shared) = (Arc::clone(&self.spec), Arc::clone(&self.shared));
        let id = if self.done.is_some() { identity(&delivery.envelope) } else { [0; 16] };
        let clock = &self.shared.local.clock;
        let task = match kind {
            Kind::Run | Kind::Alone => {
                let alone = matches!(kind, Kind::Alone);
                if shared.local.lifecycle.is_some() {
                    spec.vitals.took_off(slot, flight(&delivery, clock.wall()));
                }
                // Boxed first: the way into the runtime moves it several times.
                clock.spawn(Box::pin(async move {
                    let place = Place { shared, alone };
                    reporter.tell(attempt::run(&spec, &place.shared, delivery, held).await);
                    drop(place);
                }))
            }
            Kind::Duplicate | Kind::Suspect => {
                let queue = self.spec.queue.clone();
                let sending_on = matches!(kind, Kind::Suspect).then(|| SendingOn::new(&shared));
                let (verdict, what) = match kind {
                    Kind::Duplicate => (Verdict::Done, What::Duplicate { queue }),
                    _ => {
                        let verdict = suspected(&delivery, shared.local.clock.wall());
                        (verdict, What::Suspected { queue, losses: delivery.losses })
                    }
                };
                clock.spawn(async move {
                    let settlement = Settlement::just(verdict);
                    let mut settling =
                        pin!(super::settle::until_taken(&spec, &shared, &delivery, settlement));
                    let settled = match shared.local.clock.timeout(SENDING_ON, settling.as_mut()).await {
                        Some(settled) => settled,
                        None => {
                            drop(sending_on);
                            settling.await
                        }
                    };
                    if let (Settled::Taken, Some(lifecycle)) = (settled, &shared.local.lifecycle) {
                        let envelope = &delivery.envelope;
                        lifecycle.record(shared.local.clock.wall(), envelope.tid.clone(), envelope.id, what);
                    }
                    drop(reporter);
                })
            }
        };
        let in_flight = InFlight { task, permit, id };
        match self.slots.get_mut(slot) {
            Some(place) => *place = Some(in_flight),
            None => self.slots.push(Some(in_flight)),
        }
        self.running += 1;
    }

    fn end(&mut self, report: Report, now: Moment) {
        let Some(in_flight) = self.slots.get_mut(report.slot).and_then(Option::take) else {
            return;
        };
        self.running -= 1;
        self.spec.vitals.landed(report.slot);
        let outcome = report.ended.as_ref().map_or(CircuitOutcome::Ignored, |ended| ended.outcome);
        if let (Some((circuit, _)), Some(permit)) = (&self.spec.circuit, in_flight.permit) {
            circuit.report(permit, outcome, now);
        }
        if let Some(done) = &mut self.done
            && report.ended.is_some_and(|ended| ended.done)
        {
            done.insert(in_flight.id);
        }
    }

    fn abort(&mut self) {
        self.aborted = true;
        for in_flight in self.slots.iter().flatten() {
            in_flight.task.abort();
        }
    }
}

impl Drop for QueueWorker {
    /// The service was dropped without a shutdown: what runs is cut off, and returns to the queue by itself.
    fn drop(&mut self) {
        self.abort();
        self.spec.vitals.ended();
    }
}

/// Keeps other jobs from starting while a suspect is sent on.
struct SendingOn(Arc<Shared>);

impl SendingOn {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.solo.sends_on();
        Self(Arc::clone(shared))
    }
}

impl Drop for SendingOn {
    fn drop(&mut self) {
        self.0.solo.has_sent_on();
    }
}

/// What is to be done with a delivery.
enum Kind {
    /// Run it.
    Run,
    /// Run it while nothing else of the process runs.
    Alone,
    /// This process has done it already.
    Duplicate,
    /// It was lost too often: from now on it runs alone.
    Suspect,
}

/// What a message is recognised by: its id and its body. A publisher that gives several messages one id would otherwise lose
/// all but the first.
fn identity(envelope: &Envelope) -> [u8; 16] {
    let mut hasher = DefaultHasher::new();
    envelope.body.hash(&mut hasher);
    let mut identity = *envelope.id.as_bytes();
    for (byte, of_body) in identity.iter_mut().zip(hasher.finish().to_le_bytes()) {
        *byte ^= of_body;
    }
    identity
}

fn flight(delivery: &Delivery, started: ponos_core::id::Timestamp) -> Flight {
    let envelope = &delivery.envelope;
    Flight {
        message: envelope.id,
        tid: envelope.tid.clone(),
        queue: delivery.queue.clone(),
        attempt: envelope.progress.attempt,
        started,
    }
}

fn suspected(delivery: &Delivery, now: ponos_core::id::Timestamp) -> Verdict {
    tracing::warn!(
        tid = %delivery.envelope.tid, queue = %delivery.queue, losses = delivery.losses,
        "the process that held this job died again and again: it runs alone from now on"
    );
    let progress = Progress { suspect: Some(0), ..delivery.envelope.progress.clone() };
    Verdict::RetryAt(now, Box::new(progress))
}
