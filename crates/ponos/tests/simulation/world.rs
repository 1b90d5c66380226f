//! What is simulated: three applications, an order's way through them, and handlers that do all that handlers do.
//!
//! What a handler does follows from its payload and its attempt alone, so that it does the same if it runs twice.

use std::collections::BTreeSet;
use std::sync::{Mutex, Once};
use std::time::Duration;

use ponos::Task;
use ponos::prelude::*;
use ponos::testing::{Faults, Simulation};

#[event("order.placed")]
pub(crate) struct OrderPlaced {
    pub(crate) n: u64,
}

#[event("order.paid")]
pub(crate) struct OrderPaid {
    pub(crate) n: u64,
}

#[event("order.refused")]
pub(crate) struct OrderRefused {
    pub(crate) n: u64,
}

#[event("parcel.sent")]
pub(crate) struct ParcelSent {
    pub(crate) n: u64,
    pub(crate) part: u64,
}

#[app("bank")]
pub(crate) struct Bank;

#[task("bank.card.charge", app = Bank, emits(OrderPaid, OrderRefused))]
pub(crate) struct CardCharge {
    pub(crate) n: u64,
}

/// What this life of an instance has put off already.
#[derive(Debug, Default)]
pub(crate) struct Naps(Mutex<BTreeSet<(u64, u32)>>);

#[app("shop", state = Naps)]
pub(crate) struct Shop;

#[task("shop.parcel.pack", app = Shop, emits(ParcelSent))]
pub(crate) struct ParcelPack {
    pub(crate) n: u64,
    pub(crate) part: u64,
}

#[task("shop.stock.count", app = Shop)]
pub(crate) struct StockCount {
    pub(crate) n: u64,
}

#[app("post")]
pub(crate) struct Post;

#[task("post.letter.write", app = Post)]
pub(crate) struct LetterWrite {
    pub(crate) n: u64,
}

/// A number that follows from what is done, and for the how manieth time.
fn fate(what: &str, n: u64, attempt: u32) -> u64 {
    let mut hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(attempt) << 48);
    for byte in what.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 29)) % 100
}

/// What every handler does first: it takes its time, and fails in each of the ways.
async fn work<T: Task>(cx: &TaskCx<T>, what: &str, n: u64) -> Outcome {
    let fate = fate(what, n, cx.attempt());
    cx.sleep(Duration::from_millis(fate * 7 % 200)).await;
    match fate {
        0..18 => Err("the other side is busy")?,
        18..23 => Err("the other side asks for a while").retry_after(secs(fate)),
        23..26 => Err("this will never do").stop(),
        26..29 => panic!("a mistake in the handler"),
        29..32 => {
            cx.sleep(secs(300)).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn charge(t: CardCharge, cx: TaskCx<CardCharge>) -> Outcome {
    work(&cx, "charge", t.n).await?;
    if t.n % 5 == 4 {
        // It never works out, and its recovery says so.
        Err("the card is blocked")?;
    }
    cx.emit(OrderPaid { n: t.n })?;
    Ok(())
}

async fn refuse(t: CardCharge, cx: TaskCx<CardCharge>, _: GaveUp) -> Outcome {
    cx.sleep(Duration::from_millis(50)).await;
    if fate("refuse", t.n, cx.attempt()) < 30 {
        Err("the recovery fails too")?;
    }
    cx.emit(OrderRefused { n: t.n })?;
    Ok(())
}

async fn pack(t: ParcelPack, cx: TaskCx<ParcelPack>) -> Outcome {
    work(&cx, "pack", t.n * 3 + t.part).await?;
    cx.emit(ParcelSent { n: t.n, part: t.part })?;
    cx.create(StockCount { n: t.n })?;
    Ok(())
}

async fn count(t: StockCount, cx: TaskCx<StockCount>) -> Outcome {
    if fate("nap", t.n, cx.attempt()) < 30 && cx.state().0.lock().unwrap().insert((t.n, cx.attempt())) {
        return snooze(secs(40));
    }
    work(&cx, "count", t.n).await
}

async fn write(t: LetterWrite, cx: TaskCx<LetterWrite>) -> Outcome {
    work(&cx, "write", t.n).await
}

async fn apologise(_: LetterWrite, _: TaskCx<LetterWrite>, _: GaveUp) -> Outcome {
    Ok(())
}

fn charge_what_was_ordered(e: OrderPlaced) -> CardCharge {
    CardCharge { n: e.n }
}

fn pack_what_was_paid(e: OrderPaid) -> Vec<ParcelPack> {
    (0..=e.n % 3).map(|part| ParcelPack { n: e.n, part }).collect()
}

fn tell_what_was_refused(e: OrderRefused) -> LetterWrite {
    LetterWrite { n: e.n }
}

fn tell_what_was_sent(e: ParcelSent) -> Option<LetterWrite> {
    (e.part == 0).then_some(LetterWrite { n: e.n })
}

fn bank() -> Service<Bank> {
    let breaker = BreakerConfig::default().consecutive(4);
    Service::new().on(charge_what_was_ordered).task(charge, move |p| {
        p.max_retries(3)
            .retry(Backoff::exponential(secs(1)).max(secs(20)))
            .timeout(secs(20))
            .concurrency(3)
            .prefetch(6)
            .breaker(breaker)
            .recover(refuse)
    })
}

fn shop() -> Service<Shop> {
    Service::new()
        .on_with(pack_what_was_paid, |p| p.concurrency(2))
        .task(pack, |p| {
            p.max_retries(4).timeout(secs(30)).concurrency(2).prefetch(4).rate_limit(5.per_second())
        })
        .task(count, |p| p.max_retries(2).timeout(secs(10)).no_breaker().concurrency(1).prefetch(2))
}

fn post() -> Service<Post> {
    Service::new().on(tell_what_was_refused).on(tell_what_was_sent).task(write, |p| {
        p.max_retries(2).timeout(secs(15)).concurrency(4).depends_on("ink").recover(apologise)
    })
}

/// The world of a seed.
pub(crate) fn simulation(seed: u64) -> Simulation {
    let faults = if seed.is_multiple_of(10) { Faults::none(seed) } else { Faults::swarm(seed) };
    let (banks, shops) = (1 + seed as usize % 3, 1 + seed as usize / 3 % 2);
    Simulation::seeded(seed)
        .faults(faults)
        .instances(banks, || (bank(), ()))
        .instances(shops, || (shop(), Naps::default()))
        .instances(1, || (post(), ()))
        .load(move |mut load| async move {
            for n in 0..6 {
                load.emit(OrderPlaced { n: seed.wrapping_mul(31) % 997 + n }).await;
                let pause = load.draw(3000);
                load.pause(Duration::from_millis(pause)).await;
            }
        })
        .load(move |mut load| async move {
            for n in 0..3 {
                load.create(StockCount { n: seed % 89 + n }).await;
                let pause = load.draw(8000);
                load.pause(Duration::from_millis(pause)).await;
            }
        })
}

/// Handlers panic on purpose, by the thousand.
pub(crate) fn panics_are_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let on_purpose = info.payload().downcast_ref::<&str>() == Some(&"a mistake in the handler");
            if !on_purpose {
                loud(info);
            }
        }));
    });
}
