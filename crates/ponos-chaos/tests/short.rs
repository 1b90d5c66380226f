//! The short form of each scenario: a few seconds, with every invariant checked.

use std::process::Command;

/// Runs a scenario in its short form; RabbitMQ is a virtual host of the node that these tests share.
fn short(scenario: &str, broker: &str) {
    let url = match broker {
        "rabbitmq" => ponos_testbed::Node::shared().fresh_vhost(),
        other => other.to_owned(),
    };
    let output = Command::new(env!("CARGO_BIN_EXE_ponos-chaos"))
        .args(["run", scenario, "--short", "--results", "-", "--broker", &url])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}{err}");
    assert!(output.status.success(), "{scenario} on {broker}: {}", output.status);
}

#[test]
fn r1_no_job_is_lost_when_workers_on_sqlite_are_killed() {
    short("r1", "sqlite");
}

#[test]
fn r4_no_job_is_lost_when_workers_on_rabbitmq_are_killed() {
    short("r4", "rabbitmq");
}
