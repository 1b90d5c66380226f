//! The heartbeat of an instance, in its journal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ponos_core::journal::{Beat, CircuitPhase, MAX_FLIGHTS, Notice};

use crate::worker::{Circuit, Shared, Vitals};

/// How often an instance that does something says so.
const BUSY: Duration = Duration::from_secs(5);

/// Every how many of these one that does nothing says that it is alive: a log is not there to be filled with that.
const IDLE: u32 = 3;

/// Says every few seconds that the instance is alive, and what it does. A process that dies says nothing: what its last
/// beat names is what it had in flight.
pub(super) async fn keep(
    shared: Arc<Shared>,
    vitals: Arc<[Arc<Vitals>]>,
    circuits: BTreeMap<String, Arc<Circuit>>,
) {
    let local = &shared.local;
    let Some(lifecycle) = &local.lifecycle else { return };
    let mut silent = IDLE;
    let mut was_busy = false;
    loop {
        local.clock.background_sleep(BUSY).await;
        let beat = look(&vitals, &circuits, lifecycle.dropped());
        let busy = !beat.flights.is_empty()
            || !beat.circuits.is_empty()
            || beat.queues.iter().any(|queue| queue.paused || queue.buffered > 0 || !queue.up);
        silent += 1;
        // One more when it has become idle: the last one named what was in flight.
        if busy || was_busy || silent >= IDLE {
            let every = if busy { BUSY } else { BUSY * IDLE };
            let every_ms = u32::try_from(every.as_millis()).unwrap_or(u32::MAX);
            lifecycle.notice(local.clock.wall(), Notice::Beat(Beat { every_ms, ..beat }));
            silent = 0;
        }
        was_busy = busy;
    }
}

fn look(vitals: &[Arc<Vitals>], circuits: &BTreeMap<String, Arc<Circuit>>, dropped: u64) -> Beat {
    let mut flights: Vec<_> = vitals.iter().flat_map(|queue| queue.flights()).collect();
    flights.sort_by_key(|flight| flight.started);
    flights.truncate(MAX_FLIGHTS);
    let not_closed = circuits.iter().filter_map(|(name, circuit)| {
        let phase = circuit.phase();
        (phase != CircuitPhase::Closed).then(|| (name.as_str().into(), phase))
    });
    let queues = vitals.iter().map(|queue| queue.beat()).collect();
    Beat { every_ms: 0, queues, flights, circuits: not_closed.collect(), dropped }
}
