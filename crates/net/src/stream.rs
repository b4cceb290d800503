//! Sockets: the real ones of tokio, or with the feature `sim` those of the simulated network.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, tcp};

#[cfg(feature = "sim")]
use crate::tap::Tapped;

/// A network to connect and listen on.
#[derive(Clone, Debug)]
pub struct Net(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Real,
    #[cfg(feature = "sim")]
    Sim(Option<std::sync::Arc<dyn crate::tap::Tap>>),
}

impl Net {
    /// The machine's network.
    pub fn real() -> Net {
        Net(Kind::Real)
    }

    /// turmoil's network; only inside one of its hosts.
    #[cfg(feature = "sim")]
    pub fn sim() -> Net {
        Net(Kind::Sim(None))
    }

    /// The same, listened in on.
    #[cfg(feature = "sim")]
    pub fn tapped(tap: std::sync::Arc<dyn crate::tap::Tap>) -> Net {
        Net(Kind::Sim(Some(tap)))
    }

    /// Connects to `address` (`host:port`), with Nagle's algorithm off.
    ///
    /// # Errors
    /// `TimedOut` after `limit`, else what the network says; the message names the address.
    pub async fn connect(&self, address: &str, limit: Duration) -> io::Result<Stream> {
        let connected = match tokio::time::timeout(limit, self.connect_unbounded(address)).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer to connecting within {limit:?}"),
            )),
        };
        connected.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
    }

    async fn connect_unbounded(&self, address: &str) -> io::Result<Stream> {
        match &self.0 {
            Kind::Real => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            #[cfg(feature = "sim")]
            Kind::Sim(tap) => {
                let stream = turmoil::net::TcpStream::connect(address).await?;
                Ok(Stream::Sim(Tapped::new(stream, tap.clone())?))
            }
        }
    }

    /// Listens on `address`; port 0 picks a free one.
    ///
    /// # Errors
    /// What the network says, with the address in the message.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        let listened = match &self.0 {
            Kind::Real => TcpListener::bind(address).await.map(Listener::Tcp),
            #[cfg(feature = "sim")]
            Kind::Sim(tap) => {
                turmoil::net::TcpListener::bind(address).await.map(|bound| Listener::Sim(bound, tap.clone()))
            }
        };
        listened.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
    }
}

/// A listening socket.
pub enum Listener {
    /// A real one.
    Tcp(TcpListener),
    /// One of the simulated network.
    #[cfg(feature = "sim")]
    Sim(turmoil::net::TcpListener, Option<std::sync::Arc<dyn crate::tap::Tap>>),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({:?})", self.local_addr())
    }
}

impl Listener {
    /// The next connection, with Nagle's algorithm off, and its peer's address.
    ///
    /// # Errors
    /// What the network says; running out of file descriptors is one of them, so callers pause.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), peer))
            }
            #[cfg(feature = "sim")]
            Listener::Sim(listener, tap) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Sim(Tapped::new(stream, tap.clone())?), peer))
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr(),
            #[cfg(feature = "sim")]
            Listener::Sim(listener, _) => listener.local_addr(),
        }
    }
}

/// Forwards one call to the stream inside.
macro_rules! each {
    ($kind:ident, $this:expr, $inner:ident => $call:expr) => {
        match $this {
            $kind::Tcp($inner) => $call,
            #[cfg(feature = "sim")]
            $kind::Sim($inner) => $call,
        }
    };
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// A real one.
    Tcp(TcpStream),
    /// One of the simulated network.
    #[cfg(feature = "sim")]
    Sim(Tapped<turmoil::net::TcpStream>),
}

impl Stream {
    /// The address of this end.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        each!(Stream, self, stream => stream.local_addr())
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        each!(Stream, self, stream => stream.peer_addr())
    }

    /// The two directions apart, for two tasks.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Stream::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            #[cfg(feature = "sim")]
            Stream::Sim(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Sim(read), WriteHalf::Sim(write))
            }
        }
    }
}

/// The receiving direction of a [`Stream`].
#[derive(Debug)]
pub enum ReadHalf {
    /// Of a real connection.
    Tcp(tcp::OwnedReadHalf),
    /// Of a simulated one.
    #[cfg(feature = "sim")]
    Sim(Tapped<turmoil::net::tcp::OwnedReadHalf>),
}

/// The sending direction of a [`Stream`]; dropping it closes that direction.
#[derive(Debug)]
pub enum WriteHalf {
    /// Of a real connection.
    Tcp(tcp::OwnedWriteHalf),
    /// Of a simulated one.
    #[cfg(feature = "sim")]
    Sim(Tapped<turmoil::net::tcp::OwnedWriteHalf>),
}

macro_rules! reads {
    ($kind:ident) => {
        impl AsyncRead for $kind {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                each!($kind, self.get_mut(), inner => Pin::new(inner).poll_read(cx, buf))
            }
        }
    };
}

macro_rules! writes {
    ($kind:ident) => {
        impl AsyncWrite for $kind {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                data: &[u8],
            ) -> Poll<io::Result<usize>> {
                each!($kind, self.get_mut(), inner => Pin::new(inner).poll_write(cx, data))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                each!($kind, self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, slices))
            }

            fn is_write_vectored(&self) -> bool {
                each!($kind, self, inner => inner.is_write_vectored())
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!($kind, self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!($kind, self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
            }
        }
    };
}

reads!(Stream);
reads!(ReadHalf);
writes!(Stream);
writes!(WriteHalf);
