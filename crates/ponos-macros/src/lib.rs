//! The attributes [`#[app]`](macro@app), [`#[event]`](macro@event), [`#[task]`](macro@task) and
//! [`#[data]`](macro@data) of Ponos. Depend on `ponos`, which re-exports them: what they write refers to `::ponos`.
//!
//! A mistake that an attribute can see is reported where it stands, with what to write instead, and all mistakes
//! of one item at once. The item and its trait implementations are written even so, as far as they can be, because
//! a message that vanishes would be reported again at each of its uses.

mod app;
mod arguments;
mod emits;
mod event;
mod mistakes;
mod naming;
mod payload;
mod shape;
mod task;

use proc_macro::TokenStream;

#[doc = include_str!("app.md")]
#[proc_macro_attribute]
pub fn app(arguments: TokenStream, item: TokenStream) -> TokenStream {
    app::expand(arguments.into(), &item.into()).into()
}

#[doc = include_str!("event.md")]
#[proc_macro_attribute]
pub fn event(arguments: TokenStream, item: TokenStream) -> TokenStream {
    event::expand(arguments.into(), &item.into()).into()
}

#[doc = include_str!("task.md")]
#[proc_macro_attribute]
pub fn task(arguments: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(arguments.into(), &item.into()).into()
}

#[doc = include_str!("data.md")]
#[proc_macro_attribute]
pub fn data(arguments: TokenStream, item: TokenStream) -> TokenStream {
    payload::expand_data(arguments.into(), &item.into()).into()
}
