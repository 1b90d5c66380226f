//! `#[task]`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{LitStr, Path};

use crate::arguments::{Arguments, Attribute};
use crate::mistakes::Mistakes;
use crate::{emits, naming, payload, shape};

pub(crate) fn expand(arguments: TokenStream, tokens: &TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let arguments = Arguments::parse(Attribute::Task, arguments, &mut mistakes);
    let mut item = match payload::parse_item(Attribute::Task, tokens) {
        Ok(item) => item,
        Err(error) => return quote!(#error #tokens),
    };
    shape::check_message(Attribute::Task, &mut item, &mut mistakes);
    let ident = &item.ident;
    let name = naming::checked(Attribute::Task, &arguments, ident, &mut mistakes);
    if arguments.app.is_none() && !arguments.cut_short {
        mistakes.note_at(
            Span::call_site(),
            "`#[task]` needs the application that owns the task: add `app = Billing`, with the type that carries \
             `#[app(…)]`",
        );
    }
    let task = arguments.app.as_ref().map(|app| impls(ident, name.as_ref(), app, &arguments.emits));
    let message = payload::message(&item, &task.unwrap_or_default());
    let errors = mistakes.into_tokens();
    quote!(#message #errors)
}

fn impls(ident: &Ident, name: Option<&LitStr>, app: &Path, events: &[Path]) -> TokenStream {
    // A name that is wrong in itself is not compared with the application's too.
    let assertion = name.map(
        |name| quote_spanned!(name.span()=> const _: () = ::ponos::__private::assert_owner::<#ident>();),
    );
    let name = name.map_or_else(|| quote!(""), ToTokens::into_token_stream);
    let infos = emits::infos(events);
    let emitted = emits::emitted_by(events, ident);
    // Where the compiler says which application the task does belong to, it shows this place.
    let here = app.span();
    let owned_by = quote!(::ponos::OwnedBy<#app>);
    let owned_by = quote_spanned!(here=> impl #owned_by for #ident {});
    let into_tasks = quote!(::ponos::IntoTasks<#app>);
    let names = quote! {
        fn names() -> ::std::vec::Vec<&'static str> {
            ::std::vec![<Self as ::ponos::Task>::NAME]
        }

        fn each(
            self,
            sink: &mut dyn ::ponos::__private::TaskSink,
        ) -> ::core::result::Result<(), ::ponos::__private::EncodeError> {
            sink.take(<Self as ::ponos::Task>::NAME, &self)
        }
    };
    let into_tasks = quote_spanned!(here=> impl #into_tasks for #ident { #names });
    quote! {
        #[automatically_derived]
        impl ::ponos::Task for #ident {
            const NAME: &'static str = #name;
            type App = #app;
            #infos
        }
        #assertion
        #[automatically_derived]
        #owned_by
        #[automatically_derived]
        #into_tasks
        #emitted
    }
}
