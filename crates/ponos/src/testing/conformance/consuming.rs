//! Consuming: who holds what, how much of it, and what happens when the holder goes away.

use std::collections::HashSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use ponos_core::broker::{BrokerErrorKind, Inspect, Published, SettleError, SubscribeOptions, Verdict};

use super::messages::*;
use super::stand::{Stand, ids, ids_of, within};

pub async fn never_more_than_the_prefetch_is_held(stand: Stand) {
    stand.publish(jobs_of(12)).await;
    let mut consumer = stand.consume(&jobs(), 3).await;
    let mut held = consumer.take(3).await;
    consumer.is_quiet().await;
    for _ in 0..4 {
        stand.done(&held.remove(0)).await;
        held.push(consumer.one().await);
        let unsettled = stand.stats(&jobs()).await.unsettled;
        assert!(unsettled.is_none_or(|unsettled| unsettled == 3), "{unsettled:?}");
    }
    consumer.is_quiet().await;
    stand.end(&held[0], Verdict::Release).await;
    assert_eq!(consumer.one().await.envelope.id, held[0].envelope.id, "a release makes room too");
}

pub async fn never_more_than_was_asked_for_is_delivered(stand: Stand) {
    stand.publish(jobs_of(50)).await;
    let mut consumer = stand.consume(&jobs(), 1000).await;
    let mut got = 0;
    for max in [1, 1, 2, 3, 5, 8, 13, 1000] {
        got += consumer.next(max).await.len(); // `next` counts
    }
    while got < 50 {
        got += consumer.next(1000).await.len();
    }
}

pub async fn a_consumer_that_waits_is_woken(stand: Stand) {
    for _ in 0..20 {
        let mut consumer = stand.consume(&jobs(), 1).await;
        let message = job(0);
        let (delivery, ()) = tokio::join!(consumer.one(), async {
            tokio::task::yield_now().await;
            stand.publish(vec![message.clone()]).await;
        });
        assert_eq!(delivery.envelope.id, message.envelope.id);
        stand.done(&delivery).await;
    }
}

pub async fn two_consumers_never_hold_the_same_message(stand: Stand) {
    let sent = jobs_of(60);
    stand.publish(sent.clone()).await;
    let mut consumers = Vec::new();
    for _ in 0..3 {
        consumers.push(stand.consume(&jobs(), 20).await);
    }
    let mut held = Vec::new();
    for _ in 0..20 {
        for consumer in &mut consumers {
            held.push(consumer.one().await);
        }
    }
    let distinct: HashSet<_> = ids(&held).into_iter().collect();
    assert_eq!(distinct, ids_of(&sent).into_iter().collect());
    let mut late = stand.consume(&jobs(), 20).await;
    late.is_quiet().await;
}

pub async fn a_dropped_subscription_hands_back_what_was_not_settled(stand: Stand) {
    let sent = jobs_of(5);
    stand.publish(sent.clone()).await;
    let mut consumer = stand.consume(&jobs(), 10).await;
    let held = consumer.take(4).await;
    stand.done(&held[1]).await;
    drop(consumer);
    stand.comes_to(&jobs(), (4, 0, 0)).await;
    let mut next = stand.consume(&jobs(), 10).await;
    let again = next.take(4).await;
    let expected: Vec<_> = [0, 2, 3, 4].map(|n: usize| sent[n].envelope.id).into();
    assert_eq!(ids(&again), expected, "each at its place");
    assert_ne!(again[0].tag, held[0].tag, "with another fence");
}

pub async fn a_poll_that_is_given_up_loses_nothing(stand: Stand) {
    let sent = jobs_of(200);
    let mut consumer = stand.consume(&jobs(), 1000).await;
    let mut out = Vec::new();
    for (n, message) in sent.iter().enumerate() {
        let polled_once = async {
            // Polled once, with a waker that then goes away, and dropped whatever the answer.
            poll_fn(|cx| Poll::Ready(consumer.0.poll_next(cx, 1 + n % 3, &mut out).is_ready())).await;
        };
        polled_once.await;
        stand.publish(vec![message.clone()]).await;
    }
    while out.len() < sent.len() {
        out.extend(consumer.next(7).await);
    }
    assert_eq!(ids(&out), ids_of(&sent), "each once, in order");
    stand.has(&jobs(), (0, 0, 200)).await;
}

pub async fn a_subscription_that_is_given_up_while_it_opens_holds_nothing(stand: Stand) {
    let sent = jobs_of(20);
    stand.publish(sent.clone()).await;
    let queue = jobs();
    for n in 0..60 {
        let opening = stand.broker.subscribe(&queue, SubscribeOptions::prefetch(20));
        // Dropped wherever it is by then.
        drop(tokio::time::timeout(Duration::from_millis(n / 3), opening).await);
    }
    let mut consumer = stand.consume(&jobs(), 20).await;
    let got: HashSet<_> = ids(&consumer.take(20).await).into_iter().collect();
    assert_eq!(got, ids_of(&sent).into_iter().collect());
}

pub async fn only_what_was_picked_is_delivered(stand: Stand) {
    let sent = jobs_of(10);
    stand.publish(sent.clone()).await;
    let picked = vec![sent[7].envelope.id, sent[2].envelope.id];
    let options = SubscribeOptions { prefetch: 5, only: Some(picked.clone()) };
    let mut tool = stand.consume_as(&jobs(), options).await;
    let got: HashSet<_> = ids(&tool.take(2).await).into_iter().collect();
    assert_eq!(got, picked.into_iter().collect());
    tool.is_quiet().await;
    drop(tool);
    stand.comes_to(&jobs(), (10, 0, 0)).await;
}

pub async fn what_was_looked_at_can_be_picked_at_once(stand: Stand) {
    let sent = jobs_of(20);
    stand.publish(sent.clone()).await;
    stand.comes_to(&jobs(), (20, 0, 0)).await;
    for n in 0..10 {
        let (first, other) = (sent[0].envelope.id, sent[19 - n].envelope.id);
        let looked = stand.inspect(Inspect::Message { queue: jobs(), id: first }).await.into_messages();
        assert_eq!(looked.len(), 1);
        let mut tool =
            stand.consume_as(&jobs(), SubscribeOptions { prefetch: 1, only: Some(vec![other]) }).await;
        let picked = tool.one().await;
        assert_eq!(picked.envelope.id, other);
        stand.done(&picked).await;
    }
}

pub async fn a_prefetch_of_nothing_delivers_no_more_than_one(stand: Stand) {
    stand.publish(jobs_of(3)).await;
    match stand.broker.subscribe(&jobs(), SubscribeOptions::prefetch(0)).await {
        Err(error) => assert_eq!(error.kind(), BrokerErrorKind::Invalid, "{error}"),
        Ok(subscription) => {
            let mut consumer = super::stand::Consumer(subscription);
            let _held = consumer.next(3).await;
            let unsettled = stand.stats(&jobs()).await.unsettled;
            assert!(
                unsettled.is_none_or(|unsettled| unsettled == 1),
                "on some protocols 0 means no limit at all: {unsettled:?}"
            );
        }
    }
}

pub async fn a_consumer_that_dies_loses_its_jobs_and_it_is_counted(stand: Stand) {
    stand.publish(vec![job(0)]).await;
    for losses in 0..3 {
        let mut consumer = stand.consume(&jobs(), 1).await;
        let held = consumer.one().await;
        assert_eq!(held.losses, losses);
        if !stand.sever(&jobs()) {
            return;
        }
        let mut out = Vec::new();
        let lost = within("the loss", poll_fn(|cx| consumer.0.poll_next(cx, 1, &mut out))).await;
        assert!(lost.is_err() && out.is_empty(), "{out:?}");
        let late = stand.settle(&held, vec![effect(held.envelope.id)], Verdict::Done).await;
        assert!(matches!(late, Err(SettleError::Lost { sent: false })), "{late:?}");
    }
    let mut consumer = stand.consume(&jobs(), 1).await;
    let held = consumer.one().await;
    let progress = Box::new(held.envelope.progress.clone());
    stand.end(&held, Verdict::RetryAt(now(), progress)).await;
    assert_eq!(consumer.one().await.losses, 0, "a new attempt is judged by its own losses");
    stand.has(&effects(), (0, 0, 0)).await;
}

pub async fn a_closed_broker_has_handed_back_and_says_that_it_is_closed(stand: Stand) {
    let sent = jobs_of(4);
    stand.publish(sent.clone()).await;
    let mut consumer = stand.consume(&jobs(), 2).await;
    let held = consumer.take(2).await;
    let closed = within("close", stand.broker.close()).await;
    assert!(closed.is_ok(), "{closed:?}");
    let mut out = Vec::new();
    let polled = within("the end", poll_fn(|cx| consumer.0.poll_next(cx, 1, &mut out))).await;
    assert!(polled.is_err(), "its subscriptions end: {polled:?}");
    let late = stand.settle(&held[0], Vec::new(), Verdict::Done).await;
    match late {
        Err(SettleError::Lost { sent: false }) => {}
        Err(SettleError::Unavailable(error)) => assert_eq!(error.kind(), BrokerErrorKind::Closed, "{error}"),
        other => panic!("settled after the close: {other:?}"),
    }
    match stand.publish_once(vec![job(9)]).await.as_slice() {
        [Published::Refused(error)] => assert_eq!(error.kind(), BrokerErrorKind::Closed, "{error}"),
        other => panic!("published after the close: {other:?}"),
    }
    assert!(stand.broker.declare(&topologies()[0]).await.is_err());
    assert!(stand.broker.subscribe(&jobs(), SubscribeOptions::prefetch(1)).await.is_err());
    assert!(stand.broker.inspect(Inspect::Queues(None)).await.is_err());
    let again = within("close", stand.broker.close()).await;
    assert!(again.is_ok(), "closing twice is no mistake: {again:?}");
    let other = stand.another_handle().await;
    let subscribed = other.subscribe(&jobs(), SubscribeOptions::prefetch(10)).await;
    let mut consumer = super::stand::Consumer(subscribed.unwrap_or_else(|error| panic!("{error}")));
    let back = consumer.take(4).await;
    assert_eq!(ids(&back), ids_of(&sent), "they are there for another handle, each at its place");
    let lost = back.iter().any(|delivery| delivery.losses > 0);
    assert!(!lost || !stand.is_exactly_once(), "an orderly close is no loss, where the broker can tell");
}
