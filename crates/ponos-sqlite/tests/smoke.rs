//! The whole way once: declare, publish, subscribe, settle, inspect.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

mod support;

use std::time::Duration;

use ponos_core::broker::*;
use ponos_core::envelope::Progress;
use support::*;

#[tokio::test]
async fn a_job_goes_all_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let broker = ready(&dir.path().join("ponos.db")).await;
    let mut jobs = subscribe(&broker, TASK, 10).await;
    let sent = tasks(3);
    let ids: Vec<_> = sent.iter().map(|s| s.envelope.id).collect();
    assert!(broker.publish(sent).await.iter().all(|p| *p == Published::Confirmed { queues: 1 }));
    let got = take(&mut jobs, 3).await;
    assert_eq!(got.iter().map(|d| d.envelope.id).collect::<Vec<_>>(), ids);
    assert_eq!(stats(&broker, TASK).await.unsettled, Some(3));
    done(&broker, &got[0]).await;
    let settled = broker
        .settle(&got[1], Settlement { send: vec![event("org.payment.processed")], verdict: Verdict::Done })
        .await
        .unwrap();
    assert_eq!(settled, [Published::Confirmed { queues: 1 }]);
    let progress = Progress { attempt: 2, ..Progress::default() };
    let due = now() + Duration::from_millis(150);
    broker.settle(&got[2], Settlement::just(Verdict::RetryAt(due, Box::new(progress)))).await.unwrap();
    let again = take(&mut jobs, 1).await;
    assert!(now() >= due, "never early");
    assert_eq!((again[0].envelope.progress.attempt, again[0].envelope.id), (2, ids[2]));
    drop(jobs);
    let mut jobs = subscribe(&broker, TASK, 10).await;
    let back = take(&mut jobs, 1).await;
    assert_eq!(back[0].losses, 0, "a dropped subscription loses nothing");
    assert!(matches!(
        broker.settle(&again[0], Settlement::just(Verdict::Done)).await,
        Err(SettleError::Lost { .. })
    ));
    broker.close().await.unwrap();
    assert_eq!(
        broker.publish(tasks(1)).await.remove(0),
        Published::Refused(BrokerError::new(
            BrokerErrorKind::Closed,
            format!("`{}` was closed by this process", dir.path().join("ponos.db").display())
        ))
    );
    let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(
        left,
        ["ponos.db", "ponos.db.journal", "ponos.db.journal.lock", "ponos.db.procs", "ponos.db.writer.lock"]
    );
}
