//! From ids, groups and filters to jobs.

use std::collections::{BTreeSet, HashSet};

use ponos::core::name::AppName;

use super::args::{Filter, Selector};
use super::store::{self, Failed, Shelf};
use crate::broker::Session;
use crate::error::CliError;
use crate::text;

/// Up to so many ids are looked up one by one.
const FEW: usize = 4;

/// The jobs that are named, or all, as far as the filter lets them through; oldest first for each application. All of
/// them are looked up before anything is done, so that a typing error does nothing by halves.
///
/// # Errors
///
/// When a named one is not there, or is not the only one of its name, or the broker does not answer.
pub(super) async fn jobs(
    session: &Session,
    shelf: Shelf,
    which: &[Selector],
    filter: &Filter,
) -> Result<Vec<Failed>, CliError> {
    let app = filter.app.as_ref();
    let few = which.len() <= FEW && which.iter().all(|which| matches!(which, Selector::Job(_)));
    let mut jobs = if few && !which.is_empty() {
        let apps = store::apps(session, shelf, app).await?;
        let mut jobs = Vec::new();
        let mut seen = HashSet::new();
        for which in which {
            if let Selector::Job(id) = which
                && seen.insert(*id)
            {
                jobs.push(store::the_one(session, shelf, &apps, *id).await?);
            }
        }
        jobs
    } else {
        let all = store::all(session, shelf, app).await?;
        if which.is_empty() { all } else { named(all, shelf, which)? }
    };
    let now = text::now();
    jobs.retain(|job| passes(job, filter, now));
    Ok(jobs)
}

pub(super) fn passes(job: &Failed, filter: &Filter, now: ponos::core::id::Timestamp) -> bool {
    let queue = job.report().map(|report| report.queue.as_str());
    let name = filter.name.as_deref().is_none_or(|pattern| {
        fits(pattern, job.envelope.name.as_str()) || queue.is_some_and(|queue| fits(pattern, queue))
    });
    let since =
        filter.since.is_none_or(|since| job.report().is_some_and(|report| now.since(report.at) <= since));
    name && since
}

fn named(all: Vec<Failed>, shelf: Shelf, which: &[Selector]) -> Result<Vec<Failed>, CliError> {
    let mut chosen = HashSet::new();
    for which in which {
        match which {
            Selector::Job(id) => {
                let found: Vec<usize> = (0..all.len()).filter(|n| all[*n].envelope.id == *id).collect();
                let apps: BTreeSet<&AppName> = found.iter().map(|n| &all[*n].app).collect();
                if found.is_empty() {
                    return Err(CliError::refused(
                        format!("no {} has the id {id}", shelf.noun()),
                        shelf.list(),
                    ));
                }
                if apps.len() > 1 {
                    return Err(store::in_several(*id, apps.into_iter()));
                }
                chosen.extend(found);
            }
            Selector::Group(digits) => {
                let in_it = |job: &Failed| job.fingerprint().is_some_and(|f| f.starts_with(digits.as_str()));
                let found: Vec<usize> = (0..all.len()).filter(|n| in_it(&all[*n])).collect();
                let groups: BTreeSet<&str> = found.iter().filter_map(|n| all[*n].fingerprint()).collect();
                if found.is_empty() {
                    return Err(CliError::refused(
                        format!("no group of {}s begins with `{digits}`", shelf.noun()),
                        shelf.list(),
                    ));
                }
                if groups.len() > 1 {
                    let groups: Vec<String> =
                        groups.into_iter().take(8).map(|group| text::line(group, 16)).collect();
                    return Err(CliError::refused(
                        format!("several groups begin with `{digits}`: {}", groups.join(", ")),
                        "write more digits",
                    ));
                }
                chosen.extend(found);
            }
        }
    }
    let mut n = 0;
    let mut all = all;
    all.retain(|_| {
        n += 1;
        chosen.contains(&(n - 1))
    });
    Ok(all)
}

/// Whether a text fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|head| text.strip_prefix(head)) else {
        return false;
    };
    let mut rest = rest;
    let parts: Vec<&str> = parts.collect();
    let Some((tail, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_anything() {
        for pattern in ["a.b.c", "*", "a.*", "*.c", "a*c", "a.*.c", "**", "a.b.c*"] {
            assert!(fits(pattern, "a.b.c"), "{pattern}");
        }
        for pattern in ["", "a.b", "b*", "*b", "a.b.c.*", "a*b*b*c"] {
            assert!(!fits(pattern, "a.b.c"), "{pattern}");
        }
    }
}
