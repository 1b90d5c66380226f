//! Publishing: where messages go, what is said of each, and that they arrive as they were.

use std::time::Duration;

use ponos_core::Bytes;
use ponos_core::body::MAX_BODY;
use ponos_core::broker::{BrokerErrorKind, Destination, Outgoing, Published, SubscribeOptions};
use ponos_core::envelope::MessageName;

use super::messages::*;
use super::stand::{Stand, ids, ids_of};

pub async fn declaring_again_changes_nothing(stand: Stand) {
    stand.publish(jobs_of(3)).await;
    let before = stand.counts(&jobs()).await;
    for topology in topologies().iter().chain(&topologies()) {
        stand.until("declare", || stand.broker.declare(topology)).await;
    }
    assert_eq!(stand.counts(&jobs()).await, before, "what is in a queue stays");
    stand.publish(vec![happened()]).await;
    for hearer in hearers() {
        let heard = stand.messages(&hearer).await;
        assert!(!heard.is_empty(), "{hearer}");
        assert!(heard.len() == 1 || !stand.is_exactly_once(), "a second binding would double: {heard:?}");
    }
}

pub async fn declaring_at_the_same_time_succeeds_for_all(stand: Stand) {
    let mut declaring = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let broker = std::sync::Arc::clone(&stand.broker);
        declaring.spawn(async move {
            for topology in topologies() {
                if let Err(error) = broker.declare(&topology).await {
                    assert!(error.is_temporary(), "{error}");
                }
            }
        });
    }
    while let Some(declared) = declaring.join_next().await {
        assert!(declared.is_ok(), "{declared:?}");
    }
    stand.publish(vec![happened()]).await;
}

pub async fn an_event_goes_to_every_queue_that_hears_it(stand: Stand) {
    let message = happened();
    let outcomes = stand.publish_once(vec![message.clone()]).await;
    assert_eq!(outcomes, [stand.heard_by(3)]);
    for hearer in hearers() {
        let mut consumer = stand.consume(&hearer, 10).await;
        let delivery = consumer.one().await;
        assert_eq!((delivery.envelope.id, &delivery.queue), (message.envelope.id, &hearer));
        assert_eq!(delivery.envelope.name, MessageName::Event(event()));
        // One subscriber's verdict is nobody else's: the next ones still get theirs.
        stand.done(&delivery).await;
        consumer.is_quiet().await;
    }
}

pub async fn an_event_that_nobody_hears_is_confirmed_for_no_queue(stand: Stand) {
    let envelope = plain(MessageName::Event(unheard()), "{\"tid\":\"t\"}");
    let outcomes = stand.publish_once(vec![Outgoing { to: Destination::Event(unheard()), envelope }]).await;
    assert_eq!(outcomes, [Published::Confirmed { queues: 0 }]);
}

pub async fn a_message_for_a_queue_that_does_not_exist_is_returned(stand: Stand) {
    let message = to_nowhere();
    let calls = async {
        loop {
            match stand.broker.publish(vec![message.clone()]).await.as_slice() {
                [Published::Returned] => return,
                [Published::Refused(error) | Published::Unknown(error)] if error.is_temporary() => {}
                other => panic!("not returned: {other:?}"),
            }
            tokio::task::yield_now().await;
        }
    };
    super::stand::within("an answer", calls).await;
}

pub async fn what_does_not_exist_is_not_found(stand: Stand) {
    let subscribed = stand.broker.subscribe(&nowhere(), SubscribeOptions::prefetch(1)).await;
    let Err(error) = subscribed else { panic!("subscribed to a queue that does not exist") };
    assert_eq!(error.kind(), BrokerErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(nowhere().as_str()), "it names the queue: {error}");
}

pub async fn each_message_of_a_batch_has_its_own_outcome_in_order(stand: Stand) {
    let confirmed = |queues| stand.heard_by(queues);
    let batch = vec![job(0), to_nowhere(), happened(), job(1), to_nowhere()];
    let outcomes = stand.publish_once(batch.clone()).await;
    let expected = [confirmed(1), Published::Returned, confirmed(3), confirmed(1), Published::Returned];
    assert_eq!(outcomes, expected);
    let mut consumer = stand.consume(&jobs(), 10).await;
    let got = consumer.take(2).await;
    assert_eq!(ids(&got), [batch[0].envelope.id, batch[3].envelope.id]);
    assert_eq!(stand.publish_once(Vec::new()).await, []);
}

pub async fn a_body_over_the_limit_is_refused_for_good_and_its_neighbours_are_taken(stand: Stand) {
    let largest = vec![b' '; MAX_BODY];
    let too_large = vec![b' '; MAX_BODY + 1];
    let batch = vec![job(0), job_with(too_large), job_with(largest), job(1)];
    let outcomes = stand.publish_once(batch).await;
    let Published::Refused(error) = &outcomes[1] else { panic!("not refused: {:?}", outcomes[1]) };
    assert_eq!(error.kind(), BrokerErrorKind::Invalid);
    assert!(!error.is_temporary(), "trying again would not help");
    assert!(error.to_string().contains("1048577 bytes, the limit is 1048576"), "{error}");
    let others = [&outcomes[0], &outcomes[2], &outcomes[3]];
    assert_eq!(others, [&Published::Confirmed { queues: 1 }; 3]);
    let mut consumer = stand.consume(&jobs(), 10).await;
    assert_eq!(consumer.take(3).await[1].envelope.body.len(), MAX_BODY);
}

pub async fn a_body_is_delivered_byte_for_byte(stand: Stand) {
    let bodies = [
        Bytes::new(),
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"\xff\xfe not UTF-8 \x80"),
        Bytes::from_static(b"{\"tid\":\"t\",  \"n\": 1.50,\n\"n\":2}"),
        Bytes::from_static("{\"tid\":\"t\",\"text\":\"\u{2028}\u{feff}🦀\"}".as_bytes()),
        (0..=255u8).cycle().take(70_000).collect(),
    ];
    stand.publish(bodies.iter().cloned().map(job_with).collect()).await;
    let mut consumer = stand.consume(&jobs(), 10).await;
    for (sent, got) in bodies.iter().zip(consumer.take(bodies.len()).await) {
        assert_eq!(*sent, got.envelope.body);
    }
}

pub async fn an_envelope_survives_in_every_field(stand: Stand) {
    let [hearer, ..] = hearers();
    for (to, queue) in [(Destination::Queue(jobs()), jobs()), (Destination::Event(event()), hearer)] {
        let mut sent: Vec<_> = (0..200).map(|_| any(&to)).collect();
        // Suspects may come one by one, or only when nothing else is held.
        sent.iter_mut().for_each(|message| message.envelope.progress.suspect = None);
        stand.publish(sent.clone()).await;
        let mut consumer = stand.consume(&queue, 300).await;
        for (sent, got) in sent.iter().zip(consumer.take(sent.len()).await) {
            assert_eq!(sent.envelope, *got.envelope);
        }
        if !stand.is_exactly_once() {
            // Where looking is a delivery itself, what somebody holds is not seen.
            drop(consumer);
            stand.comes_to(&queue, (200, 0, 0)).await;
        }
        let looked_at = stand.messages(&queue).await;
        for sent in &sent {
            let found = looked_at.iter().find(|envelope| envelope.id == sent.envelope.id);
            assert_eq!(Some(&sent.envelope), found, "also for who only looks");
        }
    }
}

pub async fn a_suspect_comes_as_it_was_sent(stand: Stand) {
    for losses in 0..3 {
        let mut message = job(losses);
        message.envelope.progress.suspect = Some(7);
        stand.publish(vec![job(9), message.clone()]).await;
        let mut consumer = stand.consume(&jobs(), 10).await;
        let mut got = Vec::new();
        while got.len() < 2 {
            // It may wait until nothing else is held.
            let delivery = consumer.one().await;
            stand.done(&delivery).await;
            got.push(delivery);
        }
        let suspect = got.iter().find(|delivery| delivery.envelope.progress.suspect.is_some());
        let suspect = suspect.unwrap_or_else(|| panic!("it did not come: {got:?}"));
        assert_eq!(*suspect.envelope, message.envelope);
        assert_eq!((suspect.losses, &suspect.queue), (0, &jobs()));
    }
}

pub async fn messages_come_in_the_order_in_which_they_were_published(stand: Stand) {
    let sent = jobs_of(300);
    let (one_by_one, batch) = sent.split_at(20);
    for message in one_by_one {
        stand.publish(vec![message.clone()]).await;
    }
    stand.publish(batch.to_vec()).await;
    let mut consumer = stand.consume(&jobs(), 7).await;
    let mut got = Vec::new();
    while got.len() < sent.len() {
        for delivery in consumer.next(5).await {
            stand.done(&delivery).await;
            got.push(delivery.envelope.id);
        }
    }
    assert_eq!(got, ids_of(&sent));
}

pub async fn a_message_that_is_delayed_keeps_nobody_waiting(stand: Stand) {
    let batch = vec![delayed(Duration::from_secs(3600)), job(1)];
    stand.publish(batch.clone()).await;
    let mut consumer = stand.consume(&jobs(), 1).await;
    assert_eq!(consumer.one().await.envelope.id, batch[1].envelope.id);
    stand.has(&jobs(), (0, 1, 1)).await;
}
