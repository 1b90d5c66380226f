//! Whether what one program writes is what another reads, by their JSON Schemas.
//!
//! The question is never whether two schemas are equal: a subscriber's own struct has just the fields that it reads, so
//! fields more are nothing, and a field that is optional for the reader may be missing. The rules are those of serde, by
//! which schemas of JSON Schema 2020-12 come to be here (`schemars`): what is not told in `required` may be missing, and
//! unknown fields are refused only where `additionalProperties` is false.

mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value;

use self::shape::{Object, Rest, Shape, shapes, target};

/// How many comparisons of two schemas are made at most: one of another's making could ask for any number.
const STEPS: usize = 20_000;

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Misfit {
    /// The field, as `org.id` or `lines[].price`; empty for the whole payload.
    pub(super) field: String,
    pub(super) weight: Weight,
    /// What is sent and what is read.
    pub(super) what: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// A message can be sent that the reader refuses.
    Breaking,
    /// Types fit, but some values do not: a number too large, a text of the wrong form.
    Narrowing,
    /// The reader finds nothing where it looks, which it allows.
    Lost,
}

/// Everything that `writer` can send and `reader` does not take.
pub(super) fn misfits(writer: &Value, reader: &Value) -> Vec<Misfit> {
    if is_opaque(writer) {
        return Vec::new();
    }
    let mut comparison = Comparison { writer, reader, open: BTreeSet::new(), steps: STEPS };
    let mut found = comparison.schemas(writer, reader, "");
    found.sort();
    found.dedup();
    found
}

/// An object of which nothing is told: who forwards what is not its own says so, and nothing can be compared.
pub(super) fn is_opaque(schema: &Value) -> bool {
    match schema {
        Value::Object(keys) => keys.keys().all(|key| key == "type"),
        _ => true,
    }
}

/// One comparison of two whole schemas, in which references point.
struct Comparison<'a> {
    writer: &'a Value,
    reader: &'a Value,
    /// Pairs that are being compared: a type that holds itself ends there.
    open: BTreeSet<(*const Value, *const Value)>,
    steps: usize,
}

impl<'a> Comparison<'a> {
    fn schemas(&mut self, writer: &'a Value, reader: &'a Value, field: &str) -> Vec<Misfit> {
        let (writer, reader) = (target(self.writer, writer), target(self.reader, reader));
        let pair = (std::ptr::from_ref(writer), std::ptr::from_ref(reader));
        if self.steps == 0 || !self.open.insert(pair) {
            return Vec::new();
        }
        self.steps -= 1;
        let sent = shapes(self.writer, writer);
        let read = shapes(self.reader, reader);
        let found = self.alternatives(&sent, &read, field);
        self.open.remove(&pair);
        found
    }

    /// Each form that can be sent needs one that is read.
    fn alternatives(&mut self, sent: &[Shape<'a>], read: &[Shape<'a>], field: &str) -> Vec<Misfit> {
        if read.contains(&Shape::Any) {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut strangers = BTreeSet::new();
        let misfit = |weight, what| Misfit { field: field.to_owned(), weight, what };
        for form in sent {
            match form {
                Shape::Any => found
                    .push(misfit(Weight::Breaking, format!("anything may be sent, {} is read", kinds(read)))),
                Shape::Null if !read.contains(&Shape::Null) => {
                    found.push(misfit(Weight::Breaking, "it may be null, and that is not read".to_owned()));
                }
                Shape::Constant(value) if takes_constant(read, value) => {}
                Shape::Constant(value) if read.iter().any(|other| other.kind() == form.kind()) => {
                    strangers.insert(value.to_string().replace('"', "`"));
                }
                Shape::Text(format) => match read.iter().find(|other| matches!(other, Shape::Text(_))) {
                    Some(Shape::Text(Some(wanted))) if *format != Some(*wanted) => found.push(misfit(
                        Weight::Narrowing,
                        format!("{} is sent, a text in the form `{wanted}` is read", article(*format)),
                    )),
                    Some(_) => {}
                    None if read.iter().any(|other| other.kind() == form.kind()) => found.push(misfit(
                        Weight::Breaking,
                        format!("any text may be sent, only {} is known", constants(read)),
                    )),
                    None => found.push(misfit(Weight::Breaking, other_kind(form, read))),
                },
                Shape::Integer(sent) => {
                    let fits = |other: &Shape<'_>| match other {
                        Shape::Number => true,
                        Shape::Integer(read) => read.contains(sent),
                        _ => false,
                    };
                    if !read.iter().any(fits) {
                        let near = read.iter().find_map(|other| match other {
                            Shape::Integer(read) => Some(read),
                            _ => None,
                        });
                        found.push(match near {
                            Some(range) => misfit(
                                Weight::Narrowing,
                                format!("integers {sent} are sent, {range} are read"),
                            ),
                            None => misfit(Weight::Breaking, other_kind(form, read)),
                        });
                    }
                }
                Shape::List(items) => {
                    let lists: Vec<_> = read.iter().filter_map(Shape::as_list).collect();
                    found.extend(
                        self.best(form, read, field, &lists, |this, list| this.lists(items, list, field)),
                    );
                }
                Shape::Object(object) => {
                    let objects: Vec<_> = read.iter().filter_map(Shape::as_object).collect();
                    found.extend(
                        self.best(form, read, field, &objects, |this, other| {
                            this.objects(object, other, field)
                        }),
                    );
                }
                _ if read.iter().any(|other| other.kind() == form.kind()) => {}
                _ => found.push(misfit(Weight::Breaking, other_kind(form, read))),
            }
        }
        if !strangers.is_empty() {
            let values: Vec<String> = strangers.into_iter().collect();
            found.push(misfit(
                Weight::Breaking,
                format!("{} may be sent, only {} is known", values.join(", "), constants(read)),
            ));
        }
        found
    }

    /// What does not fit the form that fits best.
    fn best<T>(
        &mut self,
        form: &Shape<'a>,
        read: &[Shape<'a>],
        field: &str,
        candidates: &[&T],
        mut compare: impl FnMut(&mut Self, &T) -> Vec<Misfit>,
    ) -> Vec<Misfit> {
        let found = candidates.iter().map(|candidate| compare(self, candidate));
        let best = found.min_by_key(|found| {
            let breaking = found.iter().filter(|misfit| misfit.weight == Weight::Breaking).count();
            (breaking, found.len())
        });
        best.unwrap_or_else(|| {
            let what = other_kind(form, read);
            vec![Misfit { field: field.to_owned(), weight: Weight::Breaking, what }]
        })
    }

    fn lists(&mut self, sent: &shape::List<'a>, read: &shape::List<'a>, field: &str) -> Vec<Misfit> {
        let mut found = Vec::new();
        if let (Some(sent), Some(read)) = (sent.length(), read.length())
            && sent != read
        {
            found.push(Misfit {
                field: field.to_owned(),
                weight: Weight::Breaking,
                what: format!("{sent} elements are sent, {read} are read"),
            });
        } else if let (None, Some(read)) = (sent.length(), read.length()) {
            found.push(Misfit {
                field: field.to_owned(),
                weight: Weight::Breaking,
                what: format!("any number of elements may be sent, {read} are read"),
            });
        }
        for (place, sent, read) in sent.pairs(read) {
            let place = place.map(|place| place.to_string()).unwrap_or_default();
            found.extend(self.schemas(sent, read, &format!("{field}[{place}]")));
        }
        found
    }

    fn objects(&mut self, sent: &Object<'a>, read: &Object<'a>, field: &str) -> Vec<Misfit> {
        let mut found = Vec::new();
        let below = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
        for (&name, &schema) in &read.properties {
            let required = read.required.contains(name);
            let misfit = |weight, what: &str| Misfit { field: below(name), weight, what: what.to_owned() };
            match sent.properties.get(name) {
                Some(written) => {
                    if required && !sent.required.contains(name) {
                        found.push(misfit(Weight::Breaking, "it may be missing, and it is required"));
                    }
                    found.extend(self.schemas(written, schema, &below(name)));
                }
                // A map may have it or not.
                None if matches!(sent.rest, Rest::Map(_)) => {}
                None if required => {
                    found.push(misfit(Weight::Breaking, "it is not sent, and it is required"));
                }
                None => found.push(misfit(Weight::Lost, "it is not sent, and is read where it is there")),
            }
        }
        for (&name, &schema) in
            sent.properties.iter().filter(|(name, _)| !read.properties.contains_key(*name))
        {
            match read.rest {
                Rest::Ignored => {}
                Rest::Refused => found.push(Misfit {
                    field: below(name),
                    weight: Weight::Breaking,
                    what: "it is sent, and unknown fields are refused".to_owned(),
                }),
                Rest::Map(values) => found.extend(self.schemas(schema, values, &below(name))),
            }
        }
        if let (Rest::Map(sent), Rest::Map(read)) = (sent.rest, read.rest) {
            found.extend(self.schemas(sent, read, &below("*")));
        }
        found
    }
}

fn takes_constant(read: &[Shape<'_>], value: &Value) -> bool {
    read.iter().any(|form| match form {
        Shape::Constant(known) => *known == value,
        Shape::Text(_) => value.is_string(),
        Shape::Integer(range) => value.as_i64().is_some_and(|n| range.holds(n.into())),
        Shape::Number => value.is_number(),
        Shape::Boolean => value.is_boolean(),
        Shape::Null => value.is_null(),
        _ => false,
    })
}

fn other_kind(sent: &Shape<'_>, read: &[Shape<'_>]) -> String {
    format!("{} is sent, {} is read", sent.kind(), kinds(read))
}

/// `string or null`.
fn kinds(shapes: &[Shape<'_>]) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for kind in shapes.iter().map(Shape::kind) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(" or ") }
}

/// The values that are known, the first few of them.
fn constants(shapes: &[Shape<'_>]) -> String {
    let values: Vec<String> = shapes
        .iter()
        .filter_map(|form| match form {
            Shape::Constant(value) => Some(value.to_string().replace('"', "`")),
            _ => None,
        })
        .collect();
    match values.len() {
        0 => "nothing".to_owned(),
        1..=6 => values.join(", "),
        _ => format!("{}, …", values[..6].join(", ")),
    }
}

fn article(format: Option<&str>) -> String {
    format.map_or_else(|| "any text".to_owned(), |format| format!("a text in the form `{format}`"))
}
