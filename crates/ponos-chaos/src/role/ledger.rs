//! The ledger's process: takes lines from sockets, appends them to one file, and has the disk keep them.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use crate::output;

/// How much may be lost if the machine stops: nothing that a run's faults do.
const SYNC: Duration = Duration::from_millis(200);

/// Listens until the standard input ends, then takes what is still on its way.
pub(crate) fn keep(dir: &Path) -> anyhow::Result<()> {
    let path = crate::ledger::file(dir);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let file = Arc::new(Mutex::new(file.with_context(|| format!("opening {}", path.display()))?));
    let socket = crate::ledger::socket(dir);
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("listening at {}", socket.display()))?;
    let readers = Arc::new(Mutex::new(Vec::new()));
    {
        let (file, readers) = (Arc::clone(&file), Arc::clone(&readers));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let file = Arc::clone(&file);
                let reader = std::thread::spawn(move || take(stream, &file));
                lock(&readers).push(reader);
            }
        });
    }
    {
        let file = Arc::clone(&file);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(SYNC);
                sync(&file);
            }
        });
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // Whoever wrote has ended by now, so every connection does.
    let readers = std::mem::take(&mut *lock(&readers));
    for reader in readers {
        let _ = reader.join();
    }
    sync(&file);
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sync(file: &Mutex<File>) {
    // Not under the lock: writers must not wait for the disk.
    let synced = lock(file).try_clone().and_then(|file| file.sync_data());
    if let Err(error) = synced {
        output::problem(&format!("the ledger is not on the disk: {error}"));
    }
}

/// Appends whole lines. What a process was killed in the middle of writing is no line.
fn take(mut stream: UnixStream, file: &Mutex<File>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut line = Vec::new();
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                line.extend_from_slice(&buffer[..read]);
                let Some(end) = line.iter().rposition(|byte| *byte == b'\n') else { continue };
                if let Err(error) = lock(file).write_all(&line[..=end]) {
                    output::problem(&format!("the ledger cannot be written: {error}"));
                    std::process::abort();
                }
                line.drain(..=end);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                output::problem(&format!("a connection to the ledger was lost: {error}"));
                return;
            }
        }
    }
}
