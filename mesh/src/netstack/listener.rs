//! Accepting connections in the userspace stack.

use super::driver::Shared;
use super::stream::MeshStream;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

/// Connections that may be opening at a time.
const BACKLOG: usize = 8;

/// Accepts connections on one port of the stack.
pub struct MeshListener {
    shared: Arc<Shared>,
    port: u16,
    waiting: Vec<SocketHandle>,
}

impl MeshListener {
    pub(super) fn open(shared: Arc<Shared>, port: u16) -> io::Result<Self> {
        let mut listener = Self { shared: shared.clone(), port, waiting: Vec::new() };
        if port == 0 || !shared.lock().listening.insert(port) {
            // Not ours to give back when dropped.
            listener.port = 0;
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("cannot listen on mesh port {port}: it is 0 or taken"),
            ));
        }
        listener.refill()?;
        Ok(listener)
    }

    /// smoltcp has no backlog: each opening connection takes a listening socket.
    fn refill(&mut self) -> io::Result<()> {
        let mut stack = self.shared.lock();
        while self.waiting.len() < BACKLOG {
            let handle = stack.add_socket();
            let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(handle);
            if let Err(e) = socket.listen(self.port) {
                stack.sockets.remove(handle);
                return Err(io::Error::other(format!("cannot listen on {}: {e}", self.port)));
            }
            self.waiting.push(handle);
        }
        Ok(())
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// When the stack cannot listen any more.
    pub async fn accept(&mut self) -> io::Result<MeshStream> {
        let (place, peer) = poll_fn(|cx| {
            let mut stack = self.shared.lock();
            for (place, handle) in self.waiting.iter().enumerate() {
                let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(*handle);
                match socket.state() {
                    tcp::State::Established | tcp::State::CloseWait => {
                        if let Some(peer) = socket.remote_endpoint() {
                            return Poll::Ready((place, SocketAddr::new(peer.addr.into(), peer.port)));
                        }
                    }
                    // Gone before it was accepted.
                    tcp::State::Closed => drop(socket.listen(self.port)),
                    _ => {}
                }
                socket.register_recv_waker(cx.waker());
                socket.register_send_waker(cx.waker());
            }
            Poll::Pending
        })
        .await;
        let handle = self.waiting.swap_remove(place);
        let stream = MeshStream::accepted(self.shared.clone(), handle, peer);
        self.refill()?;
        Ok(stream)
    }
}

impl Drop for MeshListener {
    fn drop(&mut self) {
        let mut stack = self.shared.lock();
        for handle in self.waiting.drain(..) {
            stack.abandon(handle);
        }
        stack.listening.remove(&self.port);
        drop(stack);
        self.shared.wake();
    }
}
