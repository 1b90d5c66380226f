//! The command `ponos demo`, as its users run it.

#![expect(clippy::unwrap_used, reason = "what a test relies on may end it")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What `--ci` promises.
const LIMIT: Duration = Duration::from_secs(30);

fn ponos(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ponos"));
    command.args(args).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a demo to its end and answers the balance on the last line.
fn balance(args: &[&str]) -> Value {
    let started = Instant::now();
    let Output { status, stdout, stderr } = ponos(args).output().unwrap();
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    assert!(status.success(), "{status}\n{stdout}\n{stderr}");
    assert!(started.elapsed() < LIMIT, "took {:?}", started.elapsed());
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// The least that must be true of every balance.
fn check(balance: &Value) {
    let number = |name: &str| balance[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {balance}"));
    assert_eq!(number("lost"), 0, "{balance}");
    assert_eq!(number("accepted"), number("done") + number("failed") + number("lost"), "{balance}");
    assert!(number("breaker_opened") >= 1 && number("recovered") >= 1 && number("retries") > 0, "{balance}");
    assert!(number("recovered") <= number("failed"), "{balance}");
}

#[test]
fn the_balance_closes_whatever_the_seed() {
    for seed in ["1", "2", "3"] {
        check(&balance(&["demo", "--ci", "--json", "--seed", seed]));
    }
}

#[test]
fn with_json_the_standard_output_is_the_balance_alone() {
    let output = ponos(&["demo", "--ci", "--json"]).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    assert!(stderr.contains("HALF-OPEN") && stderr.contains("The balance closes"), "{stderr}");
    assert!(!stderr.contains('\x1b'), "colours where there is no terminal");
}

#[test]
fn a_demo_on_a_broker_that_stays_can_be_repeated_there_and_its_hints_work() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file.db");
    let url = format!("sqlite:{}", file.display());
    check(&balance(&["demo", "--ci", "--json", "--broker", &url]));

    let output = ponos(&["demo", "--ci", "--broker", &url]).output().unwrap();
    let story = text(&output.stdout);
    assert!(output.status.success(), "{story}");
    let hints: Vec<_> = story
        .lines()
        .filter(|line| line.trim_start().starts_with("ponos ") && line.contains("a file.db"))
        .collect();
    assert!(!hints.is_empty(), "{story}");
    for hint in hints {
        let path = Path::new(env!("CARGO_BIN_EXE_ponos")).parent().unwrap();
        let path = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
        let output = Command::new("sh").args(["-c", hint.trim()]).env("PATH", path).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{hint}\n{}", text(&output.stderr));
    }
}

#[test]
fn webhooks_of_any_kind_can_be_fed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("webhooks.jsonl");
    let mut lines: Vec<String> =
        (0..200).map(|n| format!(r#"{{"event":"kind-{n}","payload":{{"n":{n}}}}}"#)).collect();
    lines.push(r#"{"event":"push","payload":{}}"#.into());
    lines.push(r#"{"event":"a b","payload":[]}"#.into());
    let repository = r#""repository":{"full_name":"a/b"}"#;
    lines.push(format!(
        r#"{{"event":"push","payload":{{"ref":"refs/heads/main","after":"c0ffee",{repository}}}}}"#
    ));
    std::fs::write(&file, lines.join("\n\n")).unwrap();
    let output = ponos(&["demo", "--ci", "--input", file.to_str().unwrap()]).output().unwrap();
    let story = text(&output.stdout);
    assert!(output.status.success(), "{story}");
    assert!(story.contains("203 GitHub webhooks: 1 became events, 200 map to nothing, 2 refused"), "{story}");
    assert!(story.contains("missing field `ref`"), "{story}");
}

#[test]
fn what_keeps_it_from_beginning_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (empty, wrong) = (file("empty", "\n"), file("wrong", "{\"event\":\"push\",\"payload\":{}}\nhello\n"));
    let missing = folder.path().join("missing");
    for (option, value, says) in [
        ("--input", empty.as_str(), "has no webhook"),
        ("--input", wrong.as_str(), "line 2 is no webhook"),
        ("--input", missing.to_str().unwrap(), "cannot read --input"),
        ("--broker", "redis://u:secret@h", "use `sqlite:FILE`"),
        ("--broker", wrong.as_str(), "a broker is named by a URL"),
        ("--seed", "x", "--seed"),
    ] {
        let output = ponos(&["demo", "--ci", option, value]).output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(says) && !error.contains("secret") && !error.contains("panicked"), "{error}");
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    }
}

#[test]
fn a_broker_that_cannot_be_used_has_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no.db");
    std::fs::write(&file, "this is no database, and it is long enough to be seen as none ".repeat(20))
        .unwrap();
    let output =
        ponos(&["demo", "--ci", "--broker", &format!("sqlite:{}", file.display())]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("no.db"), "{}", text(&output.stderr));
}

/// Reads one line of a demo and closes the pipe.
fn read_one_line(args: &[&str]) -> (Option<i32>, String, Duration) {
    let started = Instant::now();
    let mut child = ponos(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("Ponos demo"), "{line}");
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code(), stderr, started.elapsed())
}

#[test]
fn a_closed_pipe_ends_the_demo_quietly() {
    let (code, stderr, took) = read_one_line(&["demo"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(took < Duration::from_secs(5), "it went on for {took:?} for nobody");
}

#[test]
fn with_ci_a_closed_pipe_changes_nothing_about_the_exit_code() {
    let (code, stderr, took) = read_one_line(&["demo", "--ci"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(took > Duration::from_secs(3), "after {took:?} the balance cannot be known");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_it_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = ponos(&["demo"]).env("TMPDIR", folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines.find(|line| line.as_ref().unwrap().contains("All is well"));
    assert!(told.is_some());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
