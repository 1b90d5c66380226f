//! Files that will not do as an embedded broker: none stops anything but the start, and each is left as it was.

use std::path::{Path, PathBuf};

use ponos::prelude::*;

use super::row::{Comes, Row};
use super::support::*;

const HERE: &str = "crates/ponos/tests/bad_input/files.rs";

/// Number, what is there, its name in the directory, and what the error says.
const FILES: [(u8, &str, &str, &str); 7] = [
    (56, "a text", "list.db", "it is no SQLite database: give another path, or move the file away"),
    (
        56,
        "another program's database",
        "other.db",
        "is another program's database: give the broker a file of its own",
    ),
    (56, "a directory that is not there", "missing/ponos.db", "create the directory first"),
    (56, "a directory", "directory.db", "is a directory"),
    (
        56,
        "a file that may only be read (not for the superuser)",
        "read-only.db",
        "give this user write access to it and its directory",
    ),
    (
        56,
        "a directory in which nothing may be made",
        "/sys/kernel/ponos.db",
        "give this user write access to the directory",
    ),
    (
        57,
        "a file of a newer version of Ponos",
        "newer.db",
        "was written by a newer version of Ponos (schema epoch 2, this one knows 1): update this program",
    ),
];

async fn does(_: WorkDo, _: TaskCx<WorkDo>) -> Outcome {
    Ok(())
}

fn service() -> Service<Unit> {
    Service::new().task(does, |p| p)
}

/// Makes what the table names.
async fn make(dir: &Path) {
    let path = |name: &str| dir.join(name);
    std::fs::write(path("list.db"), "a shopping list, and no database: ".repeat(200)).unwrap();
    rusqlite::Connection::open(path("other.db")).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    std::fs::create_dir(path("directory.db")).unwrap();
    for name in ["read-only.db", "newer.db"] {
        service().start(Counter::default(), Broker::sqlite(path(name))).await.unwrap().shutdown().await;
    }
    rusqlite::Connection::open(path("newer.db")).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    let mut permissions = std::fs::metadata(path("read-only.db")).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(path("read-only.db"), permissions).unwrap();
}

/// Why a row cannot be shown on this machine, if so.
fn not_here(path: &Path) -> Option<&'static str> {
    if path.ends_with("read-only.db") && std::fs::OpenOptions::new().write(true).open(path).is_ok() {
        return Some("for the superuser no file is read-only");
    }
    (path.starts_with("/sys") && !Path::new("/sys/kernel").exists()).then_some("there is no /sys/kernel")
}

#[tokio::test]
async fn a_file_that_will_not_do_stops_the_start_and_is_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path()).await;
    for (_, input, name, says) in FILES {
        // An absolute name stays what it is.
        let path: PathBuf = dir.path().join(name);
        if let Some(why) = not_here(&path) {
            println!("skipped: {input}: {why}");
            continue;
        }
        let before = std::fs::read(&path).ok();
        let error = service().start(Counter::default(), Broker::sqlite(&path)).await.err();
        let error = error.unwrap_or_else(|| panic!("{input}: it started")).to_string();
        assert!(error.starts_with("the service `unit` cannot start: "), "{input}: {error}");
        assert!(
            error.contains(&path.parent().unwrap().display().to_string()),
            "{input} names the place: {error}"
        );
        assert!(error.contains(says), "{input}: {error}");
        assert!(std::fs::read(&path).ok() == before, "{input}: it is as it was");
    }
}

pub fn rows() -> Vec<Row> {
    let row = |(number, input, _, says): (u8, &str, &str, &str)| Row {
        number,
        input: input.to_owned(),
        comes: Comes::Start,
        outcome: "does not start, the file is left as it was".into(),
        says: format!("… {says}"),
        shown_by: (HERE, "a_file_that_will_not_do_stops_the_start_and_is_left_as_it_was"),
    };
    FILES.into_iter().map(row).collect()
}
