//! Which broker to use: named by a URL, connected when a service starts.

pub(crate) mod memory;

use std::sync::Arc;

use ponos_core::broker::{Broker as BrokerTrait, BrokerError, BrokerErrorKind};

pub use memory::{MemoryBroker, Rough};
#[cfg(feature = "rabbitmq")]
pub use ponos_rabbitmq::{QueueType, RabbitBroker, RabbitOptions};

/// The variable that names the broker.
pub const BROKER_VARIABLE: &str = "PONOS_BROKER";

/// The broker where nothing is said: an SQLite file in the working directory.
pub const DEFAULT_BROKER: &str = "sqlite:ponos.db";

/// A broker, by its URL or already connected.
///
/// | URL | broker |
/// | --- | --- |
/// | `sqlite:ponos.db`, `sqlite:/var/lib/app/ponos.db` | the embedded one: one file, many processes |
/// | `amqp://user:password@host1,host2/vhost`, `amqps://…` | RabbitMQ; see [`RabbitOptions`] for what the URL can say |
/// | `memory:` | one that lives in this process and forgets; for tests |
#[derive(Debug, Clone)]
pub struct Broker(Repr);

#[derive(Debug, Clone)]
enum Repr {
    Memory,
    #[cfg(feature = "sqlite")]
    Sqlite(std::path::PathBuf),
    #[cfg(feature = "rabbitmq")]
    Rabbit(Box<RabbitOptions>),
    Connected(Arc<dyn BrokerTrait>),
}

impl Broker {
    /// The embedded broker on this file.
    #[cfg(feature = "sqlite")]
    #[must_use]
    pub fn sqlite(path: impl Into<std::path::PathBuf>) -> Self {
        Self(Repr::Sqlite(path.into()))
    }

    /// RabbitMQ.
    #[cfg(feature = "rabbitmq")]
    #[must_use]
    pub fn rabbitmq(options: RabbitOptions) -> Self {
        Self(Repr::Rabbit(Box::new(options)))
    }

    /// A broker that lives in this process and forgets.
    #[must_use]
    pub fn memory() -> Self {
        Self(Repr::Memory)
    }

    /// The broker that `PONOS_BROKER` names; `sqlite:ponos.db` where it names none.
    ///
    /// # Errors
    ///
    /// When the variable is no broker's URL.
    pub fn from_env() -> Result<Self, BrokerError> {
        match std::env::var(BROKER_VARIABLE) {
            Ok(url) if !url.is_empty() => Self::from_url(&url),
            _ => Self::from_url(DEFAULT_BROKER),
        }
    }

    /// The broker at this URL.
    ///
    /// # Errors
    ///
    /// When the text is no broker's URL, or one of a kind that this program was built without.
    pub fn from_url(url: &str) -> Result<Self, BrokerError> {
        let invalid = |problem: &str| Err(BrokerError::new(BrokerErrorKind::Invalid, problem));
        let Some((scheme, _)) = url.split_once(':') else {
            return invalid(
                "a broker is named by a URL such as `sqlite:ponos.db`: put the kind of broker and a colon before it",
            );
        };
        match scheme {
            "memory" => Ok(Self::memory()),
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                // `sqlite://relative` is how other tools write it; `sqlite:///absolute` then has an empty host.
                let rest = &url["sqlite:".len()..];
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return invalid("`sqlite:` needs a file: for example `sqlite:ponos.db`");
                }
                if path.contains('?') {
                    return invalid(
                        "`sqlite:` takes a file and no parameters: leave out the `?` and what follows it",
                    );
                }
                Ok(Self::sqlite(path))
            }
            #[cfg(not(feature = "sqlite"))]
            "sqlite" => {
                invalid("this program was built without SQLite: turn on the feature `sqlite` of `ponos`")
            }
            #[cfg(feature = "rabbitmq")]
            "amqp" | "amqps" => Ok(Self::rabbitmq(RabbitOptions::from_url(url)?)),
            #[cfg(not(feature = "rabbitmq"))]
            "amqp" | "amqps" => {
                invalid("this program was built without RabbitMQ: turn on the feature `rabbitmq` of `ponos`")
            }
            // The URL itself may hold a password, so only its scheme is named.
            other => Err(BrokerError::new(
                BrokerErrorKind::Invalid,
                format!(
                    "`{}:` is no broker that Ponos knows: use `sqlite:FILE` or `amqp://…`",
                    other.escape_debug().take(20).collect::<String>()
                ),
            )),
        }
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// When the broker cannot be used; the error says why and what to do.
    pub async fn connect(self) -> Result<Arc<dyn BrokerTrait>, BrokerError> {
        match self.0 {
            Repr::Connected(broker) => Ok(broker),
            Repr::Memory => Ok(Arc::new(MemoryBroker::new())),
            #[cfg(feature = "sqlite")]
            Repr::Sqlite(path) => {
                let opened = tokio::task::spawn_blocking(move || {
                    ponos_sqlite::SqliteBroker::open(path, ponos_sqlite::SqliteOptions::default())
                });
                let broker = opened.await.map_err(|e| {
                    BrokerError::new(BrokerErrorKind::Unavailable, format!("opening the file failed: {e}"))
                })??;
                Ok(Arc::new(broker))
            }
            #[cfg(feature = "rabbitmq")]
            Repr::Rabbit(options) => Ok(Arc::new(RabbitBroker::connect(*options).await?)),
        }
    }

    pub(crate) fn is_unconnected(&self) -> bool {
        !matches!(self.0, Repr::Connected(_))
    }
}

impl From<Arc<dyn BrokerTrait>> for Broker {
    fn from(broker: Arc<dyn BrokerTrait>) -> Self {
        Self(Repr::Connected(broker))
    }
}

impl<B: BrokerTrait> From<Arc<B>> for Broker {
    fn from(broker: Arc<B>) -> Self {
        Self(Repr::Connected(broker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_broker_or_the_error_says_what_to_do() {
        assert!(matches!(Broker::from_url("memory:").unwrap().0, Repr::Memory));
        for (url, path) in
            [("sqlite:a.db", "a.db"), ("sqlite:/x/a.db", "/x/a.db"), ("sqlite:///x/a.db", "/x/a.db")]
        {
            let Repr::Sqlite(found) = Broker::from_url(url).unwrap().0 else { panic!("{url}") };
            assert_eq!(found, std::path::Path::new(path));
        }
        for (url, hint) in [
            ("ponos.db", "put the kind of broker"),
            ("sqlite:", "needs a file"),
            ("redis://u:secret@h", "use `sqlite:FILE`"),
        ] {
            let error = Broker::from_url(url).unwrap_err().to_string();
            assert!(error.contains(hint) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
