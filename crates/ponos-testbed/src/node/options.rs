//! How a node is started.

use std::path::PathBuf;

/// The start script itself. The one in `/usr/sbin` becomes another user and uses the machine's own directories.
pub(super) const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// How to start a [`Node`](crate::Node).
#[derive(Debug, Clone)]
pub struct NodeOptions {
    pub(super) management: bool,
    pub(super) tls: bool,
    pub(super) plugins: Vec<String>,
    pub(super) config: Vec<(String, String)>,
    pub(super) advanced: Option<String>,
    pub(super) root: Option<PathBuf>,
    /// Set for the nodes of a cluster.
    pub(super) membership: Option<Membership>,
}

/// What the nodes of a cluster share.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) cookie: String,
    pub(crate) epmd_port: u16,
    /// The first node brings the epmd of all.
    pub(crate) brings_epmd: bool,
    pub(crate) name: String,
}

impl Default for NodeOptions {
    /// With management, without TLS, of this machine or of `PONOS_RABBITMQ_ROOT`.
    fn default() -> Self {
        Self {
            management: true,
            tls: false,
            plugins: Vec::new(),
            config: Vec::new(),
            advanced: None,
            root: std::env::var_os("PONOS_RABBITMQ_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from),
            membership: None,
        }
    }
}

impl NodeOptions {
    /// The options of most tests.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the management plugin is on. Without it a node starts about a second sooner, but a new virtual host
    /// takes seconds.
    #[must_use]
    pub fn management(mut self, on: bool) -> Self {
        self.management = on;
        self
    }

    /// Adds a listener for TLS, with an authority and certificates made for this node: [`Node::tls`](crate::Node::tls).
    /// A client's certificate is checked if it presents one; `.config("ssl_options.fail_if_no_peer_cert", "true")`
    /// demands it.
    #[must_use]
    pub fn tls(mut self, on: bool) -> Self {
        self.tls = on;
        self
    }

    /// Turns on one plugin more. One that listens must be given a port and 127.0.0.1 by [`config`](Self::config).
    #[must_use]
    pub fn plugin(mut self, name: &str) -> Self {
        self.plugins.push(name.to_owned());
        self
    }

    /// A line of `rabbitmq.conf`, for example `("consumer_timeout", "10000")`. A later one with the same key wins,
    /// also over those of the testbed.
    #[must_use]
    pub fn config(mut self, key: &str, value: impl ToString) -> Self {
        self.config.push((key.to_owned(), value.to_string()));
        self
    }

    /// The contents of `advanced.config`: Erlang terms. For example `[{rabbit, [{channel_tick_interval, 1000}]}].`,
    /// without which `consumer_timeout` is looked at once a minute.
    #[must_use]
    pub fn advanced(mut self, terms: &str) -> Self {
        self.advanced = Some(terms.to_owned());
        self
    }

    /// The directory of another system, unpacked by `debootstrap`, whose RabbitMQ is started in a chroot. Needs root.
    #[must_use]
    pub fn root(mut self, directory: impl Into<PathBuf>) -> Self {
        self.root = Some(directory.into());
        self
    }

    pub(crate) fn membership(mut self, membership: Membership) -> Self {
        self.membership = Some(membership);
        self
    }

    pub(crate) fn is_installed(&self) -> bool {
        match &self.root {
            Some(root) => root.join(SERVER.trim_start_matches('/')).exists(),
            None => PathBuf::from(SERVER).exists(),
        }
    }
}
