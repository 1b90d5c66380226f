//! The broker itself, as far as it is a file.

use std::io::Read as _;
use std::path::Path;

use super::finding::{Code, Report};

/// Less free space than this ends badly soon.
const LITTLE: u64 = 256 << 20;

/// Looks at the files of the embedded broker.
pub(super) fn file(path: &Path, report: &mut Report) {
    let size = |suffix: &str| {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        std::fs::metadata(beside).map_or(0, |found| found.len())
    };
    let mut parts = vec![bytes(size(""))];
    // A new file has it in its write-ahead log alone. That it can be used, its opening has shown.
    if let Some(epoch) = epoch(path) {
        parts.insert(0, format!("schema {epoch}"));
    }
    parts.push(format!("write-ahead log {}", bytes(size("-wal"))));
    parts.push(format!("records {}", bytes(size(".journal"))));
    match free(path) {
        Ok(free) if free < LITTLE => {
            report.error(
                Code::DiskFull,
                path.display().to_string(),
                format!("{} are left on its disk", bytes(free)),
                "free some space: a full disk stops every publish and every settlement".into(),
            );
        }
        Ok(free) => parts.push(format!("{} free", bytes(free))),
        Err(why) => report.unseen("free space", why),
    }
    report.fine(format!("broker {}: {}", path.display(), parts.join(", ")));
    #[cfg(unix)]
    access(path, report);
}

/// What everybody on this machine may read. What everybody may write, the broker refuses to open.
#[cfg(unix)]
fn access(path: &Path, report: &mut Report) {
    use std::os::unix::fs::MetadataExt;
    let others = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.mode() & 0o7);
    // Nobody gets to what is in a directory that they may not enter.
    if path.parent().is_none_or(|directory| others(directory) & 0o1 == 0) {
        return;
    }
    for (suffix, what) in [
        ("", "the bodies of all messages"),
        ("-wal", "the bodies of the latest messages"),
        (".journal", "the records of what happened"),
        (".view", "the records of what happened"),
    ] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        let beside = Path::new(&beside);
        if others(beside) & 0o6 != 0 {
            let shown = beside.display().to_string();
            report.warning(
                Code::FilesOpen,
                shown.clone(),
                format!("everybody on this machine may read {what} in it"),
                format!("`chmod o-rwx {shown}`; Ponos makes its files for their owner alone"),
            );
        }
    }
}

/// The schema's version: the "user version" in the file's head (<https://sqlite.org/fileformat.html>).
fn epoch(path: &Path) -> Option<u32> {
    let mut head = [0_u8; 64];
    std::fs::File::open(path).ok()?.read_exact(&mut head).ok()?;
    let [.., a, b, c, d] = head;
    Some(u32::from_be_bytes([a, b, c, d])).filter(|epoch| *epoch > 0)
}

#[cfg(unix)]
fn free(path: &Path) -> Result<u64, String> {
    let disk = rustix::fs::statvfs(path).map_err(|error| error.to_string())?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Result<u64, String> {
    Err("this system is not asked for it".to_owned())
}

/// `812 kB`, `1.2 MB`.
pub(super) fn bytes(count: u64) -> String {
    let units = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        None => format!("{count} B"),
        Some((unit, name)) if count < 10 * unit => {
            format!("{}.{} {name}", count / unit, count % unit * 10 / unit)
        }
        Some((unit, name)) => format!("{} {name}", count / unit),
    }
}
