//! Where it listens: on this machine only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use tokio::net::TcpListener;

use crate::error::CliError;

/// An address that only this machine reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address(SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
            None => text.parse().ok(),
        };
        let Some(address) = address else {
            return Err(
                "write an address of this machine with a port, such as 127.0.0.1:8470 or [::1]:8470".into()
            );
        };
        if !is_loopback(address.ip()) {
            return Err(format!(
                "{} can be reached from elsewhere, and there is no TLS here: listen on 127.0.0.1, and put a proxy with TLS in front",
                address.ip()
            ));
        }
        Ok(Self(address))
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

impl Address {
    /// # Errors
    ///
    /// When another program listens there.
    pub(super) async fn bind(self) -> Result<TcpListener, CliError> {
        TcpListener::bind(self.0).await.map_err(|error| {
            CliError::broker(
                format!("cannot listen on {}: {error}", self.0),
                "end the other program there, or name another port with --listen 127.0.0.1:PORT",
            )
        })
    }
}

pub(super) fn unusable(error: std::io::Error) -> CliError {
    CliError::broker(format!("cannot listen: {error}"), "try again, or name another port with --listen")
}

/// Whether a request means this server by its name: another one was led here by a foreign page's name server.
pub(super) fn is_meant(host: &str, port: u16) -> bool {
    let names = ["127.0.0.1", "localhost", "[::1]"];
    names.iter().any(|name| {
        let rest = host.get(..name.len()).filter(|head| head.eq_ignore_ascii_case(name));
        rest.is_some() && host[name.len()..].strip_prefix(':').is_some_and(|it| it == port.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_listened_to() {
        for good in ["127.0.0.1:8470", "[::1]:1", "localhost:0", "127.9.9.9:80"] {
            assert!(good.parse::<Address>().is_ok(), "{good}");
        }
        for bad in ["0.0.0.0:8470", "[::]:8470", "192.168.1.2:80", "[::ffff:127.0.0.1]:80"] {
            let error = bad.parse::<Address>().unwrap_err();
            assert!(error.contains("TLS") && error.contains("proxy"), "{bad}: {error}");
        }
        for bad in ["", "8470", "127.0.0.1", "localhost", "localhost:x", "example.org:80"] {
            assert!(bad.parse::<Address>().unwrap_err().contains("such as 127.0.0.1:8470"), "{bad}");
        }
    }

    #[test]
    fn a_foreign_name_is_not_meant() {
        for good in ["127.0.0.1:8470", "LocalHost:8470", "[::1]:8470"] {
            assert!(is_meant(good, 8470), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1",
            "localhost",
            "localhost:847",
            "localhost:84700",
            "evil.org:8470",
            "localhost.evil.org:8470",
            "evil.org@localhost:8470",
            "127.0.0.1:8470.evil.org",
            "127.0.0.1é:8470",
        ] {
            assert!(!is_meant(bad, 8470), "{bad}");
        }
    }
}
