//! `ponos explain`.

use serde_json::json;

use super::set::Set;

#[test]
fn the_text_of_an_event_is_this() {
    let expected = "\
event org.payment.processed
emitted by    cream (cream.payment.process)
hops          1 before it at most

LISTENER   QUEUE                            CREATES
big-poppa  big-poppa.org.payment.processed  big-poppa.plan.activate
           8 at once, prefetch 64
pheidi     pheidi.org.payment.processed     pheidi.email.send
           8 at once, prefetch 64

WHAT FOLLOWS, BY HOPS FROM HERE
  1  ▸ big-poppa.plan.activate
  2    ◇ org.plan.activated
  3      ▸ big-poppa.plan.activate  ↑
  1  ▸ pheidi.email.send
  2    ◇ email.sent

⚠ nobody listens to email.sent
⚠ cycle: org.plan.activated → big-poppa.plan.activate → org.plan.activated (a reaction on it can end it)
";
    assert_eq!(
        Set::shown().run(&["explain", "org.payment.processed", "--offline"], &[]).ends(0).out,
        expected
    );
}

#[test]
fn the_text_of_a_task_is_this() {
    let expected = "\
task pheidi.email.send
performed by  pheidi
created of    org.payment.failed (reaction of pheidi), org.payment.processed (reaction of pheidi)
hops          2 before it at most
may emit      email.sent
policy        8 at once, prefetch 64; 9 attempts 1s → 5min ×2 +25%, at most 7d old; 20s each; without a recovery function

WHAT FOLLOWS, BY HOPS FROM HERE
  1  ◇ email.sent

⚠ nobody listens to email.sent
";
    assert_eq!(Set::shown().run(&["explain", "pheidi.email.send", "--offline"], &[]).ends(0).out, expected);
}

#[test]
fn json_says_the_same() {
    let explained =
        Set::shown().run(&["explain", "org.payment.processed", "--offline"], &["--json"]).ends(0).json();
    assert_eq!((&explained["kind"], &explained["hops"]), (&json!("event"), &json!(1)));
    assert_eq!(explained["emitted_by"], json!([{ "app": "cream", "task": "cream.payment.process" }]));
    assert_eq!(explained["listeners"][1]["queue"], "pheidi.org.payment.processed");
    assert_eq!(
        explained["follows"][2],
        json!({ "after": 3, "kind": "task", "name": "big-poppa.plan.activate", "again": true })
    );
    assert_eq!(explained["warnings"].as_array().unwrap().len(), 2);
}

#[test]
fn what_nobody_knows_is_not_found_and_without_offline_there_is_a_way_out() {
    let ran = Set::shown().run(&["explain", "org.payment.procesed", "--offline"], &[]).ends(1);
    assert!(ran.err.contains("did you mean `org.payment.processed`?"), "{ran:?}");
    let ran = Set::shown().run(&["explain", "org.payment.processed"], &[]).ends(3);
    assert!(ran.err.contains("--offline"), "{ran:?}");
}

#[test]
fn a_cycle_that_nothing_ends_and_a_missing_owner_are_warnings() {
    let set = Set::shown().with(|set| {
        set.app("big-poppa")["reactions"][1]["conditional"] = false.into();
        set.app("pheidi")["tasks"] = json!([]);
    });
    let ran = set.run(&["explain", "org.payment.processed", "--offline"], &[]).ends(0);
    assert!(ran.out.contains("(nothing ends it but the hop limit)"), "{ran:?}");
    assert!(ran.out.contains("⚠ nobody performs pheidi.email.send\n"), "{ran:?}");
}
