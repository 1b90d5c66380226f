//! The transaction id over HTTP: out with `cx.http()`, in where a service opts in.
//!
//! Four headers carry it: `x-ponos-tid`, `x-ponos-cause` (the message on whose account the request is made),
//! `x-ponos-hops` (how long the chain is, so that one that goes round over HTTP ends too) and `traceparent` (W3C Trace
//! Context). They leave only to hosts that the service allows (`HttpOptions::allow`), for an id is
//! nobody else's business. Inbound they are believed only by who calls [`cause_from_headers`]: at a public endpoint
//! the callers would choose the ids otherwise.

#[cfg(feature = "reqwest")]
mod client;
#[cfg(feature = "reqwest")]
mod error;
#[cfg(feature = "reqwest")]
mod options;

use std::sync::Arc;

use ponos_core::envelope::{Cause, TraceContext};
use ponos_core::id::{MessageId, Tid};

#[cfg(feature = "reqwest")]
pub(crate) use self::client::Client;
#[cfg(feature = "reqwest")]
pub use self::client::{Http, RequestBuilder};
#[cfg(feature = "reqwest")]
pub use self::error::{HttpError, HttpErrorKind};
#[cfg(feature = "reqwest")]
pub use self::options::HttpOptions;

/// Requests and answers, as a stub sees and makes them.
#[cfg(feature = "reqwest")]
pub use {::http::Response, ::http::StatusCode, reqwest::Request};

/// The header with the transaction id.
pub const TID_HEADER: &str = "x-ponos-tid";

/// The header with the id of the message on whose account a request is made.
pub const CAUSE_HEADER: &str = "x-ponos-cause";

/// The header with the number of messages before those that a request leads to.
pub const HOPS_HEADER: &str = "x-ponos-hops";

/// What an inbound request asks to be a part of, to be given to `publisher.within(…)`.
///
/// Call this only where the callers are your own services: a transaction id from outside lets a stranger write into
/// any of your traces. The id is taken from `x-ponos-tid`, else it is the trace id of `traceparent`; `None` without
/// either. Of repeated headers the first that can be read counts; case does not matter.
///
/// ```
/// let headers = [("X-Ponos-Tid", "0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17")];
/// let cause = ponos::http::cause_from_headers(headers).unwrap();
/// assert_eq!(cause.tid.short(), "4e2a9d17");
/// ```
#[must_use]
pub fn cause_from_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Cause> {
    let (mut tid, mut message, mut hops, mut parent, mut state) = (None, None, None, None, None);
    for (name, value) in headers {
        let value = value.trim();
        if name.eq_ignore_ascii_case(TID_HEADER) {
            tid = tid.or_else(|| Tid::from_foreign(value));
        } else if name.eq_ignore_ascii_case(CAUSE_HEADER) {
            message = message.or_else(|| value.parse::<MessageId>().ok());
        } else if name.eq_ignore_ascii_case(HOPS_HEADER) {
            hops = hops.or_else(|| value.parse::<u32>().ok());
        } else if name.eq_ignore_ascii_case("traceparent") {
            parent = parent.or(Some(value));
        } else if name.eq_ignore_ascii_case("tracestate") {
            state = state.or(Some(value));
        }
    }
    let trace = parent.and_then(|parent| TraceContext::parse(parent, state));
    let tid = tid.or_else(|| trace.as_ref().and_then(TraceContext::tid))?;
    Some(Cause {
        tid,
        message,
        // A chain is never shorter than what is known of it.
        hops: hops.unwrap_or(0).max(u32::from(message.is_some())),
        trace: trace.map(Arc::new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TID: &str = "0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17";
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn the_tid_header_comes_before_the_trace() {
        let cause = cause_from_headers([
            ("traceparent", PARENT),
            ("X-Ponos-Cause", "0198f3c2-7d41-8a06-9c1e-5b0f4e2a9d18"),
            ("x-ponos-tid", TID),
            ("x-ponos-tid", "later"),
        ])
        .unwrap();
        assert_eq!(cause.tid.to_string(), TID);
        assert_eq!(cause.message.unwrap().to_string(), "0198f3c2-7d41-8a06-9c1e-5b0f4e2a9d18");
        assert_eq!(cause.hops, 1);
        assert_eq!(cause.trace.unwrap().parent, PARENT);
    }

    #[test]
    fn a_chain_goes_on_counting() {
        let of = |hops| {
            let cause = ("x-ponos-cause", "0198f3c2-7d41-8a06-9c1e-5b0f4e2a9d18");
            cause_from_headers([("x-ponos-tid", TID), ("X-Ponos-Hops", hops), cause]).unwrap().hops
        };
        assert_eq!([of("17"), of("0"), of("99999999999"), of("many")], [17, 1, 1, 1]);
    }

    #[test]
    fn a_trace_alone_gives_the_tid() {
        let cause = cause_from_headers([("TraceParent", PARENT), ("x-ponos-tid", "\u{1b}")]).unwrap();
        assert_eq!(cause.tid.trace_id().unwrap(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((cause.message, cause.hops), (None, 0));
    }

    #[test]
    fn rubbish_is_no_cause() {
        assert!(cause_from_headers([]).is_none());
        assert!(cause_from_headers([("x-ponos-tid", "…"), ("traceparent", "00-1-2-3")]).is_none());
        let cause =
            cause_from_headers([("x-ponos-tid", "a b"), ("x-ponos-cause", "c"), ("x-ponos-hops", "-1")]);
        let cause = cause.unwrap();
        assert_eq!((cause.tid.to_string().as_str(), cause.message, cause.hops), ("ab", None, 0));
    }
}
