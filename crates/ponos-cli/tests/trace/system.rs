//! Five applications: a payment is processed, thanked for, booked, measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ponos::prelude::*;

use crate::place::Place;

#[event("org.payment.processed")]
pub(crate) struct PaymentProcessed {
    pub(crate) org: String,
}

#[event("org.plan.activated")]
pub(crate) struct PlanActivated {
    pub(crate) org: String,
}

#[event("org.receipt.emailed")]
pub(crate) struct ReceiptEmailed {
    pub(crate) org: String,
}

#[app("cream")]
pub(crate) struct Cream;

#[task("cream.invoice.pay", app = Cream, emits(PaymentProcessed))]
pub(crate) struct InvoicePay {
    pub(crate) org: String,
    pub(crate) card: String,
    #[serde(default)]
    pub(crate) cents: u64,
}

async fn pay(t: InvoicePay, cx: TaskCx<InvoicePay>) -> Outcome {
    cx.emit(PaymentProcessed { org: t.org })?;
    Ok(())
}

pub(crate) async fn cream(place: &Place) -> Running<Cream> {
    cream_service().start((), place.broker()).await.unwrap()
}

pub(crate) fn cream_service() -> Service<Cream> {
    Service::new().version("1.0.0").task(pay, |p| p)
}

#[app("big-poppa")]
pub(crate) struct BigPoppa;

#[task("big-poppa.plan.activate", app = BigPoppa, emits(PlanActivated))]
pub(crate) struct PlanActivate {
    pub(crate) org: String,
}

fn activate_what_is_paid(e: PaymentProcessed) -> PlanActivate {
    PlanActivate { org: e.org }
}

async fn activate(t: PlanActivate, cx: TaskCx<PlanActivate>) -> Outcome {
    cx.emit(PlanActivated { org: t.org })?;
    Ok(())
}

pub(crate) async fn big_poppa(place: &Place) -> Running<BigPoppa> {
    big_poppa_service().start((), place.broker()).await.unwrap()
}

pub(crate) fn big_poppa_service() -> Service<BigPoppa> {
    Service::new().on(activate_what_is_paid).task(activate, |p| p)
}

/// A mail server: how many attempts fail before one succeeds, and whose mail fails for good.
#[derive(Debug, Default)]
pub(crate) struct Smtp {
    pub(crate) failures: AtomicU32,
}

#[app("pheidi", state = Arc<Smtp>)]
pub(crate) struct Pheidi;

#[task("pheidi.email.send", app = Pheidi, emits(ReceiptEmailed))]
pub(crate) struct EmailSend {
    pub(crate) org: String,
}

fn thank_the_payer(e: PaymentProcessed) -> EmailSend {
    EmailSend { org: e.org }
}

async fn send(t: EmailSend, cx: TaskCx<EmailSend>) -> Outcome {
    let left = |n: u32| n.checked_sub(1);
    if t.org == "nobody" {
        return Err(format!("no such mailbox, token={}", t.org)).stop();
    }
    if cx.state().failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
        return Err("connection refused".into());
    }
    cx.emit(ReceiptEmailed { org: t.org })?;
    Ok(())
}

async fn flag(_: EmailSend, _: TaskCx<EmailSend>, _: GaveUp) -> Outcome {
    Ok(())
}

pub(crate) async fn pheidi(place: &Place, smtp: &Arc<Smtp>) -> Running<Pheidi> {
    pheidi_service().start(Arc::clone(smtp), place.broker()).await.unwrap()
}

pub(crate) fn pheidi_service() -> Service<Pheidi> {
    let retry = Backoff::exponential(Duration::from_millis(100)).jitter(0.0);
    let breaker = BreakerConfig::default()
        .consecutive(2)
        .open_initial(Duration::from_millis(1200))
        .open_jitter(0.0)
        .close_after(1);
    Service::new()
        .version("2.4.1")
        .on(thank_the_payer)
        .task(send, |p| p.retry(retry).max_retries(5).recover(flag).depends_on("smtp").breaker(breaker))
}

#[app("metrics")]
pub(crate) struct Metrics;

#[task("metrics.payment.count", app = Metrics)]
pub(crate) struct PaymentCount {
    pub(crate) org: String,
}

fn count_what_is_paid(e: PaymentProcessed) -> PaymentCount {
    PaymentCount { org: e.org }
}

async fn count(_: PaymentCount, _: TaskCx<PaymentCount>) -> Outcome {
    Ok(())
}

pub(crate) async fn metrics(place: &Place) -> Running<Metrics> {
    metrics_service().start((), place.broker()).await.unwrap()
}

pub(crate) fn metrics_service() -> Service<Metrics> {
    Service::new().on(count_what_is_paid).task(count, |p| p)
}
