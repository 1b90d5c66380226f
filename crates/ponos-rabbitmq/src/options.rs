//! Where RabbitMQ is and how to talk to it, as a URL.
//!
//! ```text
//! amqp://user:password@host1:5672,host2:5672/vhost?heartbeat=15&queue_type=classic
//! amqps://host/vhost?cacertfile=ca.pem&certfile=me.pem&keyfile=me.key
//! ```
//!
//! | parameter | meaning | default |
//! | --- | --- | --- |
//! | `heartbeat` | seconds between heartbeats; a silent peer is given up after two | 15 |
//! | `queue_type` | `quorum`, or `classic` to take over queues that a Node service created | `quorum` |
//! | `cacertfile` | PEM file with the authorities to trust, beside the system's | |
//! | `certfile`, `keyfile` | PEM files with the client's certificate and its PKCS#8 key | |
//! | `management` | where the management plugin listens, such as `http://host:15672` | host of the first node, port 15672 |
//! | `connection_name` | what the management pages show beside the application's name | |
//! | `guest` | `allow` lets the user `guest` go to another machine | refused |
//!
//! The virtual host is percent-encoded; none, or `/` alone, is the default one, `/`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use ponos_core::Secret;
use ponos_core::broker::{BrokerError, BrokerErrorKind};

/// The type of the queues that hold jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueType {
    /// Replicated, on disk before it is confirmed, counts deliveries: the one to use.
    #[default]
    Quorum,
    /// What Node services create. Not on disk before it is confirmed, no count of deliveries (a job that kills its process
    /// is not found out), lost with its node. For taking such queues over.
    Classic,
}

impl QueueType {
    /// The value of `x-queue-type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

/// Where RabbitMQ is and how to talk to it. `Debug` and errors never show the password.
#[derive(Clone)]
pub struct RabbitOptions {
    pub(crate) tls: bool,
    pub(crate) user: String,
    pub(crate) password: Secret,
    /// Whether `guest` may go anywhere.
    pub(crate) guest_anywhere: bool,
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) vhost: String,
    pub(crate) heartbeat: Duration,
    pub(crate) queue_type: QueueType,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) client_certificate: Option<(PathBuf, PathBuf)>,
    #[cfg_attr(not(feature = "management"), allow(dead_code, reason = "read by the management feature"))]
    pub(crate) management: Option<String>,
    pub(crate) connection_name: String,
    pub(crate) start_within: Duration,
    pub(crate) check_every: Duration,
}

impl fmt::Debug for RabbitOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitOptions")
            .field("nodes", &self.shown())
            .field("user", &self.user)
            .field("queue_type", &self.queue_type)
            .finish_non_exhaustive()
    }
}

fn invalid(problem: impl Into<String>) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Invalid, problem)
}

impl RabbitOptions {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// `Invalid` when the URL is malformed or has a parameter that is not known; the error never holds the URL.
    pub fn from_url(url: &str) -> Result<Self, BrokerError> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| invalid("a RabbitMQ URL looks like `amqp://user:password@host:5672/vhost`"))?;
        let tls = match scheme {
            "amqp" => false,
            "amqps" if cfg!(feature = "tls") => true,
            "amqps" => {
                return Err(invalid(
                    "this program was built without TLS: turn on the feature `tls` of `ponos`",
                ));
            }
            _ => return Err(invalid("RabbitMQ's URL begins with `amqp://` or `amqps://`")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, hosts) = match authority.rsplit_once('@') {
            Some((user_info, hosts)) => (Some(user_info), hosts),
            None => (None, authority),
        };
        let (user, password) = match user_info {
            None => ("guest".to_owned(), "guest".to_owned()),
            Some(text) => {
                let (user, password) = text.split_once(':').ok_or_else(|| {
                    invalid("before the `@` of a RabbitMQ URL stand user and password: `user:password@`")
                })?;
                (decoded(user, "the user")?, decoded(password, "the password")?)
            }
        };
        // Its user would be taken for a host, and shown.
        if vhost.contains('@') {
            return Err(invalid(format!("there is a `/` before the `@` of the RabbitMQ URL: {ESCAPE}")));
        }
        let hosts = hosts.split(',').map(|host| parse_host(host, tls)).collect::<Result<Vec<_>, _>>()?;
        let vhost = if vhost.is_empty() { "/".to_owned() } else { decoded(vhost, "the virtual host")? };
        let mut options = Self {
            tls,
            user,
            password: password.into(),
            guest_anywhere: false,
            hosts,
            vhost,
            heartbeat: Duration::from_secs(15),
            queue_type: QueueType::Quorum,
            ca: None,
            client_certificate: None,
            management: None,
            connection_name: "ponos".to_owned(),
            start_within: Duration::from_secs(30),
            check_every: Duration::from_secs(60),
        };
        options.read_query(query)?;
        Ok(options)
    }

    fn read_query(&mut self, query: &str) -> Result<(), BrokerError> {
        let (mut certificate, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value, "a parameter")?;
            match name {
                "heartbeat" => {
                    let seconds = value.parse::<u16>().ok().filter(|seconds| (1..=3600).contains(seconds));
                    let seconds = seconds.ok_or_else(|| {
                        invalid("`heartbeat` is a number of seconds, 1 to 3600; 15 is the default")
                    })?;
                    self.heartbeat = Duration::from_secs(seconds.into());
                }
                "queue_type" => {
                    self.queue_type = match value.as_str() {
                        "quorum" => QueueType::Quorum,
                        "classic" => QueueType::Classic,
                        _ => return Err(invalid("`queue_type` is `quorum` or `classic`")),
                    }
                }
                "cacertfile" => self.ca = Some(value.into()),
                "certfile" => certificate = Some(PathBuf::from(value)),
                "keyfile" => key = Some(PathBuf::from(value)),
                "management" => self.management = Some(value.trim_end_matches('/').to_owned()),
                "connection_name" => self.connection_name = value,
                "guest" if value == "allow" => self.guest_anywhere = true,
                "guest" => return Err(invalid("`guest` is `allow`, or is left out")),
                // Then it is a piece of a password, which is not repeated.
                name if name.contains('@') => {
                    return Err(invalid(format!(
                        "there is a `?` before the `@` of the RabbitMQ URL: {ESCAPE}"
                    )));
                }
                _ => {
                    return Err(invalid(format!(
                        "a RabbitMQ URL has no parameter `{}`: known are heartbeat, queue_type, cacertfile, certfile, keyfile, management, connection_name and guest",
                        name.escape_debug().take(40).collect::<String>()
                    )));
                }
            }
        }
        self.client_certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(invalid("a client certificate needs both `certfile` and `keyfile`")),
        };
        if !self.tls && (self.ca.is_some() || self.client_certificate.is_some()) {
            return Err(invalid("certificates are for `amqps://`; the URL says `amqp://`"));
        }
        Ok(())
    }

    /// Uses queues of another type. See [`QueueType`].
    #[must_use]
    pub fn queue_type(mut self, queue_type: QueueType) -> Self {
        self.queue_type = queue_type;
        self
    }

    /// The type of the queues that hold jobs.
    #[must_use]
    pub fn job_queues(&self) -> QueueType {
        self.queue_type
    }

    /// The virtual host.
    #[must_use]
    pub fn virtual_host(&self) -> &str {
        &self.vhost
    }

    /// How long the first connection is tried before the start fails; 30 s by default. Each node is tried at least once.
    /// What cannot get better, such as a wrong password, fails at once.
    #[must_use]
    pub fn start_within(mut self, limit: Duration) -> Self {
        self.start_within = limit;
        self
    }

    /// How often everything that was declared is declared again, so that what somebody removed by hand, a binding above all,
    /// is not missed for long; 60 s by default. RabbitMQ tells nobody that an exchange or a binding is gone.
    #[must_use]
    pub fn check_every(mut self, interval: Duration) -> Self {
        self.check_every = interval;
        self
    }

    /// How long one try to connect may take: 10 s, and less with shorter heartbeats.
    pub(crate) fn connect_timeout(&self) -> Duration {
        (self.heartbeat * 2).clamp(Duration::from_secs(2), Duration::from_secs(10))
    }

    /// The longest pause between two tries to connect.
    pub(crate) fn longest_pause(&self) -> Duration {
        self.heartbeat.min(Duration::from_secs(5))
    }

    /// What the management pages show beside the connection.
    #[must_use]
    pub fn connection_name(mut self, name: impl Into<String>) -> Self {
        self.connection_name = name.into();
        self
    }

    /// Refuses to send `guest` to another machine. Everybody knows its password, and it may do everything.
    ///
    /// # Errors
    ///
    /// `Denied`, with both ways out.
    pub(crate) fn refuse_guest_abroad(&self) -> Result<(), BrokerError> {
        let abroad = self.hosts.iter().find(|(host, _)| !is_loopback(host));
        let Some((host, _)) = abroad.filter(|_| self.user == "guest" && !self.guest_anywhere) else {
            return Ok(());
        };
        Err(BrokerError::new(
            BrokerErrorKind::Denied,
            format!(
                "the user `guest` goes to RabbitMQ's own machine only, and not to `{host}`: everybody knows its password. Make a user (`rabbitmqctl add_user NAME`) and put it before the host, or write `?guest=allow` for a RabbitMQ that nobody else reaches"
            ),
        ))
    }

    /// The nodes and the virtual host, without credentials, for logs and errors.
    pub(crate) fn shown(&self) -> String {
        let hosts: Vec<_> = self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let vhost = if self.vhost == "/" { "" } else { self.vhost.as_str() };
        format!("{}://{}/{vhost}", if self.tls { "amqps" } else { "amqp" }, hosts.join(","))
    }

    /// How to connect to one of the nodes.
    pub(crate) fn uri(&self, node: usize) -> AMQPUri {
        let (host, port) = self.hosts[node % self.hosts.len()].clone();
        AMQPUri {
            scheme: if self.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.user.clone(),
                    password: self.password.expose().to_owned(),
                },
                host,
                port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: u16::try_from(self.heartbeat.as_secs()).ok(),
                ..AMQPQueryString::default()
            },
        }
    }
}

fn parse_host(text: &str, tls: bool) -> Result<(String, u16), BrokerError> {
    let usual = if tls { 5671 } else { 5672 };
    // `[::1]:5672` has colons of its own.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let port = port
                .parse()
                .map_err(|_| invalid("a RabbitMQ node's port is a number up to 65535, as in `host:5672`"))?;
            (host, port)
        }
        _ => (text, usual),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(invalid("a RabbitMQ URL names a host after `://`, or several with commas between them"));
    }
    Ok((host.to_owned(), port))
}

/// What RabbitMQ's own rule takes for its own machine (<https://www.rabbitmq.com/docs/access-control#loopback-users>).
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// How what is special in a URL is written in a user, a password or a virtual host.
const ESCAPE: &str =
    "in user, password and virtual host write `%` as `%25`, `/` as `%2f`, `?` as `%3f`, `@` as `%40`";

/// Undoes percent-encoding. The text is not part of the error: it may be a password.
fn decoded(text: &str, what: &str) -> Result<String, BrokerError> {
    let problem = || {
        invalid(format!(
            "{what} in the RabbitMQ URL is not percent-encoded UTF-8: write `%` as `%25`, `/` as `%2f`, `@` as `%40`"
        ))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
            let (high, low) = (digit().ok_or_else(problem)?, digit().ok_or_else(problem)?);
            bytes.push(u8::try_from(high * 16 + low).map_err(|_| problem())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| problem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_nodes_credentials_and_virtual_host() {
        let options = RabbitOptions::from_url(
            "amqp://a%40b:p%2fw%25@one:1,[::1]:2,three/my%2fhost?heartbeat=5&queue_type=classic",
        )
        .unwrap();
        assert_eq!((options.user.as_str(), options.password.expose()), ("a@b", "p/w%"));
        assert_eq!(options.hosts, [("one".into(), 1), ("::1".into(), 2), ("three".into(), 5672)]);
        assert_eq!((options.vhost.as_str(), options.heartbeat.as_secs()), ("my/host", 5));
        assert_eq!(options.queue_type, QueueType::Classic);
        for plain in ["amqp://h", "amqp://h/", "amqp://h/%2f"] {
            let options = RabbitOptions::from_url(plain).unwrap();
            assert_eq!((options.vhost.as_str(), options.user.as_str()), ("/", "guest"), "{plain}");
        }
        let shown = format!("{options:?} {}", options.shown());
        assert!(!shown.contains("p/w") && shown.contains("one:1"), "{shown}");
    }

    #[test]
    fn guest_stays_on_its_own_machine_unless_it_is_told_to_leave() {
        for home in ["", "localhost", "127.0.0.1", "127.1.2.3:1", "[::1]:5672", "LOCALHOST,127.0.0.1"] {
            let url =
                if home.is_empty() { "amqp://localhost".to_owned() } else { format!("amqp://{home}/v") };
            assert!(RabbitOptions::from_url(&url).unwrap().refuse_guest_abroad().is_ok(), "{url}");
        }
        for abroad in
            ["amqp://rabbit", "amqp://guest:x@localhost,10.0.0.1/v", "amqp://[2001:db8::1]", "amqp://0.0.0.0"]
        {
            let error = RabbitOptions::from_url(abroad).unwrap().refuse_guest_abroad().unwrap_err();
            assert_eq!(error.kind(), BrokerErrorKind::Denied);
            assert!(error.to_string().contains("`?guest=allow`"), "{error}");
            let allowed = RabbitOptions::from_url(&format!("{abroad}?guest=allow")).unwrap();
            assert!(allowed.refuse_guest_abroad().is_ok(), "{abroad}");
        }
        assert!(RabbitOptions::from_url("amqp://shop:x@rabbit").unwrap().refuse_guest_abroad().is_ok());
    }

    #[test]
    fn a_malformed_url_is_an_error_that_says_what_to_do_and_holds_no_password() {
        for (url, hint) in [
            ("amqp:h", "looks like"),
            ("amqp://secret@h", "user and password"),
            ("amqp://u:secret@", "names a host"),
            ("amqp://u:secret@h:x", "is a number"),
            ("amqp://u:secret%zz@h", "percent-encoded"),
            ("amqp://u:secret%ff@h", "percent-encoded"),
            ("amqp://u:secret@h?heartbeat=0", "1 to 3600"),
            ("amqp://u:secret@h?queue_type=x", "`quorum` or `classic`"),
            ("amqp://u:secret@h?color=red", "no parameter `color`"),
            ("amqp://u:12/secret@h", "before the `@`"),
            ("amqp://u:12?secret@h", "before the `@`"),
            ("amqp://u:1/2?secret@h/v?heartbeat=5", "before the `@`"),
            ("amqp://u:x/secret@h", "before the `@`"),
            ("amqp://u:1?secret@h=%zz", "percent-encoded"),
            ("amqp://u:secret@h?guest=yes", "`guest` is `allow`"),
            ("amqp://u:secret@h?cacertfile=x", "for `amqps://`"),
            ("amqp://u:secret@h?certfile=x", "both"),
        ] {
            let error = RabbitOptions::from_url(url).unwrap_err().to_string();
            assert!(error.contains(hint) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
