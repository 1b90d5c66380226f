//! A job that kills its process is found out; a broker that restarts again and again fails nobody.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ponos::core::broker::{
    Broker as _, Delivery, Inspect, Settlement, SubscribeOptions, Subscription, Topology, Verdict,
};
use ponos::core::envelope::{GaveUpReason, Recovery};
use ponos::core::name::{AppName, EventName, QueueName};
use ponos::prelude::*;
use ponos::{Broker, FailedJobs};
use ponos_testbed::{Node, NodeOptions};

use super::another_process::{Process, Role, say};
use super::messages::{send, task};
use super::support::*;

const NEIGHBOURS: u64 = 60;

#[event("cell.grown")]
pub struct CellGrown {
    pub n: u64,
}

#[event("cell.mourned")]
pub struct CellMourned {
    pub n: u64,
}

#[app("lab")]
pub struct Lab;

#[task("lab.cell.grow", app = Lab, emits(CellGrown, CellMourned))]
pub struct CellGrow {
    pub n: u64,
    pub deadly: bool,
}

async fn grow(cell: CellGrow, cx: TaskCx<CellGrow>) -> Outcome {
    if cell.deadly {
        tokio::time::sleep(millis(50)).await;
        std::process::abort();
    }
    tokio::time::sleep(millis(100)).await;
    cx.emit(CellGrown { n: cell.n })?;
    Ok(())
}

async fn mourn(cell: CellGrow, cx: TaskCx<CellGrow>, _: GaveUp) -> Outcome {
    cx.emit(CellMourned { n: cell.n })?;
    Ok(())
}

fn lab() -> Service<Lab> {
    Service::new().task(grow, |p| p.recover(mourn).concurrency(8).prefetch(64))
}

/// What a child does; nothing in the parent.
#[tokio::test]
async fn another_process() {
    let Some(role) = Role::of_this_process() else { return };
    say("up");
    lab().run((), Broker::from_url(role.file.to_str().unwrap()).unwrap()).await.unwrap();
}

/// The payloads' numbers that lie in a queue.
async fn numbers(broker: &dyn ponos::core::broker::Broker, queue: &QueueName) -> Vec<u64> {
    let query = Inspect::Messages { queue: queue.clone(), limit: 10_000, after: None };
    let messages = broker.inspect(query).await.unwrap().into_messages();
    let number =
        |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap()["n"].as_u64().unwrap();
    messages.iter().map(|envelope| number(&envelope.body)).collect()
}

#[tokio::test]
async fn a_job_that_kills_its_process_fails_alone() {
    if Role::of_this_process().is_some() {
        return;
    }
    let url = Node::shared().fresh_vhost();
    let broker = broker(&url).await;
    // Queues that hear what is emitted and that nobody works.
    let ear = AppName::parse("morgue").unwrap();
    let events = ["cell.grown", "cell.mourned"].map(|name| EventName::parse(name).unwrap());
    let queues = events.each_ref().map(|event| QueueName::subscription(&ear, event));
    let subscriptions = queues.iter().cloned().zip(events.iter().cloned()).collect();
    let topology = Topology { app: Some(ear), events: events.to_vec(), subscriptions, ..Topology::default() };
    broker.declare(&topology).await.unwrap();
    let publisher = Publisher::<Lab>::connect(Broker::from(Arc::clone(&broker))).await.unwrap();
    for n in 0..=NEIGHBOURS {
        publisher.create(CellGrow { n, deadly: n == 5 }).await.unwrap();
    }
    let failed = FailedJobs::new(Arc::clone(&broker) as _, AppName::parse("lab").unwrap());
    let deadline = Instant::now() + secs(90);
    let mut child = Process::start_test("poison::another_process", "lab", Path::new(&url), 0);
    let mut deaths = 0;
    loop {
        if child.has_ended() {
            deaths += 1;
            child = Process::start_test("poison::another_process", "lab", Path::new(&url), deaths);
        }
        let over = numbers(&*broker, &queues[0]).await.into_iter().collect::<BTreeSet<_>>().len();
        if over as u64 == NEIGHBOURS && !failed.list(10, None).await.unwrap().is_empty() {
            break;
        }
        if Instant::now() > deadline {
            let queues = broker.inspect(Inspect::Queues(None)).await;
            let (_, all) = Node::shared().http("GET", &format!("/api/queues/{}", vhost(&url)), None);
            panic!("{over} neighbours are done after {deaths} deaths: {queues:?} {all}");
        }
        tokio::time::sleep(millis(100)).await;
    }
    child.terminate();
    let failed = failed.list(1000, None).await.unwrap();
    let report = failed[0].report.as_deref().unwrap();
    println!("{deaths} deaths; failed: {:?}, {}", report.gave_up.reason, report.gave_up.error);
    assert_eq!(failed.len(), 1, "no neighbour failed");
    assert_eq!((report.gave_up.reason, &report.recovery), (GaveUpReason::Poison, &Recovery::Done));
    assert_eq!(numbers(&*broker, &queues[1]).await, [5], "its recovery ran");
    assert!((3..=7).contains(&deaths), "three to be suspected, three alone: {deaths}");
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_again_and_again_fails_nobody() {
    let restarts = std::env::var("PONOS_RESTARTS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let node = Node::start(NodeOptions::new().management(false));
    let service = || unit_with(|p| p.concurrency(8));
    let stage = Stage::with(&node.url(), service()).await;
    let also = Arc::new(Seen::default());
    let second_broker = broker(&node.url()).await;
    let second = service().start(Arc::clone(&also), Arc::clone(&second_broker)).await.unwrap();
    let jobs = |restart: u64| restart * 16..(restart + 1) * 16;
    for restart in 0..restarts {
        // In flight at each kill: some run, some wait in the prefetch, some are left from the restart before.
        for n in jobs(restart) {
            stage.job(n, How::Take(300)).await;
        }
        until("jobs are at work", secs(30), || stage.did.running() + also.running() > 0).await;
        // What was declared in the last two seconds before a kill can be left without a leader for good; that is
        // RabbitMQ's, and not what is tried here.
        node.sync_declarations();
        node.restart();
        let connected = || stage.broker.is_connected() && second_broker.is_connected();
        until(&format!("they are back after restart {restart}"), secs(30), connected).await;
    }
    // Somebody who saw none of it takes over.
    second.shutdown().await;
    second_broker.close().await.unwrap();
    let fresh = Arc::new(Seen::default());
    let fresh_broker = broker(&node.url()).await;
    let third = service().start(Arc::clone(&fresh), Arc::clone(&fresh_broker)).await.unwrap();
    let all = || 0..restarts * 16;
    until("all are heard of", secs(120), || all().all(|n| stage.heard.runs(n) > 0)).await;
    let failed = failed(&stage.broker).list(100, None).await.unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    let seen = [&stage.did, &also, &fresh];
    assert!(all().all(|n| seen.iter().all(|seen| seen.recovered(n).is_none())), "nobody gave up");
    let runs: u32 = all().map(|n| seen.iter().map(|seen| seen.runs(n)).sum::<u32>()).sum();
    println!("{restarts} restarts, {} jobs, {runs} runs, none failed", all().count());
    third.shutdown().await;
    fresh_broker.close().await.unwrap();
    stage.end().await;
}

/// RabbitMQ ends the whole connection of who looks into a queue that has no leader: while one is being declared, or when
/// its node is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_suspects_without_a_leader_takes_away_nothing_that_is_at_work() {
    let node = Node::shared();
    let url = node.fresh_vhost();
    let stage = Stage::new(&url).await;
    let mut suspect = task(&JobDo { n: 0, how: How::Take(1) }, None);
    suspect.envelope.progress.suspect = Some(0);
    send(&*stage.broker, vec![suspect]).await;
    // Its queue is there now, and everybody looks into it.
    until("the suspect ran", secs(60), || stage.did.runs(0) > 0).await;
    let order = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"unit.suspect.job.do\">>)),
         ra:stop_server(quorum_queues, amqqueue:get_pid(Q)).",
        vhost(&url)
    );
    node.ctl(&["eval", &order]).unwrap();
    // Longer than it takes to look several times.
    for n in 1..=20 {
        stage.job(n, How::Take(100)).await;
        until("the job ran", secs(60), || stage.did.runs(n) > 0).await;
    }
    assert!((1..=20).all(|n| stage.did.runs(n) == 1), "no job was taken away");
    assert_eq!(stage.broker.stats().reconnects, 0, "the consuming connection was not lost");
    stage.end().await;
}

/// What is delivered within the time that it takes to look for suspects several times.
async fn delivered(subscription: &mut dyn Subscription, within: Duration) -> Vec<Delivery> {
    let mut out = Vec::new();
    let polling = std::future::poll_fn(|cx| subscription.poll_next(cx, 10, &mut out));
    if let Ok(polled) = tokio::time::timeout(within, polling).await {
        polled.unwrap();
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspect_is_taken_when_nothing_else_is_held_and_nothing_else_comes_beside_it() {
    let url = Node::shared().fresh_vhost();
    let broker = broker(&url).await;
    let queue = QueueName::parse("unit.job.do").unwrap();
    let topology = Topology { app: Some(queue.app()), tasks: vec![queue.clone()], ..Topology::default() };
    broker.declare(&topology).await.unwrap();
    let mut jobs = broker.subscribe(&queue, SubscribeOptions::prefetch(10)).await.unwrap();
    let number = |delivery: &Delivery| {
        serde_json::from_slice::<serde_json::Value>(&delivery.envelope.body).unwrap()["n"].as_u64().unwrap()
    };
    let message = |n| task(&JobDo { n, how: How::Take(1) }, None);
    let settle = async |delivery: &Delivery, verdict| {
        broker.settle(delivery, Settlement::just(verdict)).await.unwrap();
    };

    send(&*broker, vec![message(1)]).await;
    let first = delivered(&mut *jobs, secs(30)).await.remove(0);
    let mut suspect = message(2);
    suspect.envelope.progress.suspect = Some(0);
    send(&*broker, vec![suspect]).await;
    // The gate closes some time after the suspect was sent: until then others may come, and never the suspect.
    let mut held = vec![first];
    let deadline = Instant::now() + secs(30);
    for n in 3.. {
        assert!(Instant::now() < deadline, "the gate does not close");
        send(&*broker, vec![message(n)]).await;
        let came = delivered(&mut *jobs, secs(1)).await;
        assert!(came.iter().all(|delivery| number(delivery) != 2), "a suspect beside what is held");
        if came.is_empty() {
            break;
        }
        held.extend(came);
    }
    for delivery in &held {
        settle(delivery, Verdict::Done).await;
    }
    let alone = delivered(&mut *jobs, secs(30)).await;
    assert_eq!(alone.iter().map(number).collect::<Vec<_>>(), [2], "it comes alone");
    assert_eq!(delivered(&mut *jobs, secs(1)).await.len(), 0, "nothing comes beside it");

    // What is handed back keeps the count that it had.
    let mut lost = alone;
    lost[0].losses = 2;
    settle(&lost[0], Verdict::Release).await;
    let mut suspect = None;
    while suspect.is_none() {
        for delivery in delivered(&mut *jobs, secs(30)).await {
            match number(&delivery) {
                2 => suspect = Some(delivery),
                _ => settle(&delivery, Verdict::Done).await,
            }
        }
        assert!(Instant::now() < deadline + secs(60), "the suspect does not come again");
    }
    let suspect = suspect.unwrap();
    assert_eq!((suspect.envelope.progress.suspect, suspect.losses), (Some(2), 0));
    settle(&suspect, Verdict::Done).await;
    drop(jobs);
    broker.close().await.unwrap();
}
