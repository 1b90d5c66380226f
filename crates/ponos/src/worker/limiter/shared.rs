//! Rate limits that are kept in Redis, exact over all instances of a service.
//!
//! One connection per service; one keeper per limit, which fetches grants when a worker wants them. Whatever goes wrong,
//! the keeper puts its limit on the local share and tries again after a second.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ponos_core::Secret;
use ponos_core::policy::{Moment, Rate};
use redis::IntoConnectionInfo as _;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

use super::Limiter;
use crate::clock::Clock;

/// The whole algorithm; it runs on the server.
const SCRIPT: &str = include_str!("gcra.lua");

/// How long Redis may take to answer before the local share holds.
const ANSWER: Duration = Duration::from_millis(100);

/// How long Redis may take to accept a connection; nobody waits for it.
const CONNECT: Duration = Duration::from_secs(1);

/// How often Redis is tried again.
const PROBE: Duration = Duration::from_secs(1);

/// How often a connection is used at least: what lies idle is cut by servers and firewalls without a word.
const IDLE: Duration = Duration::from_secs(5);

/// How often the log says at most that Redis is away.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// A Redis server in which the rate limits of a service are kept, exact over all its instances.
///
/// Each limit is one key, `ponos:rate:APP:NAME`, where the name is the queue's or the dependency's. The generic cell rate
/// algorithm runs on the server, by the server's clock. Starts are counted when they are granted, as many at once as
/// can start at once; nothing is asked while no job waits.
///
/// Redis is no condition for work. If it cannot be reached, does not answer within 100 ms or answers with an error, the
/// local share holds: the limit divided by the number of instances, as without Redis. A warning says so, at most once a
/// minute, and `Running::shared_limits` at any time. Every second Redis is tried again. A change is worth no burst,
/// unless Redis has come back without its keys; but an instance that alone has lost Redis adds its share to what the
/// others are granted.
///
/// It takes Redis 5 or later, or Valkey: one server or a primary with replicas, no cluster, no TLS. Its user needs no
/// more than `~ponos:rate:* +eval +time +get +set`, and `+select` where the URL names a database.
///
/// `ponos::testing` keeps limits without Redis, on its own clock.
///
/// ```no_run
/// # use ponos::prelude::*;
/// # use ponos::RedisLimits;
/// # #[app("shop")] pub struct Shop;
/// # #[task("shop.parcel.send", app = Shop)] pub struct ParcelSend { pub id: u64 }
/// async fn send(t: ParcelSend, cx: TaskCx<ParcelSend>) -> Outcome { Ok(()) }
///
/// fn service() -> Service<Shop> {
///     Service::new()
///         .task(send, |p| p.rate_limit(100.per_second()))
///         .shared_limits(RedisLimits::from_env("REDIS_URL"))
/// }
/// ```
#[derive(Debug, Clone)]
pub struct RedisLimits(Place);

#[derive(Debug, Clone)]
enum Place {
    Url(Secret),
    Variable(String),
}

impl RedisLimits {
    /// The server at `redis://[user:password@]host[:port][/database]`, or `unix:///path/of/the/socket`.
    ///
    /// What is special in a URL is percent-encoded in the password. A URL that cannot be read is a problem of the
    /// definition, which the start of the service names.
    pub fn at(url: impl Into<Secret>) -> Self {
        Self(Place::Url(url.into()))
    }

    /// The server at the URL in this variable, which is read when the service starts: so a definition needs no
    /// environment to be printed or tested.
    pub fn from_env(variable: impl Into<String>) -> Self {
        Self(Place::Variable(variable.into()))
    }

    /// The connection that a service will use, or what is wrong with the URL. On a virtual clock there is none.
    pub(crate) fn link(&self, clock: &Clock) -> Result<Option<Arc<Link>>, String> {
        let (url, whose) = match &self.0 {
            Place::Url(url) => (url.clone(), "`shared_limits`: the URL".to_owned()),
            Place::Variable(_) if !clock.is_real() => return Ok(None),
            Place::Variable(name) => {
                let url = std::env::var(name).map_err(|_| {
                    format!("`shared_limits`: the variable `{name}` is not set: give it Redis' URL, {FORM}")
                })?;
                (url.into(), format!("`shared_limits`: the variable `{name}`"))
            }
        };
        let client = open(&url).map_err(|problem| format!("{whose} {problem}"))?;
        Ok(clock.is_real().then(|| Arc::new(Link::new(client, clock.clone()))))
    }
}

/// How a URL is written.
const FORM: &str = "`redis://[user:password@]host[:port][/database]`";

/// The parser's own words are not repeated, because they may quote the URL.
fn open(url: &Secret) -> Result<redis::Client, String> {
    let url = url.expose();
    let scheme = url.split(':').next().unwrap_or_default();
    if matches!(scheme, "rediss" | "valkeys") {
        return Err(format!("names `{scheme}:`, which needs TLS: use {FORM} on a network that you trust"));
    }
    let unreadable =
        || format!("is not Redis' URL: write {FORM}, and percent-encode what is special in the password");
    let info = url.into_connection_info().map_err(|_| unreadable())?;
    // A command is one small packet that waits for its answer: nothing is gained by gathering them.
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    // Its name needs a permission that limits do not.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    redis::Client::open(info.set_tcp_settings(tcp).set_redis_settings(settings)).map_err(|_| unreadable())
}

/// What decides the shared rate limits of a service at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedLimits {
    /// Where the limits are kept.
    pub state: SharedLimitsState,
    /// How often a limit has gone from Redis to the local share since the start.
    pub fallbacks: u64,
}

/// Where shared rate limits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedLimitsState {
    /// All of them in Redis: they are exact over all instances.
    Redis,
    /// At least one holds as the local share: the limit divided by the number of instances.
    LocalShare,
}

/// A service's connection to Redis.
pub(crate) struct Link {
    client: redis::Client,
    /// Host and port, for the log.
    address: String,
    /// The open connection. [`keep`](Self::keep) opens it; whoever finds it broken removes it.
    connection: watch::Sender<Option<Opened>>,
    /// How many limits are on the local share, and how often one has come to be.
    local: AtomicUsize,
    fallbacks: AtomicU64,
    /// What the log was told.
    told: Mutex<Told>,
    clock: Clock,
}

/// What the log was told of Redis.
struct Told {
    /// When it last said that Redis is away.
    warned: Option<Moment>,
    /// Whether it has not been told since that Redis is in use.
    away: bool,
}

/// One rate limit and its key.
struct Limit {
    key: String,
    rate: Rate,
}

#[derive(Clone)]
struct Opened {
    connection: MultiplexedConnection,
    /// Tells it from earlier ones.
    number: u64,
}

/// Why Redis granted nothing.
enum Failure {
    /// The connection is of no use any more.
    Lost(String),
    /// The server answered with an error.
    Refused(String),
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Link {
    fn new(client: redis::Client, clock: Clock) -> Self {
        Self {
            address: client.get_connection_info().addr().to_string(),
            client,
            connection: watch::Sender::new(None),
            local: AtomicUsize::new(0),
            fallbacks: AtomicU64::new(0),
            told: Mutex::new(Told { warned: None, away: true }),
            clock,
        }
    }

    pub(crate) fn status(&self) -> SharedLimits {
        let state = match self.local.load(Ordering::Relaxed) {
            0 => SharedLimitsState::Redis,
            _ => SharedLimitsState::LocalShare,
        };
        SharedLimits { state, fallbacks: self.fallbacks.load(Ordering::Relaxed) }
    }

    /// A limit starts on the local share.
    pub(crate) fn add_limit(&self) {
        self.local.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps a connection open, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(CONNECT));
        for number in 0.. {
            let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
            match self.clock.timeout(CONNECT, connecting).await {
                Some(Ok(connection)) => self.hold(Opened { connection, number }).await,
                Some(Err(error)) => self.warn(&error.to_string()),
                None => self.warn(&format!("no connection within {CONNECT:?}")),
            }
            self.clock.sleep(PROBE).await;
        }
    }

    /// Offers the connection once it has answered, and uses it now and then until it is lost.
    async fn hold(&self, opened: Opened) {
        let number = opened.number;
        let mut connection = opened.connection.clone();
        let mut offer = Some(opened);
        loop {
            let ping = redis::cmd("PING");
            // Not everyone may ping, but a refusal is an answer too.
            if let Err(Failure::Lost(problem)) =
                self.answer::<redis::Value>(ping.query_async(&mut connection)).await
            {
                return self.lose(number, &problem);
            }
            if offer.is_some() {
                self.connection.send_replace(offer.take());
            }
            tokio::select! {
                () = self.lost(number) => return,
                () = self.clock.sleep(IDLE) => {}
            }
        }
    }

    /// Keeps one limit, for ever: in Redis while that answers, otherwise on the local share.
    pub(crate) async fn keep_limit(self: Arc<Self>, limiter: Arc<Limiter>, rate: Rate, key: String) {
        let limit = Limit { key, rate };
        loop {
            let opened = self.opened().await;
            // What the local share has let start is paid for first, so that a return is worth no burst.
            let failure = match self.ask(&opened, &limit, limiter.spent()).await {
                Ok(_) => self.serve(&opened, &limit, &limiter).await,
                Err(failure) => Some(failure),
            };
            match failure {
                None => {}
                Some(Failure::Lost(problem)) => self.lose(opened.number, &problem),
                Some(Failure::Refused(problem)) => {
                    self.warn(&problem);
                    self.clock.sleep(PROBE).await;
                }
            }
        }
    }

    /// Fetches grants until that fails or another has found the connection lost.
    async fn serve(&self, opened: &Opened, limit: &Limit, limiter: &Limiter) -> Option<Failure> {
        limiter.use_grants(self.clock.now());
        self.local.fetch_sub(1, Ordering::Relaxed);
        self.tell_of_return();
        let failure = loop {
            tokio::select! {
                wanted = limiter.wanted() => match self.ask(opened, limit, wanted).await {
                    Ok((granted, wait)) => limiter.grant(self.clock.now(), granted, wait),
                    Err(failure) => break Some(failure),
                },
                () = self.lost(opened.number) => break None,
            }
        };
        limiter.use_local_share(self.clock.now());
        self.local.fetch_add(1, Ordering::Relaxed);
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
        failure
    }

    /// The open connection, once there is one.
    async fn opened(&self) -> Opened {
        let mut connection = self.connection.subscribe();
        if let Ok(opened) = connection.wait_for(Option::is_some).await
            && let Some(opened) = &*opened
        {
            return opened.clone();
        }
        // The sender is part of `self`.
        std::future::pending().await
    }

    /// Waits until this connection is gone.
    async fn lost(&self, number: u64) {
        let mut connection = self.connection.subscribe();
        let gone = |opened: &Option<Opened>| opened.as_ref().is_none_or(|opened| opened.number != number);
        let _ = connection.wait_for(gone).await;
    }

    /// This connection is of no use any more.
    fn lose(&self, number: u64, problem: &str) {
        self.connection.send_if_modified(|opened| opened.take_if(|opened| opened.number == number).is_some());
        self.warn(problem);
    }

    fn warn(&self, problem: &str) {
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.warned.is_some_and(|at| now.since(at) < WARN_INTERVAL) {
            tracing::debug!(redis = %self.address, problem, "Redis is still away");
            return;
        }
        *told = Told { warned: Some(now), away: true };
        drop(told);
        let fallbacks = self.fallbacks.load(Ordering::Relaxed);
        tracing::warn!(
            redis = %self.address, problem, shared_limits = "local_share", fallbacks,
            "Redis is away: rate limits hold as this instance's share of them"
        );
    }

    fn tell_of_return(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut told.away, false) {
            tracing::info!(redis = %self.address, shared_limits = "redis", "rate limits are kept in Redis");
        }
    }

    /// Asks for starts: how many are granted, and the time until there may be another.
    async fn ask(&self, opened: &Opened, limit: &Limit, wanted: u32) -> Result<(u32, Duration), Failure> {
        let Limit { key, rate } = limit;
        let period = rate.period().as_nanos().div_ceil(1000).to_string();
        let mut command = redis::cmd("EVAL");
        command.arg(SCRIPT).arg(1).arg(key).arg(period).arg(rate.count()).arg(rate.at_once()).arg(wanted);
        let mut connection = opened.connection.clone();
        let (granted, wait) = self.answer::<(u32, u64)>(command.query_async(&mut connection)).await?;
        Ok((granted, Duration::from_micros(wait)))
    }

    async fn answer<T>(&self, asking: impl Future<Output = redis::RedisResult<T>>) -> Result<T, Failure> {
        match self.clock.timeout(ANSWER, asking).await {
            Some(Ok(answer)) => Ok(answer),
            // An error reply belongs to its command; anything else leaves the connection in doubt. So does a primary that
            // has become a replica: its name may lead elsewhere now.
            Some(Err(error)) if error.code().is_some_and(|code| code != "READONLY") => {
                Err(Failure::Refused(error.to_string()))
            }
            Some(Err(error)) => Err(Failure::Lost(error.to_string())),
            None => Err(Failure::Lost(format!("no answer within {ANSWER:?}"))),
        }
    }
}
