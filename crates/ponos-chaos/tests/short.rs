//! The short form of each scenario: a few seconds, with every invariant checked.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's output is for who looks into a failure"
)]

use std::process::Command;

/// Runs scenarios in their short form, one after the other; those that need a RabbitMQ node share one.
fn short(scenarios: &[&str], broker: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_ponos-chaos"))
        .arg("run")
        .args(scenarios)
        .args(["--short", "--results", "-", "--broker", broker])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}{err}");
    assert!(output.status.success(), "{scenarios:?} on {broker}: {}", output.status);
}

#[test]
fn r1_no_job_is_lost_when_workers_on_sqlite_are_killed() {
    short(&["r1"], "sqlite");
}

/// Workers killed, the node killed, the network, alarms, jobs that kill their process or take too long, migrations.
#[test]
fn r4_r5_r7_r8_r11_r12_r13_no_job_is_lost_on_one_rabbitmq_node_whatever_happens_to_it() {
    short(&["r4", "r5", "r7", "r8", "r11", "r12", "r13"], "rabbitmq");
}

#[test]
fn r3_no_confirmed_change_is_taken_back_when_the_power_is_cut() {
    short(&["r3"], "sqlite");
}

#[test]
fn r6_publishing_goes_on_and_no_job_is_lost_when_the_nodes_of_a_cluster_are_killed() {
    short(&["r6"], "cluster");
}

#[test]
fn r9_no_job_is_lost_when_the_disk_is_full() {
    short(&["r9"], "sqlite");
}

#[test]
fn clock_no_job_is_early_late_or_twice_when_the_wall_clock_jumps() {
    short(&["clock"], "sqlite");
}

#[test]
fn r2_no_confirmed_job_is_lost_when_publishers_on_sqlite_are_killed() {
    short(&["r2"], "sqlite");
}

#[test]
fn r10_jobs_wait_for_a_dependency_on_sqlite_instead_of_being_given_up() {
    short(&["r10"], "sqlite");
}

#[test]
fn r14_nothing_is_lost_when_processes_on_sqlite_are_killed_and_stopped_by_turns() {
    short(&["r14"], "sqlite");
}

#[test]
fn r11_only_jobs_that_kill_their_process_on_sqlite_are_found_out() {
    short(&["r11"], "sqlite");
}

#[test]
fn pause_no_job_runs_twice_on_sqlite_but_those_of_a_worker_that_stood_still() {
    short(&["pause"], "sqlite");
}
