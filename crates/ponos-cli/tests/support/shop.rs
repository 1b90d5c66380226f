//! A small service of the library: parcels are sent when orders are paid, unless the printer is on fire.
#![allow(missing_docs, unreachable_pub, reason = "a test's")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ponos::prelude::*;

pub const TASK: &str = "shop.parcel.send";

/// Clears the screen, colours, turns the text around.
pub const EVIL: &str = "\u{1b}[2J\u{9b}31m\u{202e}evil";

#[event("order.paid")]
pub struct OrderPaid {
    pub order: u64,
}

#[event("parcel.sent")]
pub struct ParcelSent {
    pub order: u64,
}

#[app("shop", state = Printer)]
pub struct Shop;

#[task("shop.parcel.send", app = Shop, emits(ParcelSent))]
pub struct ParcelSend {
    pub order: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Printer {
    pub on_fire: Arc<AtomicBool>,
}

pub fn send_what_is_paid(e: OrderPaid) -> ParcelSend {
    ParcelSend { order: e.order }
}

pub async fn send(t: ParcelSend, cx: TaskCx<ParcelSend>) -> Outcome {
    if cx.state().on_fire.load(Ordering::SeqCst) {
        return Err(format!("the printer is on fire, label {} {EVIL}\nand a second line", t.order)).stop();
    }
    cx.emit(ParcelSent { order: t.order })?;
    Ok(())
}

pub fn service() -> Service<Shop> {
    Service::new().on(send_what_is_paid).task(send, |p| p)
}
