//! Accepting connections in the userspace stack.

use super::driver::{Shared, add_socket};
use super::stream::MeshStream;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// Connections of a port that may wait to be accepted, those that are opening included.
const BACKLOG: usize = 64;

/// Sockets that listen, or hold a connection nobody has accepted yet, by port.
#[derive(Default)]
pub(super) struct Listeners {
    ports: BTreeMap<u16, Waiting>,
}

#[derive(Default)]
struct Waiting {
    sockets: Vec<SocketHandle>,
    waker: Option<Waker>,
}

impl Listeners {
    pub(super) fn has(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Begins to listen on `port`; false when it is 0 or taken.
    pub(super) fn open(&mut self, port: u16) -> bool {
        if port == 0 || self.has(port) {
            return false;
        }
        self.ports.insert(port, Waiting::default());
        true
    }

    /// Sees to it that `count` sockets of `port` are free to take a connection; false when the
    /// backlog is full.
    pub(super) fn prepare(
        &mut self,
        port: u16,
        count: usize,
        sockets: &mut SocketSet<'static>,
    ) -> bool {
        let Some(waiting) = self.ports.get_mut(&port) else {
            return true;
        };
        let mut free = 0;
        for handle in &waiting.sockets {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(*handle);
            if socket.state() == tcp::State::Closed {
                // Reset before it was accepted.
                let _ = socket.listen(port);
            }
            free += usize::from(socket.is_listening());
        }
        while free < count && waiting.sockets.len() < BACKLOG {
            let handle = add_socket(sockets);
            let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
            let _ = socket.listen(port);
            if let Some(waker) = &waiting.waker {
                socket.register_recv_waker(waker);
                socket.register_send_waker(waker);
            }
            waiting.sockets.push(handle);
            free += 1;
        }
        free >= count
    }
}

/// The port a packet wants to open a connection to: TCP with SYN and without ACK.
pub(super) fn opens(packet: &[u8]) -> Option<u16> {
    let tcp = match packet.first()? >> 4 {
        4 if *packet.get(9)? == 6 => packet.get(usize::from(packet[0] & 0x0f) * 4..)?,
        6 if *packet.get(6)? == 6 => packet.get(40..)?,
        _ => return None,
    };
    let port = u16::from_be_bytes([*tcp.get(2)?, *tcp.get(3)?]);
    (tcp.get(13)? & 0x12 == 0x02).then_some(port)
}

/// Accepts connections on one port of the stack.
pub struct MeshListener {
    shared: Arc<Shared>,
    port: u16,
}

impl MeshListener {
    pub(super) fn open(shared: Arc<Shared>, port: u16) -> io::Result<Self> {
        if !shared.lock().listeners.open(port) {
            let text = format!("cannot listen on mesh port {port}: it is 0 or taken");
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        Ok(Self { shared, port })
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// Never in this version.
    pub async fn accept(&mut self) -> io::Result<MeshStream> {
        let (handle, peer) = poll_fn(|cx| {
            let mut stack = self.shared.lock();
            let stack = &mut *stack;
            let Some(waiting) = stack.listeners.ports.get_mut(&self.port) else {
                return Poll::Pending;
            };
            for (place, handle) in waiting.sockets.iter().enumerate() {
                let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(*handle);
                if matches!(
                    socket.state(),
                    tcp::State::Established | tcp::State::CloseWait
                ) && let Some(peer) = socket.remote_endpoint()
                {
                    let handle = waiting.sockets.remove(place);
                    return Poll::Ready((handle, SocketAddr::new(peer.addr.into(), peer.port)));
                }
                socket.register_recv_waker(cx.waker());
                socket.register_send_waker(cx.waker());
            }
            waiting.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        Ok(MeshStream::accepted(self.shared.clone(), handle, peer))
    }
}

impl Drop for MeshListener {
    fn drop(&mut self) {
        let mut stack = self.shared.lock();
        let waiting = stack.listeners.ports.remove(&self.port).unwrap_or_default();
        for handle in waiting.sockets {
            stack.abandon(handle);
        }
        drop(stack);
        self.shared.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_looked_at(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            opens(&bytes);
        }
    }

    #[test]
    fn only_the_first_packet_opens() {
        let mut packet = vec![0u8; 40];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[22..24].copy_from_slice(&7u16.to_be_bytes());
        packet[33] = 0x02;
        assert_eq!(opens(&packet), Some(7));
        packet[33] = 0x12;
        assert_eq!(opens(&packet), None);
    }
}
