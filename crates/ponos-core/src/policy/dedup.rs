use std::collections::{HashSet, VecDeque};

/// Remembers the ids of the messages that were done last, so that a copy of one can be recognised.
///
/// It holds the newest `capacity` ids, at most [`MAX`](Self::MAX), and forgets the oldest first. Only *done* belongs
/// in here: a failed attempt's next delivery carries the same id and must run. Lookups and insertions take constant
/// time (an insertion amortised: the memory grows with use, to about 3 MiB for 65,536 ids).
///
/// ```
/// use ponos_core::policy::DedupWindow;
///
/// let mut done = DedupWindow::new(2);
/// assert!(done.insert([1; 16]) && done.insert([2; 16]));
/// assert!(done.contains(&[1; 16]));
/// done.insert([3; 16]);
/// assert!(!done.contains(&[1; 16]));
/// ```
#[derive(Debug, Clone)]
pub struct DedupWindow {
    /// The same ids as in `order`, to be found.
    ids: HashSet<[u8; 16]>,
    /// The same ids as in `ids`, oldest first, to be forgotten.
    order: VecDeque<[u8; 16]>,
    capacity: usize,
}

impl DedupWindow {
    /// The greatest capacity, and the default: 65,536 ids.
    pub const MAX: usize = 65_536;

    /// A window of the newest `capacity` ids, at most [`MAX`](Self::MAX). With 0 it remembers nothing.
    pub fn new(capacity: usize) -> Self {
        Self { ids: HashSet::new(), order: VecDeque::new(), capacity: capacity.min(Self::MAX) }
    }

    /// Whether `id` is remembered as done.
    pub fn contains(&self, id: &[u8; 16]) -> bool {
        self.ids.contains(id)
    }

    /// Remembers `id` as done, forgetting the oldest id if the window is full.
    ///
    /// Returns whether it was new. An id that is known already keeps its age.
    pub fn insert(&mut self, id: [u8; 16]) -> bool {
        if self.capacity == 0 {
            return true;
        }
        if self.ids.contains(&id) {
            return false;
        }
        if self.order.len() == self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.ids.insert(id);
        self.order.push_back(id);
        true
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl Default for DedupWindow {
    fn default() -> Self {
        Self::new(Self::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u64) -> [u8; 16] {
        u128::from(number).to_le_bytes()
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_list(capacity in 0..20_usize, numbers in prop::collection::vec(0..40_u64, 0..400)) {
            let mut window = DedupWindow::new(capacity);
            let mut list: Vec<u64> = Vec::new();
            for number in numbers {
                let new = !list.contains(&number);
                prop_assert_eq!(window.insert(id(number)), new);
                if new {
                    list.push(number);
                    list.drain(..list.len().saturating_sub(capacity));
                }
                for known in 0..40 {
                    prop_assert_eq!(window.contains(&id(known)), list.contains(&known));
                }
                prop_assert_eq!(window.len(), list.len());
                prop_assert_eq!(window.is_empty(), list.is_empty());
                prop_assert_eq!(window.ids.len(), window.order.len());
            }
        }
    }

    #[test]
    fn memory_stays_bounded_however_much_is_asked_for() {
        let mut window = DedupWindow::new(usize::MAX);
        let many = 4 * DedupWindow::MAX as u64;
        for number in 0..many {
            assert!(window.insert(id(number)));
        }
        assert_eq!(window.len(), DedupWindow::MAX);
        assert_eq!(window.order.capacity(), DedupWindow::MAX);
        assert!(window.ids.capacity() <= 2 * DedupWindow::MAX);
        assert!(window.contains(&id(many - DedupWindow::MAX as u64)));
        assert!(!window.contains(&id(many - DedupWindow::MAX as u64 - 1)));
    }
}
