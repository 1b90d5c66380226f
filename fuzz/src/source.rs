//! Bytes as decisions: what a structured target builds its values from.

use arbitrary::Unstructured;
use ponos_core::envelope::Envelope;
use ponos_core::id::{MessageId, Timestamp};
use ponos_core::name::QueueName;
use ponos_core::wire::{self, HeaderValue};

/// Queues of each kind: a task's, a subscription's, and those that Ponos makes.
pub const QUEUES: [&str; 6] = [
    "pheidi.email.send",
    "pheidi.org.payment.processed",
    "pheidi.failed",
    "pheidi.discarded",
    "a.b",
    "order.item.mark-completed",
];

/// Decisions; when the bytes are used up everything is the first choice and zero.
pub struct Source<'a>(Unstructured<'a>);

impl<'a> Source<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(Unstructured::new(data))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn flag(&mut self) -> bool {
        self.0.arbitrary().unwrap_or(false)
    }

    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
    }

    pub fn small(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or(0)
    }

    pub fn big(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or(0)
    }

    pub fn real(&mut self) -> f64 {
        f64::from_bits(self.big())
    }

    pub fn time(&mut self) -> Timestamp {
        Timestamp::from_millis(self.big())
    }

    pub fn id(&mut self) -> [u8; 16] {
        self.0.arbitrary().unwrap_or([0; 16])
    }

    pub fn message(&mut self) -> MessageId {
        MessageId::from_bytes(self.id())
    }

    pub fn text(&mut self) -> &'a str {
        self.0.arbitrary().unwrap_or("")
    }

    pub fn bytes(&mut self) -> &'a [u8] {
        self.0.arbitrary().unwrap_or(&[])
    }

    pub fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        self.0.choose(choices).copied().unwrap_or(choices[0])
    }

    pub fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| value(self))
    }

    pub fn few<T>(&mut self, mut value: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.byte() % 4).map(|_| value(self)).collect()
    }

    pub fn queue(&mut self) -> QueueName {
        QueueName::parse(self.of(&QUEUES)).expect("each of them is a queue's name")
    }
}

/// What holds of every message that was read, whatever it was read from.
pub fn is_within_limits(envelope: &Envelope) {
    use ponos_core::envelope::{MAX_HISTORY, MAX_HISTORY_ERROR, MAX_REPORT_ERROR};
    let tid = envelope.tid.to_string();
    assert!((1..=128).contains(&tid.len()) && tid.is_ascii(), "tid of {} bytes", tid.len());
    let progress = &envelope.progress;
    assert!((1..=1_000_000).contains(&progress.attempt));
    assert!(progress.history.len() <= MAX_HISTORY);
    assert!(progress.history.iter().all(|note| note.error.len() <= MAX_HISTORY_ERROR));
    assert!(progress.gave_up.as_ref().is_none_or(|gave_up| gave_up.error.len() <= MAX_REPORT_ERROR));
    assert!(envelope.report.as_ref().is_none_or(|report| report.history.len() <= MAX_HISTORY));
    assert!(envelope.publisher.as_ref().is_none_or(|text| text.len() <= 255));
    assert!(envelope.version.as_ref().is_none_or(|text| text.len() <= 64));
    let headers: usize = wire::parts(envelope)
        .headers
        .iter()
        .map(|(name, value)| name.len() + if let HeaderValue::Text(text) = value { text.len() } else { 8 })
        .sum();
    assert!(headers <= wire::MAX_HEADERS, "{headers} bytes of headers cannot be published again");
}
