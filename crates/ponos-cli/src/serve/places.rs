//! Places for connections, of which there are so many. Who keeps the server waiting loses his to who comes.
//!
//! A connection *waits* from its beginning until a request's head has arrived, and again from its answer on. When all
//! places are taken, the one that has waited longest is closed: a program that opens connections and says nothing, or reads no
//! answer, pushes out its own. Requests that are being answered, and streams, keep theirs; those are bounded elsewhere, to less than
//! the places there are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many connections there are at once.
const CONNECTIONS: usize = 128;

/// All places.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Mutex<Taken>,
    /// Told when a place was left, or has begun to wait.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    next: u64,
    /// Those that wait, the longest first.
    waiting: BTreeMap<u64, Arc<Leave>>,
}

/// Tells a connection to end.
#[derive(Debug, Default)]
struct Leave {
    now: Notify,
    /// Whether its place is another's already.
    lost: AtomicBool,
}

/// A connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    leave: Arc<Leave>,
    /// Under which number it waits.
    waits: Mutex<Option<u64>>,
}

impl Places {
    /// Gives a place, that of another where none is free.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken from anybody before it is given.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let changed = self.changed.notified();
            if let Some(place) = self.try_take() {
                return place;
            }
            changed.await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.count >= CONNECTIONS {
            let (_, longest) = taken.waiting.pop_first()?;
            longest.lost.store(true, Ordering::Relaxed);
            longest.now.notify_one();
            taken.count -= 1;
        }
        taken.count += 1;
        drop(taken);
        let place = Place { places: Arc::clone(self), leave: Arc::default(), waits: Mutex::default() };
        place.waits();
        Some(place)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// From now on it waits for the other side.
    pub(super) fn waits(&self) {
        let mut number = self.number();
        let mut taken = self.places.lock();
        if number.is_none() && !self.leave.lost.load(Ordering::Relaxed) {
            taken.next += 1;
            let next = taken.next;
            taken.waiting.insert(next, Arc::clone(&self.leave));
            *number = Some(next);
            drop(taken);
            self.places.changed.notify_one();
        }
    }

    /// From now on the other side waits.
    pub(super) fn works(&self) {
        if let Some(number) = self.number().take() {
            self.places.lock().waiting.remove(&number);
        }
    }

    /// Waits until its place was given to another.
    pub(super) async fn lost(&self) {
        self.leave.now.notified().await;
    }

    fn number(&self) -> MutexGuard<'_, Option<u64>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.works();
        let mut taken = self.places.lock();
        if !self.leave.lost.load(Ordering::Relaxed) {
            taken.count -= 1;
            drop(taken);
            self.places.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_lost(place: &Place) -> bool {
        place.leave.lost.load(Ordering::Relaxed)
    }

    #[test]
    fn who_waits_longest_loses_its_place_and_who_works_does_not() {
        let places = Arc::new(Places::default());
        let mut all: Vec<Place> = (0..CONNECTIONS).map(|_| places.try_take().unwrap()).collect();
        all[0].works();
        all[1].works();
        all[1].waits();
        let came = places.try_take().unwrap();
        assert!(is_lost(&all[2]) && all.iter().filter(|it| is_lost(it)).count() == 1);
        // The one that has lost its place frees none, and is given none by waiting.
        all[2].works();
        all[2].waits();
        drop(all.remove(2));
        assert_eq!(places.lock().count, CONNECTIONS);
        for place in all.iter().chain([&came]).filter(|it| !is_lost(it)) {
            place.works();
        }
        assert!(places.try_take().is_none(), "all of them work");
        all[5].waits();
        let _next = places.try_take().unwrap();
        assert!(is_lost(&all[5]));
        drop((all, came));
        let taken = places.lock();
        assert_eq!((taken.count, taken.waiting.len()), (1, 1));
    }
}
