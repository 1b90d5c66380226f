//! What fails one thing disturbs no other: each error of a channel, one by one.

use ponos::core::broker::{Broker as _, BrokerErrorKind, Destination, Outgoing, Published};
use ponos::core::envelope::Recovery;
use ponos::prelude::*;
use ponos::{Broker, RabbitBroker, RabbitOptions, StartError};
use ponos_testbed::{Node, NodeOptions};

use super::support::*;

fn delete(url: &str, what: &str) {
    let (status, body) = Node::shared().http("DELETE", &format!("/api/{what}"), None);
    assert!(status == 204, "{what} of {url}: {status} {body}");
}

fn put(what: &str, body: &str) {
    let (status, body) = Node::shared().http("PUT", &format!("/api/{what}"), Some(body));
    assert!(status == 201 || status == 204, "{what}: {status} {body}");
}

#[tokio::test]
async fn a_deleted_exchange_is_declared_again_and_its_listeners_hear_again() {
    let url = Node::shared().fresh_vhost();
    let stage = Stage::new(&url).await;
    stage.works(1).await;
    delete(&url, &format!("exchanges/{}/job.done", vhost(&url)));
    // The job that runs into it is done, not failed.
    stage.job(2, How::Emit).await;
    until("job 2 is done", secs(10), || stage.did.runs(2) > 0).await;
    // The binding is the listener's to restore, which it does within its interval.
    let mut n = 10;
    let deadline = std::time::Instant::now() + secs(15);
    while stage.heard.runs(n) == 0 {
        assert!(std::time::Instant::now() < deadline, "nobody hears");
        n += 1;
        stage.job(n, How::Emit).await;
        until("it is done", secs(10), || stage.did.runs(n) > 0).await;
        tokio::time::sleep(millis(100)).await;
    }
    // The application's own exchange, through which its jobs go.
    delete(&url, &format!("exchanges/{}/unit", vhost(&url)));
    stage.works(3).await;
    assert_eq!(stage.did.runs(2), 1, "no attempt was spent");
    stage.end().await;
}

#[tokio::test]
async fn a_queue_deleted_under_its_consumer_is_there_again_and_the_others_go_on() {
    let url = Node::shared().fresh_vhost();
    let stage = Stage::new(&url).await;
    stage.works(1).await;
    delete(&url, &format!("queues/{}/unit.job.do", vhost(&url)));
    let publisher = stage.unit.publisher();
    publisher.create(OtherDo { n: 100 }).await.unwrap();
    until("the other queue goes on", secs(5), || stage.did.runs(100) == 1).await;
    // What is published while the queue is gone is not lost: it lies among the failed jobs until somebody retries it.
    let mut n = 10;
    let deadline = std::time::Instant::now() + secs(15);
    while stage.heard.runs(n) == 0 {
        assert!(std::time::Instant::now() < deadline, "the queue is not there again");
        n += 1;
        stage.job(n, How::Emit).await;
        tokio::time::sleep(millis(100)).await;
    }
    let failed = failed(&stage.broker);
    for stray in failed.list(100, None).await.unwrap() {
        let report = stray.report.as_deref().expect("a report that says what happened");
        assert_eq!(report.queue.as_str(), "unit.job.do");
        assert_eq!(report.recovery, Recovery::None);
        failed.retry(stray.id).await.unwrap();
    }
    until("all are done", secs(10), || (11..=n).all(|n| stage.heard.runs(n) > 0)).await;
    stage.end().await;
}

#[tokio::test]
async fn another_type_is_an_error_at_start_that_says_what_to_do() {
    let url = Node::shared().fresh_vhost();
    let host = vhost(&url);
    put(&format!("exchanges/{host}/job.done"), r#"{"type":"topic","durable":true}"#);
    let started = unit().start(Default::default(), broker(&url).await).await;
    let Err(StartError::Broker { source, .. }) = started else { panic!("it started") };
    assert_eq!(source.kind(), BrokerErrorKind::Mismatch);
    let text = source.to_string();
    for part in ["`job.done`", "topic", "fanout", "delete it"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    delete(&url, &format!("exchanges/{host}/job.done"));
    put(&format!("queues/{host}/unit.job.do"), r#"{"durable":true,"arguments":{}}"#);
    let started = unit().start(Default::default(), broker(&url).await).await;
    let Err(StartError::Broker { source, .. }) = started else { panic!("it started") };
    let text = source.to_string();
    for part in ["`unit.job.do`", "quorum", "classic", "?queue_type=classic"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(source.kind(), BrokerErrorKind::Mismatch);
    // With the cure it starts and works.
    let stage = Stage::new(&format!("{url}?queue_type=classic")).await;
    stage.works(1).await;
    stage.end().await;
}

#[tokio::test]
async fn another_argument_is_used_as_it_is_and_counted() {
    let url = Node::shared().fresh_vhost();
    put(
        &format!("queues/{}/unit.job.do", vhost(&url)),
        r#"{"durable":true,"arguments":{"x-queue-type":"quorum","x-delivery-limit":77}}"#,
    );
    let stage = Stage::new(&url).await;
    stage.works(1).await;
    assert!(stage.broker.stats().mismatches >= 1);
    assert_eq!(stage.ear_broker.stats().mismatches, 0);
    stage.end().await;
}

#[tokio::test]
async fn a_consumer_timeout_takes_one_queue_away_for_a_moment() {
    let options = NodeOptions::new()
        .config("consumer_timeout", 1000)
        .advanced("[{rabbit, [{channel_tick_interval, 500}]}].");
    let node = Node::start(options);
    let stage = Stage::new(&node.url()).await;
    stage.job(1, How::Take(4000)).await;
    until("it runs", secs(10), || stage.did.running() == 1).await;
    let started = std::time::Instant::now();
    let publisher = stage.unit.publisher();
    let mut n = 100;
    // The channel is closed over the slow job; the other queue's channel is not.
    while stage.did.runs(1) < 2 {
        n += 1;
        publisher.create(OtherDo { n }).await.unwrap();
        until("the other queue goes on", secs(2), || stage.did.runs(n) == 1).await;
        assert!(started.elapsed() < secs(20), "the job did not come again: {}", node.log_tail());
    }
    assert_eq!(stage.did.recovered(1), None, "no attempt was spent");
    stage.works(2).await;
    stage.end().await;
}

#[tokio::test]
async fn a_refused_permission_fails_its_own_message_alone() {
    let node = Node::shared();
    let name = node.fresh_vhost_name();
    let admin = node.url_of(&name);
    // The owner declares once; the restricted user then runs.
    Stage::new(&admin).await.end().await;
    node.add_user(&name, "unit-app", "pass", ".*", "^(unit.*|job\\.done|ponos\\.lifecycle)$", ".*");
    let broker_as = broker(&node.url_as("unit-app", "pass", &name)).await;
    let (did, heard) = (std::sync::Arc::new(Seen::default()), std::sync::Arc::new(Seen::default()));
    let ear_broker = broker(&admin).await;
    let ear = ear().start(heard.clone(), ear_broker.clone()).await.unwrap();
    let unit = unit().start(did.clone(), broker_as.clone()).await.unwrap();
    let stage = Stage { unit, ear, did, heard, broker: broker_as, ear_broker };
    stage.job(1, How::Tell).await;
    for n in 2..20 {
        stage.job(n, How::Emit).await;
    }
    until("the others are heard of", secs(15), || (2..20).all(|n| stage.heard.runs(n) > 0)).await;
    until("the job gave up", secs(15), || stage.did.recovered(1).is_some()).await;
    let why = stage.did.recovered(1).unwrap();
    assert!(why.contains("`secret.told`") && why.contains("not allowed"), "{why}");
    assert_eq!(stage.did.runs(1), 1, "the handler ran once: running again would not help");
    stage.end().await;
}

#[tokio::test]
async fn what_cannot_get_better_is_said_at_once_without_the_password() {
    let node = Node::shared();
    let name = node.fresh_vhost_name();
    node.add_user(&name, "shut-out", "s3cret", "", "", "");
    let other = node.fresh_vhost_name();
    let port = node.amqp_port();
    for (url, kind, parts) in [
        (node.url_as("guest", "wr0ng", &name), BrokerErrorKind::Denied, vec!["`guest`", "password"]),
        (node.url_of("no-such-host"), BrokerErrorKind::NotFound, vec!["`no-such-host`", "add_vhost"]),
        (
            node.url_as("shut-out", "s3cret", &other),
            BrokerErrorKind::Denied,
            vec!["`shut-out`", "set_permissions"],
        ),
    ] {
        let started = std::time::Instant::now();
        let error = Broker::from_url(&url).unwrap().connect().await.expect_err("refused");
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        for part in parts.into_iter().chain([port.to_string().as_str()]) {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("wr0ng") && !text.contains("s3cret"), "{text}");
        assert!(started.elapsed() < secs(8), "at once");
    }
    // What may get better is tried for a while; the error then names the last reason.
    let options = RabbitOptions::from_url("amqp://u:s3cret@127.0.0.1:1").unwrap().start_within(millis(300));
    let error = RabbitBroker::connect(options).await.expect_err("nobody is there");
    let text = error.to_string();
    assert!(error.is_temporary() && text.contains("127.0.0.1:1") && !text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn a_body_over_the_brokers_own_maximum_fails_alone() {
    let node = Node::start(NodeOptions::new().config("max_message_size", 100_000));
    let stage = Stage::new(&node.url()).await;
    let queue =
        ponos::core::name::QueueName::task(&ponos::core::name::TaskName::parse("unit.other.do").unwrap());
    let message = |bytes: usize| {
        let body = format!(r#"{{"tid":"t","n":{bytes},"pad":"{}"}}"#, "x".repeat(bytes));
        Outgoing { to: Destination::Queue(queue.clone()), envelope: envelope("unit.other.do", body) }
    };
    let outcomes = stage.broker.publish(vec![message(10), message(200_000), message(20)]).await;
    let Published::Refused(error) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(!error.is_temporary() && error.to_string().contains("100000"), "{error}");
    assert!(outcomes[0].is_confirmed() && outcomes[2].is_confirmed(), "{outcomes:?}");
    until("its neighbours come", secs(10), || stage.did.runs(10) > 0 && stage.did.runs(20) > 0).await;
    stage.works(1).await;
    stage.end().await;
}

fn envelope(task: &str, body: String) -> ponos::core::envelope::Envelope {
    use ponos::core::envelope::{Envelope, MessageName, Progress};
    use ponos::core::id::{MessageId, Tid, Timestamp};
    let now: Timestamp = std::time::SystemTime::now().into();
    let random = || std::array::from_fn(|_| fastrand::u8(..));
    Envelope {
        id: MessageId::new(now, random()),
        name: MessageName::Task(ponos::core::name::TaskName::parse(task).unwrap()),
        tid: Tid::new(now, random()),
        cause: None,
        app: None,
        publisher: None,
        published_at: now,
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body: body.into(),
    }
}

/// What another process does for the next test: it logs while it connects, all that is not the frames themselves. Those, at
/// the level `TRACE` of the client library, hold the login; docs/rabbitmq.md says so.
#[tokio::test]
async fn everything_is_logged() {
    let Ok(urls) = std::env::var("PONOS_TEST_LOGGED") else { return };
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).init();
    for url in urls.split(' ') {
        let broker = Broker::from_url(url).unwrap();
        tracing::info!(?broker, "connecting");
        match broker.connect().await {
            Ok(broker) => {
                tracing::info!(?broker, "connected");
                broker.close().await.unwrap();
            }
            Err(error) => tracing::info!(%error, ?error, "not connected"),
        }
    }
}

#[test]
fn no_log_error_or_debug_output_holds_the_password() {
    let node = Node::shared();
    let name = node.fresh_vhost_name();
    node.add_user(&name, "keeper", "pa55-of-keeper", ".*", ".*", ".*");
    let urls = ["pa55-of-keeper", "wr0ng-of-keeper"].map(|password| node.url_as("keeper", password, &name));
    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "errors::everything_is_logged", "--nocapture"])
        .env("PONOS_TEST_LOGGED", urls.join(" "))
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("DEBUG") && said.contains("lapin") && said.contains("not connected"), "{said}");
    for line in said.lines() {
        assert!(!line.contains("-of-keeper"), "{line}");
        // Base64 or a list of bytes would be no better: PLAIN sends the texts behind zeros.
        assert!(!line.contains("112, 97, 53, 53") && !line.contains("cGE1NS1vZi1rZWVwZXI"), "{line}");
    }
}
