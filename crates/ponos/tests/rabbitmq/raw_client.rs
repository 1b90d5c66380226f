//! A client that writes AMQP's bytes itself, for messages that no library would write.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// A connection with one open channel.
pub struct RawClient(TcpStream);

/// A text of at most 255 bytes, of any bytes.
pub fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// Bytes with their length in front.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Tables in one another, so many, as a table.
pub fn nested(levels: usize) -> Vec<u8> {
    (0..levels).fold(long(b""), |inner, _| long(&[&b"\x01xF"[..], &inner].concat()))
}

impl RawClient {
    pub fn connect(port: u16, vhost: &str) -> Self {
        let mut client = Self(TcpStream::connect(("127.0.0.1", port)).unwrap());
        client.0.write_all(b"AMQP\0\0\x09\x01").unwrap();
        client.expect((10, 10));
        let login = [long(b""), short(b"PLAIN"), long(b"\0guest\0guest"), short(b"en_US")].concat();
        client.method(0, (10, 11), &login);
        let tune = client.expect((10, 30));
        client.method(0, (10, 31), &[&tune[..6], &[0, 0]].concat());
        client.method(0, (10, 40), &[&short(vhost.as_bytes())[..], &[0, 0]].concat());
        client.expect((10, 41));
        client.method(1, (20, 10), &[0]);
        client.expect((20, 11));
        client.method(1, (85, 10), &[0]);
        client.expect((85, 11));
        client
    }

    /// Publishes with a routing key and a property list of any bytes, and waits for the confirm.
    pub fn publish(&mut self, exchange: &str, key: &[u8], (flags, properties): (u16, &[u8]), body: &[u8]) {
        self.method(1, (60, 40), &[&[0, 0][..], &short(exchange.as_bytes()), &short(key), &[0]].concat());
        let size = (body.len() as u64).to_be_bytes();
        self.frame(2, 1, &[&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat());
        self.frame(3, 1, body);
        self.expect((60, 80));
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let frame = [&[kind][..], &channel.to_be_bytes(), &long(payload), &[0xce]].concat();
        self.0.write_all(&frame).unwrap();
    }

    fn method(&mut self, channel: u16, (class, method): (u16, u16), arguments: &[u8]) {
        self.frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat());
    }

    /// The arguments of the next method, which must be this one.
    fn expect(&mut self, expected: (u16, u16)) -> Vec<u8> {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).unwrap();
        let size = u32::from_be_bytes(head[3..].try_into().unwrap()) as usize;
        let mut payload = vec![0; size + 1];
        self.0.read_exact(&mut payload).unwrap();
        let number = |at: usize| u16::from_be_bytes(payload[at..at + 2].try_into().unwrap());
        assert_eq!((number(0), number(2)), expected, "{}", String::from_utf8_lossy(&payload));
        payload[4..size].to_vec()
    }
}
