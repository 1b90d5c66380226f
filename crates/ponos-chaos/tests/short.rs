//! The short form of each scenario: a few seconds, with every invariant checked.

use std::process::Command;

use ponos_testbed::Node;

/// Runs a scenario in its short form; RabbitMQ is a virtual host of the node that these tests share.
fn short(scenario: &str, broker: &str) {
    let url = match broker {
        "rabbitmq" => {
            let node = Node::shared();
            let management = node.management_port().unwrap();
            format!("{}?management=http://127.0.0.1:{management}", node.fresh_vhost())
        }
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
fn r3_no_confirmed_change_is_taken_back_when_the_power_is_cut() {
    short("r3", "sqlite");
}

#[test]
fn r2_no_confirmed_job_is_lost_when_publishers_on_sqlite_are_killed() {
    short("r2", "sqlite");
}

#[test]
fn r4_no_job_is_lost_when_workers_on_rabbitmq_are_killed() {
    short("r4", "rabbitmq");
}

#[test]
fn r9_no_job_is_lost_when_the_disk_is_full() {
    short("r9", "sqlite");
}

#[test]
fn clock_no_job_is_early_late_or_twice_when_the_wall_clock_jumps() {
    short("clock", "sqlite");
}

#[test]
fn r10_jobs_wait_for_a_dependency_on_sqlite_instead_of_being_given_up() {
    short("r10", "sqlite");
}

#[test]
fn r14_nothing_is_lost_when_processes_on_sqlite_are_killed_and_stopped_by_turns() {
    short("r14", "sqlite");
}
