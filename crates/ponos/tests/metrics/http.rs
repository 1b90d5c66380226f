//! A client of a few lines.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

/// Asks once; an error when nobody listens.
pub async fn try_get(addr: SocketAddr, path: &str, accept: &str) -> std::io::Result<Answer> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    });
    let answer = asked.await.unwrap()?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type").then(|| value.to_owned())
    };
    Ok(Answer {
        status: status.parse().unwrap(),
        content_type: lines.find_map(header).unwrap_or_default(),
        body: body.to_owned(),
    })
}

/// Asks once.
pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    try_get(addr, path, "*/*").await.expect("somebody listens")
}

/// Asks for the status.
pub async fn status(addr: SocketAddr, path: &str) -> u16 {
    get(addr, path).await.status
}
