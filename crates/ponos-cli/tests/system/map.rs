//! `ponos map`.

use serde_json::Value;

use super::set::{Set, manifest, object, reaction, task};

#[test]
fn the_text_is_this() {
    let expected = "\
big-poppa ───◇ org.plan.activated ──────► big-poppa ╌╌▸ big-poppa.plan.activate
cream     ─┬─◇ org.payment.failed ──────► pheidi    ──▸ pheidi.email.send
           └─◇ org.payment.processed ─┬─► big-poppa ──▸ big-poppa.plan.activate
                                      └─► pheidi    ──▸ pheidi.email.send
hooks     ───◇ github.pushed ───────────► (nobody)
pheidi    ───◇ email.sent ──────────────► (nobody)
started by their own application: cream.payment.process
cycle: org.plan.activated → big-poppa.plan.activate → org.plan.activated (can end)
";
    assert_eq!(Set::shown().run(&["map"], &[]).ends(0).out, expected);
    assert_eq!(Set::shown().run(&["map"], &["--format", "text"]).ends(0).out, expected);
}

fn two() -> Set {
    let mut set = Set::default();
    let sent = || object("EmailSent", &[]);
    set.add(
        "pheidi",
        manifest("pheidi", &[("email.sent", sent())], &[], &[task("pheidi.email.send", &["email.sent"])]),
    );
    let mut hears = reaction("desk", "email.sent", &["desk.note.write"]);
    hears["conditional"] = true.into();
    set.add("desk", manifest("desk", &[("email.sent", sent())], &[hears], &[task("desk.note.write", &[])]));
    set
}

#[test]
fn the_mermaid_flowchart_is_this() {
    let expected = "\
flowchart LR
  n0([\"email.sent\"])
  subgraph a0[\"desk\"]
    n1>\"desk\"]
    n2[\"desk.note.write\"]
  end
  subgraph a1[\"pheidi\"]
    n3[\"pheidi.email.send\"]
  end
  n0 --> n1
  n1 -.-> n2
  n3 --> n0
";
    assert_eq!(two().run(&["map"], &["--format", "mermaid"]).ends(0).out, expected);
}

#[test]
fn the_dot_graph_is_this() {
    let expected = "\
digraph ponos {
  rankdir=LR;
  node [fontname=\"sans-serif\", fontsize=11];
  edge [fontname=\"sans-serif\", fontsize=9];
  n0 [label=\"email.sent\", shape=ellipse, tooltip=\"event email.sent, 1 hop at most\"];
  subgraph cluster_0 {
    label=\"desk\";
    n1 [label=\"desk\", shape=cds, tooltip=\"reaction of desk, queue desk.email.sent, may create nothing\"];
    n2 [label=\"desk.note.write\", shape=box, tooltip=\"task desk.note.write, queue desk.note.write, 2 hops at most\"];
  }
  subgraph cluster_1 {
    label=\"pheidi\";
    n3 [label=\"pheidi.email.send\", shape=box, tooltip=\"task pheidi.email.send, queue pheidi.email.send, starts a chain\"];
  }
  n0 -> n1;
  n1 -> n2 [style=dashed];
  n3 -> n0;
}
";
    assert_eq!(two().run(&["map"], &["--format", "dot"]).ends(0).out, expected);
}

#[test]
fn json_has_every_node_and_edge() {
    let ran = Set::shown().run(&["map"], &["--json"]).ends(0);
    assert_eq!(ran.out, Set::shown().run(&["map"], &["--format", "json"]).ends(0).out);
    let map = ran.json();
    let ids: Vec<&str> = map["nodes"].as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 13, "{ids:?}");
    for edge in map["edges"].as_array().unwrap() {
        assert!(ids.contains(&edge["from"].as_str().unwrap()) && ids.contains(&edge["to"].as_str().unwrap()));
        assert_eq!(edge["declared"], true);
    }
    let back: Vec<&Value> =
        map["edges"].as_array().unwrap().iter().filter(|e| e["closes_cycle"] == true).collect();
    assert_eq!(back.len(), 1);
    assert_eq!(map["cycles"][0]["guarded"], true);
    assert_eq!(map["longest_chain"].as_array().unwrap().len(), 4);
}

/// The names of a page's tags.
fn tags(page: &str) -> Vec<&str> {
    let end = |tag: &'static [char]| move |rest: &&str| -> usize { rest.find(tag).unwrap_or(rest.len()) };
    let mut tags: Vec<&str> =
        page.split('<').skip(1).map(|rest| &rest[..end(&[' ', '>', '\n'])(&rest)]).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_says_everything_twice() {
    let folder = Set::clean().folder();
    let mut command = super::set::command(&folder);
    command.args(["map", "--format", "html", "--out", "map.html"]).args(Set::clean().0.keys());
    assert_eq!(super::set::finish(command).ends(0).out, "");
    let page = std::fs::read_to_string(folder.path().join("map.html")).unwrap();
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
    assert!(page.contains("prefers-color-scheme: dark"));
    for foreign in ["http:", "https:", "src=", "href=", "@import", "url(h", "<script", "<link"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let (drawing, tables) = page.split_once("</figure>").unwrap();
    for name in ["org.payment.processed", "ledger.entry.book", "github.pull-request.converted-to-draft"] {
        assert!(drawing.contains(&format!(">{name}</text>")), "{name}");
        assert!(tables.contains(&format!("<th scope=\"row\">{name}</th>")), "{name}");
    }
    for tag in ["table", "caption", "figure", "p", "g", "svg", "tr", "td", "title", "text"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn hostile_names_are_texts_in_every_form() {
    let evil = "x\"]; a`|]<img src=y onerror=z>&lt;'\\\n\u{1b}[2J\u{202e}";
    let plain = "plain.thing.happened";
    let set = |name: &str| {
        let mut set = Set::shown();
        let mut hostile = manifest(
            name,
            &[(name, object(name, &[]))],
            &[reaction(name, name, &[name])],
            &[task(name, &[name])],
        );
        hostile["emits"] = serde_json::json!([name]);
        set.add("evil", hostile);
        set
    };
    let run = |name: &str, format: &str| set(name).run(&["map"], &["--format", format]).ends(0).out;
    for format in ["text", "dot", "mermaid", "html", "json"] {
        let out = run(evil, format);
        assert!(!out.chars().any(|c| matches!(c, '\u{1b}' | '\u{202e}')), "{format}: {out:?}");
        let lines = |out: &str| out.lines().count();
        assert_eq!(lines(&out), lines(&run(plain, format)), "{format}: a name has made a line");
    }
    let map: Value = serde_json::from_str(&run(evil, "json")).unwrap();
    assert!(map["nodes"].as_array().unwrap().iter().any(|node| node["name"] == evil), "it is what it was");

    assert_eq!(tags(&run(evil, "html")), tags(&run(plain, "html")), "a name has made a tag");
    assert!(!run(evil, "html").contains("&lt;'"), "an entity of a name is text too");

    let quotes = |line: &str| line.replace("\\\\", "").replace("\\\"", "").matches('"').count();
    let dot = |name: &str| run(name, "dot").lines().map(quotes).collect::<Vec<_>>();
    assert_eq!(dot(evil), dot(plain));

    let signs = |name: &str| {
        let count = |line: &str| ['"', '[', ']', '|', '<', '`'].map(|sign| line.matches(sign).count());
        run(name, "mermaid").lines().map(count).collect::<Vec<_>>()
    };
    assert_eq!(signs(evil), signs(plain));
}
