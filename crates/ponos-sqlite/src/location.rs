//! Where the file and what belongs to it lie, and whether that place will do.

use std::fs;
use std::path::{Path, PathBuf};

use ponos_core::broker::{BrokerError, BrokerErrorKind};

use crate::error;

/// File systems of other machines: their locks and shared memory do not hold what SQLite's WAL needs.
/// (sqlite.org/wal.html: "WAL does not work over a network filesystem".)
const NETWORK: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "gpfs",
    "beegfs",
    "glusterfs",
    "ncpfs",
    "coda",
    "davfs",
];

/// What mounts of kind `fuse.…` are of the same sort.
const NETWORK_FUSE: &[&str] =
    &["sshfs", "glusterfs", "s3fs", "gcsfuse", "rclone", "ceph", "davfs2", "juicefs", "curlftpfs"];

/// The database and the files beside it.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    /// As the user wrote it, for messages.
    pub(crate) shown: String,
    /// Without symbolic links, so that two spellings of one file share its locks.
    pub(crate) database: PathBuf,
}

impl Location {
    /// Finds the file, which need not exist, in its directory, which must.
    pub(crate) fn find(path: &Path) -> Result<Self, BrokerError> {
        let shown = path.display().to_string();
        let unusable = |why: &str| BrokerError::new(BrokerErrorKind::Unusable, format!("`{shown}` {why}"));
        let database = match fs::canonicalize(path) {
            Ok(found) if found.is_dir() => {
                return Err(unusable("is a directory: give the path of a file in it, such as `ponos.db`"));
            }
            Ok(found) => found,
            Err(_) => {
                let name = path
                    .file_name()
                    .ok_or_else(|| unusable("names no file: give a path such as `ponos.db`"))?;
                let directory = match path.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    _ => Path::new("."),
                };
                fs::canonicalize(directory)
                    .map_err(|e| error::of_io("find the directory", directory, &e))?
                    .join(name)
            }
        };
        if let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo")
            && let Some(kind) = network_file_system(&mounts, &database)
        {
            return Err(unusable(&format!(
                "is on a network file system ({kind}), where SQLite's locks do not hold: use a local disk, or RabbitMQ"
            )));
        }
        Ok(Self { shown, database })
    }

    pub(crate) fn writer_lock(&self) -> PathBuf {
        self.beside(".writer.lock")
    }

    pub(crate) fn processes(&self) -> PathBuf {
        self.beside(".procs")
    }

    /// Not `-journal`: that is SQLite's own name for a rollback journal.
    pub(crate) fn journal(&self) -> PathBuf {
        self.beside(".journal")
    }

    pub(crate) fn journal_lock(&self) -> PathBuf {
        self.beside(".journal.lock")
    }

    /// The database and everything that belongs to it, whether it exists or not.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        let suffixes = [
            "",
            "-wal",
            "-shm",
            ".writer.lock",
            ".procs",
            ".journal",
            ".journal-wal",
            ".journal-shm",
            ".journal.lock",
        ];
        suffixes.iter().map(|suffix| self.beside(suffix)).collect()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.database.clone().into_os_string();
        path.push(suffix);
        path.into()
    }
}

/// The kind of network file system that `path` lies on, by the text of `/proc/self/mountinfo` (proc(5)).
fn network_file_system<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mut longest = (0, None);
    for line in mounts.lines() {
        let mut halves = line.splitn(2, " - ");
        let (Some(mount), Some(kind)) = (
            halves.next().and_then(|half| half.split(' ').nth(4)),
            halves.next().and_then(|half| half.split(' ').next()),
        ) else {
            continue;
        };
        let mount = PathBuf::from(unescape(mount));
        let depth = mount.components().count();
        // A later mount on the same place covers the earlier one.
        if path.starts_with(&mount) && depth >= longest.0 {
            longest = (depth, Some(kind));
        }
    }
    longest.1.filter(|kind| {
        NETWORK.contains(kind) || kind.strip_prefix("fuse.").is_some_and(|fuse| NETWORK_FUSE.contains(&fuse))
    })
}

/// Space, tab, newline and backslash are written as three octal digits there.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /srv/share rw shared:9 - nfs4 10.0.0.1:/x rw
31 22 0:41 / /home/a\\040b rw - fuse.sshfs host: rw
32 22 0:42 / /srv rw - 9p work rw
33 32 0:43 / /srv rw master:2 - ext4 /dev/vdb rw
nonsense
34 22 0:44 / /mnt/disk rw - fuse.ntfs-3g /dev/sdc rw";

    #[test]
    fn network_file_systems_are_found_by_the_deepest_mount() {
        let kind = |path: &str| network_file_system(MOUNTS, Path::new(path));
        assert_eq!(kind("/var/ponos.db"), None);
        assert_eq!(kind("/srv/share/a/ponos.db"), Some("nfs4"));
        assert_eq!(kind("/srv/shared/ponos.db"), None);
        assert_eq!(kind("/home/a b/ponos.db"), Some("fuse.sshfs"));
        assert_eq!(kind("/srv/ponos.db"), None, "covered by a later mount");
        assert_eq!(kind("/mnt/disk/ponos.db"), None);
    }
}
