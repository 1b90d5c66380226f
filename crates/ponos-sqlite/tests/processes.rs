//! Many processes on one file: opening, dying, standing still, taking turns. The other processes are this test binary,
//! started again with a role in the environment.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ponos_core::broker::*;
use ponos_sqlite::{SqliteBroker, SqliteOptions};
use support::*;

const ROLE: &str = "PONOS_TEST_ROLE";
const FILE: &str = "PONOS_TEST_FILE";

/// Starts this binary again, to do nothing but `role`.
fn start(role: &str, file: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(FILE, file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for a line of the child that starts so, and gives the rest of it.
fn line(child: &mut Child, start: &str) -> String {
    let out = child.stdout.as_mut().unwrap();
    // One byte at a time: what the next call wants must not be lost in a buffer.
    let mut reader = BufReader::with_capacity(1, out);
    let mut text = String::new();
    loop {
        text.clear();
        assert_ne!(reader.read_line(&mut text).unwrap(), 0, "the child ended before it said `{start}`");
        if let Some(at) = text.find(start) {
            return text[at + start.len()..].trim().to_owned();
        }
    }
}

#[expect(clippy::print_stdout, reason = "the way to the parent")]
fn say(text: &str) {
    println!("\n{text}");
}

/// What a child does; nothing in the parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process() {
    let (Ok(role), Ok(file)) = (std::env::var(ROLE), std::env::var(FILE)) else {
        return;
    };
    let file = Path::new(&file);
    match role.as_str() {
        "hold" => {
            let options = SqliteOptions::new().heartbeat(Duration::from_millis(50));
            let broker = SqliteBroker::open(file, options).unwrap();
            let mut jobs = subscribe(&broker, TASK, 10).await;
            let held = take(&mut jobs, 3).await;
            say("holding");
            // Until killed; after a stop it tries what is no longer its own.
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            loop {
                let settled = broker.settle(&held[0], Settlement::just(Verdict::Done)).await;
                say(&format!("settled {}", if settled.is_ok() { "done" } else { "lost" }));
                std::thread::park();
            }
        }
        "hold a suspect" => {
            let broker = open(file);
            let mut jobs = subscribe(&broker, TASK, 10).await;
            let count = next(&mut jobs, 10).await.len();
            say(&format!("holding {count}"));
            std::thread::park();
        }
        "open" => {
            let broker = ready(file).await;
            assert!(broker.publish(tasks(1)).await[0].is_confirmed());
            broker.close().await.unwrap();
            say("opened");
        }
        "write" => {
            let broker = ready(file).await;
            say("ready");
            let until = Instant::now() + Duration::from_secs(3);
            let mut sent = 0;
            while Instant::now() < until {
                sent += broker.publish(tasks(20)).await.iter().filter(|p| p.is_confirmed()).count();
            }
            say(&format!("sent {sent}"));
            say(&format!("waited {}", broker.stats().longest_lock_wait.as_millis()));
            broker.close().await.unwrap();
        }
        "consume" => {
            let broker = ready(file).await;
            let mut jobs = subscribe(&broker, TASK, 50).await;
            say("ready");
            loop {
                for delivery in next(&mut jobs, 50).await {
                    done(&broker, &delivery).await;
                    say(&format!("got {}", delivery.envelope.id));
                }
            }
        }
        "grow" => {
            let broker = ready(file).await;
            assert!(broker.publish(tasks(10)).await.iter().all(Published::is_confirmed));
            let refused = loop {
                let bulk = (0..20).map(|_| task(&"x".repeat(50_000))).collect();
                if let Some(Published::Refused(error) | Published::Unknown(error)) =
                    broker.publish(bulk).await.into_iter().find(|outcome| !outcome.is_confirmed())
                {
                    break error;
                }
            };
            assert!(refused.is_temporary(), "{refused}");
            say(&format!("full {refused}"));
            std::io::stdin().read_line(&mut String::new()).unwrap();
            // The same broker goes on, and so do its subscriptions.
            assert!(broker.publish(tasks(1)).await[0].is_confirmed());
            let mut jobs = subscribe(&broker, TASK, 5).await;
            for delivery in take(&mut jobs, 5).await {
                done(&broker, &delivery).await;
            }
            say("recovered");
        }
        other => panic!("unknown role {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_killed_process_are_back_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = ready(&file).await;
    broker.publish(tasks(3)).await;
    let mut child = start("hold", &file);
    line(&mut child, "holding");
    assert_eq!(stats(&broker, TASK).await.consumers, 1);
    let mut jobs = subscribe(&broker, TASK, 10).await;
    child.kill().unwrap();
    let killed = Instant::now();
    let back = take(&mut jobs, 3).await;
    let took = killed.elapsed();
    child.wait().unwrap();
    eprintln!("jobs of a killed process were back after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(back.iter().all(|delivery| delivery.losses == 1));
    assert_eq!(broker.stats().reclaimed, 3);
    assert_eq!(stats(&broker, TASK).await.consumers, 1, "only our own");
    let locks = std::fs::read_dir(dir.path().join("ponos.db.procs")).unwrap().count();
    assert_eq!(locks, 1, "the dead one's lock file was cleared away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_loses_its_leases_and_is_fenced_off() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let options = SqliteOptions::new().lease(Duration::from_secs(1));
    let broker = SqliteBroker::open(&file, options).unwrap();
    broker.declare(&topology()).await.unwrap();
    broker.publish(tasks(3)).await;
    let mut child = start("hold", &file);
    line(&mut child, "holding");
    let mut jobs = subscribe(&broker, TASK, 10).await;
    // Long enough for a busy machine to look, find no sign for a lease, and look again.
    assert!(silent(&mut jobs, Duration::from_secs(3)).await, "its heartbeat keeps its leases");
    stop_outside_of_a_write(&child, &file);
    let back = take(&mut jobs, 3).await;
    assert!(back.iter().all(|delivery| delivery.losses == 1));
    signal(&child, "-CONT");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
    assert_eq!(line(&mut child, "settled "), "lost");
    for delivery in &back {
        done(&broker, delivery).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn suspect() -> Outgoing {
    let mut suspect = task("{}");
    suspect.envelope.progress.suspect = Some(0);
    suspect
}

/// A suspect's losses decide, so only those count that it alone can have caused.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_counts_the_deaths_only_of_processes_that_held_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = ready(&file).await;
    // Beside ordinary jobs it is set aside, and so it is the only one of several suspects.
    let ordinary = tasks(2);
    let both = [suspect(), suspect()];
    let ids = both.each_ref().map(|suspect| suspect.envelope.id);
    broker.publish(ordinary.into_iter().chain(both).collect()).await;
    let die = |held: &str| {
        let mut child = start("hold a suspect", &file);
        assert_eq!(line(&mut child, "holding "), held);
        child.kill().unwrap();
        child.wait().unwrap();
    };
    die("2");
    // Otherwise the suspect that it left is here at once: nothing else is held.
    eventually(Duration::from_secs(10), "its jobs are back", || broker.stats().reclaimed == 3);
    let mut jobs = subscribe(&broker, TASK, 10).await;
    let first = take(&mut jobs, 2).await;
    assert!(first.iter().all(|delivery| delivery.losses == 1), "who may have done it is counted");
    assert!(silent(&mut jobs, Duration::from_millis(200)).await, "the suspects wait for their turn");
    done(&broker, &first[0]).await;
    assert!(silent(&mut jobs, Duration::from_millis(200)).await);
    done(&broker, &first[1]).await;
    for id in ids {
        let alone = next(&mut jobs, 10).await;
        assert_eq!(alone.iter().map(|it| (it.envelope.id, it.losses)).collect::<Vec<_>>(), [(id, 0)]);
        broker.publish(tasks(1)).await;
        assert!(silent(&mut jobs, Duration::from_millis(200)).await, "nothing comes beside it");
        done(&broker, &alone[0]).await;
    }
    for delivery in take(&mut jobs, 2).await {
        done(&broker, &delivery).await;
    }
    drop(jobs);
    // Alone it is counted.
    broker.publish(vec![suspect()]).await;
    die("1");
    let mut jobs = subscribe(&broker, TASK, 10).await;
    assert_eq!(take(&mut jobs, 1).await[0].losses, 1);
}

/// As when a process is stopped in the middle of a transaction: nobody can give a sign of life.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_taken_for_hung_because_nobody_could_write() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let lease = Duration::from_secs(1);
    let options = SqliteOptions::new().lease(lease).heartbeat(Duration::from_millis(10));
    let broker = SqliteBroker::open(&file, options).unwrap();
    broker.declare(&topology()).await.unwrap();
    broker.publish(tasks(3)).await;
    let mut child = start("hold", &file);
    line(&mut child, "holding");
    let mut jobs = subscribe(&broker, TASK, 10).await;
    let lock = std::fs::File::open(dir.path().join("ponos.db.writer.lock")).unwrap();
    for _ in 0..3 {
        lock.lock().unwrap();
        assert!(silent(&mut jobs, lease * 3 / 2).await);
        lock.unlock().unwrap();
        // Written after whatever waited for the lock.
        assert!(broker.publish(vec![event("org.payment.processed")]).await[0].is_confirmed());
        assert_eq!(broker.stats().reclaimed, 0, "its sign of life waited as ours did");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Stops it, but not while it holds the lock of writers: then nobody could write, which is another story.
fn stop_outside_of_a_write(child: &Child, file: &Path) {
    let mut lock = file.as_os_str().to_owned();
    lock.push(".writer.lock");
    let lock = std::fs::File::open(lock).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        signal(child, "-STOP");
        // This process writes too, for a moment.
        let free = (0..200).any(|_| {
            let free = lock.try_lock().is_ok();
            std::thread::yield_now();
            free
        });
        if free {
            lock.unlock().unwrap();
            return;
        }
        signal(child, "-CONT");
        assert!(Instant::now() < end, "it always writes");
    }
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_full_disk_fails_publishes_for_now_and_the_process_lives() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    // A limit on the size of files stands in for the disk; a signal that would kill is ignored (setrlimit(2)).
    let mut child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -S -f 20000; exec \"$0\" --exact another_process --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env(ROLE, "grow")
        .env(FILE, &file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let refused = line(&mut child, "full ");
    assert!(refused.contains("ponos.db"), "{refused}");
    let lifted =
        Command::new("prlimit").args(["--pid", &child.id().to_string(), "--fsize=unlimited"]).status();
    assert!(lifted.unwrap().success());
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
    line(&mut child, "recovered");
    assert!(child.wait().unwrap().success());
}

#[test]
fn processes_that_open_a_fresh_file_at_the_same_moment_all_succeed() {
    let rounds = std::env::var("PONOS_OPEN_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    for round in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ponos.db");
        let mut children: Vec<Child> = (0..5).map(|_| start("open", &file)).collect();
        for child in &mut children {
            line(child, "opened");
            assert!(child.wait().unwrap().success(), "round {round}");
        }
        let count: i64 = rusqlite::Connection::open(&file)
            .unwrap()
            .query_row("SELECT count(*) FROM message", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 5);
    }
}

#[test]
fn eight_writing_processes_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let mut children: Vec<Child> = (0..8).map(|_| start("write", &file)).collect();
    let mut sent = Vec::new();
    let mut longest = 0;
    for child in &mut children {
        sent.push(line(child, "sent ").parse::<i64>().unwrap());
        longest = longest.max(line(child, "waited ").parse::<u64>().unwrap());
        assert!(child.wait().unwrap().success());
    }
    eprintln!("eight writers: messages sent {sent:?}, longest wait for the lock {longest} ms");
    assert!(longest <= 1000, "{longest} ms");
    let count: i64 = rusqlite::Connection::open(&file)
        .unwrap()
        .query_row("SELECT count(*) FROM message", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, sent.iter().sum::<i64>(), "what was confirmed is there, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_hears_of_a_message_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = ready(&file).await;
    let mut child = start("consume", &file);
    line(&mut child, "ready");
    let mut waits = Vec::new();
    for _ in 0..20 {
        let message = task("{}");
        let id = message.envelope.id.to_string();
        broker.publish(vec![message]).await;
        let published = Instant::now();
        assert_eq!(line(&mut child, "got "), id);
        waits.push(published.elapsed());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    waits.sort();
    eprintln!("publish to done in another process: median {:?}, longest {:?}", waits[10], waits[19]);
    // Without the wake-up it would be the sweep that finds it, half a second later in the median.
    assert!(waits[10] < Duration::from_millis(400), "{waits:?}");
}
