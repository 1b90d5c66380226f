//! `#[app]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Data, DeriveInput, Fields};

use crate::arguments::{Arguments, Attribute};
use crate::mistakes::Mistakes;
use crate::{emits, naming, payload};

pub(crate) fn expand(arguments: TokenStream, tokens: &TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let arguments = Arguments::parse(Attribute::App, arguments, &mut mistakes);
    let item = match payload::parse_item(Attribute::App, tokens) {
        Ok(item) => item,
        Err(error) => return quote!(#error #tokens),
    };
    check_shape(&item, &mut mistakes);
    let ident = &item.ident;
    let name = naming::checked(Attribute::App, &arguments, ident, &mut mistakes);
    let name = name.map_or_else(|| quote!(""), ToTokens::into_token_stream);
    let state = arguments.state.map_or_else(|| quote!(()), ToTokens::into_token_stream);
    let infos = emits::infos(&arguments.emits);
    let emitted = emits::emitted_by(&arguments.emits, ident);
    let errors = mistakes.into_tokens();
    if !item.generics.params.is_empty() {
        return quote!(#item #errors);
    }
    quote! {
        #item
        #[automatically_derived]
        impl ::ponos::App for #ident {
            const NAME: &'static str = #name;
            type State = #state;
            #infos
        }
        #emitted
        #errors
    }
}

fn check_shape(item: &DeriveInput, mistakes: &mut Mistakes) {
    let unit = matches!(&item.data, Data::Struct(data) if matches!(data.fields, Fields::Unit));
    if !unit || !item.generics.params.is_empty() {
        let text = format!(
            "an application is a name for the compiler and holds nothing: write `struct {};`, and put what its handlers \
             need into the type given as `state = …`",
            item.ident
        );
        mistakes.note(&item.ident, text);
    }
}
