//! Whether policies can mean what they say.

use std::collections::BTreeSet;
use std::time::Duration;

use ponos::core::manifest::{BreakerManifest, PolicyManifest, RateManifest, RetryManifest};

use super::finding::{Code, Finding};
use crate::system::System;
use crate::text;

/// RabbitMQ takes a job away after 30 minutes; a service refuses limits near to it unless they are marked as long.
const LONG: Duration = Duration::from_secs(25 * 60);

/// Policies with contradictions.
pub(super) fn check(system: &System) -> Vec<Finding> {
    // Several manifests of one application say the same.
    let mut findings = BTreeSet::new();
    for manifest in system.manifests.iter().map(|loaded| &loaded.manifest) {
        if manifest.hop_limit == Some(0) {
            findings.insert(Finding::new(
                Code::PolicyContradiction,
                &manifest.app,
                "its hop limit is 0: nothing that it makes of a message could be sent",
                "say 1 or more, or nothing for the default",
            ));
        }
        for reaction in &manifest.reactions {
            findings.extend(contradictions(&reaction.queue, &reaction.policy));
        }
        for task in &manifest.tasks {
            findings.extend(contradictions(&task.queue, &task.policy));
            findings.extend(time_limit(&task.queue, &task.policy));
        }
    }
    findings.into_iter().collect()
}

fn contradictions(queue: &str, policy: &PolicyManifest) -> Vec<Finding> {
    let wrong = |message: String, help: &str| Finding::new(Code::PolicyContradiction, queue, message, help);
    let mut findings = Vec::new();
    if policy.concurrency == 0 || policy.prefetch == 0 {
        findings.push(wrong("its concurrency or prefetch is 0: no job would start".into(), "say 1 or more"));
    }
    if policy.timeout_ms == Some(0) {
        findings.push(wrong("its timeout is 0: no attempt could succeed".into(), "raise it"));
    }
    findings.extend(policy.retry.as_ref().and_then(|retry| retries(queue, policy, retry)));
    if let Some(RateManifest { count, period_ms, burst }) = &policy.rate_limit {
        if *count == 0 || *period_ms == 0 || *burst == 0 {
            findings.push(wrong(
                format!(
                    "its rate limit is {count} in {period_ms} ms: nothing would start, or nothing be limited"
                ),
                "say how many in which time, or none",
            ));
        } else if let Some(retry) = &policy.retry
            && period_ms / u64::from(*count) >= retry.max_age_ms
        {
            findings.push(wrong(
                format!(
                    "its rate limit starts a job each {}, and jobs may become {} old",
                    millis(period_ms / u64::from(*count)),
                    millis(retry.max_age_ms)
                ),
                "raise the rate, or `max_age`",
            ));
        }
    }
    if let Some(breaker) = &policy.breaker {
        let BreakerManifest { window_ms, failure_ratio, open_ms, open_max_ms, .. } = breaker;
        if open_ms > open_max_ms {
            let message = format!(
                "its circuit stays open {} at first and {} at most",
                millis(*open_ms),
                millis(*open_max_ms)
            );
            findings.push(wrong(message, "raise the longest time"));
        }
        if *window_ms == 0 || !(*failure_ratio > 0.0 && *failure_ratio <= 1.0) {
            let message =
                format!("its circuit opens at a failure ratio of {failure_ratio} in {}", millis(*window_ms));
            findings.push(wrong(message, "a ratio lies above 0 and is at most 1, a window has a length"));
        }
    }
    findings
}

fn retries(queue: &str, policy: &PolicyManifest, retry: &RetryManifest) -> Option<Finding> {
    let RetryManifest { min_ms, max_ms, factor, jitter, max_retries, max_age_ms } = retry;
    if max_ms < min_ms {
        return Some(Finding::new(
            Code::PolicyContradiction,
            queue,
            format!("its retries wait {} at least and {} at most", millis(*min_ms), millis(*max_ms)),
            "raise the longest delay, or lower the first",
        ));
    }
    if !(*factor >= 1.0 && factor.is_finite() && *jitter >= 0.0 && jitter.is_finite()) {
        return Some(Finding::new(
            Code::PolicyContradiction,
            queue,
            format!("its delays grow by {factor} with a jitter of {jitter}"),
            "the factor is 1 or more, the jitter 0 or more",
        ));
    }
    let retries = (*max_retries)?;
    let needed = longest_life(retry, retries, policy.timeout_ms.unwrap_or(0));
    (needed > *max_age_ms).then(|| {
        Finding::new(
            Code::RetriesCutShort,
            queue,
            format!(
                "its {retries} retries take up to {}, and jobs may become {} old: the last ones never come",
                millis(needed),
                millis(*max_age_ms)
            ),
            "raise `max_age`, or say fewer retries",
        )
    })
}

/// How old a job is after its last attempt, when each runs into its time limit; without jitter.
fn longest_life(retry: &RetryManifest, retries: u32, timeout_ms: u64) -> u64 {
    let attempts = timeout_ms.saturating_mul(u64::from(retries) + 1);
    let (mut delay, mut waits, mut left) = (retry.min_ms, 0_u64, u64::from(retries));
    while left > 0 && delay < retry.max_ms {
        waits = waits.saturating_add(delay);
        left -= 1;
        let next = Duration::from_millis(delay).as_secs_f64() * retry.factor;
        let next = Duration::try_from_secs_f64(next)
            .map_or(u64::MAX, |next| u64::try_from(next.as_millis()).unwrap_or(u64::MAX));
        if next <= delay {
            break; // a factor of 1, or a delay too short to grow
        }
        delay = next;
    }
    attempts.saturating_add(waits).saturating_add(delay.min(retry.max_ms).saturating_mul(left))
}

fn time_limit(queue: &str, policy: &PolicyManifest) -> Option<Finding> {
    let limit = policy.timeout_ms.map(Duration::from_millis);
    // Without retries it was written by hand, and says nothing.
    let says = limit.map_or(policy.retry.is_some(), |limit| limit >= LONG);
    says.then(|| {
        let limit = limit.map_or("none".to_owned(), text::duration);
        Finding::new(
            Code::TimeoutTooLong,
            queue,
            format!("its time limit is {limit}, and RabbitMQ takes a job away after 30 minutes"),
            "shorten it below 25 minutes, or raise the broker's `consumer_timeout`",
        )
    })
}

fn millis(ms: u64) -> String {
    text::duration(Duration::from_millis(ms))
}
