//! Where the broker of a run is, and what of it may be broken.

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::bail;
use ponos_testbed::{Cluster, Node, NodeOptions};

use super::evidence;

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerKind {
    Sqlite,
    RabbitMq,
    /// Three nodes of RabbitMQ.
    Cluster,
}

impl fmt::Display for BrokerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::RabbitMq => "rabbitmq",
            Self::Cluster => "cluster",
        })
    }
}

/// The broker of a run.
#[derive(Debug)]
pub(crate) enum Site {
    /// A file, as a URL.
    Sqlite(String),
    /// A RabbitMQ node of this program alone, which may be killed, and a virtual host of this run.
    Node(&'static Node, String),
    /// Three of them, which know each other; the virtual host is `/`.
    Cluster(Box<Cluster>),
    /// A RabbitMQ that belongs to somebody else, in an empty virtual host.
    Foreign(String),
}

impl Site {
    /// What `--broker` names: `sqlite`, `rabbitmq` and `cluster` for brokers of the run's own, or a URL.
    pub(crate) fn open(named: &str, dir: &Path) -> anyhow::Result<Self> {
        Ok(match named {
            "sqlite" => Self::Sqlite(format!("sqlite:{}", dir.join("ponos.db").display())),
            "rabbitmq" => {
                // One for all scenarios of one call: a start takes longer than some short forms.
                static NODE: OnceLock<Node> = OnceLock::new();
                let node = NODE.get_or_init(|| Node::start(Self::options()));
                Self::Node(node, node.fresh_vhost_name())
            }
            "cluster" => Self::Cluster(Box::new(Cluster::start(3, &Self::options()))),
            url if url.starts_with("sqlite:") => Self::Sqlite(url.to_owned()),
            url if url.starts_with("amqp") => Self::Foreign(url.to_owned()),
            other => bail!("`{other}` is no broker: say `sqlite`, `rabbitmq`, `cluster` or a URL"),
        })
    }

    /// Which kind a name means.
    pub(crate) fn kind_of(named: &str) -> BrokerKind {
        match named {
            "cluster" => BrokerKind::Cluster,
            named if named.starts_with("sqlite") => BrokerKind::Sqlite,
            _ => BrokerKind::RabbitMq,
        }
    }

    /// What leaves the delay ladder while its target has no leader is tried again after 10 s instead of three minutes: a
    /// run would otherwise end with a wait that says nothing about Ponos. For the same reason quorum queues
    /// tell the management plugin once a second how long they are, and not every five.
    pub(crate) fn options() -> NodeOptions {
        NodeOptions::new().advanced(
            "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 10000}, {quorum_tick_interval, 1000}]}].",
        )
    }

    pub(crate) fn kind(&self) -> BrokerKind {
        match self {
            Self::Sqlite(_) => BrokerKind::Sqlite,
            Self::Node(..) | Self::Foreign(_) => BrokerKind::RabbitMq,
            Self::Cluster(_) => BrokerKind::Cluster,
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(url) | Self::Foreign(url) => url.clone(),
            Self::Node(node, vhost) => with_management(&node.url_of(vhost), node),
            Self::Cluster(cluster) => {
                let hosts: Vec<String> =
                    cluster.nodes().iter().map(|node| format!("127.0.0.1:{}", node.amqp_port())).collect();
                with_management(&format!("amqp://guest:guest@{}/", hosts.join(",")), &cluster.nodes()[0])
            }
        }
    }

    /// The node that may be killed.
    pub(crate) fn node(&self) -> anyhow::Result<&'static Node> {
        match self {
            Self::Node(node, _) => Ok(node),
            _ => bail!("this scenario needs a node of its own: `--broker rabbitmq`"),
        }
    }

    /// The cluster whose nodes may be killed.
    pub(crate) fn cluster(&self) -> anyhow::Result<&Cluster> {
        match self {
            Self::Cluster(cluster) => Ok(cluster),
            _ => bail!("this scenario needs a cluster of its own: `--broker cluster`"),
        }
    }

    /// The virtual host, as the management plugin's paths want it.
    pub(crate) fn vhost(&self) -> &str {
        match self {
            Self::Node(_, vhost) => vhost,
            _ => "%2F",
        }
    }

    /// What the broker says of itself, for who looks into a stall.
    pub(crate) fn evidence(&self) -> String {
        match self {
            Self::Node(node, vhost) => evidence::of(&[node], vhost),
            Self::Cluster(cluster) => evidence::of(&cluster.nodes().iter().collect::<Vec<_>>(), "/"),
            Self::Sqlite(_) | Self::Foreign(_) => String::new(),
        }
    }

    /// For the report.
    pub(crate) fn version(&self) -> String {
        match self {
            Self::Sqlite(_) => "sqlite".to_owned(),
            Self::Node(node, _) => version_of(node),
            Self::Cluster(cluster) => format!("3 nodes of {}", version_of(&cluster.nodes()[0])),
            Self::Foreign(_) => "RabbitMQ".to_owned(),
        }
    }
}

fn version_of(node: &Node) -> String {
    format!("RabbitMQ {}", node.ctl(&["version"]).unwrap_or_default().trim())
}

/// Lists of queues come from the management plugin.
fn with_management(url: &str, node: &Node) -> String {
    match node.management_port() {
        Some(port) => format!("{url}?management=http://127.0.0.1:{port}"),
        None => url.to_owned(),
    }
}
