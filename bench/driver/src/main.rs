//! Runs Ponos and its peers side by side on one RabbitMQ node: in each round every peer does each workload once, one
//! after the other, so that whatever disturbs the machine disturbs all. Medians of the rounds, and ratios of medians.
//!
//! `scripts/bench` builds the peers and calls this. `BENCH_ROUNDS=5 BENCH_COUNT=40000`.

mod peers;

use std::collections::BTreeMap;

use anyhow::Result;
use peers::{Figure, PEERS, Peer};
use ponos_testbed::{Node, NodeOptions};

fn main() -> Result<()> {
    let number = |name: &str, otherwise: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let (rounds, count) = (number("BENCH_ROUNDS", 5), number("BENCH_COUNT", 40_000));
    // As a node is by default: the testbed's own figures are fresher, which costs.
    let node = Node::start(NodeOptions::new().config("collect_statistics_interval", 5000));
    let mut figures: BTreeMap<(&str, &str, &str), Vec<Figure>> = BTreeMap::new();
    for round in 0..=rounds {
        for kind in ["classic", "quorum"] {
            let url = node.fresh_vhost();
            for peer in PEERS {
                for (workload, figure) in peer.round(&url, kind, count)? {
                    eprintln!("{round} {kind} {} {workload}: {:.0}/s", peer.name, figure.rate());
                    // The first round warms up.
                    if round > 0 {
                        figures.entry((kind, workload, peer.name)).or_default().push(figure);
                    }
                }
            }
        }
    }
    print(&figures);
    Ok(())
}

fn print(figures: &BTreeMap<(&str, &str, &str), Vec<Figure>>) {
    println!("| queues | workload | peer | median/s | min | max | Ponos is | µs CPU a message | MiB |");
    println!("|---|---|---|--:|--:|--:|--:|--:|--:|");
    for ((kind, workload, peer), of) in figures {
        let ponos = figures.get(&(*kind, *workload, Peer::PONOS)).map(|of| median(of, Figure::rate));
        let rate = median(of, Figure::rate);
        let ratio = ponos.map_or(String::new(), |ponos| format!("{:.2} ×", ponos / rate));
        let lowest = of.iter().map(Figure::rate).fold(f64::INFINITY, f64::min);
        let highest = of.iter().map(Figure::rate).fold(0.0, f64::max);
        let cpu = median(of, |figure| figure.cpu * 1e6 / figure.count as f64);
        let memory = median(of, |figure| figure.rss_kib as f64 / 1024.0);
        println!(
            "| {kind} | {workload} | {peer} | {rate:.0} | {lowest:.0} | {highest:.0} | {ratio} | {cpu:.0} | {memory:.0} |"
        );
    }
}

fn median(of: &[Figure], by: impl Fn(&Figure) -> f64) -> f64 {
    let mut values: Vec<f64> = of.iter().map(by).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
