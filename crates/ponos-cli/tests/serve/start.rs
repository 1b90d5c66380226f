//! How it starts, and why it does not.

use std::io::Write as _;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::retries::*;
use crate::server::{Server, TOKEN, place};

#[test]
fn what_it_cannot_use_is_said_and_never_a_secret() {
    let (_dir, url) = place();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        ponos(&url, &["serve", "--listen", listen]).failed(2, "TLS");
    }
    ponos(&url, &["serve", "--listen", "nowhere"]).failed(2, "such as 127.0.0.1:8470");
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let short = Ran::of(command(&url, &serve).env("PONOS_API_TOKEN", "hunter2-hunter").output().unwrap());
    short.failed(2, "16 characters").never_says("hunter2");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"hunter2\n").unwrap();
    let name = file.path().to_str().unwrap();
    ponos(&url, &["serve", "--token-file", name]).failed(2, "16 characters").never_says("hunter2");
    // A file that others can read is told, one that they can write is refused.
    std::fs::write(file.path(), TOKEN).unwrap();
    for (mode, code, says) in
        [(0o600, 3, ""), (0o640, 3, ""), (0o644, 3, "may read"), (0o646, 2, "may write")]
    {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let ran = ponos(&url, &["serve", "--listen", "127.0.0.1:0", "--token-file", name]);
        assert_eq!(ran.code, code, "{mode:o}: {ran:?}");
        assert!(ran.err.contains(says) && ran.err.contains("chmod") != says.is_empty(), "{mode:o}: {ran:?}");
        ran.never_says(TOKEN);
    }
    ponos(&url, &["serve", "--token-file", "/nowhere"]).failed(2, "cannot be read");
    // A URL in a wrong place is quoted without what opens the broker.
    for wrong in [
        &["serve", "amqp://shop:hunter2@h/"][..],
        &["queues", "--app", "shop", "amqp://shop:hunter2@h/"],
        &["amqp://shop:hunter2@h"],
    ] {
        let ran = ponos(&url, wrong);
        assert_eq!(ran.code, 2, "{ran:?}");
        ran.never_says("hunter2");
    }
    // No broker, and one whose URL holds a password.
    let serve = |url: &str| Ran::of(command(url, &serve).env("PONOS_API_TOKEN", TOKEN).output().unwrap());
    serve(&url).failed(3, "no broker there");
    serve("amqp://shop:hunter2-hunter2@127.0.0.1:1/")
        .failed(3, "127.0.0.1")
        .never_says("hunter2")
        .never_says(TOKEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_do_not_share_a_port() {
    let (_dir, url) = place();
    let shop = shop(&url, &Printer::new()).await;
    let server = Server::start(&url);
    let listen = format!("127.0.0.1:{}", server.port);
    let second =
        command(&url, &["serve", "--listen", &listen]).env("PONOS_API_TOKEN", TOKEN).output().unwrap();
    Ran::of(second).failed(3, "cannot listen").never_says(TOKEN);
    shop.shutdown().await;
    server.end("-INT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_where_none_is_given_and_told_once() {
    let (_dir, url) = place();
    let shop = shop(&url, &Printer::new()).await;
    let mut child = command(&url, &["serve", "--listen", "localhost:0"])
        .env_remove("PONOS_API_TOKEN")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert!(first.starts_with("http://127.0.0.1:"), "{first}");
    signal(&child, "-TERM");
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    let token = told.strip_prefix("token: ").unwrap_or_else(|| panic!("{told}")).trim();
    assert!(token.len() >= 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{told}");
    assert_eq!(ended.status.code(), Some(0));
    shop.shutdown().await;
}
