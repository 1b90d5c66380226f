//! What a message's type may look like: it must be a JSON object that says the same to every reader.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::{Attribute as RustAttribute, Data, DeriveInput, Expr, ExprLit, Field, Fields, Lit, LitStr, Meta, Path, Token, Type};

use crate::arguments::Attribute;
use crate::mistakes::Mistakes;

/// The field of a body that is not the payload's.
const TID: &str = "tid";

/// The derives that the attributes write themselves.
const OURS: &[&str] = &["Serialize", "Deserialize", "JsonSchema"];

/// Notes why `item` cannot be an event or a task.
pub(crate) fn check_message(attribute: Attribute, item: &DeriveInput, mistakes: &mut Mistakes) {
    check_derives(attribute, item, mistakes);
    check_generics(attribute, item, mistakes);
    let serde = serde_of(&item.attrs);
    if let Some(transparent) = serde.iter().find(|meta| meta.path().is_ident("transparent")) {
        mistakes.note(transparent, "a message is a JSON object, a transparent type is its field's value: remove this");
    }
    let tag = serde.iter().find(|meta| meta.path().is_ident("tag"));
    if let Some(text) = tag.and_then(text_of).filter(is_tid) {
        mistakes.note(text, tid_is_taken("choose another tag"));
    }
    match &item.data {
        Data::Struct(data) => {
            if let Fields::Unnamed(fields) = &data.fields {
                mistakes.note(
                    fields,
                    "a message is a JSON object, whose fields have names: write `{ name: Type, … }` instead of `(Type, …)`",
                );
            }
            check_fields(&data.fields, mistakes);
        }
        Data::Enum(data) => {
            if tag.is_none() {
                mistakes.note(
                    &item.ident,
                    "a message is a JSON object, and not every variant of this enum would be one: add \
                     `#[serde(tag = \"kind\")]`, or put the enum, with `#[data]`, into a field of a struct",
                );
            } else if let Some(content) = serde.iter().find(|meta| meta.path().is_ident("content")) {
                mistakes.note(
                    content,
                    "of enums only internally tagged ones can be messages: remove `content`, so that the fields stand \
                     beside the tag",
                );
            }
            data.variants.iter().for_each(|variant| check_fields(&variant.fields, mistakes));
        }
        Data::Union(_) => check_union(attribute, item, mistakes),
    }
}

/// Notes why `item` cannot be a part of a message.
pub(crate) fn check_data(item: &DeriveInput, mistakes: &mut Mistakes) {
    check_derives(Attribute::Data, item, mistakes);
    check_union(Attribute::Data, item, mistakes);
}

/// Whether serde or schemars is told to treat the field in another way than by its type's own implementations.
pub(crate) fn is_special(field: &Field) -> bool {
    let special = |meta: &Meta| {
        let key = meta.path().require_ident().map(Ident::to_string).unwrap_or_default();
        key.contains("with") || key.contains("skip")
    };
    metas(&field.attrs, "serde").iter().chain(&metas(&field.attrs, "schemars")).any(special)
}

fn check_union(attribute: Attribute, item: &DeriveInput, mistakes: &mut Mistakes) {
    if let Data::Union(data) = &item.data {
        mistakes.note(data.union_token, format!("`{attribute}` cannot stand on a union: write a struct or an enum"));
    }
}

fn check_derives(attribute: Attribute, item: &DeriveInput, mistakes: &mut Mistakes) {
    for derive in item.attrs.iter().filter(|attr| attr.path().is_ident("derive")) {
        let paths = derive.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated);
        for path in paths.into_iter().flatten() {
            if let Some(name) = OURS.iter().find(|name| is_ours(&path, name)) {
                mistakes.note(&path, format!("`{attribute}` derives `{name}` itself: remove it from this list"));
            }
        }
    }
}

/// Whether a derive's path means ours, and not, say, `rkyv::Serialize`.
fn is_ours(path: &Path, name: &str) -> bool {
    let mut from_the_end = path.segments.iter().rev();
    from_the_end.next().is_some_and(|last| last.ident == name)
        && from_the_end.next().is_none_or(|module| ["serde", "serde_derive", "schemars"].iter().any(|m| module.ident == m))
}

fn check_generics(attribute: Attribute, item: &DeriveInput, mistakes: &mut Mistakes) {
    let generics = &item.generics;
    if generics.lifetimes().next().is_some() {
        mistakes.note(
            generics,
            "a message outlives its sender, so it owns its data and has no lifetime: `String` for `&str`, `Vec<T>` for \
             `&[T]`",
        );
    } else if !generics.params.is_empty() {
        mistakes.note(
            generics,
            format!(
                "a message has one name and one schema, so `{attribute}` takes no generic type: write one type for each \
                 message"
            ),
        );
    }
}

fn check_fields(fields: &Fields, mistakes: &mut Mistakes) {
    for field in fields {
        if let Type::Reference(reference) = &field.ty {
            mistakes.note(
                reference,
                "a message owns its data: write `String` for `&str`, `Vec<T>` for `&[T]`, `T` for `&T`",
            );
        }
        check_tid(field, mistakes);
    }
}

fn check_tid(field: &Field, mistakes: &mut Mistakes) {
    let serde = serde_of(&field.attrs);
    let mut renamed = false;
    for meta in &serde {
        if meta.path().is_ident("skip") {
            renamed = true;
        }
        if meta.path().is_ident("rename") || meta.path().is_ident("alias") {
            renamed |= meta.path().is_ident("rename");
            for text in texts_of(meta).iter().filter(|text| is_tid(text)) {
                mistakes.note(text, tid_is_taken("choose another name"));
            }
        }
    }
    if let Some(name) = field.ident.as_ref().filter(|name| !renamed && name.unraw() == TID) {
        mistakes.note(name, tid_is_taken("rename the field"));
    }
}

fn tid_is_taken(way_out: &str) -> String {
    format!("`{TID}` in a message is the transaction id, which Ponos writes and reads: {way_out}")
}
