//! Starts a node, prints its process id, its directory and its URL, and keeps it until its standard input ends.

use std::io::Read;

use ponos_testbed::{Node, NodeOptions};

#[expect(clippy::print_stdout, reason = "what it is for")]
fn main() {
    let node = Node::start(NodeOptions::new().management(false));
    println!("{} {} {}", node.pid(), node.directory().display(), node.url());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
