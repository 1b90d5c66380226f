//! A strict reader of OpenMetrics 1.0: what it does not find in the specification it refuses.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of a series.
pub type Labels = BTreeMap<String, String>;

/// One line of an answer.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The name of its family, without what the family's type adds.
    pub family: String,
    pub kind: String,
    pub name: String,
    pub labels: Labels,
    pub value: f64,
    pub exemplar: Option<(Labels, f64)>,
}

/// An answer, read.
#[derive(Debug, Default)]
pub struct Exposition {
    pub samples: Vec<Sample>,
    /// Types by family.
    pub kinds: BTreeMap<String, String>,
    pub units: BTreeMap<String, String>,
}

impl Exposition {
    /// The value of the only series of this name with these labels among its own.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
        };
        let found: Vec<_> = self.samples.iter().filter(fits).collect();
        assert!(found.len() < 2, "{name} {labels:?} is not one series: {found:?}");
        found.first().map(|sample| sample.value)
    }

    /// The same, where it must be there.
    #[track_caller]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?} among {:#?}", self.names()))
    }

    pub fn names(&self) -> BTreeSet<&str> {
        self.samples.iter().map(|sample| sample.name.as_str()).collect()
    }
}

/// Reads an answer.
///
/// # Panics
///
/// When it is not what the specification says.
#[track_caller]
pub fn read(text: &str) -> Exposition {
    let body = text.strip_suffix("# EOF\n").expect("it ends with `# EOF` and a line feed");
    let mut read = Exposition::default();
    let mut done = BTreeSet::new();
    let mut current = String::new();
    let mut told = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for line in body.split_terminator('\n') {
        assert!(!line.is_empty(), "an empty line");
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, family) = (words.next().unwrap(), words.next().expect("a family"));
            let rest = words.next().expect("something about the family");
            if family != current {
                assert!(is_name(family), "{family}");
                assert!(done.insert(family.to_owned()), "{family} is there twice or in two places");
                family.clone_into(&mut current);
                told.clear();
            }
            assert!(told.insert(what.to_owned()), "two {what} of {family}");
            assert!(
                !seen.iter().any(|(name, _): &(String, _)| name == family),
                "metadata after samples: {line}"
            );
            match what {
                "HELP" => assert!(!rest.is_empty()),
                "TYPE" => {
                    assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                    assert!(!family.ends_with("_total"), "the family of a counter has no suffix: {line}");
                    read.kinds.insert(family.to_owned(), rest.to_owned());
                }
                "UNIT" => {
                    assert!(family.ends_with(&format!("_{rest}")), "the name ends with the unit: {line}");
                    read.units.insert(family.to_owned(), rest.to_owned());
                }
                _ => panic!("{line}"),
            }
        } else {
            assert!(!line.starts_with('#'), "{line}");
            let sample = sample(line, &current, &read.kinds[&current]);
            assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
            read.samples.push(sample);
        }
    }
    check_histograms(&read);
    read
}

#[track_caller]
fn sample(line: &str, family: &str, kind: &str) -> Sample {
    let (name, rest) = line.split_at(line.find(['{', ' ']).expect(line));
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest),
        None => (Labels::new(), rest),
    };
    let (value, exemplar) = match rest.split_once(" # ") {
        Some((value, exemplar)) => (value, Some(exemplar)),
        None => (rest, None),
    };
    let value = number(value.strip_prefix(' ').expect(line));
    let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
    match (kind, suffix) {
        ("counter", "_total") => assert!(value >= 0.0, "{line}"),
        ("gauge", "") => {}
        ("histogram", "_bucket") => {
            assert!(labels.contains_key("le") && value.fract() == 0.0, "{line}");
        }
        ("histogram", "_count") => assert!(value.fract() == 0.0, "{line}"),
        ("histogram", "_sum") => assert!(value >= 0.0, "{line}"),
        _ => panic!("`{suffix}` in a {kind}: {line}"),
    }
    let exemplar = exemplar.map(|text| {
        assert!(["_total", "_bucket"].contains(&suffix), "no place for an exemplar: {line}");
        let (of, rest) = self::labels(text.strip_prefix('{').expect(line));
        let length: usize = of.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        assert!(length <= 128, "{line}");
        let mut numbers = rest.strip_prefix(' ').expect(line).split(' ');
        let example = number(numbers.next().expect(line));
        let _at = numbers.next().map(number);
        assert_eq!(numbers.next(), None, "{line}");
        if suffix == "_bucket" {
            assert!(example <= number(&labels["le"]), "{line}");
        }
        (of, example)
    });
    Sample {
        family: family.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        labels,
        value,
        exemplar,
    }
}

/// Reads labels up to the closing brace, and gives what follows it.
#[track_caller]
fn labels(text: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    let mut rest = text;
    if let Some(rest) = rest.strip_prefix('}') {
        return (labels, rest);
    }
    loop {
        let (name, after) = rest.split_once("=\"").expect(text);
        assert!(is_name(name) && !name.contains(':'), "{text}");
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().expect("a value ends") {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().expect("an escape").1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    other => panic!("the escape `{other}`: {text}"),
                }),
                (_, char) => value.push(char),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "the label {name} is there twice: {text}");
        let after = &after[end + 1..];
        if let Some(after) = after.strip_prefix('}') {
            return (labels, after);
        }
        rest = after.strip_prefix(',').expect(text);
    }
}

fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !name.is_empty() && name.chars().all(good) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[track_caller]
fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        _ => {
            let digit = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            assert!(digit, "`{text}` is no number");
            text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
        }
    }
}

/// Buckets rise and end with all that was counted.
#[track_caller]
fn check_histograms(read: &Exposition) {
    let mut buckets: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
    for sample in read.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
        let mut labels = sample.labels.clone();
        let bound = number(&labels.remove("le").unwrap());
        buckets.entry((sample.family.clone(), labels)).or_default().push((bound, sample.value));
    }
    for ((family, labels), buckets) in buckets {
        for pair in buckets.windows(2) {
            assert!(pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1, "{family} {labels:?}: {pair:?}");
        }
        let (bound, all) = *buckets.last().unwrap();
        assert_eq!(bound, f64::INFINITY, "{family} {labels:?}");
        let of = |suffix: &str| {
            let name = format!("{family}{suffix}");
            let found = read.samples.iter().find(|sample| sample.name == name && sample.labels == labels);
            found.unwrap_or_else(|| panic!("no {name} {labels:?}")).value
        };
        assert_eq!(of("_count"), all, "{family} {labels:?}");
        of("_sum");
    }
}

#[test]
#[should_panic(expected = "two places")]
fn families_that_are_mixed_up_are_refused() {
    read("# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# HELP a x.\n# EOF\n");
}

#[test]
#[should_panic(expected = "no place for an exemplar")]
fn an_exemplar_of_a_gauge_is_refused() {
    read("# TYPE a gauge\na 1 # {x=\"y\"} 1\n# EOF\n");
}
