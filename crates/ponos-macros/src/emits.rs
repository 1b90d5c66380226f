//! `emits(…)`, which tasks and applications share.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::Path;
use syn::spanned::Spanned;

/// The function `emits` of the traits `App` and `Task`.
pub(crate) fn infos(events: &[Path]) -> TokenStream {
    quote! {
        fn emits() -> ::std::vec::Vec<::ponos::EventInfo> {
            // The bound is the `impl` below, so that what is no event is reported there and only there.
            ::std::vec![#(::ponos::__private::event_info::<#events, Self>()),*]
        }
    }
}

/// The right of `sender` to emit the events.
pub(crate) fn emitted_by(events: &[Path], sender: &Ident) -> TokenStream {
    let impls = events.iter().map(|event| {
        let emitted_by = quote!(::ponos::EmittedBy<#sender>);
        let emitted_by = quote_spanned!(event.span()=> impl #emitted_by for #event {});
        quote!(#[automatically_derived] #emitted_by)
    });
    quote!(#(#impls)*)
}
