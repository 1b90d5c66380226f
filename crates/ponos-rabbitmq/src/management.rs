//! The HTTP API of RabbitMQ's management plugin, as far as tools need it: lists, and taking away.
//!
//! Services work without the plugin, and never ask it while they run; only a start that meets something that is not as it
//! should be asks what all is different. Where it is comes from the broker's URL
//! ([`options`](crate::options)); the credentials are those of the URL and go into no error.
//!
//! The lists are asked for without statistics and with totals (`disable_stats`, `enable_queue_totals`): that is cheap, and
//! how many messages a queue has is then at most [`FRESH`] old. RabbitMQ counts there what is ready, what a consumer
//! holds, and what is on its way as a dead letter.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ponos_core::Secret;
use ponos_core::broker::{BrokerError, BrokerErrorKind};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::diff::{Found, FoundExchange, FoundQueue};
use crate::error;
use crate::options::RabbitOptions;
use crate::topology::BindingSpec;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// How old the figures of quorum queues are at most: they report every five seconds.
pub const FRESH: Duration = Duration::from_secs(6);

/// The port that the plugin listens on unless it is told another.
const PORT: u16 = 15672;

/// The management API of one virtual host.
#[derive(Clone)]
pub struct Management {
    client: reqwest::Client,
    /// Without credentials.
    base: Url,
    vhost: String,
    user: String,
    password: Secret,
    deadline: Duration,
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Management")
            .field("url", &self.base.as_str())
            .field("vhost", &self.vhost)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// How many messages a queue has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// All of them.
    pub messages: u64,
    /// Those that could be delivered.
    pub ready: u64,
    /// Those that a consumer holds.
    pub unacknowledged: u64,
}

impl Totals {
    /// Those that are on their way as dead letters, which RabbitMQ counts in all messages only.
    #[must_use]
    pub fn dead_lettering(&self) -> u64 {
        self.messages.saturating_sub(self.ready).saturating_sub(self.unacknowledged)
    }
}

/// What a user may do, as regular expressions over names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FoundPermissions {
    /// The user.
    pub user: String,
    /// What it may declare and delete.
    pub configure: String,
    /// What it may publish to and bind.
    pub write: String,
    /// What it may consume and bind to.
    pub read: String,
}

#[derive(Deserialize)]
struct ExchangeJson {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    durable: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    arguments: Loose<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct QueueJson {
    name: String,
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    durable: Loose<bool>,
    #[serde(default)]
    auto_delete: Loose<bool>,
    #[serde(default)]
    exclusive: Loose<bool>,
    #[serde(default)]
    arguments: Loose<BTreeMap<String, Value>>,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    messages: Option<u64>,
    #[serde(default)]
    messages_ready: Option<u64>,
    #[serde(default)]
    messages_unacknowledged: Option<u64>,
}

/// Some versions write `null` or `[]` where a property has nothing to say.
#[derive(Default)]
struct Loose<T>(T);

impl<'de, T: DeserializeOwned + Default> Deserialize<'de> for Loose<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(Self(serde_json::from_value(value).unwrap_or_default()))
    }
}

#[derive(Deserialize)]
struct BindingJson {
    source: String,
    destination: String,
    destination_type: String,
    #[serde(default)]
    routing_key: String,
    #[serde(default)]
    properties_key: String,
}

#[derive(Deserialize)]
struct PolicyJson {
    name: String,
    #[serde(default)]
    definition: Loose<BTreeMap<String, Value>>,
}

impl Management {
    /// The API that a broker's URL leads to. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// `Invalid` when the parameter `management` is no URL that can be used, and when there is none and the broker's URL
    /// asks for TLS: the password would then cross the network unprotected without having been told to.
    pub fn new(options: &RabbitOptions) -> Result<Self, BrokerError> {
        Self::within(options, DEADLINE)
    }

    /// The same with another deadline for answers.
    pub(crate) fn within(options: &RabbitOptions, deadline: Duration) -> Result<Self, BrokerError> {
        options.refuse_guest_abroad()?;
        let invalid = |problem: &str| BrokerError::new(BrokerErrorKind::Invalid, problem.to_owned());
        let text = match &options.management {
            Some(text) => text.clone(),
            None if options.tls => {
                return Err(invalid(
                    "the management plugin is asked over http, which is unprotected, while the broker's URL says `amqps://`: name it with `?management=http://host:port` in the broker's URL if the network is safe",
                ));
            }
            None => {
                let host = &options.hosts[0].0;
                // An IPv6 address stands in brackets.
                if host.contains(':') {
                    format!("http://[{host}]:{PORT}")
                } else {
                    format!("http://{host}:{PORT}")
                }
            }
        };
        let base = Url::parse(&text).map_err(|_| {
            invalid("`management` in the broker's URL is no URL: write it as `?management=http://host:15672`")
        })?;
        if base.scheme() != "http" {
            return Err(invalid(
                "`management` in the broker's URL begins with `http://`: nothing else is spoken",
            ));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(invalid(
                "`management` in the broker's URL holds credentials: leave them out, those of the broker's URL are used",
            ));
        }
        let client = reqwest::Client::builder()
            .timeout(deadline)
            // The credentials go where they were told to go.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| error::unavailable(format!("no HTTP client: {error}")))?;
        Ok(Self {
            client,
            base,
            vhost: options.vhost.clone(),
            user: options.user.clone(),
            password: options.password.clone(),
            deadline,
        })
    }

    /// Where it is, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The virtual host.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// What exists in the virtual host.
    ///
    /// # Errors
    ///
    /// When the plugin is not there, does not let this user in, or does not answer.
    pub async fn found(&self) -> Result<Found, BrokerError> {
        let exchanges: Vec<ExchangeJson> = self.get(&["exchanges"], "disable_stats=true").await?;
        let policies = self.policies().await?;
        let queues = self.queue_list().await?;
        let bindings: Vec<BindingJson> = self.get(&["bindings"], "").await?;
        let exchanges = exchanges.into_iter().map(exchange).collect();
        let queues = queues.into_iter().map(|json| queue(json, &policies)).collect();
        let bindings = bindings
            .into_iter()
            .filter(|json| json.destination_type == "queue" && !json.source.is_empty())
            .map(binding)
            .collect();
        Ok(Found { exchanges, queues, bindings })
    }

    /// One queue; `None` when it does not exist.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found).
    pub async fn queue(&self, name: &str) -> Result<Option<FoundQueue>, BrokerError> {
        let found: Option<QueueJson> = self.get_if_there(&["queues", name], "").await?;
        Ok(found.map(|json| queue(json, &BTreeMap::new())))
    }

    /// One exchange; `None` when it does not exist.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found).
    pub async fn exchange(&self, name: &str) -> Result<Option<FoundExchange>, BrokerError> {
        let found: Option<ExchangeJson> = self.get_if_there(&["exchanges", name], "").await?;
        Ok(found.map(exchange))
    }

    /// How many messages each queue has, at most [`FRESH`] ago.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found).
    pub async fn totals(&self) -> Result<BTreeMap<String, Totals>, BrokerError> {
        let queues = self.queue_list().await?;
        let totals = queues.into_iter().map(|json| {
            let ready = json.messages_ready.unwrap_or(0);
            let unacknowledged = json.messages_unacknowledged.unwrap_or(0);
            let messages = json.messages.unwrap_or(0).max(ready + unacknowledged);
            (json.name, Totals { messages, ready, unacknowledged })
        });
        Ok(totals.collect())
    }

    /// The names of the operator policies; nothing where this user may not see them.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found).
    pub async fn operator_policies(&self) -> Result<Vec<String>, BrokerError> {
        match self.get_if_there::<Vec<PolicyJson>>(&["operator-policies"], "").await {
            Ok(policies) => Ok(policies.unwrap_or_default().into_iter().map(|policy| policy.name).collect()),
            Err(error) if error.kind() == BrokerErrorKind::Denied => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// RabbitMQ's version.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found).
    pub async fn version(&self) -> Result<String, BrokerError> {
        #[derive(Deserialize)]
        struct OverviewJson {
            rabbitmq_version: String,
        }
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "overview"]);
        }
        url.set_query(Some("disable_stats=true"));
        let request = self.client.get(url).basic_auth(&self.user, Some(self.password.expose()));
        let bytes = self.send(request).await?.unwrap_or_default();
        match serde_json::from_slice::<OverviewJson>(&bytes) {
            Ok(overview) => Ok(overview.rabbitmq_version),
            Err(error) => Err(self.not_understood(&error)),
        }
    }

    /// What users may do in the virtual host. Only administrators may see it.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found).
    pub async fn permissions(&self) -> Result<Vec<FoundPermissions>, BrokerError> {
        self.get(&["vhosts", "permissions"], "").await
    }

    /// The bindings of one queue, that of the default exchange left out.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found).
    pub async fn bindings_of(&self, queue: &str) -> Result<Vec<BindingSpec>, BrokerError> {
        let bindings: Option<Vec<BindingJson>> =
            self.get_if_there(&["queues", queue, "bindings"], "").await?;
        let bindings = bindings.unwrap_or_default().into_iter();
        Ok(bindings.filter(|json| !json.source.is_empty()).map(binding).collect())
    }

    /// Binds a queue.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found).
    pub async fn bind(&self, spec: &BindingSpec) -> Result<(), BrokerError> {
        let path = ["bindings", "e", &spec.exchange, "q", &spec.queue];
        let body = serde_json::json!({ "routing_key": spec.routing_key, "arguments": {} });
        let request = self.request(Method::POST, &path, "").json(&body);
        self.send(request).await.map(|_| ())
    }

    /// Takes a binding away; one that is gone is no error.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found).
    pub async fn unbind(&self, spec: &BindingSpec) -> Result<(), BrokerError> {
        let between = ["bindings", "e", &spec.exchange, "q", &spec.queue];
        let there: Option<Vec<BindingJson>> = self.get_if_there(&between, "").await?;
        for json in there.unwrap_or_default() {
            if json.routing_key == spec.routing_key {
                let [bindings, e, exchange, q, queue] = between;
                let path = [bindings, e, exchange, q, queue, &json.properties_key];
                self.send(self.request(Method::DELETE, &path, "")).await?;
            }
        }
        Ok(())
    }

    /// Deletes a queue with everything in it; one that is gone is no error.
    ///
    /// # Errors
    ///
    /// As [`found`](Self::found).
    pub async fn delete_queue(&self, name: &str) -> Result<(), BrokerError> {
        self.send(self.request(Method::DELETE, &["queues", name], "")).await.map(|_| ())
    }

    async fn queue_list(&self) -> Result<Vec<QueueJson>, BrokerError> {
        self.get(&["queues"], "disable_stats=true&enable_queue_totals=true").await
    }

    /// What the policies of the virtual host say, by name.
    async fn policies(&self) -> Result<BTreeMap<String, BTreeMap<String, Value>>, BrokerError> {
        let policies: Option<Vec<PolicyJson>> = self.get_if_there(&["policies"], "").await?;
        Ok(policies.unwrap_or_default().into_iter().map(|json| (json.name, json.definition.0)).collect())
    }

    /// A request about this virtual host. After the first word of the path comes the virtual host.
    fn request(&self, method: Method, path: &[&str], query: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", path[0], &self.vhost]).extend(&path[1..]);
        }
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        self.client.request(method, url).basic_auth(&self.user, Some(self.password.expose()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &str) -> Result<T, BrokerError> {
        self.get_if_there(path, query).await?.ok_or_else(|| {
            let (vhost, url) = (&self.vhost, self.url());
            BrokerError::new(
                BrokerErrorKind::NotFound,
                format!("the management plugin at {url} knows no virtual host `{vhost}`"),
            )
        })
    }

    async fn get_if_there<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &str,
    ) -> Result<Option<T>, BrokerError> {
        let Some(bytes) = self.send(self.request(Method::GET, path, query)).await? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| self.not_understood(&error))
    }

    fn not_understood(&self, error: &serde_json::Error) -> BrokerError {
        error::unavailable(format!(
            "what answers at {} is no management plugin that is understood ({error})",
            self.url()
        ))
    }

    /// Sends a request; `None` when what it is about does not exist.
    async fn send(&self, request: RequestBuilder) -> Result<Option<Vec<u8>>, BrokerError> {
        let url = self.url();
        let answer = async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.bytes().await?))
        };
        let (status, body) = answer.await.map_err(|error| {
            // The error's own text names a URL; ours has said it.
            let said = if error.is_timeout() {
                format!("no answer within {:?}", self.deadline)
            } else {
                root(&error.without_url())
            };
            error::unavailable(format!(
                "RabbitMQ's management plugin is not reachable at {url} ({said}): turn it on with `rabbitmq-plugins enable rabbitmq_management`, or say where it is with `?management=http://host:port` in the broker's URL"
            ))
        })?;
        let user = &self.user;
        match status {
            status if status.is_success() => Ok(Some(body.to_vec())),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(BrokerError::new(
                BrokerErrorKind::Denied,
                format!(
                    "RabbitMQ's management plugin at {url} does not let the user `{user}` do this ({}): use an administrator's URL, or give the user the tag `management` (`rabbitmqctl set_user_tags {user} management`)",
                    reason(&body)
                ),
            )),
            StatusCode::BAD_REQUEST => Err(BrokerError::new(
                BrokerErrorKind::Invalid,
                format!("RabbitMQ's management plugin at {url} refused: {}", reason(&body)),
            )),
            status => Err(error::unavailable(format!(
                "RabbitMQ's management plugin at {url} answered {status}: {}",
                reason(&body)
            ))),
        }
    }
}

fn exchange(json: ExchangeJson) -> FoundExchange {
    FoundExchange {
        name: json.name,
        kind: json.kind,
        durable: json.durable,
        auto_delete: json.auto_delete,
        arguments: json.arguments.0,
    }
}

fn queue(json: QueueJson, policies: &BTreeMap<String, BTreeMap<String, Value>>) -> FoundQueue {
    let policy = json.policy.filter(|name| !name.is_empty());
    FoundQueue {
        name: json.name,
        kind: json.kind.unwrap_or_else(|| "classic".to_owned()),
        durable: json.durable.0,
        auto_delete: json.auto_delete.0,
        exclusive: json.exclusive.0,
        arguments: json.arguments.0,
        policy: policy.map(|name| {
            let settings = policies.get(&name).cloned().unwrap_or_default();
            (name, settings)
        }),
    }
}

fn binding(json: BindingJson) -> BindingSpec {
    BindingSpec { exchange: json.source, queue: json.destination, routing_key: json.routing_key }
}

/// The innermost cause, which says what happened.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// What the plugin says of a refusal.
fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        reason: String,
    }
    let reason = serde_json::from_slice::<Refusal>(body).map(|refusal| refusal.reason);
    reason.unwrap_or_else(|_| "no reason given".to_owned()).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> RabbitOptions {
        RabbitOptions::from_url(url).unwrap()
    }

    #[test]
    fn where_the_plugin_is_comes_from_the_brokers_url() {
        for (url, wanted) in [
            ("amqp://u:secret@one:5673,two/v", "http://one:15672"),
            ("amqp://u:secret@[::1]:5673", "http://[::1]:15672"),
            ("amqp://u:secret@one?management=http://three:1/base/", "http://three:1/base"),
        ] {
            let management = Management::new(&options(url)).unwrap();
            assert_eq!(management.url(), wanted);
            assert!(!format!("{management:?}").contains("secret"));
        }
        for (url, hint) in [
            ("amqp://u:secret@one?management=nonsense", "is no URL"),
            ("amqp://u:secret@one?management=https://one", "begins with `http://`"),
            ("amqp://u:secret@one?management=http://u:secret@one", "holds credentials"),
        ] {
            let error = Management::new(&options(url)).unwrap_err().to_string();
            assert!(error.contains(hint) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn names_are_escaped_in_paths() {
        let management = Management::new(&options("amqp://u:p@one/a%2fb%20c?management=http://h/x")).unwrap();
        let request = management.request(Method::GET, &["queues", "q/?#"], "a=b").build().unwrap();
        assert_eq!(request.url().as_str(), "http://h/x/api/queues/a%2Fb%20c/q%2F%3F%23?a=b");
    }

    #[test]
    fn dead_letters_are_what_is_neither_ready_nor_held() {
        let totals = Totals { messages: 3, ready: 2, unacknowledged: 0 };
        assert_eq!(totals.dead_lettering(), 1);
    }
}
