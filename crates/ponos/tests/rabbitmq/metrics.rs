//! What metrics and health tell of the connections, and that they do not tell the password.

use std::sync::Arc;

use ponos::metrics::Observe;
use ponos::prelude::*;
use ponos_testbed::{Node, Relay};

use super::support::*;

#[tokio::test]
async fn connections_that_are_lost_are_told_and_counted_and_credentials_are_not() {
    let relay = Relay::to(Node::shared().amqp_port());
    let (node, user) = (Node::shared(), "metrics-watcher");
    let vhost = node.fresh_vhost_name();
    node.add_user(&vhost, user, "hunter2", ".*", ".*", ".*");
    let url = format!("{}?heartbeat=2", relay.url(&node.url_as(user, "hunter2", &vhost)));

    let service = unit().observe(Observe::without_listener());
    let running = service.start(Arc::default(), Broker::from_url(&url).unwrap()).await.unwrap();
    let text = || running.metrics_text().unwrap();
    until("it is ready", secs(10), || running.health().unwrap().ready).await;
    for role in ["publish", "consume"] {
        assert!(
            text().contains(&format!("ponos_connection_up{{app=\"unit\",role=\"{role}\"}} 1")),
            "{}",
            text()
        );
        assert!(text().contains(&format!("ponos_reconnects_total{{app=\"unit\",role=\"{role}\"}} 0")));
    }

    relay.refuse(true);
    relay.cut();
    let down = "ponos_connection_up{app=\"unit\",role=\"consume\"} 0";
    until("its connections are down", secs(15), || text().contains(down)).await;
    let health = running.health().unwrap();
    assert!(health.live && !health.ready, "{health:?}");
    relay.refuse(false);
    until("it is ready again", secs(30), || running.health().unwrap().ready).await;
    let again = "ponos_reconnects_total{app=\"unit\",role=\"consume\"} 1";
    until("that is counted", secs(10), || text().contains(again)).await;

    running.publisher().create(JobDo { n: 1, how: How::Emit }).await.unwrap();
    let sent = format!("server_address=\"127.0.0.1\",server_port=\"{}\"", relay.port());
    until("a job is counted", secs(10), || text().contains(&sent)).await;
    assert!(text().contains("messaging_system=\"rabbitmq\""));
    for told in [text(), running.health().unwrap().to_json()] {
        assert!(!told.contains("hunter2") && !told.contains(user), "{told}");
    }
    running.shutdown().await;
}
