//! What answers where RabbitMQ should: with certificates that are not to be trusted, and with other protocols.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ponos::core::broker::BrokerErrorKind;
use ponos::prelude::*;
use ponos::{RabbitBroker, RabbitOptions};

use super::place::DEADLINE;
use super::row::{Comes, Row};

const HERE: &str = "crates/ponos/tests/bad_input/connecting.rs";

/// What is wrong, its certificate, whether the client knows the authority, and what the error says.
const CERTIFICATES: [(&str, &str, bool, [&str; 2]); 3] = [
    (
        "a certificate that has expired",
        "expired",
        true,
        [
            "has a certificate that is not to be trusted (certificate expired: ",
            "renew RabbitMQ's certificate, or set this machine's clock",
        ],
    ),
    (
        "a certificate for another host",
        "other",
        true,
        [
            "certificate not valid for name \"localhost\"; certificate is only valid for ",
            "name the host in the broker's URL as its certificate does",
        ],
    ),
    (
        "a certificate of an unknown authority",
        "good",
        false,
        ["(UnknownIssuer)", "name the authority that signed it in the broker's URL, `?cacertfile=ca.pem`"],
    ),
];

const CONFIG: &str = "[req]\ndistinguished_name = name\n[name]\n\
    [authority]\nbasicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign, cRLSign\n\
    [here]\nbasicConstraints = CA:false\nsubjectAltName = DNS:localhost\nextendedKeyUsage = serverAuth\n\
    [elsewhere]\nbasicConstraints = CA:false\nsubjectAltName = DNS:rabbit.example.com\nextendedKeyUsage = serverAuth\n\
    [ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\nserial = serial\nnew_certs_dir = .\ncertificate = ca.pem\n\
    private_key = ca.key\ndefault_md = sha256\npolicy = any\nunique_subject = no\n[any]\ncommonName = supplied\n";

fn openssl(dir: &Path, args: &str) {
    let mut openssl = Command::new("openssl");
    openssl.args(args.split_whitespace()).current_dir(dir).stdin(Stdio::null());
    let output = openssl.output().expect("openssl: apt-get install openssl");
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}

fn make_certificates(dir: &Path) {
    std::fs::write(dir.join("openssl.cnf"), CONFIG).unwrap();
    std::fs::write(dir.join("index.txt"), "").unwrap();
    std::fs::write(dir.join("serial"), "01\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config openssl.cnf";
    openssl(
        dir,
        &format!(
            "req -x509 {key} -days 30 -extensions authority -subj /CN=authority -keyout ca.key -out ca.pem"
        ),
    );
    for (name, extensions, dates) in [
        ("good", "here", "-days 30"),
        ("other", "elsewhere", "-days 30"),
        ("expired", "here", "-startdate 20200101000000Z -enddate 20200201000000Z"),
    ] {
        openssl(dir, &format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        openssl(
            dir,
            &format!(
                "ca -batch -notext -config openssl.cnf -extensions {extensions} {dates} -in {name}.csr -out {name}.pem"
            ),
        );
    }
}

/// A TLS server that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts one with a certificate, on a free port.
    fn start(dir: &Path, name: &str) -> (Self, u16) {
        let args = format!("s_server -accept 127.0.0.1:0 -cert {name}.pem -key {name}.key -naccept 20");
        let mut command = Command::new("openssl");
        command.args(args.split_whitespace()).current_dir(dir).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it ended");
            if let Some(place) = line.trim().strip_prefix("ACCEPT ") {
                break place.rsplit_once(':').unwrap().1.parse().unwrap();
            }
        };
        // What else it says is read, so that it can go on.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        (Self(child), port)
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_to_be_trusted_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    for (input, certificate, knows, parts) in CERTIFICATES {
        let (_server, port) = Server::start(dir.path(), certificate);
        let ca = dir.path().join("ca.pem");
        let trust = if knows { format!("?cacertfile={}", ca.display()) } else { String::new() };
        let url = format!("amqps://user:s3cret@localhost:{port}/{trust}");
        // Longer than the test may take: it must not be tried again and again.
        let options = RabbitOptions::from_url(&url).unwrap().start_within(2 * DEADLINE);
        let started = Instant::now();
        let error = RabbitBroker::connect(options).await.expect_err(input);
        assert!(started.elapsed() < DEADLINE, "{input}: at once");
        let text = error.to_string();
        assert_eq!(error.kind(), BrokerErrorKind::Denied, "{input}: {text}");
        for part in parts {
            assert!(text.contains(part), "{input}: {text}");
        }
        assert!(text.contains(&format!("localhost:{port}")) && !text.contains("s3cret"), "{input}: {text}");
    }
}

#[tokio::test]
async fn what_does_not_speak_amqp_is_named_after_the_time_to_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::Write as _;
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let url = format!("amqp://user:s3cret@127.0.0.1:{port}");
    let options = RabbitOptions::from_url(&url).unwrap().start_within(millis(1));
    let error = RabbitBroker::connect(options).await.expect_err("no AMQP").to_string();
    assert!(
        error.contains("cannot be reached") && error.contains("is it running, and are host, port and"),
        "{error}"
    );
    assert!(error.contains(&port.to_string()) && !error.contains("s3cret"), "{error}");
}

pub fn rows() -> Vec<Row> {
    let row = |(input, _, _, [what, cure]): (&str, &str, bool, [&str; 2])| Row {
        number: 55,
        input: input.to_owned(),
        comes: Comes::Start,
        outcome: "does not start, is not tried again".into(),
        says: format!("… {what} … {cure}"),
        shown_by: (HERE, "a_certificate_that_is_not_to_be_trusted_is_an_error_at_once"),
    };
    let mut rows: Vec<_> = CERTIFICATES.into_iter().map(row).collect();
    rows.push(Row {
        number: 54,
        input: "another protocol at the port".into(),
        comes: Comes::Start,
        outcome: "tried for 30 s, then an error: it may be starting".into(),
        says: "… cannot be reached … is it running, and are host, port and `amqp://` (not `amqps://`) right?"
            .into(),
        shown_by: (HERE, "what_does_not_speak_amqp_is_named_after_the_time_to_start"),
    });
    rows
}
