//! What a relay does to the connections of an echo server.

#![expect(clippy::unwrap_used, reason = "in what the tests share")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ponos_testbed::Relay;

/// Long enough for what should arrive, and awaited in full for what should not.
const MOMENT: Duration = Duration::from_millis(150);

#[derive(Default)]
struct Seen {
    bytes: AtomicUsize,
    /// How connections ended: `None` for FIN.
    ends: Mutex<Vec<Option<ErrorKind>>>,
}

/// Sends back what it receives.
fn echo() -> (Relay, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Seen::default());
    std::thread::spawn({
        let seen = Arc::clone(&seen);
        move || {
            for stream in listener.incoming() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || {
                    let end = serve(stream.unwrap(), &seen);
                    seen.ends.lock().unwrap().push(end);
                });
            }
        }
    });
    (Relay::to(port), seen)
}

fn serve(mut stream: TcpStream, seen: &Seen) -> Option<ErrorKind> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(count) => {
                seen.bytes.fetch_add(count, Ordering::SeqCst);
                if let Err(error) = stream.write_all(&buffer[..count]) {
                    return Some(error.kind());
                }
            }
            Err(error) => return Some(error.kind()),
        }
    }
}

fn connect(relay: &Relay) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", relay.port())).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn ask(mut stream: &TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    expect(stream, text);
}

fn expect(mut stream: &TcpStream, text: &[u8]) {
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}

fn expect_nothing(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(MOMENT)).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
}

fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn everything_passes_in_order_and_ends_are_passed_on() {
    let (relay, seen) = echo();
    let mut stream = connect(&relay);
    let sent: Vec<u8> = (0..20_000_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let writer = std::thread::spawn({
        let (mut stream, sent) = (stream.try_clone().unwrap(), sent.clone());
        move || {
            stream.write_all(&sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == sent, "what came back is what was sent");
    writer.join().unwrap();
    until("the connection ends", || relay.connections() == 0);
    assert_eq!(*seen.ends.lock().unwrap(), [None]);
}

#[test]
fn a_cut_closes_what_there_is_and_takes_new_connections() {
    let (relay, seen) = echo();
    let streams = [connect(&relay), connect(&relay)];
    streams.iter().for_each(|stream| ask(stream, b"hello"));
    assert_eq!(relay.connections(), 2);
    relay.cut();
    assert_eq!(relay.connections(), 0);
    assert!(streams.iter().all(|mut stream| matches!(stream.read(&mut [0]), Ok(0))));
    until("the server notices", || *seen.ends.lock().unwrap() == [None, None]);
    ask(&connect(&relay), b"again");
}

#[test]
fn a_reset_is_seen_as_one_by_both_ends() {
    let (relay, seen) = echo();
    let mut stream = connect(&relay);
    ask(&stream, b"hello");
    relay.reset();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    until("the server notices", || *seen.ends.lock().unwrap() == [Some(ErrorKind::ConnectionReset)]);
}

#[test]
fn a_reset_does_not_wait_for_a_client_that_does_not_read() {
    let (relay, _) = echo();
    let mut stream = connect(&relay);
    stream.set_write_timeout(Some(MOMENT)).unwrap();
    while stream.write(&[0; 1 << 16]).is_ok() {}
    relay.reset();
    assert_eq!(relay.connections(), 0);
}

#[test]
fn connections_are_refused_and_taken_again() {
    let (relay, _) = echo();
    let old = connect(&relay);
    ask(&old, b"hello");
    relay.refuse(true);
    let refused = TcpStream::connect(("127.0.0.1", relay.port())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    ask(&old, b"still here");
    relay.heal();
    ask(&connect(&relay), b"again");
}

#[test]
fn half_open_connections_stay_and_are_silent_until_they_heal() {
    let (relay, seen) = echo();
    let (mut old, gone) = (connect(&relay), connect(&relay));
    ask(&old, b"hello");
    ask(&gone, b"hello");
    relay.half_open(true);
    old.write_all(b"lost?").unwrap();
    let mut new = connect(&relay);
    new.write_all(b"new").unwrap();
    drop(gone);
    expect_nothing(&old);
    expect_nothing(&new);
    assert_eq!(seen.bytes.load(Ordering::SeqCst), 10);
    assert!(seen.ends.lock().unwrap().is_empty(), "an end that closes is not noticed");
    assert_eq!(relay.connections(), 3);
    relay.heal();
    expect(&old, b"lost?");
    expect(&new, b"new");
    until("the end is noticed", || *seen.ends.lock().unwrap() == [None]);
}

#[test]
fn what_is_cut_while_half_open_is_lost() {
    let (relay, seen) = echo();
    let mut stream = connect(&relay);
    ask(&stream, b"hello");
    relay.half_open(true);
    stream.write_all(b"lost").unwrap();
    let unanswered = connect(&relay);
    until("both are there", || relay.connections() == 2);
    relay.cut();
    assert!(matches!((&unanswered).read(&mut [0]), Ok(0)));
    relay.heal();
    ask(&connect(&relay), b"new");
    assert_eq!(seen.bytes.load(Ordering::SeqCst), 8);
}

#[test]
fn answers_alone_can_be_held() {
    let (relay, seen) = echo();
    let mut stream = connect(&relay);
    ask(&stream, b"hello");
    relay.hold_answers(true);
    stream.write_all(b"world").unwrap();
    until("the server reads it", || seen.bytes.load(Ordering::SeqCst) == 10);
    expect_nothing(&stream);
    relay.hold_answers(false);
    expect(&stream, b"world");
}

#[test]
fn a_delay_is_latency_and_not_throughput() {
    const EACH_WAY: Duration = Duration::from_millis(100);
    let (relay, _) = echo();
    let mut stream = connect(&relay);
    ask(&stream, b"hello");
    relay.delay(EACH_WAY);
    let started = Instant::now();
    ask(&stream, b"slow");
    let round = started.elapsed();
    assert!(round >= 2 * EACH_WAY && round < 10 * EACH_WAY, "{round:?}");

    let started = Instant::now();
    let texts: Vec<String> = (0..200).map(|number| format!("{number:06}")).collect();
    for text in &texts {
        stream.write_all(text.as_bytes()).unwrap();
        // Chunks of their own: the relay's threads run in between.
        std::thread::yield_now();
    }
    texts.iter().for_each(|text| expect(&stream, text.as_bytes()));
    let all = started.elapsed();
    assert!(all >= 2 * EACH_WAY && all < 10 * EACH_WAY, "200 chunks are under way at once: {all:?}");
}

#[test]
fn a_server_that_is_down_cuts() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let relay = Relay::to(port);
    let mut stream = connect(&relay);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    until("it is gone", || relay.connections() == 0);
}

#[test]
fn a_dropped_relay_closes_everything() {
    let (relay, _) = echo();
    let mut stream = connect(&relay);
    ask(&stream, b"hello");
    let port = relay.port();
    drop(relay);
    assert!(matches!(stream.read(&mut [0]), Ok(0)));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}
