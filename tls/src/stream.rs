//! Handshakes over any byte stream, bounded in time.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The client's end.
pub type ClientStream<S> = tokio_rustls::client::TlsStream<S>;
/// The server's end.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;

/// A handshake that takes longer is given up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

fn late(_: tokio::time::error::Elapsed) -> Error {
    let secs = HANDSHAKE_TIMEOUT.as_secs();
    Error::new(
        ErrorKind::TimedOut,
        format!("no TLS handshake within {secs} s"),
    )
}

/// Shakes hands as a client. The name sent is always the same: keys decide, not names.
///
/// A server that refuses this client's key says so in its first record, not here (TLS 1.3).
///
/// # Errors
/// Of the stream; of TLS (see [`crate::pin_mismatch`]); `TimedOut`.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: Arc<ClientConfig>,
) -> Result<ClientStream<S>, Error> {
    let name = ServerName::try_from("holdfast").map_err(Error::other)?;
    timeout(
        HANDSHAKE_TIMEOUT,
        TlsConnector::from(config).connect(name, stream),
    )
    .await
    .map_err(late)?
}

/// Shakes hands as a server.
///
/// # Errors
/// Of the stream; of TLS (see [`crate::pin_mismatch`]); `TimedOut`.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: Arc<ServerConfig>,
) -> Result<ServerStream<S>, Error> {
    timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream))
        .await
        .map_err(late)?
}
