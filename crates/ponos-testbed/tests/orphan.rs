//! A node does not outlive the process that started it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_node_ends_when_its_process_is_killed() {
    let mut process = Command::new(env!("CARGO_BIN_EXE_testbed-node"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("it prints");
    let mut words = line.split_whitespace();
    let pid = words.next().expect("a process id");
    let directory = Path::new(words.next().expect("a directory"));
    // Its own name: a node in a chroot sees another path.
    let name = directory.file_name().and_then(OsStr::to_str).expect("a name");
    assert!(Path::new("/proc").join(pid).exists());
    // The supervisor, the Erlang VM and its helpers, epmd.
    assert!(processes_of(name).len() >= 3);

    process.kill().expect("SIGKILL");
    process.wait().expect("it ends");
    output.read_to_end(&mut Vec::new()).expect("nobody else holds its output");
    let killed = Instant::now();
    while !processes_of(name).is_empty() || directory.exists() {
        assert!(killed.elapsed() < Duration::from_secs(10), "left over: {:?}", processes_of(name));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes in whose arguments or environment the name occurs.
fn processes_of(name: &str) -> Vec<String> {
    let contains = |path: &Path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(name.len()).any(|window| window == name.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").expect("Linux");
    let paths = processes.flatten().map(|entry| entry.path());
    paths
        .filter(|path| contains(&path.join("cmdline")) || contains(&path.join("environ")))
        .map(|path| path.display().to_string())
        .collect()
}
