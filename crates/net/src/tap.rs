//! Connections of the simulated network that a test listens in on, and may break at any byte.

use std::fmt::Debug;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpStream, tcp};

/// Hears what is sent.
pub trait Tap: Send + Sync + Debug {
    /// `bytes` are about to go from `local` to `peer`. Answers how many of them may; if not all, then the
    /// connection breaks behind those, for both ends.
    fn passes(&self, local: SocketAddr, peer: SocketAddr, bytes: &[u8]) -> usize;
}

/// Shared by the two directions of one end of a connection.
#[derive(Debug)]
struct End {
    tap: Option<Arc<dyn Tap>>,
    local: SocketAddr,
    peer: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    broken: bool,
    reader: Option<Waker>,
}

impl End {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken() -> io::Error {
        io::Error::new(ErrorKind::ConnectionReset, "broken by a test")
    }

    /// Before a read: an error if the connection is broken.
    fn read(&self, cx: &Context<'_>) -> io::Result<()> {
        let mut state = self.state();
        if state.broken {
            return Err(End::broken());
        }
        if self.tap.is_some() {
            state.reader = Some(cx.waker().clone());
        }
        Ok(())
    }

    /// Before a write: how many bytes may go.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tap) = &self.tap else { return Ok(bytes.len()) };
        if self.state().broken {
            return Err(End::broken());
        }
        let passed = tap.passes(self.local, self.peer, bytes);
        if passed < bytes.len() {
            let mut state = self.state();
            state.broken = true;
            if let Some(reader) = state.reader.take() {
                reader.wake();
            }
            if passed == 0 {
                return Err(End::broken());
            }
        }
        Ok(passed)
    }
}

/// One end of a connection, or one direction of it.
#[derive(Debug)]
pub struct Tapped<T> {
    inner: T,
    end: Arc<End>,
    /// So many bytes of the next write were let through, and the network had no room for them yet.
    let_through: usize,
}

impl Tapped<TcpStream> {
    pub(crate) fn new(inner: TcpStream, tap: Option<Arc<dyn Tap>>) -> io::Result<Tapped<TcpStream>> {
        let (local, peer) = (inner.local_addr()?, inner.peer_addr()?);
        let end = Arc::new(End { tap, local, peer, state: Mutex::default() });
        Ok(Tapped { inner, end, let_through: 0 })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.peer_addr()
    }

    pub(crate) fn into_split(self) -> (Tapped<tcp::OwnedReadHalf>, Tapped<tcp::OwnedWriteHalf>) {
        let (read, write) = self.inner.into_split();
        let end = self.end;
        (
            Tapped { inner: read, end: end.clone(), let_through: 0 },
            Tapped { inner: write, end, let_through: self.let_through },
        )
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tapped<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.end.read(cx)?;
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tapped<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.let_through == 0 {
            this.let_through = this.end.write(data)?;
        }
        let allowed = this.let_through.min(data.len());
        let written = std::task::ready!(Pin::new(&mut this.inner).poll_write(cx, &data[..allowed]))?;
        this.let_through = allowed - written;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.end.tap.is_none() {
            return Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices);
        }
        let data: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(cx, &data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored() || self.end.tap.is_some()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
