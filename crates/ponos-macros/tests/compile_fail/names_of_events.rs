//! An event is a fact: `model.verb`, the verb in the past tense.

use ponos::prelude::*;

#[event("user.create")]
pub struct UserCreate {}

#[event("dock.unresponsive")]
pub struct DockUnresponsive {}

#[event("User.Created")]
pub struct UserCreated {}

#[event("user_account.created")]
pub struct UserAccountCreated {}

#[event("created")]
pub struct Created {}

#[event("retry.scheduled")]
pub struct RetryScheduled {}

#[event("")]
pub struct Nothing {}

#[event]
pub struct OrgPaymentProcessed {}

fn main() {}
