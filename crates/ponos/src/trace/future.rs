//! What has not happened yet, and what cannot be known.

use ponos_core::id::Timestamp;
use ponos_core::name::QueueName;

use super::cascade::{JobData, Kind, Message};
use super::job::JobState;
use super::surroundings::Surroundings;

/// Adds the jobs that are known from who listens, and judges the states by what was lost and by what runs.
pub(super) fn expect(messages: &mut [Message], around: &Surroundings) {
    for message in messages {
        listeners(message, around);
        let published = message.published.as_ref().map(|published| published.at);
        for job in &mut message.jobs {
            job.state = judge(message.id, published, job, around);
            job.childless = job.children.is_empty()
                && job.attempts.last().is_some_and(|attempt| {
                    let ended = attempt.started + attempt.took;
                    around.may_hide(&attempt.queue.app(), ended, ended)
                });
        }
    }
}

/// The queues that hear an event and of which nothing else is recorded.
fn listeners(message: &mut Message, around: &Surroundings) {
    let (Kind::Event, Some(published)) = (message.kind(), &message.published) else { return };
    if message.unpublished.is_some() || published.queues == 0 {
        return;
    }
    let heard = around.listeners.iter().filter(|listener| {
        *listener.event == *published.name
            && listener.since <= published.at
            && !message.jobs.iter().any(|job| listener.queue == *job.queue.as_str())
    });
    let mut queues: Vec<&QueueName> = heard.map(|listener| &listener.queue).collect();
    queues.sort();
    queues.dedup();
    // Where the broker has counted, more candidates than queues are no knowledge.
    if around.counted && queues.len() > message.unseen() as usize {
        return;
    }
    let new: Vec<JobData> =
        queues.into_iter().map(|queue| JobData::new(queue.to_string(), JobState::NotYet)).collect();
    message.jobs.extend(new);
    message.jobs.sort_by(|a, b| a.queue.cmp(&b.queue));
}

fn judge(
    id: ponos_core::id::MessageId,
    published: Option<Timestamp>,
    job: &JobData,
    around: &Surroundings,
) -> JobState {
    if job.state.is_final() || around.now == Timestamp::EPOCH {
        return job.state;
    }
    let last = job.attempts.last().map(|attempt| attempt.started + attempt.took);
    let flight = around
        .flights
        .iter()
        .filter(|held| held.flight.message == id && held.flight.queue == *job.queue.as_str())
        .filter(|held| last.is_none_or(|last| held.flight.started >= last))
        .max_by_key(|held| held.flight.started);
    if let Some(held) = flight.filter(|held| held.alive) {
        return JobState::Running { since: held.flight.started };
    }
    let since = last.or(published).unwrap_or(around.now);
    match QueueName::parse(&job.queue) {
        Ok(queue) if around.may_hide(&queue.app(), since, around.now) => JobState::Unknown,
        _ => job.state,
    }
}
