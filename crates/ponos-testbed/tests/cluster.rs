//! Three nodes that know each other.

use std::time::Instant;

use ponos_testbed::{Cluster, NodeOptions};

#[test]
#[expect(clippy::print_stderr, reason = "the times are worth knowing")]
fn three_nodes_are_one_broker_and_one_may_fail() {
    let started = Instant::now();
    let cluster = Cluster::start(3, &NodeOptions::new());
    eprintln!("three nodes started in {:.1?}", started.elapsed());

    let [first, second, third] = cluster.nodes() else { panic!("three nodes") };
    let vhost = first.fresh_vhost_name();
    assert_eq!(third.http("GET", &format!("/api/vhosts/{vhost}"), None).0, 200);
    assert_eq!(cluster.urls_of(&vhost)[2], third.url_of(&vhost));

    let queue = format!("/api/queues/{vhost}/q");
    let quorum = r#"{"durable":true,"arguments":{"x-queue-type":"quorum"}}"#;
    assert_eq!(second.http("PUT", &queue, Some(quorum)).0, 201);

    cluster.kill(0);
    assert_eq!(first.pid(), 0);
    assert_eq!(second.http("GET", &queue, None).0, 200);
    let started = Instant::now();
    cluster.start_again(0);
    eprintln!("one node started again in {:.1?}", started.elapsed());
    assert_eq!(first.http("GET", &queue, None).0, 200);

    cluster.stop(1);
    assert_eq!(second.pid(), 0);
    assert!(second.log_tail().contains("SIGTERM received - shutting down"), "it ended in order");
    assert_eq!(first.http("GET", &queue, None).0, 200);
}
