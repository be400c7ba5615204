//! The accept loop: TLS, bounds, HTTP/1.1.

use crate::error::LighthouseError;
use crate::guard::Impatient;
use crate::http::Peer;
use crate::limits::{Connections, Place};
use axum::{Extension, Router};
use holdfast_tls::{ServerConfig, accept, peer_key};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request's head must have come by then; also how long a quiet connection is kept.
const HEAD: Duration = Duration::from_secs(90);
/// Longest head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// How long to wait when the system has no more descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Listens on `address`. `[::]` takes IPv4 too; where there is no IPv6, `0.0.0.0` is taken.
///
/// # Errors
/// [`LighthouseError::Bind`].
pub fn listen(address: SocketAddr) -> Result<TcpListener, LighthouseError> {
    let failed = |source| LighthouseError::Bind {
        address,
        protocol: "TCP",
        source,
    };
    match bind(address) {
        Err(e) if address.ip() == std::net::Ipv6Addr::UNSPECIFIED && no_ipv6(&e) => {
            bind((std::net::Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    }
    .map_err(failed)
}

/// EAFNOSUPPORT or EADDRNOTAVAIL.
pub(crate) fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(97)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != std::net::Ipv6Addr::UNSPECIFIED)?;
    }
    // A restarted lighthouse takes its port back at once.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// Serves connections for ever; they end with the future.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    connections: Connections,
) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
        };
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = connections.take(source.ip()) else {
            tracing::warn!(%source, "too many connections from this address");
            continue;
        };
        let (tls, router, place) = (tls.clone(), router.clone(), Arc::new(place));
        open.spawn(async move {
            let served = connection(stream, source, tls, router, place.clone());
            let served = tokio::select! {
                served = served => served,
                () = place.ends() => Err("a stranger's, and its time is over".into()),
            };
            if let Err(error) = served {
                tracing::debug!(%source, error, "connection ended");
            }
        });
    }
}

async fn connection(
    stream: TcpStream,
    source: SocketAddr,
    tls: Arc<ServerConfig>,
    router: Router,
    place: Arc<Place>,
) -> Result<(), String> {
    let words = |e: &dyn std::fmt::Display| e.to_string();
    stream.set_nodelay(true).map_err(|e| words(&e))?;
    // A peer that vanished without a word is noticed within about two minutes.
    let alive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket2::SockRef::from(&stream)
        .set_tcp_keepalive(&alive)
        .map_err(|e| words(&e))?;
    let stream = accept(Impatient::new(stream), tls)
        .await
        .map_err(|e| words(&e))?;
    let peer = Peer {
        source,
        key: peer_key(stream.get_ref().1),
        place: place.clone(),
    };
    // The place goes with the connection, upgrades included.
    let stream = Placed {
        stream,
        _place: place,
    };
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
        .map_err(|e| words(&e))
}

/// A stream with the place that it takes.
struct Placed<S> {
    stream: S,
    _place: Arc<Place>,
}

mod placed {
    use super::Placed;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}
