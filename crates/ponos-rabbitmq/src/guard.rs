//! The stream under a connection, on which frames are repaired before the client library reads them; see
//! [`repair`](crate::repair).

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};

use crate::repair;

/// What is read from the socket at once.
const CHUNK: usize = 32 * 1024;

/// The largest frame that is looked at; RabbitMQ's are at most 128 KiB unless it was configured otherwise.
const LARGEST: usize = 4 << 20;

/// Kind, channel and size in front of a frame's payload.
const FRAME_HEAD: usize = 7;

/// Connects as the client library would, over a stream that repairs what it reads.
pub(crate) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: OwnedTLSConfig,
) -> lapin::Result<Connection> {
    let tokio = Runtime::tokio_current();
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), Guarded(tokio.clone())));
    let connect = async move |uri: AMQPUri, _: Runtime<_>| {
        let stream = uri.connect_with_config_async(tls.as_ref(), &tokio).await?;
        Ok(AsyncTcpStream::Plain(Guard::new(stream)))
    };
    Connection::connector(uri, runtime, connect, properties).await
}

type TokioRuntime = Runtime<Tokio>;
type Inner = AsyncTcpStream<<TokioRuntime as Reactor>::TcpStream>;

/// Tokio's reactor, whose streams are guarded ones.
#[derive(Clone, Debug)]
struct Guarded(TokioRuntime);

impl Reactor for Guarded {
    type TcpStream = Guard<Inner>;
    type Sleep = <TokioRuntime as Reactor>::Sleep;

    /// Not for us: connections are made by [`connect`].
    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        addr: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(addr);
        async move { Ok(Guard::new(AsyncTcpStream::Plain(connecting.await?))) }
    }
}

/// A stream of frames. What is written is passed on as it is.
struct Guard<S> {
    inner: S,
    /// Room for what is read: up to `given` the library has it, up to `looked` it may be given, up to `end` it is there.
    held: Vec<u8>,
    given: usize,
    looked: usize,
    end: usize,
    /// How many of the bytes to come belong to a frame that is passed on unseen.
    unseen: usize,
}

impl<S> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl<S> Guard<S> {
    fn new(inner: S) -> Self {
        Self { inner, held: vec![0; CHUNK], given: 0, looked: 0, end: 0, unseen: 0 }
    }

    /// Looks at the frames that are there as a whole.
    fn look(&mut self) {
        loop {
            let passed = self.unseen.min(self.end - self.looked);
            self.looked += passed;
            self.unseen -= passed;
            let ahead = &mut self.held[self.looked..self.end];
            let Some((head, _)) = ahead.split_first_chunk::<FRAME_HEAD>() else { return };
            let [kind, .., a, b, c, d] = *head;
            let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            let whole = size.saturating_add(FRAME_HEAD + 1);
            if !repair::concerns(kind) || whole > LARGEST {
                self.unseen = whole;
                continue;
            }
            let Some(frame) = ahead.get_mut(..whole) else { return };
            let repaired = repair::repair(kind, &mut frame[FRAME_HEAD..FRAME_HEAD + size]);
            if repaired.is_any() {
                tracing::warn!(
                    texts = repaired.texts,
                    nestings = repaired.nestings,
                    "a message has properties that nobody can read (no UTF-8, or nested too deep): they were replaced"
                );
            }
            self.looked += whole;
        }
    }

    /// Everything that may be given was given: moves what is left to the front, where more can follow.
    fn make_room(&mut self) {
        self.held.copy_within(self.given..self.end, 0);
        self.end -= self.given;
        self.looked -= self.given;
        self.given = 0;
        if self.held.len() - self.end < CHUNK / 2 {
            self.held.resize(self.held.len() + CHUNK, 0);
        } else if self.end == 0 && self.held.len() > CHUNK {
            self.held = vec![0; CHUNK];
        }
    }

    /// Gives what was looked at.
    fn give(&mut self, out: &mut [u8]) -> usize {
        let len = out.len().min(self.looked - self.given);
        out[..len].copy_from_slice(&self.held[self.given..self.given + len]);
        self.given += len;
        len
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        while this.given == this.looked {
            this.make_room();
            let read = Pin::new(&mut this.inner).poll_read(cx, &mut this.held[this.end..]);
            match ready!(read)? {
                // The end; of a frame that was cut, what is there.
                0 if this.looked == this.end => return Poll::Ready(Ok(0)),
                0 => this.looked = this.end,
                len => {
                    this.end += len;
                    this.look();
                }
            }
        }
        Poll::Ready(Ok(this.give(out)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes at a time.
    struct Slow(Vec<u8>, usize);

    impl AsyncRead for Slow {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            out: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let len = self.1.min(out.len()).min(self.0.len());
            out[..len].copy_from_slice(&self.0[..len]);
            self.0.drain(..len);
            Poll::Ready(Ok(len))
        }
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, 0, 1][..], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload, &[0xce]].concat()
    }

    async fn all(bytes: Vec<u8>, at_a_time: usize, out: usize) -> Vec<u8> {
        let mut guard = Guard::new(Slow(bytes, at_a_time));
        let mut read = Vec::new();
        let mut buffer = vec![0; out];
        loop {
            match std::future::poll_fn(|cx| Pin::new(&mut guard).poll_read(cx, &mut buffer)).await.unwrap() {
                0 => return read,
                len => read.extend_from_slice(&buffer[..len]),
            }
        }
    }

    #[tokio::test]
    async fn frames_come_through_whole_however_they_are_cut() {
        let header = |id: &[u8]| {
            let size = u8::try_from(id.len()).unwrap();
            frame(2, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0x80, size][..], id].concat())
        };
        let others = [frame(3, &vec![0xff; 70_000]), frame(8, b""), frame(1, &[0, 60, 0, 80, 0, 0])].concat();
        let sent = [header(b"good"), others.clone(), header(b"b\xffd"), others.clone(), header(b"")].concat();
        let expected = [header(b"good"), others.clone(), header(b"b?d"), others, header(b"")].concat();
        for at_a_time in [1, 5, 1000, CHUNK, 1 << 20] {
            for out in [1, 100, CHUNK] {
                assert!(all(sent.clone(), at_a_time, out).await == expected, "{at_a_time}, {out}");
            }
        }
        // A connection that ends within a frame, and a server that speaks something else.
        for cut in [b"AMQP\0\0\x09\x01".to_vec(), expected[..9].to_vec(), b"\x02\0".to_vec()] {
            assert_eq!(all(cut.clone(), 3, 100).await, cut);
        }
    }
}
