//! `#[event]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use crate::arguments::{Arguments, Attribute};
use crate::mistakes::Mistakes;
use crate::{naming, payload, shape};

pub(crate) fn expand(arguments: TokenStream, tokens: &TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let arguments = Arguments::parse(Attribute::Event, arguments, &mut mistakes);
    let mut item = match payload::parse_item(Attribute::Event, tokens) {
        Ok(item) => item,
        Err(error) => return quote!(#error #tokens),
    };
    shape::check_message(Attribute::Event, &mut item, &mut mistakes);
    let ident = &item.ident;
    let name = naming::checked(Attribute::Event, &arguments, ident, &mut mistakes);
    let name = name.map_or_else(|| quote!(""), ToTokens::into_token_stream);
    let event = quote! {
        #[automatically_derived]
        impl ::ponos::Event for #ident {
            const NAME: &'static str = #name;
        }
    };
    let message = payload::message(&item, &event);
    let errors = mistakes.into_tokens();
    quote!(#message #errors)
}
