//! No confirmed job is lost when RabbitMQ itself is killed with jobs in flight: a node of its own, and each node of a
//! cluster in turn. `PONOS_BROKER_KILLS=20 PONOS_JOBS=100000` and `PONOS_NODE_KILLS=9` for the long forms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ponos::core::broker::{Broker as BrokerTrait, Inspect};
use ponos::core::id::Timestamp;
use ponos::prelude::*;
use ponos::{RabbitBroker, RabbitOptions};
use ponos_testbed::{Cluster, Node, NodeOptions};

use super::check::{Outage, check};
use super::load::{Forge, Ledger, Load, NONE, PieceMake, Shop, forge, publish, shop};
use super::{figure, messages};

/// How long nothing may move before the rest is believed to be lost. RabbitMQ itself tries again after three minutes
/// what a queue did not take from the delay ladder.
const PATIENCE: Duration = Duration::from_secs(240);

/// The longest that publishing may stand while a majority of the nodes lives.
const STALL: Duration = Duration::from_secs(15);

/// Two services and a publisher, each with connections of its own.
struct System {
    brokers: [Arc<RabbitBroker>; 3],
    forge: Running<Forge>,
    shop: Running<Shop>,
    ledger: Ledger,
    publishing: tokio::task::JoinHandle<()>,
    enough: Arc<AtomicBool>,
}

impl System {
    async fn start(url: &str, load: Load) -> Self {
        let connect = || async {
            Arc::new(RabbitBroker::connect(RabbitOptions::from_url(url).unwrap()).await.unwrap())
        };
        let brokers = [connect().await, connect().await, connect().await];
        let ledger = Ledger::default();
        let forge = forge().start(ledger.clone(), Arc::clone(&brokers[0])).await.unwrap();
        let shop = shop().start(ledger.clone(), Arc::clone(&brokers[1])).await.unwrap();
        let publisher = Publisher::<Forge>::connect(Arc::clone(&brokers[2])).await.unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let publishing = tokio::spawn(publish(publisher, ledger.clone(), load, Arc::clone(&enough)));
        Self { brokers, forge, shop, ledger, publishing, enough }
    }

    /// Waits until so many are confirmed.
    async fn confirmed(&self, count: u32) {
        self.until(&format!("{count} confirmed"), |ledger| ledger.book().confirmed >= count).await;
    }

    /// Puts something through each level of the delay ladder that the load may need. A queue whose declaration a SIGKILL
    /// cuts may never elect a leader on RabbitMQ 3.10.8, and then takes nothing: that is not what these tests are about
    /// (docs/torture.md).
    async fn warm(&self) {
        for delay in [60, 200, 400, 900, 1_500] {
            let due = Timestamp::from(SystemTime::now() + millis(delay));
            messages::send(&*self.brokers[0], vec![messages::task(&PieceMake { job: NONE }, Some(due))])
                .await;
        }
    }

    /// Waits for something that the ledger shows, as long as there is progress.
    async fn until(&self, what: &str, done: impl Fn(&Ledger) -> bool) {
        let mut moved = (Instant::now(), (0, 0));
        while !done(&self.ledger) {
            let state = {
                let book = self.ledger.book();
                (book.confirmed, book.left)
            };
            if state != moved.1 {
                moved = (Instant::now(), state);
            }
            if moved.0.elapsed() >= PATIENCE {
                eprintln!("no progress for {PATIENCE:?}, waiting for {what}: {state:?} confirmed and left");
                return;
            }
            tokio::time::sleep(millis(20)).await;
        }
    }

    /// Lets everything come to its end, and judges. Gives the longest time without a confirm.
    async fn end(self, outages: &[Outage]) -> Duration {
        self.enough.store(true, Ordering::Relaxed);
        let (began, asked) = (Instant::now(), self.ledger.book().pieces.len());
        self.until("the last answers", |ledger| ledger.book().pieces.iter().all(|p| p.answered.is_some()))
            .await;
        self.until("the rest", |ledger| ledger.book().left == 0).await;
        let queues = self.empty().await;
        let drained = began.elapsed();
        let Self { brokers, forge, shop, ledger, publishing, .. } = self;
        publishing.await.unwrap();
        forge.shutdown().await;
        shop.shutdown().await;
        let recognised: u64 = brokers.iter().map(|broker| broker.stats().duplicates).sum();
        let verdict = check(&ledger.book(), outages);
        verdict.print(&ledger.book(), outages);
        eprintln!(
            "{recognised} deliveries whose copies were confirmed before were recognised; all over {:.1} s after the \
             last of {asked} jobs was asked for",
            drained.as_secs_f64()
        );
        assert!(
            verdict.faults.is_empty(),
            "{} faults: {:#?}",
            verdict.faults.len(),
            &verdict.faults[..verdict.faults.len().min(20)]
        );
        assert!(queues.is_empty(), "{queues:?}");
        let failed = failed(&*brokers[0]).await;
        assert!(
            failed >= verdict.recovered,
            "{failed} failed jobs are kept, {} were recovered",
            verdict.recovered
        );
        for broker in brokers {
            broker.close().await.unwrap();
        }
        verdict.stalls.iter().map(|(confirm, _)| *confirm).max().unwrap_or_default()
    }

    /// What is left in queues that should be empty; a duplicate may still be on its way.
    async fn empty(&self) -> Vec<String> {
        let deadline = Instant::now() + secs(30);
        loop {
            let mut left = Vec::new();
            for broker in &self.brokers[..2] {
                for queue in broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues() {
                    if queue.ready > 0 && !queue.queue.as_str().ends_with(".failed") {
                        left.push(format!("{} in {}", queue.ready, queue.queue));
                    }
                }
            }
            if left.is_empty() && self.ledger.book().running == 0 || Instant::now() > deadline {
                return left;
            }
            tokio::time::sleep(millis(50)).await;
        }
    }
}

/// How many jobs the forge has given up.
async fn failed(broker: &dyn BrokerTrait) -> usize {
    let queues = broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues();
    let kept = queues.iter().find(|queue| queue.queue.as_str() == "forge.failed");
    usize::try_from(kept.map_or(0, |queue| queue.ready)).unwrap()
}

/// What leaves the delay ladder while its target has no leader is tried again after 10 s instead of three minutes.
fn options() -> NodeOptions {
    NodeOptions::new().advanced("[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 10000}]}].")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_confirmed_job_is_lost_when_the_only_node_is_killed_again_and_again() {
    let (kills, jobs) = (figure("PONOS_BROKER_KILLS", 2), figure("PONOS_JOBS", 5_000));
    let node = tokio::task::spawn_blocking(|| Arc::new(Node::start(options()))).await.unwrap();
    let load = Load { jobs, pace: 40, backlog: 2_000, open: 500 };
    let system = System::start(&node.url(), load).await;
    system.warm().await;
    let mut outages = Vec::new();
    for kill in 1..=kills {
        // By chance, not at a moment of the load's choosing.
        let share = jobs / (kills + 1);
        system.confirmed(share * kill - fastrand::u32(..share / 4)).await;
        let mut outage = Outage::now("the node", &system.ledger.book());
        let killed = Arc::clone(&node);
        tokio::task::spawn_blocking(move || killed.restart()).await.unwrap();
        outage.back = Instant::now();
        eprintln!("{} was killed and is back, {kill} of {kills}", outage.what);
        outages.push(outage);
    }
    system.until("all to be asked for", |ledger| ledger.book().pieces.len() >= jobs as usize).await;
    system.end(&outages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_goes_on_and_no_job_is_lost_when_the_nodes_of_a_cluster_are_killed_in_turn() {
    let kills = figure("PONOS_NODE_KILLS", 1);
    let cluster = tokio::task::spawn_blocking(|| Arc::new(Cluster::start(3, &options()))).await.unwrap();
    let hosts: Vec<_> =
        cluster.nodes().iter().map(|node| format!("127.0.0.1:{}", node.amqp_port())).collect();
    let load = Load { jobs: u32::MAX, pace: figure("PONOS_PACE", 2), backlog: u32::MAX, open: 50_000 };
    let system = System::start(&format!("amqp://guest:guest@{}/", hosts.join(",")), load).await;
    system.warm().await;
    let mut outages = Vec::new();
    for kill in 1..=kills {
        let confirmed = system.ledger.book().confirmed;
        system.confirmed(confirmed + fastrand::u32(300..600)).await;
        let index = (kill as usize - 1) % 3;
        let mut outage = Outage::now(format!("node {}", index + 1), &system.ledger.book());
        let cluster = Arc::clone(&cluster);
        let restarted = move || {
            cluster.kill(index);
            cluster.start_again(index);
            until_in_quorum(&cluster, index);
        };
        tokio::task::spawn_blocking(restarted).await.unwrap();
        outage.back = Instant::now();
        eprintln!("{} was killed and is back, {kill} of {kills}", outage.what);
        outages.push(outage);
    }
    let confirmed = system.ledger.book().confirmed;
    system.confirmed(confirmed + 300).await;
    let stall = system.end(&outages).await;
    eprintln!("the longest time without a confirm: {:.1} s", stall.as_secs_f64());
    assert!(stall < STALL, "nothing was confirmed for {stall:?}");
}

/// Waits until every queue could do without any of the other nodes, because this one is a member again.
fn until_in_quorum(cluster: &Cluster, index: usize) {
    let deadline = Instant::now() + secs(90);
    for (other, node) in cluster.nodes().iter().enumerate().filter(|(other, _)| *other != index) {
        loop {
            let answer = node.try_http("GET", "/api/health/checks/node-is-quorum-critical", None);
            if matches!(answer, Ok((200, _))) {
                break;
            }
            assert!(Instant::now() < deadline, "node {} cannot be spared: {answer:?}", other + 1);
            std::thread::sleep(millis(100));
        }
    }
}
