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
    /// Bytes that were read: up to `given` the library has them, up to `looked` they may be given.
    held: Vec<u8>,
    given: usize,
    looked: usize,
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
        Self { inner, held: Vec::with_capacity(CHUNK), given: 0, looked: 0, unseen: 0 }
    }

    /// Looks at the frames that are there as a whole.
    fn look(&mut self) {
        loop {
            let passed = self.unseen.min(self.held.len() - self.looked);
            self.looked += passed;
            self.unseen -= passed;
            let ahead = &mut self.held[self.looked..];
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

    /// Gives what was looked at.
    fn give(&mut self, out: &mut [u8]) -> usize {
        let len = out.len().min(self.looked - self.given);
        out[..len].copy_from_slice(&self.held[self.given..self.given + len]);
        self.given += len;
        if self.given == self.held.len() {
            self.held.clear();
            (self.given, self.looked) = (0, 0);
        }
        len
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        while this.given == this.looked {
            if this.given > 0 {
                this.held.drain(..this.given);
                this.looked -= this.given;
                this.given = 0;
            }
            let end = this.held.len();
            this.held.resize(end + CHUNK, 0);
            let read = Pin::new(&mut this.inner).poll_read(cx, &mut this.held[end..]);
            this.held.truncate(end + *read_len(&read));
            if ready!(read)? == 0 {
                // The end; a frame that was cut is nobody's.
                this.looked = this.held.len();
                return Poll::Ready(Ok(this.give(out)));
            }
            this.look();
        }
        Poll::Ready(Ok(this.give(out)))
    }
}

/// How many bytes came; none while none did.
fn read_len(read: &Poll<io::Result<usize>>) -> &usize {
    match read {
        Poll::Ready(Ok(len)) => len,
        _ => &0,
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
