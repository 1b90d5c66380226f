//! Settling: what each verdict does, and that a settlement that cannot be carried out does nothing.

use std::time::Duration;

use ponos_core::body::MAX_BODY;
use ponos_core::broker::{
    BrokerErrorKind, Delivery, Destination, Outgoing, Published, SettleError, Topology, Verdict,
};
use ponos_core::envelope::{Envelope, Phase, Progress};
use ponos_core::name::QueueName;

use super::messages::*;
use super::stand::{Consumer, Stand, ids, ids_of};

/// One job, delivered.
async fn one_held(stand: &Stand) -> (Delivery, Consumer) {
    stand.publish(vec![job(0)]).await;
    let mut consumer = stand.consume(&jobs(), 10).await;
    (consumer.one().await, consumer)
}

fn is_lost(settled: &Result<Vec<Published>, SettleError>) -> bool {
    matches!(settled, Err(SettleError::Lost { sent: false }))
}

pub async fn done_removes_the_message(stand: Stand) {
    let (delivery, mut consumer) = one_held(&stand).await;
    stand.done(&delivery).await;
    stand.has(&jobs(), (0, 0, 0)).await;
    consumer.is_quiet().await;
    stand.has(&failed(), (0, 0, 0)).await;
}

pub async fn a_release_keeps_the_place_and_counts_no_loss(stand: Stand) {
    let sent = jobs_of(4);
    stand.publish(sent.clone()).await;
    let mut consumer = stand.consume(&jobs(), 10).await;
    let held = consumer.take(3).await;
    for delivery in [&held[1], &held[0], &held[2]] {
        stand.end(delivery, Verdict::Release).await;
    }
    let again = consumer.take(4).await;
    if stand.is_exactly_once() {
        assert_eq!(ids(&again), ids_of(&sent));
    }
    for delivery in &again {
        assert_eq!(delivery.losses, 0);
        let sent = sent.iter().find(|message| message.envelope.id == delivery.envelope.id);
        assert_eq!(
            sent.map(|message| &message.envelope),
            Some(&*delivery.envelope),
            "it is handed back as it is"
        );
    }
}

pub async fn a_retry_returns_to_its_own_queue_alone_with_its_new_progress(stand: Stand) {
    let [own, others @ ..] = hearers();
    let message = happened();
    stand.publish(vec![message.clone()]).await;
    for queue in &others {
        let mut consumer = stand.consume(queue, 1).await;
        stand.done(&consumer.one().await).await;
    }
    let mut consumer = stand.consume(&own, 1).await;
    let delivery = consumer.one().await;
    let due = now() + Duration::from_millis(60);
    let progress = Progress { attempt: 2, due: Some(due), ..Progress::default() };
    stand.end(&delivery, Verdict::RetryAt(due, Box::new(progress.clone()))).await;
    let again = consumer.one().await;
    assert!(now() >= due, "early by {:?}", due.since(now()));
    assert_eq!(*again.envelope, Envelope { progress, ..message.envelope }, "nothing else has changed");
    assert_eq!(again.losses, 0);
    for queue in &others {
        stand.has(queue, (0, 0, 0)).await;
    }
}

pub async fn a_recovery_comes_at_once_with_its_new_progress(stand: Stand) {
    let (delivery, mut consumer) = one_held(&stand).await;
    let progress = far();
    assert_eq!(progress.phase, Phase::Recover);
    stand.end(&delivery, Verdict::Recover(Box::new(progress.clone()))).await;
    let again = consumer.one().await;
    assert_eq!(*again.envelope, Envelope { progress, ..(*delivery.envelope).clone() });
}

pub async fn a_failure_is_kept_with_its_report_and_its_bytes(stand: Stand) {
    let sent = job_with(&b"\xff not even text"[..]);
    stand.publish(vec![sent.clone()]).await;
    let mut consumer = stand.consume(&jobs(), 1).await;
    let delivery = consumer.one().await;
    let report = report("connection refused\ncaused by: Ἅιδης");
    stand.end(&delivery, Verdict::Failed(report.clone())).await;
    stand.has(&jobs(), (0, 0, 0)).await;
    let kept = stand.messages(&failed()).await;
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].id, &kept[0].name), (sent.envelope.id, &sent.envelope.name));
    assert_eq!((&kept[0].tid, &kept[0].body), (&sent.envelope.tid, &sent.envelope.body));
    assert_eq!(kept[0].report.as_ref(), Some(&report));
}

pub async fn two_failures_of_one_message_are_both_kept(stand: Stand) {
    let mut sent = job(0);
    for error in ["first", "second"] {
        stand.publish(vec![sent.clone()]).await;
        // As a tool that retries it would: told from the first time, so that it is no duplicate of that.
        sent.envelope.progress.due = Some(now());
        let mut consumer = stand.consume(&jobs(), 1).await;
        stand.end(&consumer.one().await, Verdict::Failed(report(error))).await;
    }
    let kept = stand.messages(&failed()).await;
    let mut errors: Vec<_> = kept
        .iter()
        .filter_map(|envelope| envelope.report.as_ref())
        .map(|report| &report.gave_up.error)
        .collect();
    errors.sort();
    assert_eq!(errors, ["first", "second"]);
}

pub async fn a_failed_job_can_be_moved_back_under_its_id(stand: Stand) {
    let (delivery, mut consumer) = one_held(&stand).await;
    stand.end(&delivery, Verdict::Failed(report("x"))).await;
    let mut tool = stand.consume(&failed(), 1).await;
    let kept = tool.one().await;
    let envelope = Envelope { report: None, progress: Progress::default(), ..(*kept.envelope).clone() };
    let back = Outgoing { to: Destination::Queue(jobs()), envelope };
    let settled = stand.settle(&kept, vec![back], Verdict::Done).await;
    assert!(settled.is_ok(), "{settled:?}");
    assert_eq!(*consumer.one().await.envelope, *delivery.envelope);
    stand.has(&failed(), (0, 0, 0)).await;
}

pub async fn what_a_settlement_sends_goes_out_with_it(stand: Stand) {
    for verdict in [Verdict::Done, Verdict::Failed(report("x"))] {
        let (delivery, _consumer) = one_held(&stand).await;
        let send = vec![effect(delivery.envelope.id), happened()];
        let settled = stand.settle(&delivery, send.clone(), verdict).await;
        let outcomes = settled.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(outcomes, [stand.heard_by(1), stand.heard_by(3)]);
        let mut sink = stand.consume(&effects(), 1).await;
        let effect = sink.one().await;
        assert_eq!(*effect.envelope, send[0].envelope);
        stand.done(&effect).await;
    }
    stand.has(&failed(), (1, 0, 0)).await;
    for hearer in hearers() {
        stand.has(&hearer, (2, 0, 0)).await;
    }
}

pub async fn a_settlement_that_cannot_send_leaves_the_delivery_ours(stand: Stand) {
    let (delivery, mut consumer) = one_held(&stand).await;
    let send = vec![effect(delivery.envelope.id), to_nowhere()];
    let settled = stand.settle(&delivery, send.clone(), Verdict::Done).await;
    let Err(SettleError::NotSent(outcomes)) = settled else { panic!("not refused: {settled:?}") };
    assert_eq!(outcomes.len(), 2);
    assert_eq!(outcomes[1], Published::Returned);
    stand.has(&jobs(), (0, 0, 1)).await;
    if stand.is_exactly_once() {
        stand.has(&effects(), (0, 0, 0)).await;
    }
    // What is missing comes to be, and the same settlement again goes through.
    let topology = Topology { app: Some(app()), tasks: vec![nowhere()], ..Topology::default() };
    stand.until("declare", || stand.broker.declare(&topology)).await;
    let settled = stand.settle(&delivery, send, Verdict::Done).await;
    assert!(settled.is_ok(), "{settled:?}");
    stand.has(&jobs(), (0, 0, 0)).await;
    stand.has(&nowhere(), (1, 0, 0)).await;
    let sent = stand.messages(&effects()).await.len();
    assert!(sent == 1 || (sent == 2 && !stand.is_exactly_once()), "{sent}");
    consumer.is_quiet().await;
}

pub async fn a_settlement_with_a_body_over_the_limit_leaves_the_delivery_ours(stand: Stand) {
    let (delivery, _consumer) = one_held(&stand).await;
    let mut large = effect(delivery.envelope.id);
    large.envelope.body = vec![b' '; MAX_BODY + 1].into();
    let settled = stand.settle(&delivery, vec![happened(), large], Verdict::Done).await;
    let Err(SettleError::NotSent(outcomes)) = settled else { panic!("not refused: {settled:?}") };
    let Published::Refused(error) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(error.kind(), BrokerErrorKind::Invalid, "{error}");
    if stand.is_exactly_once() {
        let [hearer, ..] = hearers();
        stand.has(&hearer, (0, 0, 0)).await;
        assert!(!outcomes[0].is_confirmed(), "and nothing is said to be sent: {outcomes:?}");
    }
    stand.done(&delivery).await;
    stand.has(&jobs(), (0, 0, 0)).await;
}

pub async fn a_delivery_is_settled_once(stand: Stand) {
    let verdicts = || {
        let progress = Box::new(Progress::default());
        [
            Verdict::Done,
            Verdict::RetryAt(now(), progress.clone()),
            Verdict::Recover(progress),
            Verdict::Release,
        ]
    };
    for first in verdicts() {
        let (delivery, mut consumer) = one_held(&stand).await;
        let mut again = Vec::new();
        stand.end(&delivery, first.clone()).await;
        // What it left is in this consumer's hands again, or gone.
        let counts = (0, 0, u64::from(first != Verdict::Done));
        if first != Verdict::Done {
            again.push(consumer.one().await);
        }
        for second in verdicts().into_iter().chain([Verdict::Failed(report("x"))]) {
            let settled = stand.settle(&delivery, vec![effect(delivery.envelope.id)], second.clone()).await;
            assert!(is_lost(&settled), "{first:?}, then {second:?}: {settled:?}");
        }
        stand.has(&jobs(), counts).await;
        consumer.is_quiet().await;
        if let Some(again) = again.pop() {
            stand.done(&again).await;
        }
    }
    stand.has(&effects(), (0, 0, 0)).await;
    stand.has(&failed(), (0, 0, 0)).await;
}

pub async fn what_is_settled_after_its_subscription_was_dropped_is_lost(stand: Stand) {
    let (delivery, consumer) = one_held(&stand).await;
    drop(consumer);
    stand.comes_to(&jobs(), (1, 0, 0)).await;
    let settled =
        stand.settle(&delivery, vec![effect(delivery.envelope.id), happened()], Verdict::Done).await;
    assert!(is_lost(&settled), "{settled:?}");
    let [hearer, ..] = hearers();
    stand.has(&effects(), (0, 0, 0)).await;
    stand.has(&hearer, (0, 0, 0)).await;
    stand.has(&jobs(), (1, 0, 0)).await;
}

pub async fn an_old_delivery_does_not_settle_a_new_one(stand: Stand) {
    let (old, mut consumer) = one_held(&stand).await;
    stand.end(&old, Verdict::Release).await;
    let new = consumer.one().await;
    assert_eq!(old.envelope.id, new.envelope.id);
    let effect = effect(new.envelope.id);
    let settled = stand.settle(&old, vec![effect.clone()], Verdict::Done).await;
    assert!(is_lost(&settled), "{settled:?}");
    // A tag of nobody's is as lost as an old one.
    let queue = QueueName::failed(&app());
    let strange = Delivery { queue, envelope: std::sync::Arc::clone(&new.envelope), ..old };
    let settled = stand.settle(&strange, vec![effect.clone()], Verdict::Done).await;
    assert!(is_lost(&settled), "{settled:?}");
    // What came too late sent nothing, and what is in time sends the same message: once.
    stand.has(&effects(), (0, 0, 0)).await;
    stand.has(&jobs(), (0, 0, 1)).await;
    let settled = stand.settle(&new, vec![effect.clone()], Verdict::Done).await;
    assert_eq!(settled.unwrap_or_else(|error| panic!("{error}")), [stand.heard_by(1)]);
    assert_eq!(
        ids_of(&[effect]),
        stand.messages(&effects()).await.iter().map(|kept| kept.id).collect::<Vec<_>>()
    );
}
