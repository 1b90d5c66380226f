//! A connection that is kept up: it rotates through the nodes, waits with jitter, and tells its users when it is gone.
//!
//! The client library's own recovery is off: it restores connections but not channels, while this crate knows its whole
//! topology and rebuilds what it needs. Whoever uses a link takes a [`Live`] and gives up when that one breaks; nothing
//! of an old connection ever works on a new one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_core::Stream;
use lapin::tcp::OwnedTLSConfig;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use ponos_core::Secret;
use ponos_core::broker::{BrokerError, BrokerErrorKind, LinkState};
use ponos_core::id::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::error;
use crate::guard;
use crate::options::RabbitOptions;

/// The first pause between two tries to connect; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long a channel may take to open, and an answer to come.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How often the connection's own state is looked at, beside its events.
const LOOK: Duration = Duration::from_millis(500);

/// How many outages are remembered.
const OUTAGES: usize = 1024;

/// An established connection.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) connection: Arc<Connection>,
    /// Counts connections of this link; what belongs to an older one is gone.
    pub(crate) generation: u64,
}

/// What is known of a link.
#[derive(Debug, Clone)]
enum State {
    Down { reason: Arc<str> },
    Up(Live),
    Closed,
}

/// A connection that is kept up.
#[derive(Debug)]
pub(crate) struct Link {
    state: watch::Receiver<State>,
    /// Why RabbitMQ does not read from the connection, while it does not.
    blocked: watch::Receiver<Option<Arc<str>>>,
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    options: Arc<RabbitOptions>,
    role: &'static str,
    tls: Option<TlsFiles>,
    state: watch::Sender<State>,
    blocked: watch::Sender<Option<Arc<str>>>,
    /// When the connection was there again after it had been lost.
    outages: Mutex<VecDeque<Timestamp>>,
    /// How many outages there were, those too that are no longer remembered.
    reconnects: AtomicU64,
}

/// What the certificates' files hold, read once at the start.
#[derive(Clone)]
struct TlsFiles {
    ca: Option<String>,
    /// The certificate, and its key, which is text: PEM.
    identity: Option<(Vec<u8>, Secret)>,
}

impl std::fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsFiles")
    }
}

impl TlsFiles {
    fn read(options: &RabbitOptions) -> Result<Option<Self>, BrokerError> {
        if !options.tls {
            return Ok(None);
        }
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|error| {
                BrokerError::new(
                    BrokerErrorKind::Invalid,
                    format!("the certificate file `{}` cannot be read: {error}", path.display()),
                )
            })
        };
        let ca = options.ca.as_deref().map(read).transpose()?;
        let ca = ca.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let identity = match &options.client_certificate {
            Some((certificate, key)) => {
                let key = String::from_utf8_lossy(&read(key)?).into_owned();
                Some((read(certificate)?, key.into()))
            }
            None => None,
        };
        Ok(Some(Self { ca, identity }))
    }

    fn config(&self) -> OwnedTLSConfig {
        OwnedTLSConfig {
            identity: self.identity.as_ref().map(|(pem, key)| lapin::tcp::OwnedIdentity::PKCS8 {
                pem: pem.clone(),
                key: key.expose().as_bytes().to_vec(),
            }),
            cert_chain: self.ca.clone(),
        }
    }
}

impl Link {
    /// Where RabbitMQ is.
    #[cfg(feature = "management")]
    pub(crate) fn options(&self) -> &RabbitOptions {
        &self.shared.options
    }

    /// Connects for the first time, and keeps the connection from then on.
    ///
    /// # Errors
    ///
    /// At once when it cannot get better (a wrong password, a missing virtual host), otherwise after
    /// `start_within`, with the reason of the last try.
    pub(crate) async fn open(options: Arc<RabbitOptions>, role: &'static str) -> Result<Self, BrokerError> {
        let tls = TlsFiles::read(&options)?;
        let (state_sender, state) = watch::channel(State::Down { reason: "not connected yet".into() });
        let (blocked_sender, blocked) = watch::channel(None);
        let shared = Arc::new(Shared {
            options,
            role,
            tls,
            state: state_sender,
            blocked: blocked_sender,
            outages: Mutex::default(),
            reconnects: AtomicU64::new(0),
        });
        let deadline = Instant::now() + shared.options.start_within;
        let mut pause = FIRST_PAUSE;
        let nodes = shared.options.hosts.len();
        let mut node = fastrand::usize(..nodes);
        let mut tries = 0;
        let first = loop {
            let error = match shared.connect(node).await {
                Ok(connection) => break connection,
                Err(error) => error,
            };
            node += 1;
            tries += 1;
            let out_of_time = tries >= nodes && Instant::now() + pause > deadline;
            if !error.is_temporary() || out_of_time {
                return Err(error);
            }
            tracing::warn!(role, %error, ?pause, "not connected yet; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(shared.options.longest_pause());
        };
        let live = Live { connection: Arc::new(first), generation: 1 };
        shared.state.send_replace(State::Up(live.clone()));
        let keeper = tokio::spawn(keep(Arc::clone(&shared), live, node));
        Ok(Self { state, blocked, shared, keeper })
    }

    /// The connection, as soon as there is one.
    ///
    /// # Errors
    ///
    /// `Unavailable` with the last reason after the deadline, `Closed` when the link was closed.
    pub(crate) async fn live(&self, within: Duration) -> Result<Live, BrokerError> {
        let mut state = self.state.clone();
        let up = async {
            loop {
                match &*state.borrow_and_update() {
                    State::Up(live) if live.connection.status().connected() => return Ok(live.clone()),
                    State::Closed => return Err(closed()),
                    _ => {}
                }
                if state.changed().await.is_err() {
                    return Err(closed());
                }
            }
        };
        match timeout(within, up).await {
            Ok(result) => result,
            Err(_) => Err(self.why_down()),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(live) if live.connection.status().connected())
    }

    /// What is known of it now.
    pub(crate) fn state(&self, role: &'static str) -> LinkState {
        LinkState {
            role,
            up: self.is_up(),
            reconnects: self.shared.reconnects.load(Ordering::Relaxed),
            blocked: self.blocked.borrow().is_some(),
        }
    }

    /// A new channel on the connection, and the number of that.
    pub(crate) async fn channel(&self, within: Duration) -> Result<(Channel, u64), BrokerError> {
        let live = self.live(within).await?;
        let opening = live.connection.create_channel();
        match self.answer("opening a channel", live.generation, CALL_DEADLINE, opening).await? {
            Ok(channel) => Ok((channel, live.generation)),
            Err(error) => Err(error::of_operation("opening a channel", &error)),
        }
    }

    /// Waits for an answer over one connection, and not longer than that lives: the client library may keep who asks while
    /// a connection breaks waiting for ever.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the connection is gone or the deadline has passed.
    pub(crate) async fn answer<F: Future>(
        &self,
        what: &str,
        generation: u64,
        within: Duration,
        call: F,
    ) -> Result<F::Output, BrokerError> {
        let mut state = self.state.clone();
        let gone = state.wait_for(|state| !matches!(state, State::Up(live) if live.generation == generation));
        tokio::select! {
            biased;
            answer = call => Ok(answer),
            _ = gone => Err(error::unavailable(format!("{what}: the connection was lost"))),
            () = tokio::time::sleep(within) => {
                Err(error::unavailable(format!("{what}: RabbitMQ did not answer within {within:?}")))
            }
        }
    }

    fn why_down(&self) -> BrokerError {
        match &*self.state.borrow() {
            State::Down { reason } => {
                error::unavailable(format!("not connected to {}: {reason}", self.shared.options.shown()))
            }
            State::Closed => closed(),
            State::Up(_) => error::unavailable("the connection was there too late"),
        }
    }

    /// Waits until RabbitMQ reads from the connection.
    ///
    /// # Errors
    ///
    /// `Blocked` with RabbitMQ's reason after the deadline.
    pub(crate) async fn unblocked(&self, within: Duration) -> Result<(), BrokerError> {
        let mut blocked = self.blocked.clone();
        let free = blocked.wait_for(Option::is_none);
        if matches!(timeout(within, free).await, Ok(Ok(_))) {
            return Ok(());
        }
        let reason = self.blocked.borrow().clone().unwrap_or_else(|| "it was closed".into());
        Err(BrokerError::new(
            BrokerErrorKind::Blocked,
            format!(
                "RabbitMQ takes no messages ({reason}): free memory or disk space on its nodes; publishing goes on by itself then"
            ),
        ))
    }

    /// Whether this connection is still the one.
    pub(crate) fn is_still(&self, generation: u64) -> bool {
        matches!(&*self.state.borrow(), State::Up(live) if live.generation == generation && live.connection.status().connected())
    }

    /// The number of the connection; it changes when there is another one.
    pub(crate) async fn until_another(&self, than: u64) -> Option<u64> {
        let mut state = self.state.clone();
        let other = |state: &State| match state {
            State::Up(live) if live.generation != than => Some(Some(live.generation)),
            State::Closed => Some(None),
            _ => None,
        };
        let state = state.wait_for(|state| other(state).is_some()).await.ok()?;
        other(&state).flatten()
    }

    /// How often the connection was lost and restored since a moment.
    pub(crate) fn outages_since(&self, since: Timestamp) -> u32 {
        let outages = self.shared.outages.lock().unwrap_or_else(PoisonError::into_inner);
        let later = outages.iter().rev().take_while(|at| **at >= since).count();
        u32::try_from(later).unwrap_or(u32::MAX)
    }

    /// Ends the connection for good, if it was not ended before.
    pub(crate) async fn close(&self) {
        let before = self.shared.state.send_replace(State::Closed);
        self.keeper.abort();
        if let State::Up(live) = before {
            let closing = live.connection.close(200, "closed by its user".into());
            if !matches!(timeout(CALL_DEADLINE, closing).await, Ok(Ok(()))) {
                tracing::debug!(role = self.shared.role, "the connection did not close in order");
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

pub(crate) fn closed() -> BrokerError {
    BrokerError::new(BrokerErrorKind::Closed, "the broker was closed")
}

impl Shared {
    async fn connect(&self, node: usize) -> Result<Connection, BrokerError> {
        let options = &self.options;
        let (host, port) = &options.hosts[node % options.hosts.len()];
        let shown = format!("{host}:{port}");
        let name = format!("{} ({})", options.connection_name, self.role);
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "ponos".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let tls = self.tls.as_ref().map(TlsFiles::config).unwrap_or_default();
        let connecting = guard::connect(options.uri(node), properties, tls);
        let limit = options.connect_timeout();
        match timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(|error| error::of_connecting(options, &shown, &error)),
            Err(_) => Err(error::unavailable(format!(
                "RabbitMQ at {shown} did not answer within {limit:?}: is something else listening there, or is it starting?"
            ))),
        }
    }

    fn restored(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        if outages.len() == OUTAGES {
            outages.pop_front();
        }
        outages.push_back(SystemTime::now().into());
    }
}

/// Keeps a link up, for ever.
async fn keep(shared: Arc<Shared>, first: Live, mut node: usize) {
    let mut live = first;
    loop {
        let reason = until_lost(&shared, &live.connection).await;
        shared.blocked.send_replace(None);
        tracing::warn!(role = shared.role, reason, "the connection to RabbitMQ was lost; connecting again");
        shared.state.send_replace(State::Down { reason: reason.into() });
        let generation = live.generation + 1;
        // What is left of it is of no use, and may take long to notice that.
        drop(live);
        let mut pause = FIRST_PAUSE;
        let connection = loop {
            node += 1;
            match shared.connect(node).await {
                Ok(connection) => break connection,
                Err(error) => {
                    // Said once for each outage, and then to who wants to know.
                    if pause == FIRST_PAUSE {
                        tracing::warn!(role = shared.role, %error, "not connected; trying again until it succeeds");
                    } else {
                        tracing::debug!(role = shared.role, %error, ?pause, "not connected");
                    }
                    shared.state.send_replace(State::Down { reason: error.to_string().into() });
                }
            }
            // Full jitter, so that a fleet does not return as one.
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(shared.options.longest_pause());
        };
        shared.restored();
        live = Live { connection: Arc::new(connection), generation };
        tracing::info!(role = shared.role, generation, "connected to RabbitMQ again");
        shared.state.send_replace(State::Up(live.clone()));
    }
}

/// Follows a connection until it is gone, and says why.
async fn until_lost(shared: &Shared, connection: &Connection) -> String {
    let mut events: Pin<Box<dyn Stream<Item = Event> + Send>> = Box::pin(connection.events_listener());
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            event = std::future::poll_fn(|cx| events.as_mut().poll_next(cx)) => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(role = shared.role, reason, "RabbitMQ takes no messages from this connection");
                    shared.blocked.send_replace(Some(reason.into()));
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!(role = shared.role, "RabbitMQ takes messages again");
                    shared.blocked.send_replace(None);
                }
                Some(Event::Error(error)) if !connection.status().connected() => return error::text(&error),
                Some(_) => {}
                None => return "the client ended it".to_owned(),
            },
            _ = look.tick() => {
                if !connection.status().connected() {
                    return "it was closed".to_owned();
                }
                // An alarm that stood when the connection was made was told before anybody listened.
                if connection.status().blocked() {
                    shared.blocked.send_if_modified(|blocked| {
                        let told = blocked.is_some();
                        blocked.get_or_insert_with(|| "an alarm stands".into());
                        !told
                    });
                }
            }
        }
    }
}
