//! A corrected copy of a failed job, and the original put away.

use std::time::SystemTime;

use ponos_core::Bytes;
use ponos_core::broker::{BrokerError, Destination, Outgoing};
use ponos_core::envelope::{Envelope, Progress};
use ponos_core::id::{Effect, MessageId};
use ponos_core::name::QueueName;

use super::bulk::{Sending, Work};
use super::discard::put_away;
use super::{FailedJobs, Operation};

/// A job that stands for one that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edited {
    /// The new job.
    pub id: MessageId,
    /// Its queue.
    pub queue: QueueName,
}

impl FailedJobs {
    /// Puts a corrected copy of a failed job into its queue and the original among the discarded ones, in one
    /// settlement. `None`: it is not among the failed jobs any more, so nothing was done.
    ///
    /// The copy has a new id, because it asks for something else, and names the original; its transaction and its cause
    /// are the original's. `body` is a JSON object with the original's `tid` first, as `ponos::core::body::encode`
    /// writes it.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached or does not take it; the job then is still among the failed ones.
    pub async fn edit(
        &self,
        id: MessageId,
        body: Bytes,
        operation: &Operation,
    ) -> Result<Option<Edited>, BrokerError> {
        self.declare_discarded().await?;
        let new = new_id(id, operation, &body);
        let reason = format!("edited: {new} stands for it");
        let (discarded, by, why) = (self.discarded(), operation.clone(), reason.clone());
        let send: Sending = Box::new(move |failed| {
            let copy = copy(failed, new, body.clone())?;
            Ok(vec![copy, put_away(failed, &discarded, &by, &why)])
        });
        let work = Work { verb: Some("edited"), reason: Some(reason.into()), send };
        let went = self.carry_out_one(&self.failed(), id, work, operation.clone()).await?;
        Ok(went.map(|queue| Edited { id: new, queue }))
    }
}

/// Computed, so that a settlement that is tried again sends the same; with the operation in it, so that the same
/// correction of a job that was restored is not taken for done.
fn new_id(original: MessageId, operation: &Operation, body: &[u8]) -> MessageId {
    MessageId::of_effect(&Effect {
        parent: original,
        queue: &operation.id,
        phase: "edited",
        name: "",
        payload: body,
        occurrence: 0,
    })
}

fn copy(failed: &Envelope, id: MessageId, body: Bytes) -> Result<Outgoing, String> {
    let Some(report) = &failed.report else {
        return Err(format!("the job {} has no report, so its queue is not known: discard it", failed.id));
    };
    let queue = report.queue.clone();
    let mut envelope = failed.clone();
    envelope.id = id;
    envelope.body = body;
    envelope.report = None;
    envelope.progress =
        Progress { due: Some(SystemTime::now().into()), edited_from: Some(failed.id), ..Progress::default() };
    Ok(Outgoing { to: Destination::Queue(queue), envelope })
}
