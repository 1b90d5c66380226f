//! The thread that follows the journal: it alone writes, and it tells those who watch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ponos::core::id::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};

use super::state::stopped;
use crate::broker::Session;
use crate::error::CliError;
use crate::text;
use crate::view::{Entries, View};

/// How long a look for new entries waits for the next.
const PAUSE: Duration = Duration::from_millis(150);

/// The same after one that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// For how long the read model counts as current after a look.
const CURRENT: Duration = Duration::from_secs(15);

/// How many entries a slow watcher may be behind.
const BEHIND: usize = 1024;

#[derive(Debug)]
pub(super) struct Collector {
    shared: Arc<Standing>,
    live: Entries,
    ended: watch::Receiver<bool>,
}

/// How it stands with the collector.
#[derive(Debug)]
struct Standing {
    /// When the journal was last read to its end, in milliseconds since the epoch; 0 before the first time.
    read_at: AtomicU64,
    started: Timestamp,
    /// What went wrong at the last look.
    problem: Mutex<Option<String>>,
}

impl Collector {
    /// Begins to follow.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started, or the files cannot be used.
    pub(super) fn start(session: Arc<Session>, stopping: watch::Receiver<bool>) -> Result<Self, CliError> {
        let (live, _) = broadcast::channel(BEHIND);
        let live = Entries::new(live);
        let mut view = View::of(&session)?;
        view.tell(live.clone());
        let shared = Arc::new(Standing {
            read_at: AtomicU64::new(0),
            started: text::now(),
            problem: Mutex::new(None),
        });
        let (done, ended) = watch::channel(false);
        let (handle, standing) = (Handle::current(), Arc::clone(&shared));
        std::thread::Builder::new()
            .name("collector".to_owned())
            .spawn(move || {
                handle.block_on(follow(view, &session, &standing, stopping));
                drop(session);
                let _ = done.send(true);
            })
            .map_err(|error| {
                CliError::refused(
                    format!("cannot start a thread: {error}"),
                    "free some memory, then try again",
                )
            })?;
        Ok(Self { shared, live, ended })
    }

    /// Entries as they are read from now on.
    pub(super) fn watch(&self) -> broadcast::Receiver<Arc<ponos::core::journal::Entry>> {
        self.live.watch()
    }

    /// How many entries were read since it was started.
    pub(super) fn read(&self) -> u64 {
        self.live.read()
    }

    /// How long ago the journal was read to its end.
    pub(super) fn lag(&self) -> Duration {
        let at = self.shared.read_at.load(Ordering::Relaxed);
        let since = if at == 0 { self.shared.started } else { Timestamp::from_millis(at) };
        text::now().since(since)
    }

    /// Why what it answers may be old, if so.
    pub(super) fn problem(&self) -> Option<String> {
        let read = self.shared.read_at.load(Ordering::Relaxed) > 0;
        let problem = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match problem {
            None if *self.ended.borrow() => {
                Some("the journal is not followed any more: start it anew".to_owned())
            }
            None if !read => Some("the journal has not been read to its end yet: ask again later".to_owned()),
            problem if self.lag() > CURRENT => {
                Some(problem.unwrap_or_else(|| "the journal is not read fast enough".to_owned()))
            }
            problem => problem,
        }
    }

    /// Waits until the thread has ended.
    pub(super) async fn end(&self, deadline: Duration) {
        let mut ended = self.ended.clone();
        let _ = tokio::time::timeout(deadline, ended.wait_for(|ended| *ended)).await;
    }
}

async fn follow(mut view: View, session: &Session, standing: &Standing, stopping: watch::Receiver<bool>) {
    let mut stopped = std::pin::pin!(stopped(stopping));
    loop {
        // Cancelled between two pages nothing is lost: the next one goes on behind what was written.
        let looked = tokio::select! {
            looked = view.catch_up(session) => looked,
            () = &mut stopped => return,
        };
        let pause = match looked {
            Ok(()) => {
                standing.read_at.store(text::now().as_millis(), Ordering::Relaxed);
                *standing.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
                PAUSE
            }
            Err(error) => {
                let problem = error.in_one_line();
                *standing.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut stopped => return,
        }
    }
}
