//! Several nodes that know each other.

use std::time::Instant;

use crate::node::{Membership, Node, NodeOptions, START, pause, unique_name};
use crate::port;

/// A RabbitMQ cluster of this process alone.
#[derive(Debug)]
pub struct Cluster {
    /// The first brings the Erlang port mapper of all, which lives on when the node is killed.
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts `count` nodes and waits until each knows all.
    ///
    /// # Panics
    ///
    /// As [`Node::start`].
    #[must_use]
    pub fn start(count: usize, options: &NodeOptions) -> Self {
        let names: Vec<String> = (0..count).map(|_| unique_name()).collect();
        let (cookie, epmd_port) = (format!("{:016x}", port::random()), port::free());
        let spawn = |(index, name): (usize, &String)| {
            let mut options =
                options.clone().config("cluster_formation.peer_discovery_backend", "classic_config");
            // The first knows only itself: 4.0 would wait for those that it knows.
            let known = if index == 0 { vec![name] } else { vec![&names[0], name] };
            for (number, name) in (1..).zip(known) {
                options = options.config(&format!("cluster_formation.classic_config.nodes.{number}"), name);
            }
            let (cookie, name) = (cookie.clone(), name.clone());
            Node::spawn(&options.membership(Membership { cookie, epmd_port, brings_epmd: index == 0, name }))
        };
        let mut nodes: Vec<Node> = Vec::new();
        // One that is there to be joined, then all others at once.
        for member in names.iter().enumerate() {
            nodes.push(spawn(member));
            if nodes.len() == 1 {
                wait_ready(&nodes);
            }
        }
        wait_ready(&nodes);
        let cluster = Self { nodes };
        cluster.wait_complete();
        cluster
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The URLs of the virtual host `/`, one for each node.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.urls_of("/")
    }

    /// The URLs of a virtual host, one for each node. Make it with [`Node::fresh_vhost_name`] of any node.
    #[must_use]
    pub fn urls_of(&self, vhost: &str) -> Vec<String> {
        self.nodes.iter().map(|node| node.url_of(vhost)).collect()
    }

    /// Ends a node by SIGKILL.
    pub fn kill(&self, index: usize) {
        self.nodes[index].kill();
    }

    /// Ends a node in order, by SIGTERM.
    ///
    /// # Panics
    ///
    /// As [`Node::stop`].
    pub fn stop(&self, index: usize) {
        self.nodes[index].stop();
    }

    /// Starts a killed node again and waits until it answers. A majority must be up, so after
    /// [`kill`](Self::kill) of all use [`restart_all`](Self::restart_all).
    ///
    /// # Panics
    ///
    /// As [`Node::start`].
    pub fn start_again(&self, index: usize) {
        self.nodes[index].start_again();
    }

    /// Kills all nodes, starts all and waits until each knows all.
    ///
    /// # Panics
    ///
    /// As [`Node::start`].
    pub fn restart_all(&self) {
        self.nodes.iter().for_each(Node::kill);
        self.nodes.iter().for_each(Node::spawn_again);
        wait_ready(&self.nodes);
        self.wait_complete();
    }

    fn wait_complete(&self) {
        let started = Instant::now();
        for node in &self.nodes {
            loop {
                let status = node.ctl(&["cluster_status", "--formatter", "json"]);
                if status.as_ref().is_ok_and(|status| self.all_are_running(status)) {
                    break;
                }
                assert!(
                    started.elapsed() < START,
                    "the cluster is not complete: {status:?}\n{}",
                    node.log_tail()
                );
                pause();
            }
        }
    }

    fn all_are_running(&self, status: &str) -> bool {
        let running = status.split_once("\"running_nodes\":[").and_then(|(_, rest)| rest.split_once(']'));
        running.is_some_and(|(running, _)| self.nodes.iter().all(|node| running.contains(node.name())))
    }
}

fn wait_ready(nodes: &[Node]) {
    for node in nodes {
        node.wait_ready().unwrap_or_else(|reason| panic!("{reason}"));
    }
}
