//! One node: what is made in it, and what is done to it.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use ponos_testbed::{Node, NodeOptions};

/// One test, because the start is what takes its time.
#[test]
#[expect(clippy::print_stderr, reason = "the times are worth knowing")]
fn a_node_does_what_it_is_told() {
    let started = Instant::now();
    let options = NodeOptions::new().tls(true).config("consumer_timeout", 10_000);
    let node = Node::start(options.advanced("[{rabbit, [{channel_tick_interval, 1000}]}]."));
    eprintln!("started in {:.1?}", started.elapsed());

    virtual_hosts_are_fresh(&node);
    users_are_limited(&node);
    settings_arrive(&node);
    tls_is_trusted(&node);
    alarms_are_raised_and_cleared(&node);

    let vhost = node.fresh_vhost_name();
    let queue = format!("/api/queues/{vhost}/q");
    assert_eq!(node.http("PUT", &queue, Some(r#"{"durable":true}"#)).0, 201);
    let (port, pid) = (node.amqp_port(), node.pid());
    node.freeze();
    assert_eq!(state(pid), 'T');
    node.thaw();
    assert_ne!(state(pid), 'T');
    assert_eq!(node.http("GET", &queue, None).0, 200);

    node.sync_declarations();
    // Also when it is frozen.
    node.freeze();
    node.kill();
    assert_eq!((node.pid(), state(pid)), (0, '-'));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let started = Instant::now();
    node.start_again();
    eprintln!("started again in {:.1?}", started.elapsed());
    assert_eq!(node.amqp_port(), port);
    assert_eq!(node.http("GET", &queue, None).0, 200, "what was durable is there");

    let (pid, directory) = (node.pid(), node.directory().to_owned());
    drop(node);
    assert_eq!(state(pid), '-');
    assert!(!directory.exists());
}

fn virtual_hosts_are_fresh(node: &Node) {
    let name = node.fresh_vhost_name();
    assert_ne!(name, node.fresh_vhost_name());
    assert_eq!(node.url_of(&name), format!("amqp://guest:guest@127.0.0.1:{}/{name}", node.amqp_port()));
    assert!(node.url().ends_with("/%2f"));
    let (status, body) = node.http("GET", &format!("/api/vhosts/{name}/permissions"), None);
    assert_eq!(status, 200);
    assert!(body.contains(r#""user":"guest""#), "{body}");
}

fn users_are_limited(node: &Node) {
    let vhost = node.fresh_vhost_name();
    node.add_user(&vhost, "re\"ader", "se/cret", "^$", "^$", ".*");
    let permissions = node.ctl(&["list_permissions", "-p", &vhost]).expect("rabbitmqctl");
    assert!(permissions.contains("re\"ader\t^$\t^$\t.*"), "{permissions}");
    node.ctl(&["authenticate_user", "re\"ader", "se/cret"]).expect("the password is right");
    node.ctl(&["authenticate_user", "re\"ader", "wrong"]).expect_err("the password is wrong");
    assert!(node.url_as("re\"ader", "se/cret", &vhost).contains("re%22ader:se%2Fcret@"));
}

fn settings_arrive(node: &Node) {
    let answer = node.ctl(&["eval", "application:get_env(rabbit, consumer_timeout)."]);
    assert_eq!(answer.as_deref().map(str::trim), Ok("{ok,10000}"));
    let answer = node.ctl(&["eval", "application:get_env(rabbit, channel_tick_interval)."]);
    assert_eq!(answer.as_deref().map(str::trim), Ok("{ok,1000}"));
}

fn tls_is_trusted(node: &Node) {
    let files = node.tls().expect("TLS is on");
    let port = node.tls_port().expect("TLS is on");
    let output = Command::new("openssl")
        .args(["s_client", "-verify_return_error", "-verify_hostname", "localhost"])
        .args(["-connect", &format!("127.0.0.1:{port}"), "-CAfile"])
        .arg(&files.authority)
        .arg("-cert")
        .arg(&files.client)
        .arg("-key")
        .arg(&files.client_key)
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(node.tls_url_of("/").starts_with(&format!("amqps://guest:guest@localhost:{port}/")));
}

fn alarms_are_raised_and_cleared(node: &Node) {
    let check = || node.http("GET", "/api/health/checks/alarms", None).0;
    assert_eq!(check(), 200);
    node.memory_alarm(true);
    assert_eq!(check(), 503);
    node.memory_alarm(false);
    assert_eq!(check(), 200);
    node.disk_alarm(true);
    assert_eq!(check(), 503);
    node.disk_alarm(false);
    assert_eq!(check(), 200);
}

/// A process's state as in `/proc`; `-` when there is none.
fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('-')
}
