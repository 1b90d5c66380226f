//! What is found at the path: bad files, foreign rows, other versions.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use ponos_core::broker::*;
use ponos_core::envelope::{GaveUp, GaveUpReason, Recovery, Report};
use ponos_core::wire;
use ponos_sqlite::{SqliteBroker, SqliteOptions};
use rusqlite::{Connection, params};
use support::*;

/// The schema of epoch 1, minor 0, as that version created it. A copy: it must not follow the code.
const MINOR_0: &str = include_str!("fixtures/schema-1.0.sql");

fn refused(path: &Path) -> BrokerError {
    SqliteBroker::open(path, SqliteOptions::new()).unwrap_err()
}

fn database(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_path_that_will_not_do_is_refused_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("text"), "this is not a database, whatever its name may say: ".repeat(100)).unwrap();
    database(&path("foreign"), "CREATE TABLE t (x)");
    database(&path("marked"), "PRAGMA application_id = 7");
    database(
        &path("newer"),
        "PRAGMA application_id = 0x506f6e6f; PRAGMA user_version = 2; CREATE TABLE t (x)",
    );
    let cases = [
        (path("text"), BrokerErrorKind::Unusable, "no SQLite database"),
        (path("foreign"), BrokerErrorKind::Unusable, "another program's database"),
        (path("marked"), BrokerErrorKind::Unusable, "another program's database"),
        (path("newer"), BrokerErrorKind::Unusable, "update this program"),
        (path("missing/ponos.db"), BrokerErrorKind::Unusable, "create the directory first"),
        (path("text/ponos.db"), BrokerErrorKind::Unusable, "directory"),
        (dir.path().to_owned(), BrokerErrorKind::Unusable, "is a directory"),
        ("/sys/kernel/ponos.db".into(), BrokerErrorKind::Denied, "write access"),
    ];
    for (path, kind, says) in cases {
        let error = refused(&path);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let text = std::fs::read_to_string(path("text")).unwrap();
    assert!(text.starts_with("this is not"), "it was left as it was");
}

/// The directory in which a child makes its files.
const DIRECTORY: &str = "PONOS_TEST_DIRECTORY";

/// A umask belongs to a process, so each has one of its own.
#[test]
fn every_file_is_for_its_owner_alone_whatever_the_umask() {
    for umask in ["000", "002", "022", "077"] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sh");
        child.args(["-c", &format!("umask {umask}; exec \"$0\" --exact files_are_made --nocapture")]);
        let ran = child.arg(std::env::current_exe().unwrap()).env(DIRECTORY, dir.path()).output().unwrap();
        assert!(ran.status.success(), "{umask}: {ran:?}");
        assert!(dir.path().join("ponos.db").exists(), "{umask}: the child did nothing");
    }
}

/// What the children above do; otherwise nothing.
#[tokio::test]
async fn files_are_made() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let dir = Path::new(&dir);
    let broker = ready(&dir.join("ponos.db")).await;
    broker.publish(tasks(1)).await;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().chain(std::fs::read_dir(dir.join("ponos.db.procs")).unwrap())
    {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    assert!(
        names.iter().any(|name| name == "ponos.db-wal")
            && names.iter().any(|name| name == "ponos.db.journal")
    );
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn what_everybody_may_write_to_is_refused_and_what_a_group_shares_is_not() {
    let outer = tempfile::tempdir().unwrap();
    // Others get as far as the directory, or its modes would not matter.
    chmod(outer.path(), 0o755);
    let dir = outer.path().join("shared");
    std::fs::create_dir(&dir).unwrap();
    let file = dir.join("ponos.db");
    for (mode, good) in [(0o777, false), (0o702, false), (0o775, true), (0o1777, true), (0o700, true)] {
        chmod(&dir, mode);
        match SqliteBroker::open(&file, SqliteOptions::new()) {
            Ok(broker) => {
                assert!(good, "{mode:o}");
                broker.close().await.unwrap();
            }
            Err(error) => {
                assert!(!good && error.kind() == BrokerErrorKind::Unusable, "{mode:o}: {error}");
                assert!(error.to_string().contains("chmod o-w"), "{error}");
            }
        }
    }
    chmod(&dir, 0o755);
    for name in ["ponos.db", "ponos.db.writer.lock", "ponos.db.procs", "ponos.db.journal"] {
        let path = dir.join(name);
        let before = std::fs::metadata(&path).unwrap().permissions().mode();
        chmod(&path, before & 0o777 | 0o002);
        let error = refused(&file).to_string();
        assert!(error.contains(name) && error.contains("chmod o-w"), "{error}");
        // Nobody else gets to it.
        chmod(&dir, 0o700);
        open(&file).close().await.unwrap();
        chmod(&dir, 0o755);
        chmod(&path, before & 0o777 | 0o020);
    }
    // A group that somebody chose, and readers, of whom the log is told.
    chmod(&file, 0o664);
    open(&file).close().await.unwrap();
}

/// In a directory such as /tmp anybody can be there first. Giving a file away needs root.
#[test]
fn a_file_that_another_user_left_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o1777);
    for name in ["ponos.db", "ponos.db.writer.lock", "ponos.db-wal"] {
        let planted = dir.path().join(name);
        std::fs::write(&planted, "").unwrap();
        if let Err(error) = std::os::unix::fs::chown(&planted, Some(12345), None) {
            return eprintln!("skipped: a file cannot be given to another user ({error})");
        }
        let error = refused(&dir.path().join("ponos.db"));
        assert!(error.to_string().contains("another user (number 12345)"), "{error}");
        std::fs::remove_file(&planted).unwrap();
        // A link is the other user's too, wherever it leads.
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &planted).unwrap();
        std::os::unix::fs::lchown(&planted, Some(12345), None).unwrap();
        let error = refused(&dir.path().join("ponos.db"));
        assert!(error.to_string().contains("another user"), "{error}");
        std::fs::remove_file(&planted).unwrap();
    }
    assert!(!dir.path().join("elsewhere").exists());
}

#[tokio::test]
async fn a_row_of_garbage_is_delivered_and_can_fail_with_its_bytes_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = ready(&file).await;
    let raw = Connection::open(&file).unwrap();
    let queue_id: i64 =
        raw.query_row("SELECT id FROM queue WHERE name = ?1", [TASK], |row| row.get(0)).unwrap();
    for (id, head, body) in [
        (&[1u8; 16][..], &b"\xff\xfe"[..], &b"\x00\xff not json"[..]),
        (&[2u8; 16][..], b"", b""),
        (b"short", b"{\"p\":{\"id\":7},\"h\":[]}", b"{}"),
    ] {
        raw.execute(
            "INSERT INTO message (queue_id, message_id, ready_at, head, body) VALUES (?1, ?2, 0, ?3, ?4)",
            params![queue_id, id, head, body],
        )
        .unwrap();
    }
    let mut jobs = subscribe(&broker, TASK, 10).await;
    let got = take(&mut jobs, 3).await;
    assert_eq!(&got[0].envelope.body[..], b"\x00\xff not json");
    assert_eq!(got[0].envelope.id.as_bytes(), &[1; 16]);
    for delivery in &got {
        let report = Report {
            queue: queue(TASK),
            gave_up: GaveUp { reason: GaveUpReason::Undecodable, error: "x".into(), attempts: 1 },
            recovery: Recovery::None,
            at: now(),
            fingerprint: "f".into(),
            history: Vec::new(),
            version: None,
            host: String::new(),
        };
        broker.settle(delivery, Settlement::just(Verdict::Failed(Box::new(report)))).await.unwrap();
    }
    let query = Inspect::Messages { queue: queue("pheidi.failed"), limit: 10, after: None };
    let failed = broker.inspect(query).await.unwrap().into_messages();
    assert_eq!(failed.len(), 3);
    assert_eq!(&failed[0].body[..], b"\x00\xff not json");
    assert_eq!(failed[0].report.as_ref().unwrap().queue, TASK);
}

/// A file that turns bad under a running broker: what is asked of it fails, and the process lives.
#[tokio::test]
async fn a_damaged_file_is_reported_and_ends_the_subscriptions() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = ready(&file).await;
    broker.publish(tasks(300)).await;
    broker.close().await.unwrap();
    // Everything behind the first pages is overwritten while nobody has it open.
    let mut bytes = std::fs::read(&file).unwrap();
    let pages = bytes.len();
    bytes[4096 * 14..pages].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let broker = match SqliteBroker::open(&file, SqliteOptions::new()) {
        Ok(broker) => broker,
        Err(error) => return assert_eq!(error.kind(), BrokerErrorKind::Unusable, "{error}"),
    };
    let mut jobs = subscribe(&broker, TASK, 100).await;
    let mut out = Vec::new();
    let lost = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let polled = std::future::poll_fn(|cx| jobs.poll_next(cx, 100, &mut out)).await;
            if let Err(lost) = polled {
                break lost;
            }
            for delivery in out.drain(..) {
                let _ = broker.settle(&delivery, Settlement::just(Verdict::Done)).await;
            }
        }
    });
    let lost = lost.await.expect("the subscription ends");
    assert!(lost.reason.contains("damaged"), "{lost}");
    let Published::Refused(error) = broker.publish(tasks(1)).await.remove(0) else { panic!() };
    assert_eq!(error.kind(), BrokerErrorKind::Unusable, "{error}");
}

/// A program of minor 0: its statements as they were, on a connection of its own.
struct Minor0(Connection);

impl Minor0 {
    fn create(path: &Path) -> Self {
        let connection = Connection::open(path).unwrap();
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {MINOR_0}; PRAGMA application_id = 0x506f6e6f; PRAGMA user_version = 1; COMMIT")).unwrap();
        Self(connection)
    }

    fn open(path: &Path) -> Self {
        Self(Connection::open(path).unwrap())
    }

    fn declare(&self, name: &str) {
        self.0.execute("INSERT INTO queue (name) VALUES (?1)", [name]).unwrap();
        self.0.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'", []).unwrap();
    }

    fn enter(&self, id: i64) {
        self.0.execute("INSERT INTO process (id, beat) VALUES (?1, ?2)", params![id, 1]).unwrap();
    }

    fn publish(&self, message: &Outgoing) {
        let Destination::Queue(queue) = &message.to else { unreachable!() };
        let changed = self
            .0
            .execute(
                "INSERT INTO message (queue_id, message_id, ready_at, fence, owner, head, body)
                 SELECT id, ?2, ?3, 5, 6, ?4, ?5 FROM queue WHERE name = ?1
                 ON CONFLICT (queue_id, message_id, copy) DO NOTHING",
                params![
                    queue.as_str(),
                    message.envelope.id.as_bytes(),
                    i64::try_from(now().as_millis()).unwrap(),
                    wire::encode(&message.envelope),
                    &message.envelope.body[..]
                ],
            )
            .unwrap();
        assert_eq!(changed, 1);
    }

    fn claim(&self, owner: i64) -> Option<(i64, Vec<u8>)> {
        let mut claim = self
            .0
            .prepare(
                "UPDATE message SET state = 1, fence = 99, owner = ?1 WHERE id IN (SELECT id FROM message
                 WHERE state = 0 ORDER BY ready_at, id LIMIT 1) RETURNING id, message_id",
            )
            .unwrap();
        claim.query_map([owner], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().next().transpose().unwrap()
    }

    fn done(&self, row: i64) {
        let sql = "DELETE FROM message WHERE id = ?1 AND fence = 99 AND state = 1";
        assert_eq!(self.0.execute(sql, [row]).unwrap(), 1);
    }
}

async fn work_together(broker: &SqliteBroker, old: &Minor0) {
    old.enter(4242);
    // Old writes, new reads.
    let from_old = task("{\"from\":\"old\"}");
    old.publish(&from_old);
    let mut jobs = subscribe(broker, TASK, 10).await;
    let delivery = take(&mut jobs, 1).await.remove(0);
    assert_eq!(*delivery.envelope, from_old.envelope);
    done(broker, &delivery).await;
    drop(jobs);
    // New writes, old reads.
    let from_new = task("{\"from\":\"new\"}");
    assert!(broker.publish(vec![from_new.clone()]).await[0].is_confirmed());
    let (row, id) = old.claim(4242).unwrap();
    assert_eq!(id, from_new.envelope.id.as_bytes());
    assert_eq!(stats(broker, TASK).await.unsettled, Some(1));
    old.done(row);
    // What the old one declares, the new one finds, though it had looked before.
    let later = queue("pheidi.later.do");
    let message = Outgoing { to: Destination::Queue(later.clone()), ..task("{}") };
    assert_eq!(broker.publish(vec![message.clone()]).await, [Published::Returned]);
    old.declare(later.as_str());
    assert_eq!(broker.publish(vec![message]).await, [Published::Confirmed { queues: 1 }]);
}

#[tokio::test]
async fn this_version_joins_a_file_of_minor_0_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let old = Minor0::create(&file);
    old.declare("unrelated.thing.do");
    let broker = ready(&file).await;
    work_together(&broker, &old).await;
    let program: String =
        old.0.query_row("SELECT program FROM process WHERE pid > 0", [], |row| row.get(0)).unwrap();
    assert!(program.starts_with("files-"), "{program}: what minor 1 adds is there");
}

#[tokio::test]
async fn minor_0_joins_a_file_of_this_version() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = ready(&file).await;
    work_together(&broker, &Minor0::open(&file)).await;
}

#[tokio::test]
async fn a_later_minor_is_used_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    ready(&file).await.close().await.unwrap();
    database(
        &file,
        "ALTER TABLE message ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'; ALTER TABLE process ADD COLUMN x INTEGER;
         UPDATE meta SET value = 7 WHERE key = 'minor'",
    );
    let broker = ready(&file).await;
    work_together(&broker, &Minor0::open(&file)).await;
}
