//! Whatever happens: the cases that a broker which injects faults must pass too. They consume as the worker does,
//! subscribing and settling again until they are through.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ponos_core::broker::{
    Broker, Delivery, Inspect, Published, SettleError, Settlement, SubscribeOptions, Subscription, Verdict,
};
use ponos_core::envelope::{Envelope, Phase, Progress};
use ponos_core::id::MessageId;
use ponos_core::name::QueueName;

use super::messages::*;
use super::stand::{Stand, ids_of};

/// How long a worker waits for a delivery before it looks whether all is done.
const IDLE: Duration = Duration::from_millis(10);

/// Longer than any delay of these cases, and what a broker may be late by.
const LATEST: Duration = Duration::from_secs(2);

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The broker has taken it.
    Taken,
    /// There was no answer once, and then the delivery was lost: it may have been taken.
    Doubtful,
    /// The delivery was lost.
    Lost,
}

/// Settles until the broker has taken it or the delivery is lost.
async fn settle(broker: &dyn Broker, delivery: &Delivery, settlement: &Settlement) -> Fate {
    let mut doubtful = false;
    loop {
        match broker.settle(delivery, settlement.clone()).await {
            Ok(outcomes) => {
                assert_eq!(outcomes.len(), settlement.send.len(), "one outcome per message");
                assert!(outcomes.iter().all(Published::is_confirmed), "{outcomes:?}");
                return Fate::Taken;
            }
            Err(SettleError::Lost { .. }) => return if doubtful { Fate::Doubtful } else { Fate::Lost },
            Err(SettleError::NotSent(outcomes)) => {
                assert_eq!(outcomes.len(), settlement.send.len(), "one outcome per message");
                assert!(!outcomes.iter().all(Published::is_confirmed), "{outcomes:?}");
            }
            Err(SettleError::Unavailable(error)) => {
                assert!(error.is_temporary(), "{error}");
                doubtful = true;
            }
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Whether a queue has nothing left. A broker that does not tell what is delayed or held is believed after a while in
/// which nothing came.
async fn is_empty(broker: &dyn Broker, queue: &QueueName, quiet_since: Instant) -> bool {
    let Ok(answer) = broker.inspect(Inspect::Queues(Some(queue.app()))).await else { return false };
    let stats = answer.into_queues().into_iter().find(|stats| stats.queue == *queue);
    stats.is_some_and(|stats| {
        let tells_all = stats.delayed.is_some() && stats.unsettled.is_some();
        stats.messages() == 0 && (tells_all || quiet_since.elapsed() > LATEST)
    })
}

/// Works a queue until it is empty: `came` is told of each delivery, `decide` says how to settle it, `told` is told
/// what became of that.
async fn work(
    broker: &dyn Broker,
    queue: &QueueName,
    prefetch: usize,
    mut came: impl FnMut(&Delivery),
    mut decide: impl FnMut(&Delivery) -> Settlement,
    mut told: impl FnMut(&Delivery, &Verdict, Fate),
) {
    let mut held: VecDeque<Delivery> = VecDeque::new();
    let mut intake: Option<Box<dyn Subscription>> = None;
    let mut quiet_since = Instant::now();
    loop {
        let Some(subscription) = &mut intake else {
            let options = SubscribeOptions::prefetch(u32::try_from(prefetch).unwrap_or(u32::MAX));
            match broker.subscribe(queue, options).await {
                Ok(subscription) => intake = Some(subscription),
                Err(error) => assert!(error.is_temporary(), "{error}"),
            }
            continue;
        };
        let mut out = Vec::new();
        let polling = poll_fn(|cx| subscription.poll_next(cx, prefetch, &mut out));
        // With something in hand it does not wait: it settles some of it and asks again.
        let pause = if held.is_empty() { IDLE } else { Duration::ZERO };
        let polled = tokio::time::timeout(pause, polling).await;
        let nothing_came = out.is_empty();
        if !nothing_came || !held.is_empty() {
            quiet_since = Instant::now();
        }
        out.iter().for_each(&mut came);
        held.extend(out);
        assert!(held.len() <= prefetch, "{} held, the prefetch is {prefetch}", held.len());
        if let Ok(Err(_lost)) = polled {
            intake = None;
            for delivery in held.drain(..) {
                let fate = settle(broker, &delivery, &Settlement::just(Verdict::Done)).await;
                assert_eq!(fate, Fate::Lost, "a delivery does not outlive its subscription");
            }
            continue;
        }
        if nothing_came && held.is_empty() && is_empty(broker, queue, quiet_since).await {
            return;
        }
        for _ in 0..fastrand::usize(0..=held.len()) {
            let Some(delivery) = held.pop_front() else { break };
            let settlement = decide(&delivery);
            let fate = settle(broker, &delivery, &settlement).await;
            told(&delivery, &settlement.verdict, fate);
        }
    }
}

fn done(_: &Delivery) -> Settlement {
    Settlement::just(Verdict::Done)
}

pub async fn the_outcome_of_a_publish_is_the_truth(stand: Stand) {
    let (mut confirmed, mut refused) = (HashSet::new(), HashSet::new());
    for _ in 0..100 {
        let batch = jobs_of(fastrand::usize(1..=5));
        for (id, outcome) in ids_of(&batch).into_iter().zip(stand.publish_once(batch).await) {
            let _new = match outcome {
                Published::Confirmed { queues } => {
                    assert_eq!(queues, 1);
                    confirmed.insert(id)
                }
                Published::Refused(_) => refused.insert(id),
                Published::Unknown(_) => false,
                Published::Returned => panic!("the queue exists"),
            };
        }
    }
    let mut got: HashMap<MessageId, u32> = HashMap::new();
    let count = |delivery: &Delivery, _: &Verdict, fate| {
        let count = got.entry(delivery.envelope.id).or_default();
        *count += u32::from(fate == Fate::Taken);
    };
    work(&*stand.broker, &jobs(), 20, |_| {}, done, count).await;
    assert!(confirmed.iter().all(|id| got.contains_key(id)), "what was confirmed is delivered");
    assert!(!refused.iter().any(|id| got.contains_key(id)), "what was refused is not there");
    assert!(!stand.is_exactly_once() || got.values().all(|count| *count == 1), "{got:?}");
}

pub async fn a_delayed_message_is_never_early_and_comes(stand: Stand) {
    let sent: Vec<_> = (0..60).map(|_| delayed(Duration::from_millis(fastrand::u64(0..300)))).collect();
    let due: HashMap<_, _> =
        sent.iter().map(|message| (message.envelope.id, message.envelope.progress.due)).collect();
    stand.publish(sent).await;
    let mut came = HashSet::new();
    let check = |delivery: &Delivery| {
        let due = due[&delivery.envelope.id].unwrap_or_default();
        assert!(now() >= due, "early by {:?}", due.since(now()));
        came.insert(delivery.envelope.id);
        done(delivery)
    };
    work(&*stand.broker, &jobs(), 100, |_| {}, check, |_, _, _| {}).await;
    assert_eq!(came.len(), due.len());
}

pub async fn a_retry_is_never_early_and_keeps_its_identity(stand: Stand) {
    let sent = jobs_of(30);
    let originals: HashMap<_, _> =
        sent.iter().map(|message| (message.envelope.id, message.envelope.clone())).collect();
    stand.publish(sent).await;
    let mut last: HashMap<MessageId, u32> = HashMap::new();
    let check = |delivery: &Delivery| {
        let envelope = &*delivery.envelope;
        let progress = envelope.progress.clone();
        let due = progress.due.unwrap_or_default();
        assert!(now() >= due, "early by {:?}", due.since(now()));
        let original = originals[&envelope.id].clone();
        assert_eq!(*envelope, Envelope { progress: progress.clone(), ..original }, "only progress changes");
        last.insert(envelope.id, progress.attempt);
        if progress.attempt == 4 {
            return done(delivery);
        }
        let due = now() + Duration::from_millis(fastrand::u64(0..80));
        let next = Progress { attempt: progress.attempt + 1, due: Some(due), ..progress };
        Settlement::just(Verdict::RetryAt(due, Box::new(next)))
    };
    work(&*stand.broker, &jobs(), 8, |_| {}, check, |_, _, _| {}).await;
    assert!(last.len() == 30 && last.values().all(|attempt| *attempt == 4), "{last:?}");
}

/// What several workers saw.
#[derive(Debug, Default)]
struct Ledger {
    /// Who is held, where a message may be held once only.
    held: HashSet<MessageId>,
    /// How often a message ended, and how often perhaps.
    ended: HashMap<MessageId, (u32, u32)>,
}

/// Whether a job is one of those that fail, and of those that send something when they are done.
fn fails(id: MessageId) -> bool {
    id.as_bytes()[15].is_multiple_of(8)
}

fn sends(id: MessageId) -> bool {
    id.as_bytes()[15] % 2 == 1
}

/// One of the verdicts at random; sooner or later one that ends the job.
fn any_settlement(delivery: &Delivery) -> Settlement {
    let Envelope { id, progress, .. } = &*delivery.envelope;
    let next = || Box::new(Progress { attempt: progress.attempt + 1, ..progress.clone() });
    match fastrand::u32(0..10) {
        0..2 => Settlement::just(Verdict::Release),
        2..4 if progress.attempt < 5 => {
            let due = now() + Duration::from_millis(fastrand::u64(0..20));
            Settlement::just(Verdict::RetryAt(due, Box::new(Progress { due: Some(due), ..*next() })))
        }
        4 if progress.attempt < 5 => {
            Settlement::just(Verdict::Recover(Box::new(Progress { phase: Phase::Recover, ..*next() })))
        }
        _ if fails(*id) => Settlement::just(Verdict::Failed(report("at random"))),
        _ => {
            Settlement { send: sends(*id).then(|| effect(*id)).into_iter().collect(), verdict: Verdict::Done }
        }
    }
}

pub async fn every_message_ends(stand: Stand) {
    const JOBS: usize = 1000;
    let sent = jobs_of(JOBS);
    let ids: HashSet<_> = ids_of(&sent).into_iter().collect();
    for batch in sent.chunks(100) {
        stand.publish(batch.to_vec()).await;
    }
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let exactly_once = stand.is_exactly_once();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (broker, ledger) = (Arc::clone(&stand.broker), Arc::clone(&ledger));
        // Threads of their own, so that they truly meet.
        workers.spawn_blocking(move || work_at_random(&broker, &ledger, exactly_once));
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap_or_else(|error| panic!("{error}"));
    }
    let effects = count(stand.messages(&effects()).await.iter().filter_map(|envelope| envelope.cause));
    let failures = count(stand.messages(&failed()).await.iter().map(|envelope| envelope.id));
    let ledger = lock(&ledger);
    let ended = |id: &MessageId| ledger.ended.get(id).copied().unwrap_or_default();
    for id in &ids {
        let (surely, perhaps) = ended(id);
        let sent = effects.get(id).copied().unwrap_or(0);
        let failed = failures.get(id).copied().unwrap_or(0);
        let (should_send, should_fail) = (sends(*id), fails(*id));
        if exactly_once {
            assert_eq!((surely, perhaps), (1, 0), "{id} ended so often");
            assert_eq!((sent, failed), (u32::from(should_send), u32::from(should_fail)), "{id}");
        } else {
            assert!(surely + perhaps >= 1, "{id} did not end");
            assert_eq!((sent >= 1, failed >= 1), (should_send, should_fail), "{id}: {sent}, {failed}");
        }
    }
    assert!(ledger.ended.keys().all(|id| ids.contains(id)), "nothing came that was not sent");
}

/// Runs one worker that settles at random until nothing is left.
fn work_at_random(broker: &Arc<dyn Broker>, ledger: &Mutex<Ledger>, exactly_once: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let came = |delivery: &Delivery| {
        let Envelope { id, tid, body, .. } = &*delivery.envelope;
        let text = String::from_utf8_lossy(body);
        assert!(text.contains(&tid.to_string()), "the body is another one's: {text}");
        let first = lock(ledger).held.insert(*id);
        assert!(first || !exactly_once, "{id} is held twice");
    };
    let decide = |delivery: &Delivery| {
        // From the settlement on somebody else may have it, before the answer is here.
        lock(ledger).held.remove(&delivery.envelope.id);
        any_settlement(delivery)
    };
    let told = |delivery: &Delivery, verdict: &Verdict, fate| {
        if matches!(verdict, Verdict::Done | Verdict::Failed(_)) {
            let mut ledger = lock(ledger);
            let (surely, perhaps) = ledger.ended.entry(delivery.envelope.id).or_default();
            *surely += u32::from(fate == Fate::Taken);
            *perhaps += u32::from(fate == Fate::Doubtful);
        }
    };
    runtime.block_on(work(&**broker, &jobs(), 16, came, decide, told));
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(ids: impl Iterator<Item = MessageId>) -> HashMap<MessageId, u32> {
    let mut counts = HashMap::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    counts
}
