//! Which deliveries of a channel are settled, and when to say so.
//!
//! RabbitMQ takes one acknowledgement for a whole range. A range ends before the first delivery that is not settled, so
//! one slow job would hold back all behind it and, with a full prefetch, stop its queue. Hence: everything that is done
//! goes out once a quarter of the prefetch is done, or after [`WAIT`]: the contiguous beginning as a range,
//! the rest one by one.

use std::collections::VecDeque;
use std::time::Duration;

use ponos_core::id::MessageId;

/// How long an acknowledgement may wait for company.
pub(crate) const WAIT: Duration = Duration::from_millis(5);

/// A delivery's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// The consumer's.
    Held(MessageId),
    /// Somebody settles it at the moment.
    Settling(MessageId),
    /// Settled; RabbitMQ has not been told.
    Done,
    /// RabbitMQ has been told.
    Told,
}

/// The deliveries of one channel. Their tags count up from 1.
#[derive(Debug)]
pub(crate) struct Acks {
    /// The tag of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    done: usize,
    prefetch: usize,
}

/// An acknowledgement to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) tag: u64,
    /// Whether it is for all before it as well.
    pub(crate) multiple: bool,
}

impl Acks {
    pub(crate) fn new(prefetch: u32) -> Self {
        Self { first: 1, slots: VecDeque::new(), done: 0, prefetch: prefetch as usize }
    }

    fn slot(&mut self, tag: u64) -> Option<&mut Slot> {
        let at = usize::try_from(tag.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)
    }

    /// A delivery came.
    pub(crate) fn delivered(&mut self, tag: u64, id: MessageId) {
        while self.first + (self.slots.len() as u64) < tag {
            self.slots.push_back(Slot::Told);
        }
        self.slots.push_back(Slot::Held(id));
    }

    /// Takes a delivery to settle it; `None` when it is not the consumer's.
    pub(crate) fn begin(&mut self, tag: u64) -> Option<MessageId> {
        let slot = self.slot(tag)?;
        match *slot {
            Slot::Held(id) => {
                *slot = Slot::Settling(id);
                Some(id)
            }
            _ => None,
        }
    }

    /// It was not settled after all.
    pub(crate) fn give_back(&mut self, tag: u64) {
        if let Some(slot) = self.slot(tag)
            && let Slot::Settling(id) = *slot
        {
            *slot = Slot::Held(id);
        }
    }

    /// It is settled. Whether acknowledgements should be sent now.
    pub(crate) fn done(&mut self, tag: u64) -> bool {
        if let Some(slot) = self.slot(tag)
            && matches!(slot, Slot::Held(_) | Slot::Settling(_))
        {
            *slot = Slot::Done;
            self.done += 1;
        }
        self.done * 4 >= self.prefetch
    }

    /// RabbitMQ was told of it in another way.
    pub(crate) fn told(&mut self, tag: u64) {
        if let Some(slot) = self.slot(tag) {
            *slot = Slot::Told;
        }
    }

    /// What waits to be acknowledged, in as few acknowledgements as there can be.
    pub(crate) fn flush(&mut self, out: &mut Vec<Ack>) {
        let mut range = None;
        while let Some(Slot::Done | Slot::Told) = self.slots.front() {
            if self.slots.pop_front() == Some(Slot::Done) {
                range = Some(self.first);
            }
            self.first += 1;
        }
        out.extend(range.map(|tag| Ack { tag, multiple: true }));
        for (slot, tag) in self.slots.iter_mut().zip(self.first..) {
            if *slot == Slot::Done {
                *slot = Slot::Told;
                out.push(Ack { tag, multiple: false });
            }
        }
        self.done = 0;
    }

    /// The deliveries that the consumer holds.
    pub(crate) fn held(&self) -> impl Iterator<Item = MessageId> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Held(id) | Slot::Settling(id) => Some(*id),
            _ => None,
        })
    }

    /// How many deliveries RabbitMQ counts as not acknowledged.
    pub(crate) fn unsettled(&self) -> usize {
        self.slots.iter().filter(|slot| **slot != Slot::Told).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ponos_core::id::Timestamp;

    fn id() -> MessageId {
        MessageId::new(Timestamp::EPOCH, [0; 10])
    }

    fn with(prefetch: u32, deliveries: u64) -> Acks {
        let mut acks = Acks::new(prefetch);
        (1..=deliveries).for_each(|tag| acks.delivered(tag, id()));
        acks
    }

    fn flushed(acks: &mut Acks) -> Vec<(u64, bool)> {
        let mut out = Vec::new();
        acks.flush(&mut out);
        out.into_iter().map(|ack| (ack.tag, ack.multiple)).collect()
    }

    #[test]
    fn a_contiguous_beginning_is_one_range() {
        let mut acks = with(100, 10);
        for tag in [3, 1, 2] {
            assert!(acks.begin(tag).is_some());
            assert!(!acks.done(tag));
        }
        assert_eq!(flushed(&mut acks), [(3, true)]);
        assert_eq!(flushed(&mut acks), []);
        assert!(acks.begin(3).is_none(), "settled once");
    }

    #[test]
    fn what_is_done_behind_a_slow_one_is_told_singly() {
        let mut acks = with(8, 4);
        assert!(!acks.done(2));
        assert!(acks.done(4), "a quarter of the prefetch");
        assert_eq!(flushed(&mut acks), [(2, false), (4, false)]);
        acks.done(1);
        assert_eq!(flushed(&mut acks), [(1, true)], "and the range does not name what was told before");
        assert_eq!(acks.unsettled(), 1);
    }

    #[test]
    fn what_waits_for_the_confirm_of_its_copy_is_in_no_range() {
        let mut acks = with(8, 3);
        assert!((1..=3).all(|tag| acks.begin(tag).is_some()));
        acks.done(2);
        acks.done(3);
        assert_eq!(flushed(&mut acks), [(2, false), (3, false)], "a range would acknowledge the first too");
        acks.done(1);
        assert_eq!(flushed(&mut acks), [(1, true)]);
    }

    #[test]
    fn a_range_never_ends_on_a_tag_that_was_told_before() {
        let mut acks = with(8, 3);
        acks.done(1);
        acks.told(2);
        assert_eq!(flushed(&mut acks), [(1, true)]);
        acks.done(3);
        assert_eq!(flushed(&mut acks), [(3, true)]);
    }

    #[test]
    fn what_is_given_back_is_held_again() {
        let mut acks = with(8, 1);
        acks.begin(1);
        assert!(acks.begin(1).is_none());
        acks.give_back(1);
        assert_eq!(acks.held().count(), 1);
        assert!(acks.begin(1).is_some());
    }

    #[test]
    fn random_settlements_tell_each_delivery_once() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut acks = Acks::new(16);
            let (mut next, mut held, mut acked) = (1, Vec::new(), Vec::new());
            for _ in 0..300 {
                if held.len() < 16 && random.bool() {
                    acks.delivered(next, id());
                    held.push(next);
                    next += 1;
                } else if !held.is_empty() {
                    let tag = held.swap_remove(random.usize(..held.len()));
                    assert!(acks.begin(tag).is_some());
                    if random.u8(..10) == 0 {
                        acks.told(tag);
                        acked.push(tag);
                    } else if acks.done(tag) || random.u8(..4) == 0 {
                        let before = acks.first;
                        for (tag, multiple) in flushed(&mut acks) {
                            assert!(!acked.contains(&tag), "{tag} was told twice");
                            let range = if multiple { before..=tag } else { tag..=tag };
                            for tag in range {
                                assert!(!held.contains(&tag), "{tag} is not settled (seed {seed})");
                                if !acked.contains(&tag) {
                                    acked.push(tag);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
