//! One TCP connection of the userspace stack.

use super::driver::{Shared, Stack, add_socket, address};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A TCP connection through the mesh. Dropping it closes it; what was written is delivered.
pub struct MeshStream {
    shared: Arc<Shared>,
    handle: SocketHandle,
    peer: SocketAddr,
}

impl MeshStream {
    /// Sends the SYN.
    pub(super) fn open(shared: Arc<Shared>, to: SocketAddr) -> io::Result<Self> {
        let handle = {
            let mut stack = shared.lock();
            let port = stack
                .free_port()
                .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no local port is free"))?;
            let Stack {
                interface, sockets, ..
            } = &mut *stack;
            let handle = add_socket(sockets);
            let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
            let remote = (address(to.ip()), to.port());
            if let Err(e) = socket.connect(interface.context(), remote, port) {
                sockets.remove(handle);
                let text = format!("cannot connect to {to} from the mesh stack: {e}");
                return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
            }
            handle
        };
        shared.wake();
        Ok(Self {
            shared,
            handle,
            peer: to,
        })
    }

    /// Takes over an accepted socket.
    pub(super) fn accepted(shared: Arc<Shared>, handle: SocketHandle, peer: SocketAddr) -> Self {
        Self {
            shared,
            handle,
            peer,
        }
    }

    /// Waits for the connection to open.
    pub(super) async fn established(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            self.with(|socket| match socket.state() {
                tcp::State::SynSent | tcp::State::SynReceived => {
                    socket.register_send_waker(cx.waker());
                    socket.register_recv_waker(cx.waker());
                    Poll::Pending
                }
                tcp::State::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionRefused)),
                _ => Poll::Ready(Ok(())),
            })
        })
        .await
        .map_err(|kind| io::Error::new(kind, format!("{} refused the connection", self.peer)))
    }

    fn with<R>(&self, f: impl FnOnce(&mut tcp::Socket<'static>) -> R) -> R {
        f(self
            .shared
            .lock()
            .sockets
            .get_mut::<tcp::Socket<'static>>(self.handle))
    }

    fn reset(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::ConnectionReset,
            format!("{} is gone", self.peer),
        )
    }
}

impl AsyncRead for MeshStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = self.with(|socket| {
            if socket.can_recv() {
                let read = socket.recv(|bytes| {
                    let n = bytes.len().min(buf.remaining());
                    buf.put_slice(&bytes[..n]);
                    (n, ())
                });
                return Poll::Ready(read.map_err(|_| self.reset()));
            }
            match socket.recv(|_| (0, ())) {
                Err(tcp::RecvError::Finished) => Poll::Ready(Ok(())),
                Err(tcp::RecvError::InvalidState) => Poll::Ready(Err(self.reset())),
                Ok(()) => {
                    socket.register_recv_waker(cx.waker());
                    Poll::Pending
                }
            }
        });
        if result.is_ready() {
            // The window has grown.
            self.shared.wake();
        }
        result
    }
}

impl AsyncWrite for MeshStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = self.with(|socket| match socket.send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            Ok(sent) => Poll::Ready(Ok(sent)),
            Err(tcp::SendError::InvalidState) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                format!("the connection to {} is closed", self.peer),
            ))),
        });
        if result.is_ready() {
            self.shared.wake();
        }
        result
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.wake();
        Poll::Ready(Ok(()))
    }

    /// Waits until the other end has acknowledged everything that was written.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = self.with(|socket| {
            socket.close();
            if socket.send_queue() == 0 || !socket.is_active() {
                return true;
            }
            socket.register_send_waker(cx.waker());
            false
        });
        self.shared.wake();
        if done {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

impl Drop for MeshStream {
    fn drop(&mut self) {
        self.shared.lock().abandon(self.handle);
        self.shared.wake();
    }
}
