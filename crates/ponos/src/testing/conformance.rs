//! One suite for every broker: what the trait promises, as tests that know nothing of the broker behind it.
//!
//! A broker that passes can be given to every service. The suite runs unchanged against the broker in memory, the
//! embedded one and any other; each case is a test of its own, so a failure names the rule and the broker.
//!
//! ```
//! use std::sync::Arc;
//! use ponos::MemoryBroker;
//! use ponos::core::broker::Broker;
//! use ponos::testing::conformance::{self, Guarantee, Subject};
//!
//! /// A fresh broker for each case; each call of the closure gives another handle to the same messages.
//! fn memory() -> Subject {
//!     let broker = MemoryBroker::new();
//!     Subject::new(Guarantee::ExactlyOnce, move || {
//!         let broker: Arc<dyn Broker> = Arc::new(broker.clone());
//!         async move { broker }
//!     })
//! }
//!
//! conformance::tests!(memory, super::memory());
//! # fn main() {}
//! ```
//!
//! # Two kinds of cases
//!
//! *Steps* follow a few messages one call at a time and assert each answer, so they need a broker to which the
//! connection holds. *Whatever happens* works as the worker does, subscribing and settling again until it is
//! through, and asserts what is left: nothing is lost, nothing comes early, and, where the broker
//! [guarantees](Guarantee) it, nothing happens twice. A broker that injects faults is held to the second kind alone:
//! `conformance::tests!(rough seed_1, super::rough(1));`.
//!
//! # What a broker brings
//!
//! Names of queues and events are the same in every case, so each [`Subject`] must start empty: a file of its own, a
//! virtual host of its own. No case takes longer than [`PATIENCE`].

#[expect(missing_docs, reason = "the names of the cases say what they check")]
mod consuming;
#[expect(missing_docs, reason = "the names of the cases say what they check")]
mod looking;
mod messages;
#[expect(missing_docs, reason = "the names of the cases say what they check")]
mod publishing;
#[expect(missing_docs, reason = "the names of the cases say what they check")]
mod settling;
mod stand;
#[expect(missing_docs, reason = "the names of the cases say what they check")]
mod whatever;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::{BoxFuture, Broker};
use ponos_core::name::QueueName;

pub use self::stand::Stand;

#[doc(inline)]
pub use crate::conformance_tests as tests;

/// The functions that the cases are.
#[doc(hidden)]
pub mod cases {
    pub use super::consuming::*;
    pub use super::looking::*;
    pub use super::publishing::*;
    pub use super::settling::*;
    pub use super::whatever::*;
}

/// How long one case may take before it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How far a broker's word goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// What a settlement sends and its verdict happen together or not at all, and a message ends once.
    ExactlyOnce,
    /// As across a network: a message may come again although it was settled, and be sent twice.
    AtLeastOnce,
}

/// A broker under test.
pub struct Subject {
    open: Opener,
    guarantee: Guarantee,
    sever: Option<Severer>,
}

type Opener = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Broker>> + Send + Sync>;
type Severer = Box<dyn Fn(&QueueName) + Send + Sync>;

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("guarantee", &self.guarantee).finish_non_exhaustive()
    }
}

impl Subject {
    /// A broker that starts empty; each call of `open` gives another handle to the same messages.
    pub fn new<F, Fut>(guarantee: Guarantee, open: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Arc<dyn Broker>> + Send + 'static,
    {
        Self { open: Box::new(move || Box::pin(open())), guarantee, sever: None }
    }

    /// How to break the connections of all who consume a queue, as when their processes die. Without it, what is
    /// counted as lost cannot be provoked, and stays to be tested by other means.
    #[must_use]
    pub fn severed_by(mut self, sever: impl Fn(&QueueName) + Send + Sync + 'static) -> Self {
        self.sever = Some(Box::new(sever));
        self
    }
}

/// Runs one case on a runtime of its own.
///
/// # Panics
///
/// When the broker does not keep the rule.
#[doc(hidden)]
pub fn check<Fut: Future<Output = ()>>(case: impl FnOnce(Stand) -> Fut, subject: Subject) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    runtime.block_on(async {
        let case = async { case(Stand::new(subject).await).await };
        assert!(tokio::time::timeout(PATIENCE, case).await.is_ok(), "not through after {PATIENCE:?}");
    });
}

/// Makes a module of tests for a broker: `tests!(name, subject)`, or `tests!(rough name, subject)` for one that injects
/// faults. `subject` is an expression that is evaluated for each case, inside the new module.
#[macro_export]
#[doc(hidden)]
macro_rules! conformance_tests {
    (rough $broker:ident, $subject:expr) => {
        mod $broker {
            $crate::conformance_tests! { @whatever ($subject) }
        }
    };
    ($broker:ident, $subject:expr) => {
        mod $broker {
            $crate::conformance_tests! { @whatever ($subject) }
            $crate::conformance_tests! { @tests ($subject)
                an_event_goes_to_every_queue_that_hears_it
                an_event_that_nobody_hears_is_confirmed_for_no_queue
                each_message_of_a_batch_has_its_own_outcome_in_order
                a_body_over_the_limit_is_refused_for_good_and_its_neighbours_are_taken
                a_body_is_delivered_byte_for_byte
                an_envelope_survives_in_every_field
                a_suspect_comes_as_it_was_sent
                messages_come_in_the_order_in_which_they_were_published
                a_message_that_is_delayed_keeps_nobody_waiting

                never_more_than_the_prefetch_is_held
                never_more_than_was_asked_for_is_delivered
                a_consumer_that_waits_is_woken
                two_consumers_never_hold_the_same_message
                a_dropped_subscription_hands_back_what_was_not_settled
                a_poll_that_is_given_up_loses_nothing
                a_subscription_that_is_given_up_while_it_opens_holds_nothing
                only_what_was_picked_is_delivered
                what_was_looked_at_can_be_picked_at_once
                a_prefetch_of_nothing_delivers_no_more_than_one
                a_consumer_that_dies_loses_its_jobs_and_it_is_counted
                a_closed_broker_has_handed_back_and_says_that_it_is_closed

                done_removes_the_message
                a_release_keeps_the_place_and_counts_no_loss
                a_retry_returns_to_its_own_queue_alone_with_its_new_progress
                a_recovery_comes_at_once_with_its_new_progress
                a_failure_is_kept_with_its_report_and_its_bytes
                two_failures_of_one_message_are_both_kept
                a_failed_job_can_be_moved_back_under_its_id
                what_a_settlement_sends_goes_out_with_it
                a_settlement_that_cannot_send_leaves_the_delivery_ours
                a_settlement_with_a_body_over_the_limit_leaves_the_delivery_ours
                a_delivery_is_settled_once
                what_is_settled_after_its_subscription_was_dropped_is_lost
                an_old_delivery_does_not_settle_a_new_one

                the_figures_add_up
                pages_show_each_message_once_oldest_first
                a_page_after_a_message_that_is_gone_is_not_the_first_page
                one_message_is_found_by_its_id
            }
        }
    };
    (@whatever $subject:tt) => {
        $crate::conformance_tests! { @tests $subject
            declaring_again_changes_nothing
            declaring_at_the_same_time_succeeds_for_all
            a_message_for_a_queue_that_does_not_exist_is_returned
            what_does_not_exist_is_not_found
            the_outcome_of_a_publish_is_the_truth
            a_delayed_message_is_never_early_and_comes
            a_retry_is_never_early_and_keeps_its_identity
            every_message_ends
            looking_a_hundred_times_consumes_nothing
            an_order_stands_until_it_is_replaced_or_ends
            orders_of_several_kinds_stand_side_by_side
            records_are_found_by_their_transaction
            a_reader_of_records_goes_on_where_another_was
        }
    };
    (@tests ($subject:expr) $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::conformance::check($crate::testing::conformance::cases::$case, $subject);
            }
        )*
    };
}
