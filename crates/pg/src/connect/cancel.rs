//! Requests to cancel what a connection executes.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::NoTls;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::conninfo::{Endpoint, Place};

/// A cancel request has no answer but the end of its connection; without a bound, a dead network would hold its sender.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes looked at together of what nobody sends.
const SCRAP: usize = 64;

/// Sends cancel requests for one connection, to the address that it reached and encrypted as it is.
#[derive(Clone)]
pub struct Canceller {
    pub(super) token: tokio_postgres::CancelToken,
    pub(super) tls: Option<MakeRustlsConnect>,
    pub(super) endpoint: Endpoint,
    pub(super) address: Option<IpAddr>,
}

impl Canceller {
    /// Asks the server to cancel what the connection executes now, if anything. Success means that the
    /// request was delivered, not that something was cancelled.
    pub async fn cancel(&self) -> Result<(), io::Error> {
        match tokio::time::timeout(CANCEL_TIMEOUT, Box::pin(self.request())).await {
            Ok(sent) => sent,
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        }
    }

    async fn request(&self) -> Result<(), io::Error> {
        let port = self.endpoint.port;
        match (&self.endpoint.place, self.address) {
            (Place::Socket(folder), _) => {
                self.deliver(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?).await
            }
            (Place::Host(_) | Place::Address { .. }, Some(address)) => {
                self.deliver(TcpStream::connect((address, port)).await?).await
            }
            (Place::Host(_) | Place::Address { .. }, None) => {
                self.deliver(TcpStream::connect((self.endpoint.host(), port)).await?).await
            }
        }
    }

    async fn deliver<S>(&self, stream: S) -> Result<(), io::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Patient(stream);
        let sent = match &self.tls {
            Some(tls) => {
                let Ok(tls) = MakeTlsConnect::<Patient<S>>::make_tls_connect(&mut tls.clone(), &self.endpoint.host());
                self.token.cancel_query_raw(stream, tls).await
            }
            None => self.token.cancel_query_raw(stream, NoTls).await,
        };
        sent.map_err(io::Error::other)
    }
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canceller").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// A connection that the other side is let close first, as libpq does. The driver would close it as soon as the request
/// is written: a PgBouncer that has not passed it on by then forgets it, and version 1.18 dies of it.
struct Patient<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut scrap = [0; SCRAP];
            let mut scrap = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.0).poll_read(cx, &mut scrap)) {
                Ok(()) if !scrap.filled().is_empty() => {}
                // Closed, or cut off: either way nobody listens any more.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
