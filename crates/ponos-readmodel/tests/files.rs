//! Files: their modes, their age and size, and what becomes of those that cannot be used.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use ponos_core::id::{Tid, Timestamp};
use ponos_core::journal::Entry;
use ponos_readmodel::{ReadModel, ReadModelErrorKind};

const HOUR: u64 = 3_600_000;

/// An event so many hours ago, in a transaction of its own.
fn ago(hours: u64) -> (Tid, Entry) {
    let when = Timestamp::from_millis(NOW - hours * HOUR);
    let tid = Tid::new(when, [u8::try_from(hours).expect("a test's own"); 10]);
    let event = published("org.payment.processed", None, 1);
    (tid.clone(), record(1, 1000 - hours, when, &tid, message(1), event))
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory.join("model").join("segments"))
        .expect("a test's own")
        .map(|file| file.expect("a test's own").path())
        .filter(|path| path.extension().is_some_and(|it| it == "db"))
        .collect();
    files.sort();
    files
}

fn log(hours: impl IntoIterator<Item = u64>) -> Log {
    let log = Log::default();
    log.entries.lock().expect("a test's own").extend(hours.into_iter().map(|hours| ago(hours).1));
    log
}

#[test]
fn what_is_too_old_goes_by_the_file_and_figures_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    log([100, 79, 78, 70, 30, 1]).catch_up(&mut model);
    // 06:50 now: 72 hours ago is in the slot of 06:00, which is kept whole; 78.8 hours ago was the slot before.
    for (hours, kept) in [(100, false), (79, false), (78, false), (70, true), (30, true), (1, true)] {
        let records = model.trace(&ago(hours).0).unwrap().records.len();
        assert_eq!(records, usize::from(kept), "{hours} hours ago");
    }
    assert_eq!(segments(directory.path()).len(), 3);
    assert_eq!(model.names(Timestamp::EPOCH).unwrap()[0].sources[0].published, 6);
    let mut short = ReadModel::open(
        directory.path().join("model"),
        options().rollups_for(Duration::from_secs(3600 * 48)),
    )
    .unwrap();
    short.retain().unwrap();
    assert_eq!(short.names(Timestamp::EPOCH).unwrap()[0].sources[0].published, 2);
}

#[test]
fn what_is_too_large_goes_from_the_oldest_on_and_the_current_one_never() {
    let directory = tempfile::tempdir().unwrap();
    let mut full = model(directory.path());
    log([40, 30, 20, 0]).catch_up(&mut full);
    assert_eq!(segments(directory.path()).len(), 4);
    let sizes: u64 = full.storage().unwrap().bytes;
    drop(full);
    let open = |bytes| ReadModel::open(directory.path().join("model"), options().raw_bytes(bytes)).unwrap();
    open(sizes).retain().unwrap();
    assert_eq!(segments(directory.path()).len(), 4, "all fit");
    let two: u64 =
        segments(directory.path())[2..].iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    open(two).retain().unwrap();
    assert_eq!(segments(directory.path()).len(), 2);
    let mut none = open(0);
    none.retain().unwrap();
    assert_eq!(segments(directory.path()).len(), 1);
    assert_eq!(none.trace(&ago(0).0).unwrap().records.len(), 1);
}

#[test]
fn a_reader_is_not_troubled_by_segments_that_another_drops_and_makes_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (mut one, other) = (model(directory.path()), model(directory.path()));
    let log = log([20, 0]);
    log.catch_up(&mut one);
    assert_eq!(other.trace(&ago(20).0).unwrap().records.len(), 1);
    ReadModel::open(directory.path().join("model"), options().raw_bytes(0)).unwrap().retain().unwrap();
    assert_eq!(other.trace(&ago(20).0).unwrap().records.len(), 0);
    one.ingest(&[ago(20).1], None).unwrap();
    assert_eq!(other.trace(&ago(20).0).unwrap().records.len(), 1);
}

#[test]
fn a_damaged_segment_is_read_from_the_log_again() {
    for damage in [b"this is no database at all, whatever it was before".to_vec(), vec![0; 8192], Vec::new()]
    {
        let directory = tempfile::tempdir().unwrap();
        let log = log([20, 8, 0]);
        let mut first = model(directory.path());
        assert_eq!(log.catch_up(&mut first).new, 3);
        drop(first);
        std::fs::write(&segments(directory.path())[1], &damage).unwrap();
        let mut model = model(directory.path());
        assert_eq!(model.trace(&ago(8).0).unwrap().records.len(), 0, "it is not there");
        assert_eq!(model.trace(&ago(20).0).unwrap().records.len(), 1, "others are");
        // What was an empty file is noticed when it is written to only.
        if !damage.is_empty() {
            let caught_up = log.catch_up(&mut model);
            assert_eq!((caught_up.read, caught_up.new), (3, 0), "nothing is counted twice");
            assert_eq!(model.trace(&ago(8).0).unwrap().records.len(), 1);
        }
        assert_eq!(model.names(Timestamp::EPOCH).unwrap()[0].sources[0].published, 3);
    }
}

#[test]
fn what_a_lost_segment_had_is_read_again_whoever_notices() {
    let directory = tempfile::tempdir().unwrap();
    let log = log([20, 8, 0]);
    let mut model = model(directory.path());
    let mut reader = log.reader(model.read_from().unwrap());
    assert_eq!(now(model.follow(&mut reader)).unwrap().read, 3);
    // Another process has it, so this one finds it damaged when it writes to it.
    let path = &segments(directory.path())[1];
    // Its log would mend it.
    for companion in ["db", "db-wal", "db-shm"] {
        std::fs::remove_file(path.with_extension(companion)).unwrap();
    }
    std::fs::write(path, "this is no database at all, whatever it was before").unwrap();
    let (tid, mut late) = ago(8);
    late.seq += 1;
    log.entries.lock().unwrap().push(late.clone());
    assert_eq!(now(model.follow(&mut reader)).unwrap().read, 1);
    assert_eq!(model.trace(&tid).unwrap().records.len(), 1);
    let error = now(model.follow(&mut reader)).unwrap_err();
    assert_eq!(error.kind(), ReadModelErrorKind::Log, "{error}");
    assert_eq!(log.catch_up(&mut model).read, 4);
    assert_eq!(model.trace(&tid).unwrap().records.len(), 2);
    assert_eq!(log.catch_up(&mut model).read, 0);
}

#[test]
fn damage_in_the_middle_of_a_segment_is_an_error_for_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let log = log([20, 8, 0]);
    log.catch_up(&mut model(directory.path()));
    let path = &segments(directory.path())[1];
    let mut bytes = std::fs::read(path).unwrap();
    let end = bytes.len();
    bytes[4096..end].fill(0xa5);
    std::fs::write(path, bytes).unwrap();
    let mut model = model(directory.path());
    assert_eq!(model.trace(&ago(8).0).unwrap().records.len(), 0);
    log.catch_up(&mut model);
    assert_eq!(model.trace(&ago(8).0).unwrap().records.len(), 1);
}

#[test]
fn a_damaged_model_is_counted_again_from_its_segments() {
    let directory = tempfile::tempdir().unwrap();
    let log = log([20, 8, 0]);
    log.catch_up(&mut model(directory.path()));
    std::fs::write(directory.path().join("model/model.db"), "rubbish, and enough of it to be a header")
        .unwrap();
    let mut model = model(directory.path());
    assert_eq!(model.names(Timestamp::EPOCH).unwrap()[0].sources[0].published, 3);
    assert!(model.gaps(Timestamp::EPOCH, Timestamp::from_millis(u64::MAX)).unwrap().is_empty());
    assert_eq!(log.catch_up(&mut model).new, 0);
    assert_eq!(model.trace(&ago(8).0).unwrap().records.len(), 1);
}

fn set_version(path: &Path, version: i32) {
    let file = rusqlite::Connection::open(path).expect("a test's own");
    file.pragma_update(None, "user_version", version).expect("a test's own");
}

#[test]
fn an_older_file_is_made_anew_and_a_newer_one_refused() {
    let directory = tempfile::tempdir().unwrap();
    let log = log([8, 0]);
    log.catch_up(&mut model(directory.path()));
    let file = directory.path().join("model/model.db");
    // A higher minor of this epoch is used as it is.
    set_version(&file, 1 << 16 | 7);
    assert_eq!(log.catch_up(&mut model(directory.path())).read, 0);
    set_version(&file, 7);
    set_version(&segments(directory.path())[0], 7);
    let mut again = model(directory.path());
    assert_eq!(again.trace(&ago(8).0).unwrap().records.len(), 0);
    log.catch_up(&mut again);
    assert_eq!(again.trace(&ago(8).0).unwrap().records.len(), 1);
    drop(again);
    set_version(&segments(directory.path())[0], 2 << 16);
    let error = model(directory.path()).trace(&ago(8).0).unwrap_err();
    assert_eq!(error.kind(), ReadModelErrorKind::Newer);
    set_version(&file, 2 << 16);
    let error = ReadModel::open(directory.path().join("model"), options()).unwrap_err();
    assert_eq!(error.kind(), ReadModelErrorKind::Newer);
    assert!(error.to_string().ends_with("update it, or give it another directory"), "{error}");
    assert!(file.exists());
}

#[test]
fn storage_tells_how_far_behind_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    let empty = model.storage().unwrap();
    assert_eq!((empty.entries, empty.oldest, empty.newest, empty.read_at), (0, None, None, None));
    log([30, 8, 1]).catch_up(&mut model);
    let storage = model.storage().unwrap();
    assert_eq!((storage.entries, storage.segments), (3, 3));
    assert_eq!(storage.oldest, Some(Timestamp::from_millis(NOW - 30 * HOUR)));
    assert_eq!(storage.newest, Some(Timestamp::from_millis(NOW - HOUR)));
    assert_eq!(storage.read_at, Some(Timestamp::from_millis(NOW)));
    assert_eq!(storage.position.map(|position| position.offset), Some(3));
    assert!(storage.bytes > 3 * 4096);
}

#[cfg(unix)]
#[test]
fn all_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let mut model = model(directory.path());
    log([0]).catch_up(&mut model);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let root = directory.path().join("model");
    assert_eq!((mode(&root), mode(&root.join("segments"))), (0o700, 0o700));
    for folder in [root.clone(), root.join("segments")] {
        for file in
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file())
        {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }
    drop(model);
    for path in [root.join("segments"), root.clone()] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = ReadModel::open(root.clone(), options()).unwrap_err();
        assert!(error.to_string().contains(&format!("`chmod o-w {}`", path.display())), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
    }
    ReadModel::open(root, options()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = ReadModel::open(file.join("model"), options()).unwrap_err();
    assert_eq!(error.kind(), ReadModelErrorKind::Files);
    assert!(error.to_string().starts_with("cannot make the directory `"), "{error}");
}
