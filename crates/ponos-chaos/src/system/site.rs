//! Where the broker of a run is, and what of it may be broken.

use std::fmt;
use std::path::Path;

use anyhow::bail;
use ponos_testbed::{Node, NodeOptions};

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerKind {
    Sqlite,
    RabbitMq,
}

impl fmt::Display for BrokerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::RabbitMq => "rabbitmq",
        })
    }
}

/// The broker of a run.
#[derive(Debug)]
pub(crate) enum Site {
    /// A file, as a URL.
    Sqlite(String),
    /// A RabbitMQ node of this run alone, which may be killed.
    Node(Box<Node>),
    /// A RabbitMQ that belongs to somebody else, in an empty virtual host.
    Foreign(String),
}

impl Site {
    /// What `--broker` names: `sqlite` and `rabbitmq` for brokers of the run's own, or a URL.
    pub(crate) fn open(named: &str, dir: &Path) -> anyhow::Result<Self> {
        Ok(match named {
            "sqlite" => Self::Sqlite(format!("sqlite:{}", dir.join("ponos.db").display())),
            "rabbitmq" => Self::Node(Box::new(Node::start(Self::options()))),
            url if url.starts_with("sqlite:") => Self::Sqlite(url.to_owned()),
            url if url.starts_with("amqp") => Self::Foreign(url.to_owned()),
            other => bail!("`{other}` is no broker: say `sqlite`, `rabbitmq` or a URL"),
        })
    }

    /// Which kind a name means.
    pub(crate) fn kind_of(named: &str) -> BrokerKind {
        if named.starts_with("sqlite") { BrokerKind::Sqlite } else { BrokerKind::RabbitMq }
    }

    /// What leaves the delay ladder while its target has no leader is tried again after 10 s instead of three minutes.
    pub(crate) fn options() -> NodeOptions {
        NodeOptions::new().advanced("[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 10000}]}].")
    }

    pub(crate) fn kind(&self) -> BrokerKind {
        match self {
            Self::Sqlite(_) => BrokerKind::Sqlite,
            Self::Node(_) | Self::Foreign(_) => BrokerKind::RabbitMq,
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(url) | Self::Foreign(url) => url.clone(),
            // RabbitMQ's queues are listed by its management plugin alone.
            Self::Node(node) => match node.management_port() {
                Some(port) => format!("{}?management=http://127.0.0.1:{port}", node.url()),
                None => node.url(),
            },
        }
    }

    /// For the report.
    pub(crate) fn version(&self) -> String {
        match self {
            Self::Sqlite(_) => "sqlite".to_owned(),
            Self::Node(node) => {
                let version = node.ctl(&["version"]).unwrap_or_default();
                format!("RabbitMQ {}", version.trim())
            }
            Self::Foreign(_) => "RabbitMQ".to_owned(),
        }
    }
}
