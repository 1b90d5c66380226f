//! The dashboard and the alert rules that ship with Ponos: whatever they name exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ponos::metrics::{COLLECTOR_METRICS, METRICS, Metric, MetricKind};
use serde::Deserialize;

/// Labels that Prometheus adds, and the one that every metric of Ponos has.
const EVERYWHERE: [&str; 4] = ["app", "instance", "job", "le"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    time: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a query names.
#[derive(Debug, Default, PartialEq)]
struct Named {
    metrics: BTreeSet<String>,
    labels: BTreeSet<String>,
}

/// Reads a query of PromQL as far as names go.
fn named(expr: &str) -> Named {
    let mut named = Named::default();
    let mut rest = expr;
    // Whether names are labels: within braces, and within the parentheses after one of the words of grouping.
    let (mut in_braces, mut grouping, mut in_group) = (false, false, false);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if first == '"' {
            let end = rest[1..].find('"').expect("a text ends") + 2;
            rest = &rest[end..];
        } else if first == '[' {
            rest = &rest[rest.find(']').expect("a range ends")..];
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            if in_braces || in_group {
                named.labels.insert(word.to_owned());
            } else if matches!(word, "by" | "without" | "on" | "ignoring" | "group_left" | "group_right") {
                grouping = true;
            } else if !after.starts_with('(')
                && !matches!(word, "and" | "or" | "unless" | "sum" | "max" | "min" | "count")
            {
                named.metrics.insert(word.to_owned());
            }
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            rest = &rest[end..];
        } else {
            match first {
                '{' => in_braces = true,
                '}' => in_braces = false,
                '(' => (in_group, grouping) = (grouping, false),
                ')' => in_group = false,
                _ => {}
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    named
}

/// The metric of a series' name, and whether it is the collector's.
fn metric(series: &str) -> Option<(&'static Metric, bool)> {
    let is = |metric: &&Metric| match metric.kind {
        MetricKind::Histogram => series
            .strip_prefix(metric.name)
            .is_some_and(|suffix| ["_bucket", "_sum", "_count"].contains(&suffix)),
        _ => metric.name == series,
    };
    let own = METRICS.iter().find(is).map(|metric| (metric, false));
    own.or_else(|| COLLECTOR_METRICS.iter().find(is).map(|metric| (metric, true)))
}

/// Whatever a query names exists; says whether it needs a collector.
#[track_caller]
fn check(what: &str, expr: &str) -> bool {
    let names = named(expr);
    assert!(!names.metrics.is_empty(), "{what}: no metric in {expr}");
    let found = names.metrics.iter().map(|series| {
        metric(series)
            .unwrap_or_else(|| panic!("{what}: `{series}` is not among the metrics of Ponos: {expr}"))
    });
    let found: Vec<_> = found.collect();
    for label in &names.labels {
        let known = EVERYWHERE.contains(&label.as_str())
            || found.iter().any(|(metric, _)| metric.labels.contains(&label.as_str()));
        assert!(known, "{what}: no metric has the label `{label}`: {expr}");
    }
    found.iter().any(|(_, collector)| *collector)
}

#[test]
fn a_query_is_read() {
    let names = named(
        r#"histogram_quantile(0.95, sum by (name, le) (rate(a_bucket{app=~"x{y",queue!="b"}[5m]))) > 2 unless on (q) max(c) == 1e"#,
    );
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    assert_eq!(names.labels, set(&["name", "le", "app", "queue", "q"]));
    assert_eq!(names.metrics, set(&["a_bucket", "c", "e"]));
}

#[test]
fn every_alert_names_metrics_that_exist_and_says_what_to_do() {
    let rules: Rules = serde_saphyr::from_str(&file("prometheus/alerts.yaml")).unwrap();
    let mut alerts = BTreeSet::new();
    for group in &rules.groups {
        for rule in &group.rules {
            let name = rule.alert.as_str();
            assert!(alerts.insert(name), "{name} is there twice");
            assert_eq!(
                check(name, &rule.expr),
                group.name == "ponos-collector",
                "{name} is in the wrong group"
            );
            let collector = rule.labels.get("needs").is_some_and(|needs| needs == "collector");
            assert_eq!(collector, group.name == "ponos-collector", "{name}");
            let (count, unit) = rule.time.split_at(rule.time.len() - 1);
            assert!(count.parse::<u32>().is_ok() && ["s", "m", "h"].contains(&unit), "{name}: {}", rule.time);
            assert!(["page", "ticket"].contains(&rule.labels["severity"].as_str()), "{name}");
            for annotation in ["summary", "what_to_do"] {
                assert!(rule.annotations[annotation].len() > 20, "{name}: {annotation}");
                check_template(name, &rule.annotations[annotation], &rule.expr);
            }
        }
    }
    for wanted in [
        "FailedGrowing",
        "OldestMessage",
        "ConsumerStalled",
        "QueueWithoutConsumer",
        "CircuitOpenLong",
        "UnroutedEvent",
        "LifecycleLoss",
    ] {
        assert!(alerts.contains(wanted), "{wanted}");
    }
}

/// A text names only labels that its query leaves.
#[track_caller]
fn check_template(name: &str, text: &str, expr: &str) {
    let labels = named(expr).labels;
    for part in text.split("$labels.").skip(1) {
        let label: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        assert!(labels.contains(&label), "{name}: `{label}` is not in what its query gives");
    }
}

#[test]
fn every_panel_names_metrics_that_exist() {
    let dashboard: serde_json::Value = serde_json::from_str(&file("grafana/ponos.json")).unwrap();
    let mut row = "";
    let (mut rows, mut shown, mut ids) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is there twice");
        if panel["type"] == "row" {
            row = title;
            rows.push(title);
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let expr = target["expr"].as_str().unwrap();
            assert_eq!(check(title, expr), row.starts_with("Collector"), "{title} is in the wrong row");
            shown.extend(named(expr).metrics.iter().map(|series| metric(series).unwrap().0.name));
            let links = !panel["fieldConfig"]["overrides"].as_array().unwrap().is_empty();
            assert_eq!(
                target["exemplar"].as_bool().unwrap(),
                links,
                "{title}: an example leads to its trace"
            );
        }
    }
    let words = |row: &str| row.split([' ', '(']).next().unwrap().to_lowercase();
    let first: Vec<_> = rows.iter().map(|row| words(row)).collect();
    assert_eq!(first, ["golden", "queues", "handlers", "retries", "circuits", "consumers", "collector"]);

    let missing = |metric: &&Metric| !shown.contains(metric.name);
    let missing: Vec<_> =
        METRICS.iter().chain(COLLECTOR_METRICS).filter(missing).map(|metric| metric.name).collect();
    assert!(missing.is_empty(), "on no panel: {missing:?}");

    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let of = |name: &str| variables.iter().find(|variable| variable["name"] == name).expect("a variable");
    for name in ["app", "name", "queue"] {
        let query = of(name)["query"]["query"].as_str().unwrap();
        let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')')).unwrap();
        let (series, label) = inner.rsplit_once(", ").unwrap();
        check(name, series);
        assert_eq!(label, name);
        let metrics = named(series).metrics;
        let has = |series: &String| name == "app" || metric(series).unwrap().0.labels.contains(&name);
        assert!(metrics.iter().all(has), "{name}: {query}");
    }
    of("traces");
}
