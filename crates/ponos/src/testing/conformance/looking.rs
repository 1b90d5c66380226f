//! Looking: figures, pages, standing orders and records, none of which change anything.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::{
    BrokerErrorKind, Dependency, Destination, Inspect, Inspection, Order, OrderAction, OrderTarget, Outgoing,
};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{
    Entry, From, Journal, JournalQuery, JournalReader, Notice, Origin, PublishedRecord, Record, Said, What,
    read,
};
use ponos_core::name::{AppName, QueueName};
use ponos_core::policy::RateExt as _;

use super::messages::*;
use super::stand::{Stand, ids_of, within};

pub async fn the_figures_add_up(stand: Stand) {
    stand.has(&jobs(), (0, 0, 0)).await;
    let empty = stand.stats(&jobs()).await;
    assert_eq!(empty.consumers, 0);
    assert_eq!(empty.oldest, None);
    let before = now();
    let mut batch = jobs_of(5);
    batch.extend([delayed(Duration::from_secs(60)), delayed(Duration::from_secs(3600))]);
    stand.publish(batch).await;
    let mut consumer = stand.consume(&jobs(), 3).await;
    let _held = consumer.take(3).await;
    stand.has(&jobs(), (2, 2, 3)).await;
    let stats = stand.stats(&jobs()).await;
    assert_eq!(stats.consumers, 1);
    assert!(stats.oldest.is_some() || !stand.is_exactly_once(), "something is ready");
    let oldest = stats.oldest.unwrap_or(before);
    assert!(oldest >= before && oldest <= now(), "{before:?} … {oldest:?}");
    let soon = Outgoing { to: Destination::Queue(effects()), ..delayed(Duration::from_millis(20)) };
    let due = soon.envelope.progress.due;
    stand.publish(vec![soon]).await;
    stand.comes_to(&effects(), (1, 0, 0)).await;
    let oldest = stand.stats(&effects()).await.oldest;
    assert!(
        oldest == due || (oldest.is_none() && !stand.is_exactly_once()),
        "what was delayed is as old as its time is past: {oldest:?}"
    );
    let all = stand.inspect(Inspect::Queues(None)).await.into_queues();
    let names: Vec<_> = all.iter().map(|stats| stats.queue.clone()).collect();
    assert!(names.is_sorted(), "by name: {names:?}");
    for queue in hearers().into_iter().chain([jobs(), effects(), failed()]) {
        assert!(names.contains(&queue), "{queue} of {names:?}");
    }
    let alone = async |queue: QueueName| {
        let found = stand.inspect(Inspect::Queue(queue)).await.into_queues();
        found.into_iter().map(|stats| (stats.queue, stats.ready, stats.consumers)).collect::<Vec<_>>()
    };
    assert_eq!(alone(jobs()).await, [(jobs(), 2, 1)]);
    assert_eq!(alone(nowhere()).await, []);
    let other = AppName::from_checked("other");
    let of_one = stand.inspect(Inspect::Queues(Some(other.clone()))).await.into_queues();
    assert!(!of_one.is_empty() && of_one.iter().all(|stats| stats.queue.app() == other), "{of_one:?}");
}

pub async fn pages_show_each_message_once_oldest_first(stand: Stand) {
    let sent = jobs_of(23);
    stand.publish(sent.clone()).await;
    // What somebody holds is shown too, where looking is no delivery itself.
    let mut consumer = stand.consume(&jobs(), 2).await;
    let held = consumer.take(2).await;
    if !stand.is_exactly_once() {
        drop((held, consumer));
        stand.comes_to(&jobs(), (23, 0, 0)).await;
    }
    let mut seen = Vec::new();
    loop {
        let page = stand.page(&jobs(), 5, seen.last().copied()).await;
        assert!(page.len() <= 5);
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|envelope| envelope.id));
        assert!(seen.len() <= sent.len(), "a message was shown twice: {seen:?}");
    }
    assert_eq!(seen, ids_of(&sent));
    assert_eq!(stand.page(&jobs(), 0, None).await, []);
    if stand.is_exactly_once() {
        stand.publish(vec![delayed(Duration::from_secs(60))]).await;
        let shown = stand.messages(&jobs()).await.len();
        assert_eq!(shown, sent.len() + 1, "what waits for its time is shown too");
    }
}

pub async fn a_page_after_a_message_that_is_gone_is_not_the_first_page(stand: Stand) {
    stand.publish(jobs_of(3)).await;
    let gone = Some(job(0).envelope.id);
    let asked = stand.broker.inspect(Inspect::Messages { queue: jobs(), limit: 10, after: gone }).await;
    match asked {
        Err(error) => assert_eq!(error.kind(), BrokerErrorKind::NotFound, "{error}"),
        // A broker that knows where it was goes on from there: behind the newest is nothing.
        Ok(page) => assert_eq!(page.into_messages(), [], "who pages on would never come to an end"),
    }
}

pub async fn one_message_is_found_by_its_id(stand: Stand) {
    let sent = jobs_of(3);
    stand.publish(sent.clone()).await;
    let ask = |id: MessageId| stand.inspect(Inspect::Message { queue: jobs(), id });
    assert_eq!(ask(sent[1].envelope.id).await.into_messages(), [sent[1].envelope.clone()]);
    assert_eq!(ask(job(0).envelope.id).await.into_messages(), []);
    for query in [
        Inspect::Message { queue: nowhere(), id: sent[0].envelope.id },
        Inspect::Messages { queue: nowhere(), limit: 1, after: None },
    ] {
        match stand.broker.inspect(query).await {
            Err(error) => assert_eq!(error.kind(), BrokerErrorKind::NotFound, "{error}"),
            Ok(found) => panic!("a queue that does not exist was looked into: {found:?}"),
        }
    }
}

pub async fn looking_a_hundred_times_consumes_nothing(stand: Stand) {
    let sent = jobs_of(3);
    stand.publish(sent.clone()).await;
    let expected: HashSet<_> = ids_of(&sent).into_iter().collect();
    for _ in 0..100 {
        let seen: HashSet<_> = stand.messages(&jobs()).await.iter().map(|envelope| envelope.id).collect();
        assert_eq!(seen, expected);
        let one = Inspect::Message { queue: jobs(), id: sent[2].envelope.id };
        assert!(!stand.inspect(one).await.into_messages().is_empty());
        let (ready, ..) = stand.counts(&jobs()).await;
        assert!(ready >= 3 || !stand.is_exactly_once());
    }
    let mut consumer = stand.consume(&jobs(), 10).await;
    let mut got = HashSet::new();
    let consuming = async {
        while got != expected {
            let mut out = Vec::new();
            let polled = std::future::poll_fn(|cx| consumer.0.poll_next(cx, 10, &mut out)).await;
            if polled.is_err() {
                consumer = stand.consume(&jobs(), 10).await;
            } else {
                got.extend(out.iter().map(|delivery| delivery.envelope.id));
                let lost = out.iter().any(|delivery| delivery.losses > 0) && stand.is_exactly_once();
                assert!(!lost, "looking is no loss");
            }
        }
    };
    within("all messages", consuming).await;
}

fn order(
    target: impl Into<OrderTarget>,
    action: OrderAction,
    reason: &str,
    until: Option<Timestamp>,
) -> Order {
    Order {
        target: target.into(), action, by: "Περσεφόνη".into(), reason: reason.into(), at: now(), until
    }
}

pub async fn an_order_stands_until_it_is_replaced_or_ends(stand: Stand) {
    let ask = || async { stand.inspect(Inspect::Orders(app())).await.into_orders() };
    let steer = |order: Order| {
        let stand = &stand;
        async move { stand.until("steer", || stand.broker.steer(order.clone())).await }
    };
    assert_eq!(ask().await, []);
    let first = order(jobs(), OrderAction::Pause, "to see", None);
    steer(first.clone()).await;
    assert_eq!(ask().await, [first]);
    let second = order(jobs(), OrderAction::Pause, "still", Some(now() + Duration::from_secs(3600)));
    steer(second.clone()).await;
    assert_eq!(ask().await, std::slice::from_ref(&second), "it replaces the one that stood");
    let [_, others, _] = hearers();
    steer(order(others, OrderAction::Pause, "another application's", None)).await;
    let past = order(effects(), OrderAction::Pause, "over", Some(now()));
    steer(past).await;
    assert_eq!(ask().await, [second], "another's is not shown, nor what has ended");
    let other_handle = stand.another_handle().await;
    let seen = other_handle.inspect(Inspect::Orders(app())).await;
    assert_eq!(seen.map(|answer| answer.into_orders().len()).ok(), Some(1), "known to who starts later");
    steer(order(jobs(), OrderAction::Resume, "seen", None)).await;
    assert_eq!(ask().await, []);
}

pub async fn orders_of_several_kinds_stand_side_by_side(stand: Stand) {
    let ask = || async { stand.inspect(Inspect::Orders(app())).await.into_orders() };
    let steer = |order: &Order| {
        let (stand, order) = (&stand, order.clone());
        async move { stand.until("steer", || stand.broker.steer(order.clone())).await }
    };
    let smtp = OrderTarget::Dependency(Dependency { app: app(), name: "smtp".into() });
    let rate = OrderAction::Rate(50.per_minute().burst(3));
    let mut given = vec![
        order(jobs(), OrderAction::Pause, "one", None),
        order(jobs(), rate, "two", Some(now() + Duration::from_secs(3600))),
        order(smtp.clone(), rate, "three", None),
        order(smtp.clone(), OrderAction::CircuitOpen, "four", None),
        order(smtp.clone(), OrderAction::CircuitReset, "five", Some(now() + Duration::from_secs(60))),
    ];
    for order in &given {
        steer(order).await;
    }
    given.sort_by_key(Order::key);
    assert_eq!(ask().await, given);
    let elsewhere = Dependency { app: AppName::from_checked("other"), name: "smtp".into() };
    steer(&order(OrderTarget::Dependency(elsewhere), OrderAction::CircuitOpen, "another's", None)).await;
    // Each end is that of its own kind and target.
    for (target, end) in [
        (jobs().into(), OrderAction::RateReset),
        (smtp.clone(), OrderAction::CircuitResume),
        (smtp, OrderAction::RateReset),
        (jobs().into(), OrderAction::Resume),
    ] {
        let end = order(target, end, "", None);
        given.retain(|order| order.key() != end.key());
        steer(&end).await;
        assert_eq!(ask().await, given, "after {end:?}");
    }
    let other_handle = stand.another_handle().await;
    let seen = other_handle.inspect(Inspect::Orders(app())).await.map(Inspection::into_orders);
    assert_eq!(seen.ok(), Some(given), "known to who starts later");
}

pub async fn records_are_found_by_their_transaction(stand: Stand) {
    let Some(journal) = stand.broker.journal() else { return };
    // Some brokers keep records only from the first look on.
    let first = within("read", read(&*journal, &JournalQuery::Last(1))).await;
    assert!(first.is_ok_and(|records| records.is_empty()));
    let record = |tid: &Tid, n: u32| Record {
        at: now(),
        tid: tid.clone(),
        message: job(0).envelope.id,
        what: What::Published(PublishedRecord {
            name: "thing.happened".into(),
            event: true,
            app: Some(app()),
            cause: Some(job(0).envelope.id),
            by: Some("unit.job.do".into()),
            queues: n,
            hops: 1,
            size: 9,
        }),
    };
    let tid = |text| Tid::from_foreign(text).unwrap_or_else(|| panic!("a transaction id"));
    let (one, two) = (tid("first-0001"), tid("second-0001"));
    let records: Vec<_> = (0..20).map(|n| record(if n % 2 == 0 { &one } else { &two }, n)).collect();
    let teller = teller(7);
    for (seq, record) in records.iter().enumerate() {
        tell(&*journal, &teller, seq as u64, Said::Record(record.clone()));
    }
    let of = |tid: &Tid| records.iter().filter(|record| record.tid == *tid).cloned().collect::<Vec<_>>();
    let read = |query| {
        let journal = &journal;
        async move { within("read", read(&**journal, &query)).await.unwrap_or_else(|error| panic!("{error}")) }
    };
    assert_eq!(read(JournalQuery::Tid(one.clone())).await, of(&one));
    assert_eq!(read(JournalQuery::Tid(tid("0001"))).await, [], "a part is not the whole");
    assert_eq!(read(JournalQuery::TidSuffix("second-0001".into())).await, of(&two));
    assert_eq!(read(JournalQuery::TidSuffix("0001".into())).await, records);
    assert_eq!(read(JournalQuery::TidSuffix("0002".into())).await, []);
    assert_eq!(read(JournalQuery::Last(3)).await, records[17..]);
    assert_eq!(read(JournalQuery::Last(1000)).await, records);
    let at = records[10].at;
    let since = records.iter().filter(|record| record.at >= at).cloned().collect::<Vec<_>>();
    assert_eq!(read(JournalQuery::Since(at)).await, since);
    assert_eq!(journal.dropped(), 0);
}

pub async fn a_reader_of_records_goes_on_where_another_was(stand: Stand) {
    let Some(journal) = stand.broker.journal() else { return };
    let open = |from| {
        let journal = &journal;
        async move { within("open", journal.open(from)).await.unwrap_or_else(|error| panic!("{error}")) }
    };
    async fn all(reader: &mut dyn JournalReader) -> Vec<(u64, u64)> {
        let mut seen = Vec::new();
        loop {
            let entries = within("next", reader.next()).await.unwrap_or_else(|error| panic!("{error}"));
            if entries.is_empty() {
                return seen;
            }
            seen.extend(entries.iter().map(|entry| (entry.origin.id, entry.seq)));
        }
    }
    let mut reader = open(From::End).await;
    assert_eq!(all(&mut *reader).await, []);
    let (a, b) = (teller(1), teller(2));
    let notice = |n: u64| Said::Notice(Timestamp::from_millis(n), Notice::Bye);
    for seq in 0..5 {
        tell(&*journal, &a, seq, notice(seq));
        tell(&*journal, &b, seq + 7, notice(seq));
    }
    let expected: Vec<_> = (0..5).flat_map(|seq| [(1, seq), (2, seq + 7)]).collect();
    let mut from_start = open(From::Start).await;
    assert_eq!(all(&mut *from_start).await, expected, "by their origins, in order, with their numbers");
    let place = from_start.position().unwrap_or_else(|| panic!("something was read"));
    tell(&*journal, &a, 9, notice(9));
    let mut later = open(From::After(place)).await;
    assert_eq!(all(&mut *later).await, [(1, 9)], "behind the place, and nothing else");
    assert_eq!(all(&mut *open(From::End).await).await, []);
    // A reader that stays open sees what comes.
    let coming = async {
        let mut seen = Vec::new();
        while seen.len() < expected.len() + 1 {
            seen.extend(all(&mut *reader).await);
            tokio::task::yield_now().await;
        }
        seen
    };
    let seen = within("what comes", coming).await;
    assert_eq!(seen[..expected.len()], expected);
    assert_eq!(seen[expected.len()..], [(1, 9)]);
}

fn teller(id: u64) -> Arc<Origin> {
    Arc::new(Origin { id, app: app(), version: None, host: "host/1".into(), started: now() })
}

fn tell(journal: &dyn Journal, origin: &Arc<Origin>, seq: u64, said: Said) {
    journal.append(Entry { origin: Arc::clone(origin), seq, said });
}
