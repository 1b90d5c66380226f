//! What only RabbitMQ's management plugin tells: its version, what is declared, who may do what.

use ponos::RabbitOptions;
use ponos::core::name::AppName;
use ponos::rabbitmq::diff::{Diff, State};
use ponos::rabbitmq::management::Management;
use ponos::rabbitmq::topology::Plan;

use super::finding::{Code, Report};
use super::patient::{Known, Patient};
use crate::text;

/// How much of a text from the broker is shown, in bytes.
const SHOWN: usize = 600;

pub(super) async fn check(patient: &Patient<'_>, name: &str, options: &RabbitOptions, report: &mut Report) {
    let management = match Management::new(options) {
        Ok(management) => management,
        Err(error) => return blind(name, &error.to_string(), report),
    };
    match management.version().await {
        Ok(version) => report.fine(format!("broker {name}: RabbitMQ {}", text::line(&version, 64))),
        Err(error) => return blind(name, &error.to_string(), report),
    }
    report.unseen("how full the log of records is", "RabbitMQ drops its oldest part when it is");
    declared(patient, &management, options, report).await;
    permissions(&management, report).await;
}

/// Without the plugin.
fn blind(name: &str, why: &str, report: &mut Report) {
    report.fine(format!("broker {name}: reachable"));
    for what in ["RabbitMQ's version", "what is declared", "permissions", "how full the log of records is"] {
        report.unseen(what, why);
    }
}

/// What exists, beside what the manifests of the services at work need.
async fn declared(
    patient: &Patient<'_>,
    management: &Management,
    options: &RabbitOptions,
    report: &mut Report,
) {
    let Some(past) = &patient.past else {
        return report.unseen("what is declared", "there are no records that hold manifests");
    };
    let found = match management.found().await {
        Ok(found) => found,
        Err(error) => return report.unseen("what is declared", error.to_string()),
    };
    let (mut wanted, mut on_demand) = (Plan::default(), Plan::default());
    let mut apps: Vec<AppName> = Vec::new();
    for Known { manifest, origin } in past.current(patient.now) {
        match manifest.topology() {
            Ok(topology) => {
                wanted.add(Plan::service(&topology, options.job_queues()));
                on_demand.add(Plan::on_demand(&origin.app));
                apps.push(origin.app.clone());
            }
            Err(error) => report.unseen(format!("what `{}` declares", origin.app), error.to_string()),
        }
    }
    apps.dedup();
    if apps.is_empty() {
        return report.unseen(
            "what is declared",
            "no manifest is known: services tell theirs when they start, and records begin with the first look",
        );
    }
    let mut same = true;
    for entry in Diff::of(&wanted, &on_demand, &found, &apps).entries {
        let mut faults: Vec<String> = entry.spoiled.clone();
        match &entry.state {
            State::Missing => faults.push("it does not exist".into()),
            State::Differs(differences) => faults.extend(differences.iter().map(ToString::to_string)),
            _ => {}
        }
        if faults.is_empty() {
            continue;
        }
        same = false;
        let (subject, message) =
            (text::line(&entry.thing.to_string(), SHOWN), text::line(&faults.join("; "), SHOWN));
        let help = "`ponos topology plan` shows all of it with what to do".to_owned();
        if entry.is_fatal() {
            report.error(Code::DeclaredUnusable, subject, message, help);
        } else {
            report.warning(Code::DeclaredDiffers, subject, message, help);
        }
    }
    if same {
        report.fine(format!(
            "declared: exchanges and queues of {} are as they should be",
            text::count(apps.len() as u64, "application")
        ));
    }
}

/// Users who may declare and delete everything.
async fn permissions(management: &Management, report: &mut Report) {
    let found = match management.permissions().await {
        Ok(found) => found,
        Err(error) => return report.unseen("permissions", error.to_string()),
    };
    for user in found.iter().filter(|user| is_everything(&user.configure)) {
        report.warning(
            Code::PermissionsWide,
            format!("user {}", text::line(&user.user, 128)),
            format!("it may declare and delete everything here: `{}`", text::line(&user.configure, 128)),
            "give each service a user of its own; `ponos topology permissions` says what it needs".into(),
        );
    }
}

fn is_everything(expression: &str) -> bool {
    matches!(expression, ".*" | "^.*$" | "^.*" | ".*$" | ".+" | "^")
}
