//! Where the transaction id may go, and how long an answer may take.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

/// What a stub answers: a response, or the text of an error.
pub(super) type StubAnswer = Result<http::Response<Vec<u8>>, String>;

/// Stands in for the network.
pub(super) type Stub =
    Arc<dyn Fn(reqwest::Request) -> Pin<Box<dyn Future<Output = StubAnswer> + Send>> + Send + Sync>;

/// How `cx.http()` behaves.
///
/// By default the transaction id goes to the own host only (`127.0.0.1`, `[::1]`, `localhost`), and a request with its
/// answer may take 10 seconds.
#[derive(Clone)]
pub struct HttpOptions {
    pub(super) allowed: Allowed,
    pub(super) timeout: Duration,
    pub(super) stub: Option<Stub>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        let own = ["127.0.0.1", "::1", "localhost"];
        Self {
            allowed: Allowed(own.map(Pattern::parse).into()),
            timeout: Duration::from_secs(10),
            stub: None,
        }
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("allowed", &self.allowed.0)
            .field("timeout", &self.timeout)
            .field("stub", &self.stub.is_some())
            .finish()
    }
}

impl HttpOptions {
    /// Lets the transaction id go to this host too: `billing.internal`, `10.0.0.7`, or all below a domain with
    /// `*.internal.example` (not `internal.example` itself). The port does not matter.
    ///
    /// # Panics
    ///
    /// If `host` is not a host: a URL, a host with a port, or a `*` anywhere but in front of a domain.
    #[must_use]
    pub fn allow(mut self, host: &str) -> Self {
        self.allowed.0.push(Pattern::parse(host));
        self
    }

    /// How long a request may take, from connecting to the end of the answer's body. 10 seconds unless said otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Answers requests in place of the network, for tests. The request is as it would have left, headers included.
    ///
    /// An `Err` becomes an [`HttpError`](super::HttpError) of kind [`Connect`](super::HttpErrorKind::Connect). No redirect is followed.
    #[must_use]
    pub fn stub<F, Answer>(mut self, answer: F) -> Self
    where
        F: Fn(reqwest::Request) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<http::Response<Vec<u8>>, String>> + Send + 'static,
    {
        self.stub = Some(Arc::new(move |request| Box::pin(answer(request))));
        self
    }

    /// Answers with the stub of `other`, if that has one: the services of a test share it.
    #[cfg(feature = "testing")]
    pub(crate) fn stubbed_as(mut self, other: &Self) -> Self {
        if let Some(stub) = &other.stub {
            self.stub = Some(Arc::clone(stub));
        }
        self
    }
}

/// The hosts that may learn the transaction id.
#[derive(Debug, Clone)]
pub(super) struct Allowed(Vec<Pattern>);

impl Allowed {
    pub(super) fn contains(&self, url: &Url) -> bool {
        self.0.iter().any(|pattern| pattern.matches(url))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// As a URL writes it: lower case, an IPv6 address in brackets.
    Host(String),
    /// With the dot in front.
    Below(String),
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let (domain, below) = match text.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (text, false),
        };
        let host = canonical_host(domain).filter(|_| !domain.contains('*'));
        let is_domain = domain.bytes().any(|b| b.is_ascii_alphabetic()) && !domain.contains(':');
        match host {
            Some(host) if below && is_domain => Self::Below(format!(".{host}")),
            Some(host) if !below => Self::Host(host),
            _ => panic!(
                "`{}` cannot be allowed: name a host without scheme, port and path, such as `billing.internal`, \
                 or all below a domain, such as `*.internal.example`",
                ponos_core::envelope::tame(text, 200)
            ),
        }
    }

    fn matches(&self, url: &Url) -> bool {
        match self {
            Self::Host(host) => url.host_str().map(without_dot) == Some(host),
            // Only domains: no address lies below another.
            Self::Below(domain) => url
                .domain()
                .map(without_dot)
                .is_some_and(|host| host.len() > domain.len() && host.ends_with(domain.as_str())),
        }
    }
}

/// The host as a URL with it would have it; `None` when that URL has more or less than a host.
fn canonical_host(text: &str) -> Option<String> {
    let bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let text = if bare_v6 { format!("[{text}]") } else { text.to_owned() };
    // A port is looked for here, because the scheme's own vanishes in the URL.
    let after_host = text.rsplit(']').next().unwrap_or_default();
    if after_host.contains([':', '@', '/', '\\', '?', '#']) || text.contains(char::is_whitespace) {
        return None;
    }
    let url = Url::parse(&format!("http://{text}/")).ok()?;
    let host = url.host_str().map(without_dot).filter(|host| !host.is_empty())?;
    Some(host.to_owned())
}

/// `example.com.` is `example.com`.
fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(patterns: &[&str], url: &str) -> bool {
        let options = patterns.iter().fold(HttpOptions::default(), |options, host| options.allow(host));
        options.allowed.contains(&Url::parse(url).unwrap())
    }

    #[test]
    fn the_own_host_is_allowed_and_no_other() {
        for url in ["http://127.0.0.1:8080/x", "http://[::1]/", "http://LOCALHOST/", "https://localhost./"] {
            assert!(allowed(&[], url), "{url}");
        }
        for url in [
            "http://127.0.0.2/",
            "http://localhost.evil.example/",
            "http://evil.example/127.0.0.1",
            "http://localhost@evil.example/",
            "data:text/plain,localhost",
        ] {
            assert!(!allowed(&[], url), "{url}");
        }
    }

    #[test]
    fn a_host_is_exact_and_a_star_is_for_what_lies_below() {
        assert!(allowed(&["Billing.Internal"], "http://billing.internal:99/"));
        assert!(!allowed(&["billing.internal"], "http://x.billing.internal/"));
        let below = ["*.internal.example"];
        assert!(allowed(&below, "http://a.internal.example/"));
        assert!(allowed(&below, "http://a.b.internal.example./"));
        for url in
            ["http://internal.example/", "http://evilinternal.example/", "http://a.internal.example.evil/"]
        {
            assert!(!allowed(&below, url), "{url}");
        }
        assert!(allowed(&["10.0.0.7"], "http://10.0.0.7/") && allowed(&["fe80::1"], "http://[fe80:0::1]/"));
    }

    #[test]
    fn what_is_no_host_is_refused_with_a_way_out() {
        for text in
            ["", "*", "*.", "a.*", "http://a", "a:80", "[::1]:80", "a/b", "u@a", "*.0.0.1", "a b", "*.*.a"]
        {
            let refused = std::panic::catch_unwind(|| HttpOptions::default().allow(text)).unwrap_err();
            let message = refused.downcast_ref::<String>().unwrap();
            assert!(message.contains("such as `billing.internal`"), "{text}: {message}");
        }
    }
}
