//! Several brokers on one file in one process, and what a consumer may rely on.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

mod support;

use std::time::{Duration, Instant};

use ponos_core::broker::*;
use ponos_core::envelope::{GaveUp, GaveUpReason, Phase, Progress, Recovery, Report};
use ponos_sqlite::{Durability, SqliteBroker, SqliteOptions};
use support::*;

fn report(queue_name: &str) -> Report {
    Report {
        queue: queue(queue_name),
        gave_up: GaveUp { reason: GaveUpReason::Exhausted, error: "x".into(), attempts: 3 },
        recovery: Recovery::None,
        at: now(),
        fingerprint: "f".into(),
        history: Vec::new(),
        version: None,
        host: String::new(),
    }
}

#[tokio::test]
async fn two_brokers_in_one_process_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let one = ready(&file).await;
    let two = ready(&file).await;
    let mut jobs = subscribe(&two, TASK, 10).await;
    assert!(silent(&mut jobs, Duration::from_millis(50)).await);
    let sent = Instant::now();
    one.publish(tasks(1)).await;
    let delivery = take(&mut jobs, 1).await.remove(0);
    eprintln!("another broker had it after {:?}", sent.elapsed());
    assert_eq!(stats(&one, TASK).await.consumers, 1);
    drop(two);
    // Its threads end by themselves, its delivery comes back, and it counts as no loss.
    let mut jobs = subscribe(&one, TASK, 10).await;
    let again = take(&mut jobs, 1).await;
    assert_eq!((again[0].losses, again[0].envelope.id), (0, delivery.envelope.id));
    assert_eq!(stats(&one, TASK).await.consumers, 1);
}

#[tokio::test]
async fn a_subscription_of_a_dropped_broker_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    let mut jobs = subscribe(&broker, TASK, 10).await;
    drop(broker);
    let mut out = Vec::new();
    let poll = std::future::poll_fn(|cx| jobs.poll_next(cx, 1, &mut out));
    assert!(tokio::time::timeout(Duration::from_secs(5), poll).await.unwrap().is_err());
}

#[tokio::test]
async fn what_was_confirmed_is_there_after_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let options = SqliteOptions::new().durability(Durability::PowerCutMayLoseLatest).journal(None);
    let broker = SqliteBroker::open(&file, options).unwrap();
    assert!(broker.journal().is_none());
    broker.declare(&topology()).await.unwrap();
    let sent = tasks(5);
    let ids: Vec<_> = sent.iter().map(|s| s.envelope.id).collect();
    broker.publish(sent).await;
    let mut jobs = subscribe(&broker, TASK, 2).await;
    take(&mut jobs, 2).await;
    broker.close().await.unwrap();
    let broker = open(&file);
    let mut jobs = subscribe(&broker, TASK, 10).await;
    let got = take(&mut jobs, 5).await;
    assert_eq!(got.iter().map(|d| d.envelope.id).collect::<Vec<_>>(), ids, "in their old places");
    assert!(got.iter().all(|d| d.losses == 0));
}

#[tokio::test]
async fn never_more_than_the_prefetch_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    broker.publish(tasks(20)).await;
    let mut jobs = subscribe(&broker, TASK, 4).await;
    let held = take(&mut jobs, 4).await;
    assert!(silent(&mut jobs, Duration::from_millis(60)).await);
    assert_eq!(stats(&broker, TASK).await.unsettled, Some(4));
    done(&broker, &held[2]).await;
    let more = next(&mut jobs, 10).await;
    assert_eq!(more.len(), 1, "one place was freed");
}

#[tokio::test]
async fn a_release_keeps_its_place_and_a_settled_delivery_is_settled_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    let sent = tasks(3);
    let first = sent[0].envelope.id;
    broker.publish(sent).await;
    let mut jobs = subscribe(&broker, TASK, 1).await;
    let one = take(&mut jobs, 1).await.remove(0);
    broker.settle(&one, Settlement::just(Verdict::Release)).await.unwrap();
    let again = take(&mut jobs, 1).await.remove(0);
    assert_eq!((again.envelope.id, again.losses), (first, 0));
    assert_ne!(again.tag.fence, one.tag.fence);
    let stale = Settlement { send: vec![event("org.payment.processed")], verdict: Verdict::Done };
    assert!(matches!(broker.settle(&one, stale).await, Err(SettleError::Lost { .. })));
    assert_eq!(stats(&broker, "pheidi.org.payment.processed").await.ready, 0, "nothing was sent");
    done(&broker, &again).await;
    assert!(matches!(
        broker.settle(&again, Settlement::just(Verdict::Done)).await,
        Err(SettleError::Lost { .. })
    ));
}

#[tokio::test]
async fn a_settlement_that_cannot_send_everything_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    broker.publish(tasks(2)).await;
    let mut jobs = subscribe(&broker, TASK, 2).await;
    let held = take(&mut jobs, 2).await;
    let nowhere = Outgoing { to: Destination::Queue(queue("pheidi.nothing.do")), ..task("{}") };
    let huge = task(&"x".repeat(ponos_core::body::MAX_BODY + 1));
    for bad in [nowhere, huge] {
        let send = vec![event("org.payment.processed"), bad];
        let settlement = Settlement { send, verdict: Verdict::Done };
        // Its neighbour in the same group commit is not harmed.
        let (failed, well) = tokio::join!(
            broker.settle(&held[0], settlement),
            broker.settle(&held[1], Settlement::just(Verdict::Release))
        );
        assert!(well.is_ok() || matches!(well, Err(SettleError::Lost { .. })));
        let Err(SettleError::NotSent(outcomes)) = failed else { panic!("{failed:?}") };
        assert!(outcomes.iter().all(|o| !o.is_confirmed()));
        assert!(matches!(&outcomes[1], Published::Returned | Published::Refused(_)));
    }
    assert_eq!(stats(&broker, "pheidi.org.payment.processed").await.ready, 0);
    done(&broker, &held[0]).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_its_neighbours_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    let mut batch = tasks(3);
    batch[1].envelope.body = vec![b' '; ponos_core::body::MAX_BODY + 1].into();
    batch.push(Outgoing { to: Destination::Queue(queue("pheidi.nothing.do")), ..task("{}") });
    batch.push(event("nobody.listened"));
    let outcomes = broker.publish(batch).await;
    let Published::Refused(error) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(error.kind(), BrokerErrorKind::Invalid);
    assert!(error.to_string().contains("1048576"), "{error}");
    assert!(outcomes[0].is_confirmed() && outcomes[2].is_confirmed());
    assert_eq!(outcomes[3..], [Published::Returned, Published::Confirmed { queues: 0 }]);
}

#[tokio::test]
async fn headers_over_the_limit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    let mut batch = tasks(2);
    batch[0].envelope.version = Some("v".repeat(ponos_core::wire::MAX_HEADERS).into());
    let outcomes = broker.publish(batch).await;
    let Published::Refused(error) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(error.kind(), BrokerErrorKind::Invalid);
    assert!(error.to_string().contains("the limit is 65536") && outcomes[1].is_confirmed(), "{outcomes:?}");
}

#[tokio::test]
async fn a_publish_that_is_repeated_is_confirmed_and_not_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    let message = task("{}");
    for _ in 0..3 {
        assert_eq!(broker.publish(vec![message.clone()]).await, [Published::Confirmed { queues: 1 }]);
    }
    assert_eq!(stats(&broker, TASK).await.ready, 1);
    let mut jobs = subscribe(&broker, TASK, 2).await;
    let delivery = take(&mut jobs, 1).await.remove(0);
    // A settlement that replaces its own message is not a repetition.
    broker
        .settle(&delivery, Settlement { send: vec![message.clone()], verdict: Verdict::Done })
        .await
        .unwrap();
    let delivery = take(&mut jobs, 1).await.remove(0);
    // The same message may fail twice, and both are kept.
    broker.settle(&delivery, Settlement::just(Verdict::Failed(Box::new(report(TASK))))).await.unwrap();
    broker.publish(vec![message.clone()]).await;
    let delivery = take(&mut jobs, 1).await.remove(0);
    broker.settle(&delivery, Settlement::just(Verdict::Failed(Box::new(report(TASK))))).await.unwrap();
    assert_eq!(stats(&broker, "pheidi.failed").await.ready, 2);
    let query = Inspect::Message { queue: queue("pheidi.failed"), id: message.envelope.id };
    let kept = broker.inspect(query).await.unwrap().into_messages();
    assert!(
        kept.len() == 2 && kept.iter().all(|envelope| envelope.report.is_some() && envelope.body == "{}")
    );
}

#[tokio::test]
async fn a_retry_happens_in_place_and_never_early() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    broker.publish(tasks(8)).await;
    let mut jobs = subscribe(&broker, TASK, 8).await;
    let mut due = std::collections::HashMap::new();
    for (n, delivery) in take(&mut jobs, 8).await.into_iter().enumerate() {
        let at = now() + Duration::from_millis(40 * n as u64 + 20);
        due.insert(delivery.envelope.id, at);
        let progress = Progress { attempt: 2, due: Some(at), ..Progress::default() };
        broker.settle(&delivery, Settlement::just(Verdict::RetryAt(at, Box::new(progress)))).await.unwrap();
    }
    let mut late = Vec::new();
    for _ in 0..8 {
        for delivery in next(&mut jobs, 8).await {
            let at = due.remove(&delivery.envelope.id).expect("each comes once");
            assert!(now() >= at, "early");
            late.push(now().since(at));
            assert_eq!(delivery.envelope.progress.attempt, 2);
            done(&broker, &delivery).await;
        }
        if due.is_empty() {
            break;
        }
    }
    late.sort();
    eprintln!("retries late by {late:?}");
    let mut delayed = task("{}");
    let at = now() + Duration::from_millis(200);
    delayed.envelope.progress.due = Some(at);
    broker.publish(vec![delayed]).await;
    assert_eq!(stats(&broker, TASK).await.delayed, Some(1));
    let delivery = take(&mut jobs, 1).await.remove(0);
    assert!(now() >= at);
    let progress = Progress { phase: Phase::Recover, ..Progress::default() };
    broker.settle(&delivery, Settlement::just(Verdict::Recover(Box::new(progress)))).await.unwrap();
    assert_eq!(take(&mut jobs, 1).await[0].envelope.progress.phase, Phase::Recover);
}

#[tokio::test]
async fn only_the_picked_messages_are_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    let sent = tasks(50);
    let only = vec![sent[7].envelope.id, sent[31].envelope.id];
    broker.publish(sent).await;
    let options = SubscribeOptions { prefetch: 10, only: Some(only.clone()) };
    let mut jobs = broker.subscribe(&queue(TASK), options).await.unwrap();
    let got: Vec<_> = take(&mut jobs, 2).await.iter().map(|d| d.envelope.id).collect();
    assert_eq!(got, only);
    assert!(silent(&mut jobs, Duration::from_millis(60)).await);
    let query = |after| Inspect::Messages { queue: queue(TASK), limit: 20, after };
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = broker.inspect(query(after)).await.unwrap().into_messages();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.into_iter().map(|envelope| envelope.id));
    }
    assert_eq!(seen.len(), 50, "held ones too, each once");
    assert!(only.iter().all(|id| seen.contains(id)));
}

#[tokio::test]
async fn jobs_that_nobody_fetches_go_to_somebody_who_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let one = ready(&file).await;
    let two = ready(&file).await;
    let mut idle = subscribe(&one, TASK, 10).await;
    // It asks once and never comes back for the answer.
    assert!(silent(&mut idle, Duration::from_millis(30)).await);
    one.publish(tasks(3)).await;
    let mut busy = subscribe(&two, TASK, 10).await;
    let got = take(&mut busy, 3).await;
    assert!(got.iter().all(|delivery| delivery.losses == 0));
}

#[tokio::test]
async fn orders_stand_until_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = ready(&file).await;
    let order = |action, until| Order {
        target: queue(TASK).into(),
        action,
        by: "me".into(),
        reason: "r".into(),
        at: now(),
        until,
    };
    let app = queue(TASK).app();
    let standing = async |broker: &SqliteBroker| {
        broker.inspect(Inspect::Orders(app.clone())).await.unwrap().into_orders()
    };
    let pause = order(OrderAction::Pause, None);
    broker.steer(pause.clone()).await.unwrap();
    broker.close().await.unwrap();
    let broker = open(&file);
    assert_eq!(standing(&broker).await, [pause]);
    broker.steer(order(OrderAction::Pause, Some(now()))).await.unwrap();
    assert_eq!(standing(&broker).await, [], "its time is over");
    broker.steer(order(OrderAction::Pause, None)).await.unwrap();
    broker.steer(order(OrderAction::Resume, None)).await.unwrap();
    assert_eq!(standing(&broker).await, []);
}

#[tokio::test]
async fn orders_of_other_versions_are_kept_and_the_known_ones_hold() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = ready(&file).await;
    let app = queue(TASK).app();
    let beside = rusqlite::Connection::open(&file).unwrap();
    let put = |key: &str, action: &str| {
        let json = format!(
            r#"{{"queue":"{TASK}","action":{action},"by":"me","reason":"r","at":7,"until":null,"colour":"red"}}"#
        );
        beside.execute("INSERT INTO standing_order (queue, json) VALUES (?1, ?2)", [key, &json]).unwrap();
    };
    // As the first version wrote it, and as a later one may.
    put(TASK, r#""pause""#);
    put("dance of it", r#"{"dance":{"steps":3}}"#);
    let standing = || async { broker.inspect(Inspect::Orders(app.clone())).await.unwrap().into_orders() };
    let found = standing().await;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].target, found[0].action), (&queue(TASK).into(), OrderAction::Pause));
    for (action, left) in [(OrderAction::RateReset, 1), (OrderAction::Resume, 0)] {
        broker.steer(Order { action, ..found[0].clone() }).await.unwrap();
        assert_eq!(standing().await.len(), left);
    }
    let kept: u32 = beside.query_row("SELECT count(*) FROM standing_order", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 1, "what is not known is nobody's to remove");
}

#[tokio::test]
async fn asking_for_what_does_not_exist_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    let missing = queue("pheidi.nothing.do");
    let error = broker.subscribe(&missing, SubscribeOptions::prefetch(1)).await.unwrap_err();
    assert_eq!(error.kind(), BrokerErrorKind::NotFound);
    let query = Inspect::Messages { queue: missing, limit: 1, after: None };
    assert_eq!(broker.inspect(query).await.unwrap_err().kind(), BrokerErrorKind::NotFound);
}

#[tokio::test]
async fn one_that_fails_does_not_fail_its_neighbours_in_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = ready(&file).await;
    // Stands in for whatever may be wrong with one row.
    let sql = "CREATE TRIGGER t BEFORE INSERT ON message WHEN NEW.body = x'626164' BEGIN SELECT RAISE(ABORT, 'no'); END;
               CREATE TRIGGER u BEFORE DELETE ON message WHEN OLD.body = x'6b656570' BEGIN SELECT RAISE(ABORT, 'no'); END";
    rusqlite::Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    let good: Vec<_> =
        (0..20).map(|n| broker.publish(vec![task(if n == 7 { "bad" } else { "keep" })])).collect();
    let outcomes = join_all(good).await;
    let failed: Vec<usize> = (0..20).filter(|n| !outcomes[*n][0].is_confirmed()).collect();
    assert_eq!(failed, [7], "{outcomes:?}");
    broker.publish(tasks(5)).await;
    let mut jobs = subscribe(&broker, TASK, 50).await;
    let held = take(&mut jobs, 24).await;
    let settled = join_all(held.iter().map(|d| broker.settle(d, Settlement::just(Verdict::Done)))).await;
    assert_eq!(settled.iter().filter(|settled| settled.is_ok()).count(), 5);
    assert!(
        settled.iter().all(|settled| settled.is_ok() || matches!(settled, Err(SettleError::Unavailable(_))))
    );
    assert_eq!(stats(&broker, TASK).await.unsettled, Some(19), "the others are still ours");
}

async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in futures.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(ready) = future.as_mut().poll(cx) {
                *output = Some(ready);
            }
        }
        if futures.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_nobody_waits_for_any_more_are_handed_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    broker.publish(tasks(100)).await;
    for n in 0..60 {
        let mut jobs = subscribe(&broker, TASK, 10).await;
        let mut out = Vec::new();
        // Dropped before, while and after the claim is answered.
        let poll = std::future::poll_fn(|cx| jobs.poll_next(cx, 10, &mut out));
        let _ = tokio::time::timeout(Duration::from_micros(n * 20), poll).await;
    }
    let mut jobs = subscribe(&broker, TASK, 100).await;
    let got = take(&mut jobs, 100).await;
    assert!(got.iter().all(|delivery| delivery.losses == 0));
    let numbers: Vec<_> = got.iter().map(|delivery| delivery.tag.number).collect();
    assert!(numbers.is_sorted(), "in their old places: {numbers:?}");
    assert_eq!(stats(&broker, TASK).await.consumers, 1);
}
