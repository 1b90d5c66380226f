//! Certificates for one node, made by the `openssl` command.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(super) const AUTHORITY: &str = "ca.pem";
pub(super) const SERVER: &str = "server.pem";
pub(super) const SERVER_KEY: &str = "server.key";

/// What a client needs for TLS: PEM files, which go with the node. Keys are PKCS #8.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The authority that signed the certificates of the server (for `localhost` and 127.0.0.1) and of the client.
    pub authority: PathBuf,
    /// A client's certificate, for the name `client`.
    pub client: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

impl Tls {
    pub(super) fn make(directory: &Path) -> Self {
        const CONFIG: &str = "[req]\ndistinguished_name = name\n[name]\n\
            [authority]\nbasicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign, cRLSign\n\
            subjectKeyIdentifier = hash\n\
            [server]\nbasicConstraints = CA:false\nsubjectAltName = DNS:localhost, IP:127.0.0.1\n\
            extendedKeyUsage = serverAuth\n\
            [client]\nbasicConstraints = CA:false\nextendedKeyUsage = clientAuth\n";
        std::fs::write(directory.join("openssl.cnf"), CONFIG).expect("the node's directory can be written");
        let self_signed =
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -config openssl.cnf";
        openssl(
            directory,
            &format!("{self_signed} -extensions authority -subj /CN=testbed -keyout ca.key -out ca.pem"),
        );
        for (who, name) in [("server", "localhost"), ("client", "client")] {
            openssl(
                directory,
                &format!(
                    "{self_signed} -CA ca.pem -CAkey ca.key -extensions {who} -subj /CN={name} \
                     -keyout {who}.key -out {who}.pem"
                ),
            );
        }
        Self {
            authority: directory.join(AUTHORITY),
            client: directory.join("client.pem"),
            client_key: directory.join("client.key"),
        }
    }
}

fn openssl(directory: &Path, args: &str) {
    let output = Command::new("openssl")
        .args(args.split_whitespace())
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("openssl: {error}: apt-get install openssl"));
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}
