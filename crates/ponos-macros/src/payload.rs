//! What messages and their parts have in common: the derives, with paths that need no import and no dependency.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields};

use crate::arguments::{Arguments, Attribute};
use crate::mistakes::Mistakes;
use crate::shape;

/// `#[data]`.
pub(crate) fn expand_data(arguments: TokenStream, tokens: &TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    Arguments::parse(Attribute::Data, arguments, &mut mistakes);
    let mut item = match parse_item(Attribute::Data, tokens) {
        Ok(item) => item,
        Err(error) => return quote!(#error #tokens),
    };
    shape::check_data(&mut item, &mut mistakes);
    let derived = derived(&item);
    let errors = mistakes.into_tokens();
    quote!(#derived #errors)
}

/// The struct, enum or union behind an attribute, else what to report.
pub(crate) fn parse_item(attribute: Attribute, tokens: &TokenStream) -> Result<DeriveInput, TokenStream> {
    syn::parse2(tokens.clone()).map_err(|error| {
        let place = match attribute {
            Attribute::App => "a struct without fields",
            Attribute::Event | Attribute::Task => "a struct with named fields",
            Attribute::Data => "a struct or an enum",
        };
        let text = format!("`{attribute}` cannot stand here: it belongs on {place}");
        syn::Error::new(error.span(), text).to_compile_error()
    })
}

/// The item with what an event and a task share, the derives and `Payload`, and then `rest`.
///
/// An item that can have no implementations, because they would be errors on top of the one that is reported,
/// stays alone.
pub(crate) fn message(item: &DeriveInput, rest: &TokenStream) -> TokenStream {
    let name = &item.ident;
    if matches!(item.data, Data::Union(_)) || !item.generics.params.is_empty() {
        return derived(item);
    }
    let item = if is_unit(item) { unit_struct(item) } else { derived(item) };
    quote! {
        #item
        #[automatically_derived]
        impl ::ponos::Payload for #name {
            fn schema() -> ::ponos::__private::serde_json::Value {
                ::ponos::__private::schema_of::<Self>()
            }
        }
        #rest
    }
}

/// The item with the derives, and before it a check of each field, whose text names `#[data]` as the derives' own
/// texts do not.
fn derived(item: &DeriveInput) -> TokenStream {
    let derives = derives();
    match &item.data {
        Data::Union(_) => quote!(#item),
        _ if !item.generics.params.is_empty() => quote!(#derives #item),
        _ => {
            let checks = field_checks(item);
            quote!(#checks #derives #item)
        }
    }
}

fn derives() -> TokenStream {
    quote! {
        #[derive(
            ::ponos::__private::serde::Serialize,
            ::ponos::__private::serde::Deserialize,
            ::ponos::__private::schemars::JsonSchema,
        )]
        #[serde(crate = "::ponos::__private::serde")]
        #[schemars(crate = "::ponos::__private::schemars")]
    }
}

fn field_checks(item: &DeriveInput) -> TokenStream {
    let types = shape::plain_types(item);
    let checks = types.iter().map(|ty| quote_spanned!(ty.span()=> ::ponos::__private::assert_data::<#ty>();));
    quote!(const _: () = { #(#checks)* };)
}

fn is_unit(item: &DeriveInput) -> bool {
    matches!(&item.data, Data::Struct(data) if matches!(data.fields, Fields::Unit))
}

/// `struct X;` is `{}` on the wire, while serde's derives write `null` and schemars' says so. So the derives stand on
/// a private twin `struct X {}` with the user's attributes, and `X` is read, written and described as it.
fn unit_struct(item: &DeriveInput) -> TokenStream {
    let name = &item.ident;
    let (helpers, others): (Vec<_>, Vec<_>) = item.attrs.iter().cloned().partition(|attribute| {
        ["serde", "schemars"].iter().any(|library| attribute.path().is_ident(library))
    });
    let docs = others.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let message = DeriveInput { attrs: others.clone(), ..item.clone() };
    let derives = derives();
    quote! {
        #message
        const _: () = {
            use ::ponos::__private::{schemars, serde};
            // Within the inner block the name means the twin.
            type __Message = #name;
            const _: () = {
                #derives
                #(#docs)*
                #(#helpers)*
                struct #name {}

                #[automatically_derived]
                impl serde::Serialize for __Message {
                    fn serialize<S: serde::Serializer>(&self, serializer: S) -> ::core::result::Result<S::Ok, S::Error> {
                        serde::Serialize::serialize(&#name {}, serializer)
                    }
                }

                #[automatically_derived]
                impl<'de> serde::Deserialize<'de> for __Message {
                    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> ::core::result::Result<Self, D::Error> {
                        <#name as serde::Deserialize>::deserialize(deserializer).map(|_| Self)
                    }
                }

                #[automatically_derived]
                impl schemars::JsonSchema for __Message {
                    fn schema_name() -> ::std::borrow::Cow<'static, str> {
                        <#name as schemars::JsonSchema>::schema_name()
                    }

                    fn schema_id() -> ::std::borrow::Cow<'static, str> {
                        <#name as schemars::JsonSchema>::schema_id()
                    }

                    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                        <#name as schemars::JsonSchema>::json_schema(generator)
                    }
                }
            };
        };
    }
}
