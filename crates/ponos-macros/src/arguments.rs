//! What stands in an attribute's parentheses.

use std::fmt;

use proc_macro2::{Ident, Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{LitStr, Path, Token, Type, parenthesized, token};

use crate::mistakes::Mistakes;

syn::custom_keyword!(unchecked);

/// Which attribute is being expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attribute {
    App,
    Event,
    Task,
    Data,
}

/// The arguments as written. Which of them must be there is for each attribute to say.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) name: Option<LitStr>,
    /// `verb = unchecked`: the tense of the name's verb is not looked at.
    pub(crate) unchecked_verb: bool,
    pub(crate) app: Option<Path>,
    pub(crate) state: Option<Type>,
    pub(crate) emits: Vec<Path>,
    /// Reading has stopped at a mistake, so what is missing may only not have been read.
    pub(crate) cut_short: bool,
}

/// An argument other than the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    App,
    Emits,
    State,
    Verb,
}

impl Attribute {
    /// The arguments that it takes besides the name.
    fn keys(self) -> &'static [Key] {
        match self {
            Self::App => &[Key::State, Key::Emits],
            Self::Event => &[Key::Verb],
            Self::Task => &[Key::App, Key::Emits, Key::Verb],
            Self::Data => &[],
        }
    }

    fn takes(self) -> String {
        if self == Self::Data {
            return "no arguments".to_owned();
        }
        let forms = self.keys().iter().map(|key| format!(", `{}`", key.form()));
        "its name as a string".to_owned() + &forms.collect::<String>()
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::App => "#[app]",
            Self::Event => "#[event]",
            Self::Task => "#[task]",
            Self::Data => "#[data]",
        })
    }
}

impl Key {
    const fn word(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Emits => "emits",
            Self::State => "state",
            Self::Verb => "verb",
        }
    }

    /// How it is written.
    const fn form(self) -> &'static str {
        match self {
            Self::App => "app = Billing",
            Self::Emits => "emits(CardAdded, …)",
            Self::State => "state = Database",
            Self::Verb => "verb = unchecked",
        }
    }

    /// What it wants.
    const fn wants(self) -> &'static str {
        match self {
            Self::App => "the type that carries `#[app(…)]`",
            Self::Emits => "the types of the events in parentheses",
            Self::State => "a type",
            Self::Verb => "the word `unchecked`",
        }
    }
}

impl Arguments {
    /// Reads the arguments up to the first that is wrong in form.
    pub(crate) fn parse(attribute: Attribute, tokens: TokenStream, mistakes: &mut Mistakes) -> Self {
        let mut arguments = Self::default();
        let read = |input: ParseStream<'_>| arguments.read(attribute, input, mistakes);
        if let Err(error) = read.parse2(tokens) {
            mistakes.add(error);
            arguments.cut_short = true;
        }
        arguments
    }

    fn read(
        &mut self,
        attribute: Attribute,
        input: ParseStream<'_>,
        mistakes: &mut Mistakes,
    ) -> syn::Result<()> {
        let mut seen = Vec::new();
        while !input.is_empty() {
            if attribute != Attribute::Data && input.peek(LitStr) {
                let name = input.parse()?;
                if self.name.is_some() {
                    mistakes.note(name, "a second name: keep one");
                } else {
                    self.name = Some(name);
                }
            } else {
                let key = read_key(attribute, input)?;
                if seen.contains(&key.0) {
                    mistakes.note_at(key.1, format!("`{}` is given twice: keep one", key.0.word()));
                }
                seen.push(key.0);
                self.read_value(key, input, mistakes)?;
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(())
    }

    fn read_value(
        &mut self,
        (key, span): (Key, Span),
        input: ParseStream<'_>,
        mistakes: &mut Mistakes,
    ) -> syn::Result<()> {
        let wrong = |input: ParseStream<'_>| {
            let text = format!("`{}` takes {}: `{}`", key.word(), key.wants(), key.form());
            if input.is_empty() { syn::Error::new(span, text) } else { input.error(text) }
        };
        if key == Key::Emits {
            if !input.peek(token::Paren) {
                return Err(wrong(input));
            }
            let events;
            parenthesized!(events in input);
            if events.peek(LitStr) {
                return Err(wrong(&events));
            }
            for event in Punctuated::<Path, Token![,]>::parse_terminated(&events)? {
                if self.emits.iter().any(|other| same(other, &event)) {
                    mistakes.note(event, "this event is listed twice: keep one");
                } else {
                    self.emits.push(event);
                }
            }
            return Ok(());
        }
        if input.parse::<Token![=]>().is_err() || input.is_empty() || input.peek(LitStr) {
            return Err(wrong(input));
        }
        match key {
            Key::App => self.app = Some(input.parse()?),
            Key::State => self.state = Some(input.parse()?),
            Key::Verb if input.peek(unchecked) => {
                input.parse::<unchecked>()?;
                self.unchecked_verb = true;
            }
            Key::Verb | Key::Emits => return Err(wrong(input)),
        }
        Ok(())
    }
}

fn read_key(attribute: Attribute, input: ParseStream<'_>) -> syn::Result<(Key, Span)> {
    let takes = attribute.takes();
    if !input.peek(Ident::peek_any) {
        return Err(input.error(format!("`{attribute}` takes {takes}")));
    }
    let word = input.call(Ident::parse_any)?;
    match attribute.keys().iter().find(|key| word == key.word()) {
        Some(key) => Ok((*key, word.span())),
        None => {
            let text = format!("`{attribute}` has no argument `{word}`; it takes {takes}");
            Err(syn::Error::new(word.span(), text))
        }
    }
}

fn same(a: &Path, b: &Path) -> bool {
    a.to_token_stream().to_string() == b.to_token_stream().to_string()
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn parse(attribute: Attribute, tokens: TokenStream) -> (Arguments, Vec<String>) {
        let mut mistakes = Mistakes::default();
        let arguments = Arguments::parse(attribute, tokens, &mut mistakes);
        (arguments, mistakes.texts())
    }

    #[test]
    fn arguments_are_read_in_any_order() {
        let tokens =
            quote!(emits(contracts::A, B,), verb = unchecked, app = crate::Billing, "billing.card.charge",);
        let (arguments, mistakes) = parse(Attribute::Task, tokens);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert_eq!(arguments.name.unwrap().value(), "billing.card.charge");
        assert!(arguments.unchecked_verb && !arguments.cut_short);
        assert_eq!(arguments.app.unwrap().segments.len(), 2);
        assert_eq!(arguments.emits.len(), 2);
    }

    #[test]
    fn a_state_may_be_any_type() {
        for state in [quote!(Map<String, (u8, u8)>), quote!((A, B)), quote!(Box<dyn Send + Sync>), quote!(())]
        {
            let (arguments, mistakes) = parse(Attribute::App, quote!("billing", state = #state, emits()));
            assert!(mistakes.is_empty() && arguments.state.is_some(), "{state}: {mistakes:?}");
        }
    }

    #[test]
    fn each_wrong_argument_is_reported_once() {
        for tokens in [
            quote!("a.b", verb),
            quote!("a.b", verb =),
            quote!("a.b", verb = "unchecked"),
            quote!("a.b", verb(unchecked)),
            quote!("a.b", 7),
            quote!("a.b", = 7),
            quote!("a.b" verb = unchecked),
            quote!("a.b", verb = unchecked, verb = unchecked),
            quote!("a.b", unchecked),
        ] {
            let (_, mistakes) = parse(Attribute::Event, tokens.clone());
            assert_eq!(mistakes.len(), 1, "{tokens}: {mistakes:?}");
        }
        for tokens in [quote!(emits), quote!(emits[A]), quote!(emits(A B)), quote!(app =), quote!(app = 7)] {
            let (_, mistakes) = parse(Attribute::Task, tokens.clone());
            assert_eq!(mistakes.len(), 1, "{tokens}: {mistakes:?}");
        }
    }
}
