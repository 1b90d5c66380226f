//! Policies in words.

use std::time::Duration;

use ponos::core::manifest::PolicyManifest;

use crate::text;

/// What a policy says, in one line. What is off is left out, but for retries and the time limit of a task.
pub(super) fn words(policy: &PolicyManifest) -> String {
    let mut words = vec![format!("{} at once, prefetch {}", policy.concurrency, policy.prefetch)];
    if let Some(retry) = &policy.retry {
        let attempts = retry.max_retries.map_or("attempts without end".to_owned(), |retries| {
            text::count(u64::from(retries) + 1, "attempt")
        });
        words.push(format!(
            "{attempts} {} → {} ×{} +{:.0}%, at most {} old",
            millis(retry.min_ms),
            millis(retry.max_ms),
            retry.factor,
            retry.jitter * 100.0,
            millis(retry.max_age_ms)
        ));
        words.push(
            policy.timeout_ms.map_or("no time limit".to_owned(), |limit| format!("{} each", millis(limit))),
        );
    }
    if let Some(rate) = &policy.rate_limit {
        words.push(format!("{} per {} over all instances", rate.count, millis(rate.period_ms)));
    }
    if let Some(breaker) = &policy.breaker {
        words.push(format!(
            "circuit opens at {:.0}% of {} or more in {}, or {} in a row",
            breaker.failure_ratio * 100.0,
            breaker.min_calls,
            millis(breaker.window_ms),
            breaker.consecutive
        ));
    }
    words.extend(policy.depends_on.as_ref().map(|on| format!("depends on {on}")));
    words.join("; ")
}

fn millis(ms: u64) -> String {
    text::duration(Duration::from_millis(ms))
}
