//! x
use ponos_testbed::*;
#[test]
fn all() {
    let n = Node::start(NodeOptions::new());
    for (i, wait) in [0; 6].into_iter().enumerate() {
        let v = n.fresh_vhost_name();
        assert_eq!(n.http("PUT", &format!("/api/queues/{v}/q"), Some(r#"{"durable":true}"#)).0, 201);
        std::thread::sleep(std::time::Duration::from_secs(wait));
        let t = std::time::Instant::now();
        n.sync_declarations();
        eprintln!("try sync {:?}", t.elapsed());
        n.restart();
        let a = n.http("GET", &format!("/api/queues/{v}/q"), None);
        eprintln!(
            "try {i} wait {wait}: {} {} vhost {}",
            a.0,
            &a.1[..a.1.len().min(150)],
            n.http("GET", &format!("/api/vhosts/{v}"), None).0
        );
        if a.0 != 200 {
            std::thread::sleep(std::time::Duration::from_secs(3));
            let a = n.http("GET", &format!("/api/queues/{v}/q"), None);
            eprintln!("  later: {} {}\n{:?}", a.0, &a.1[..a.1.len().min(300)], n.ctl(&["list_vhosts"]));
        }
    }
}
