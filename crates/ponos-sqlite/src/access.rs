//! Who else on this machine may read or change the broker's files.
//!
//! Ponos makes them for their owner alone, whatever the umask. What it finds may be otherwise. Whoever can write to the file
//! gives handlers their jobs, so what *everybody* may write to is refused. A group is somebody's choice and is left alone, and
//! what everybody may read is used, with a warning.

use ponos_core::broker::BrokerError;

use crate::location::Location;

/// Looks at the directory and at those files that exist, before any of them is opened.
///
/// # Errors
///
/// `Unusable` when everybody may write there, or when a file was put there by another user.
#[cfg(unix)]
pub(crate) fn check(location: &Location) -> Result<(), BrokerError> {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use ponos_core::broker::BrokerErrorKind;

    /// "Others" may write, read, and look files up; only its owner may rename or delete a file (chmod(1)).
    const WRITE: u32 = 0o002;
    const READ: u32 = 0o004;
    const ENTER: u32 = 0o001;
    const STICKY: u32 = 0o1000;

    let unusable = |problem: String| Err(BrokerError::new(BrokerErrorKind::Unusable, problem));
    let Some((directory, found)) =
        location.database.parent().and_then(|path| Some((path.display(), fs::metadata(path).ok()?)))
    else {
        // What is wrong with it, opening the file says better.
        return Ok(());
    };
    let (shown, common) = (&location.shown, found.mode() & WRITE != 0);
    let secluded = found.mode() & ENTER == 0;
    if common && found.mode() & STICKY == 0 {
        return unusable(format!(
            "everybody may write to `{directory}`, and so put another file in the place of `{shown}`: `chmod o-w {directory}`, or make a directory in it with `mkdir -m 700`"
        ));
    }
    let me = own_user();
    let mut legible = Vec::new();
    for path in location.all() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        let path = path.display();
        // In a directory such as /tmp anybody can be there first.
        if common && found.uid() != 0 && me.is_some_and(|me| me != found.uid()) {
            return unusable(format!(
                "`{path}` was put into `{directory}` by another user (number {}), who can read and change it: give the broker a directory of its own, made with `mkdir -m 700`",
                found.uid()
            ));
        }
        if found.is_symlink() {
            continue;
        }
        if found.mode() & WRITE != 0 && !secluded {
            return unusable(format!(
                "everybody may write to `{path}`, and so give handlers any job: `chmod o-w {path}`, and look who did"
            ));
        }
        if found.mode() & READ != 0 && !secluded && found.is_file() && found.len() > 0 {
            legible.push(path.to_string());
        }
    }
    if !legible.is_empty() {
        tracing::warn!(
            files = legible.join(" "),
            "everybody on this machine may read these files, with the bodies of all messages: `chmod o-r` them"
        );
    }
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn check(_: &Location) -> Result<(), BrokerError> {
    Ok(())
}

/// The number of the user that this process runs as, where the kernel tells it without a system call of one's own (proc(5)).
#[cfg(unix)]
fn own_user() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|process| std::os::unix::fs::MetadataExt::uid(&process))
}
