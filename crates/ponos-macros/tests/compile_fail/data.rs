//! What is inside a message carries `#[data]`, because serde alone cannot describe it.

use ponos::prelude::*;

#[derive(serde::Serialize, serde::Deserialize)]
pub struct OrgId(pub String);

#[event("org.payment.processed")]
pub struct OrgPaymentProcessed {
    pub org: OrgId,
}

fn main() {}
