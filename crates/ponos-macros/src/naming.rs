//! The names in the attributes.

use ponos_core::name::{self, NameError};
use proc_macro2::{Ident, Span};
use syn::LitStr;
use syn::ext::IdentExt;

use crate::arguments::{Arguments, Attribute};
use crate::mistakes::Mistakes;

type Check = fn(&str) -> Result<(), NameError>;

/// The name that the arguments give `item`; `None` if there is none or it breaks a rule, which is noted.
pub(crate) fn checked(
    attribute: Attribute,
    arguments: &Arguments,
    item: &Ident,
    mistakes: &mut Mistakes,
) -> Option<LitStr> {
    let check = match (attribute, arguments.unchecked_verb) {
        (Attribute::App, _) => name::check_app,
        (Attribute::Event, false) => name::check_event,
        (Attribute::Event, true) => name::check_event_unchecked_verb,
        (_, false) => name::check_task,
        (_, true) => name::check_task_unchecked_verb,
    };
    let Some(name) = &arguments.name else {
        if !arguments.cut_short {
            let (form, example) = example(attribute, arguments, item, check);
            let text = format!("`{attribute}` needs a name: {form}, for example \"{example}\"");
            mistakes.note_at(Span::call_site(), text);
        }
        return None;
    };
    check(&name.value()).map_err(|error| mistakes.note(name, error)).ok().map(|()| name.clone())
}

/// The form of a name, and one made from the type's if that keeps the rules.
fn example(
    attribute: Attribute,
    arguments: &Arguments,
    item: &Ident,
    check: Check,
) -> (&'static str, String) {
    let own = words(item);
    let (form, guess, fallback) = match attribute {
        Attribute::App => ("one segment", own.join("-"), "billing"),
        Attribute::Event => ("a model and a verb in the past tense", own.join("."), "card.added"),
        Attribute::Task | Attribute::Data => {
            let app = arguments.app.as_ref().and_then(|app| app.segments.last());
            let app = app.map(|app| words(&app.ident).join("-")).unwrap_or_default();
            (
                "application, model and a verb in the present tense",
                format!("{app}.{}", own.join(".")),
                "billing.card.charge",
            )
        }
    };
    (form, if check(&guess).is_ok() { guess } else { fallback.to_owned() })
}

/// `OrgPaymentProcessed` is `org`, `payment`, `processed`, and `HTTPCall` is `http`, `call`.
fn words(name: &Ident) -> Vec<String> {
    let letters: Vec<char> = name.unraw().to_string().chars().collect();
    let mut words: Vec<String> = Vec::new();
    for (i, c) in letters.iter().enumerate() {
        let after_small = i > 0 && !letters[i - 1].is_uppercase();
        let before_small = letters.get(i + 1).is_some_and(|next| next.is_lowercase());
        let begins = c.is_uppercase() && (after_small || before_small);
        match words.last_mut() {
            Some(word) if !begins => word.extend(c.to_lowercase()),
            _ => words.push(c.to_lowercase().collect()),
        };
    }
    words
}

#[cfg(test)]
mod tests {
    use quote::format_ident;

    use super::*;

    #[test]
    fn a_types_name_is_taken_apart_where_a_word_begins() {
        for (name, expected) in [
            ("OrgPaymentProcessed", "org payment processed"),
            ("HTTPCallMade", "http call made"),
            ("Sha256Computed", "sha256 computed"),
            ("Died", "died"),
        ] {
            assert_eq!(words(&format_ident!("{name}")).join(" "), expected);
        }
    }

    #[test]
    fn an_example_keeps_the_rules_of_names() {
        let arguments = Arguments::default();
        let example_of = |attribute, name: &str, check: Check| {
            example(attribute, &arguments, &format_ident!("{name}"), check).1
        };
        assert_eq!(example_of(Attribute::Event, "CardLost", name::check_event), "card.lost");
        assert_eq!(example_of(Attribute::Event, "CardLoss", name::check_event), "card.added");
        assert_eq!(example_of(Attribute::App, "LinkShortener", name::check_app), "link-shortener");
        assert_eq!(example_of(Attribute::Task, "CardBlock", name::check_task), "billing.card.charge");
    }
}
