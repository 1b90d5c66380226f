//! What a message's type may look like: a JSON object, the same for every reader.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::{
    Data, DeriveInput, Expr, ExprLit, Field, Fields, Lit, LitStr, Meta, Path, Token, Type, parse_quote,
};

use crate::arguments::Attribute;
use crate::mistakes::Mistakes;

/// The field of a body that is not the payload's.
const TID: &str = "tid";

/// The way out of borrowed data.
const OWN_IT: &str = "write `String` for `&str`, `Vec<T>` for `&[T]`, `T` for `&T`";

/// The derives that the attributes write themselves.
const OURS: &[&str] = &["Serialize", "Deserialize", "JsonSchema"];

/// Notes why `item` cannot be an event or a task.
pub(crate) fn check_message(attribute: Attribute, item: &mut DeriveInput, mistakes: &mut Mistakes) {
    take_derives(attribute, item, mistakes);
    check_generics(attribute, item, mistakes);
    let serde = metas(&item.attrs, "serde");
    if let Some(transparent) = find(&serde, "transparent") {
        mistakes.note(
            transparent,
            "a message is a JSON object, a transparent type is its field's value: remove this",
        );
    }
    let tag = find(&serde, "tag");
    for text in tag.iter().flat_map(|tag| texts(tag)).filter(is_tid) {
        mistakes.note(text, tid_is_taken("choose another tag"));
    }
    match &item.data {
        Data::Struct(data) => {
            if let Fields::Unnamed(fields) = &data.fields {
                mistakes.note(
                    fields,
                    "a message is a JSON object, whose fields have names: write `{ name: Type }` instead of `(Type)`",
                );
            }
            check_fields(item, &data.fields, mistakes);
        }
        Data::Enum(data) => {
            if tag.is_none() {
                mistakes.note(
                    &item.ident,
                    "a message is a JSON object, which this enum is not: add `#[serde(tag = \"kind\")]`, so that each \
                     variant becomes an object with a field `kind`, or put the enum, with `#[data]`, into a struct",
                );
            } else if let Some(content) = find(&serde, "content") {
                mistakes.note(
                    content,
                    "an enum is a message only if its fields stand beside the tag: remove `content`",
                );
            }
            data.variants.iter().for_each(|variant| check_fields(item, &variant.fields, mistakes));
        }
        Data::Union(_) => check_union(attribute, item, mistakes),
    }
}

/// Notes why `item` cannot be a part of a message.
pub(crate) fn check_data(item: &mut DeriveInput, mistakes: &mut Mistakes) {
    take_derives(Attribute::Data, item, mistakes);
    check_union(Attribute::Data, item, mistakes);
}

/// The types of the fields that serde and schemars surely treat by the types' own implementations.
pub(crate) fn plain_types(item: &DeriveInput) -> Vec<&Type> {
    let fields: Vec<&Field> = match &item.data {
        Data::Struct(data) => data.fields.iter().collect(),
        Data::Enum(data) => {
            let variants = data.variants.iter().filter(|variant| !is_special(&variant.attrs));
            variants.flat_map(|variant| &variant.fields).collect()
        }
        Data::Union(_) => Vec::new(),
    };
    let plain = fields.into_iter().filter(|field| !is_special(&field.attrs));
    plain.map(|field| &field.ty).filter(|ty| !mentions_self(ty.to_token_stream())).collect()
}

/// Whether a field or a variant may be left out, or be read and written by other means.
fn is_special(attributes: &[syn::Attribute]) -> bool {
    let special = |meta: &Meta| {
        let word = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        word.contains("with") || word.contains("skip")
    };
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr"))
        || ["serde", "schemars"].iter().any(|library| metas(attributes, library).iter().any(special))
}

fn mentions_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => mentions_self(group.stream()),
        TokenTree::Ident(ident) => ident == "Self",
        _ => false,
    })
}

fn check_union(attribute: Attribute, item: &DeriveInput, mistakes: &mut Mistakes) {
    if let Data::Union(data) = &item.data {
        mistakes.note(data.union_token, format!("`{attribute}` cannot stand on a union: write a struct"));
    }
}

/// Notes the derives that would meet ours, and takes them away, so that the compiler does not report them again.
fn take_derives(attribute: Attribute, item: &mut DeriveInput, mistakes: &mut Mistakes) {
    for derive in item.attrs.iter_mut().filter(|attribute| attribute.path().is_ident("derive")) {
        let Ok(paths) = derive.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated) else {
            continue;
        };
        let (ours, others): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|path| OURS.iter().any(|name| is_ours(path, name)));
        for path in &ours {
            mistakes.note(path, format!("`{attribute}` derives this itself: remove it from the list"));
        }
        if !ours.is_empty() {
            *derive = parse_quote!(#[derive(#(#others),*)]);
        }
    }
}

/// Whether a derive's path means ours, and not, say, `rkyv::Serialize`.
fn is_ours(path: &Path, name: &str) -> bool {
    let mut from_the_end = path.segments.iter().rev().map(|segment| &segment.ident);
    from_the_end.next().is_some_and(|last| last == name)
        && from_the_end.next().is_none_or(|module| {
            ["serde", "serde_derive", "schemars"].iter().any(|library| module == library)
        })
}

fn check_generics(attribute: Attribute, item: &DeriveInput, mistakes: &mut Mistakes) {
    let generics = &item.generics;
    if generics.lifetimes().next().is_some() {
        mistakes.note(generics, format!("a message owns its data, so it has no lifetime: {OWN_IT}"));
    } else if !generics.params.is_empty() {
        mistakes.note(
            generics,
            format!("`{attribute}` gives one name and one schema to one type: write a type for each message"),
        );
    }
}

fn check_fields(item: &DeriveInput, fields: &Fields, mistakes: &mut Mistakes) {
    for field in fields {
        if let (Type::Reference(reference), true) = (&field.ty, item.generics.params.is_empty()) {
            mistakes.note(reference, format!("a message owns its data: {OWN_IT}"));
        }
        check_tid(field, mistakes);
    }
}

/// Looks at the field's name on the wire. What `flatten` adds is only seen when a message is written.
fn check_tid(field: &Field, mistakes: &mut Mistakes) {
    let serde = metas(&field.attrs, "serde");
    for meta in serde.iter().filter(|meta| meta.path().is_ident("rename") || meta.path().is_ident("alias")) {
        for text in texts(meta).into_iter().filter(is_tid) {
            mistakes.note(text, tid_is_taken("choose another name"));
        }
    }
    let elsewhere = find(&serde, "rename").or(find(&serde, "skip")).is_some();
    if let Some(name) = field.ident.as_ref().filter(|name| !elsewhere && name.unraw() == TID) {
        mistakes.note(name, tid_is_taken("rename the field"));
    }
}

fn is_tid(text: &LitStr) -> bool {
    text.value() == TID
}

fn tid_is_taken(way_out: &str) -> String {
    format!("`{TID}` in a message is the transaction id, which Ponos writes and reads itself: {way_out}")
}

/// What stands in the attributes `#[library(…)]`. One that cannot be read is left to its library to report.
fn metas(attributes: &[syn::Attribute], library: &str) -> Vec<Meta> {
    let of_library = attributes.iter().filter(|attribute| attribute.path().is_ident(library));
    of_library
        .flat_map(|attribute| attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated))
        .flatten()
        .collect()
}

fn find<'a>(metas: &'a [Meta], word: &str) -> Option<&'a Meta> {
    metas.iter().find(|meta| meta.path().is_ident(word))
}

/// The strings of `key = "…"` or `key(serialize = "…", deserialize = "…")`.
fn texts(meta: &Meta) -> Vec<LitStr> {
    match meta {
        Meta::Path(_) => Vec::new(),
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => vec![text.clone()],
            _ => Vec::new(),
        },
        Meta::List(list) => {
            let inner = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
            inner.into_iter().flatten().flat_map(|meta| texts(&meta)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn mistakes(item: TokenStream) -> Vec<String> {
        let mut mistakes = Mistakes::default();
        let mut item = syn::parse2(item).unwrap();
        check_message(Attribute::Event, &mut item, &mut mistakes);
        mistakes.texts()
    }

    #[test]
    fn what_is_an_object_is_a_message() {
        for item in [
            quote!(
                struct A;
            ),
            quote!(
                struct A {}
            ),
            quote!(
                struct A {
                    a: u8,
                    #[serde(flatten)]
                    b: B,
                }
            ),
            quote!(
                #[serde(tag = "kind")]
                enum A {
                    B { b: u8 },
                    C(D),
                    E,
                }
            ),
            quote!(
                #[serde(rename_all = "camelCase", crate = "x", bound(serialize = ""))]
                struct A {
                    a: u8,
                }
            ),
        ] {
            assert_eq!(mistakes(item.clone()), [""; 0], "{item}");
        }
    }

    #[test]
    fn the_field_of_the_transaction_id_is_found_under_any_name() {
        for field in [
            quote!(tid: u8),
            quote!(r#tid: u8),
            quote!(#[serde(default)] tid: u8),
            quote!(#[serde(default, rename = "tid")] a: u8),
            quote!(#[serde(rename(serialize = "tid", deserialize = "a"))] a: u8),
            quote!(#[serde(rename(deserialize = "tid"))] a: u8),
            quote!(#[serde(alias = "tid")] a: u8),
        ] {
            assert_eq!(mistakes(quote!(struct A { #field })).len(), 1, "{field}");
            assert_eq!(mistakes(quote!(#[serde(tag = "kind")] enum A { B { #field } })).len(), 1, "{field}");
        }
        for field in [
            quote!(#[serde(rename = "device_tid")] tid: u8),
            quote!(#[serde(skip)] tid: u8),
            quote!(tide: u8),
        ] {
            assert_eq!(mistakes(quote!(struct A { #field })), [""; 0], "{field}");
        }
    }

    #[test]
    fn only_our_own_derives_are_taken_away() {
        let mut item: DeriveInput = parse_quote!(
            #[derive(Debug, Serialize, rkyv::Serialize, serde::Deserialize)]
            struct A;
        );
        let mut mistakes = Mistakes::default();
        check_data(&mut item, &mut mistakes);
        assert_eq!(mistakes.texts().len(), 2);
        let expected = quote!(
            #[derive(Debug, rkyv::Serialize)]
            struct A;
        );
        assert_eq!(item.to_token_stream().to_string(), expected.to_string());
    }

    #[test]
    fn a_field_that_may_not_be_there_or_is_treated_specially_has_no_plain_type() {
        let item: DeriveInput = parse_quote!(
            struct A {
                a: u8,
                #[cfg(unix)]
                b: Unix,
                #[serde(with = "hex")]
                c: Bytes,
                #[schemars(with = "String")]
                d: Url,
                #[serde(skip)]
                e: Cache,
                f: Vec<(u8, Self)>,
            }
        );
        let types: Vec<_> = plain_types(&item).iter().map(|ty| ty.to_token_stream().to_string()).collect();
        assert_eq!(types, ["u8"]);
    }
}
