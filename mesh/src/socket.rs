//! The one UDP socket: both address families, segmentation offload where the system has it.

use crate::error::MeshError;
use crate::fragment::Narrow;
use crate::outbox::{Outbox, Send};
use crate::parts;
use crate::probe;
use crate::stop::Stop;
use crate::stream::{Streams, is_stream};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Receive buffers handed to the kernel at a time; each takes a whole GRO batch.
pub(crate) const RECEIVE_BATCH: usize = 8;
/// A GRO batch is as long as a UDP packet may be; also what guards boringtun.
pub(crate) const RECEIVE_BUFFER: usize = 65_536;
/// Socket buffers asked for: 16 ms at 2 Gbit/s.
const SOCKET_BUFFER: usize = 4 << 20;

/// A bound UDP socket for [`Mesh::start`](crate::Mesh::start).
#[derive(Debug)]
pub struct MeshSocket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    stop: Arc<Stop>,
    streams: Streams,
    narrow: Arc<Narrow>,
    /// Datagrams that were cut.
    cut: AtomicU32,
}

impl MeshSocket {
    /// Binds `port` for IPv6 and IPv4 (IPv4 alone where the system has no IPv6); 0 picks a port,
    /// which [`port`](Self::port) tells, for keeping.
    ///
    /// # Errors
    /// [`MeshError::Bind`], a port taken for instance.
    pub fn bind(port: u16) -> Result<Self, MeshError> {
        Self::bind_to(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).or_else(
            |error| match error {
                MeshError::Bind { ref source, .. } if no_ipv6(source) => {
                    Self::bind_to(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
                }
                other => Err(other),
            },
        )
    }

    /// Binds one address, loopback for instance. `::` takes IPv4 too.
    ///
    /// # Errors
    /// [`MeshError::Bind`].
    pub fn bind_to(addr: SocketAddr) -> Result<Self, MeshError> {
        let open = || -> io::Result<Self> {
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(addr),
                socket2::Type::DGRAM,
                Some(socket2::Protocol::UDP),
            )?;
            if addr.is_ipv6() {
                socket.set_only_v6(false)?;
            }
            enlarge(&socket);
            socket.set_nonblocking(true)?;
            socket.bind(&addr.into())?;
            let io = UdpSocket::from(socket);
            let state = UdpSocketState::new(UdpSockRef::from(&io))?;
            let local = io.local_addr()?;
            let stop = Arc::new(Stop::new()?);
            Ok(Self {
                io,
                state,
                local,
                stop,
                streams: Streams::default(),
                narrow: Arc::default(),
                cut: AtomicU32::new(getrandom::u32().unwrap_or(1)),
            })
        };
        open().map_err(|source| MeshError::Bind { addr, source })
    }

    /// The bound port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.local.port()
    }

    /// Looks there for what may be cut.
    pub(crate) fn heed(&mut self, narrow: Arc<Narrow>) {
        self.narrow = narrow;
    }

    /// Streams that take the place of UDP.
    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// What ends the threads that wait on this socket.
    pub(crate) fn stop(&self) -> &Arc<Stop> {
        &self.stop
    }

    /// Readable when there are datagrams.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }

    /// Takes the datagrams that are there; gives the number of buffers filled.
    pub(crate) fn receive(
        &self,
        buffers: &mut [Vec<u8>],
        metas: &mut [RecvMeta],
    ) -> io::Result<usize> {
        let mut slots = buffers.iter_mut();
        let mut slices: [IoSliceMut<'_>; RECEIVE_BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().map_or(&mut [], |b| b)));
        let socket = UdpSockRef::from(&self.io);
        self.state.recv(socket, &mut slices, metas)
    }

    /// Sends what does not go like most does; false when it does.
    fn send_otherwise(&self, send: &Send, bytes: &[u8]) -> bool {
        let one = |datagram: &[u8]| {
            if let Err(e) = self.send_some(send.to, datagram, datagram.len()) {
                tracing::debug!("a datagram was not sent: {e}");
            }
        };
        if is_stream(send.to) {
            self.streams.push(send.to, bytes, send.segment);
        } else if probe::measures(bytes) {
            bytes
                .chunks(send.segment)
                .for_each(|datagram| self.narrow.whole(|| one(datagram)));
        } else if let Some(size) = self.narrow.size(send.to) {
            let datagrams = bytes.chunks(send.segment);
            if send.to.is_ipv4() {
                self.narrow.cut(&self.io, || datagrams.for_each(one));
                return true;
            }
            for datagram in datagrams {
                if datagram.len() <= usize::from(size) {
                    one(datagram);
                    continue;
                }
                let number = self.cut.fetch_add(1, Ordering::Relaxed);
                parts::cut(datagram, number)
                    .iter()
                    .for_each(|part| one(part));
            }
        } else {
            return false;
        }
        true
    }

    /// Sends all of `outbox` and empties it, waiting for room in the socket's buffer.
    pub(crate) fn send(&self, outbox: &mut Outbox) -> io::Result<()> {
        for (send, bytes) in outbox.sends() {
            if self.send_otherwise(send, bytes) {
                continue;
            }
            let mut rest = bytes;
            while !rest.is_empty() && !self.stop.raised() {
                match self.send_some(send.to, rest, send.segment) {
                    Ok(sent) => rest = &rest[sent..],
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.stop.writable(self.io.as_fd())?;
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        outbox.clear();
        Ok(())
    }

    /// Like [`send`](Self::send), but what finds no room is dropped: for handshakes, which are
    /// repeated.
    pub(crate) fn send_now(&self, outbox: &mut Outbox) {
        for (send, bytes) in outbox.sends() {
            if self.send_otherwise(send, bytes) {
                continue;
            }
            let mut rest = bytes;
            while !rest.is_empty() {
                match self.send_some(send.to, rest, send.segment) {
                    Ok(sent) => rest = &rest[sent..],
                    Err(_) => break,
                }
            }
        }
        outbox.clear();
    }

    fn send_some(&self, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<usize> {
        let to = self.mapped(to);
        send_some(
            bytes,
            segment,
            self.state.max_gso_segments() > 1,
            |contents, segment_size| {
                let transmit = Transmit {
                    destination: to,
                    ecn: None,
                    contents,
                    segment_size,
                    src_ip: None,
                };
                self.state.try_send(UdpSockRef::from(&self.io), &transmit)
            },
        )
    }

    /// An IPv6 socket reaches IPv4 through mapped addresses.
    fn mapped(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) if self.local.is_ipv6() => (ip.to_ipv6_mapped(), to.port()).into(),
            _ => to,
        }
    }
}

/// Sends as much as one call may: everything with segmentation offload, else one datagram.
/// Gives the bytes done with; those that cannot be delivered are done with too, as UDP has it.
/// quinn-udp turns offload off for good on `EIO` and `EINVAL` (so some drivers refuse it): the
/// datagrams of that very send are then sent singly.
fn send_some(
    bytes: &[u8],
    segment: usize,
    offload: bool,
    mut send: impl FnMut(&[u8], Option<usize>) -> io::Result<()>,
) -> io::Result<usize> {
    let first = &bytes[..segment.clamp(1, bytes.len())];
    let batched = offload && first.len() < bytes.len();
    let result = if batched {
        send(bytes, Some(segment))
    } else {
        send(first, None)
    };
    match result {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(e),
        Err(e) if batched && refused(&e) => {
            tracing::info!("segmentation offload is refused ({e}); sending singly from now on");
            Ok(0)
        }
        Err(e) => {
            tracing::debug!("a datagram was not sent: {e}");
            Ok(if batched { bytes.len() } else { first.len() })
        }
        Ok(()) => Ok(if batched { bytes.len() } else { first.len() }),
    }
}

fn refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// Best effort: the limits of the system bind whoever is not root.
fn enlarge(socket: &socket2::Socket) {
    if setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    }
    if setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    }
}

/// The sender as it stands in configurations: IPv4 as IPv4.
pub(crate) fn source(meta: &RecvMeta) -> SocketAddr {
    match meta.addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => (ip, v6.port()).into(),
            None => meta.addr,
        },
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system whose offload fails with `code`; off after the first failure, as in quinn-udp.
    fn run(code: i32) -> (Vec<usize>, bool) {
        let bytes = vec![0u8; 2500];
        let (mut rest, mut offload, mut sent) = (&bytes[..], true, Vec::new());
        while !rest.is_empty() {
            let mut off = false;
            let done = send_some(rest, 1000, offload, |contents, segment| {
                if segment.is_some() {
                    off = true;
                    return Err(io::Error::from_raw_os_error(code));
                }
                sent.push(contents.len());
                Ok(())
            });
            offload &= !off;
            rest = &rest[done.unwrap()..];
        }
        (sent, offload)
    }

    #[test]
    fn refused_offload_loses_no_datagram() {
        for code in [libc::EIO, libc::EINVAL] {
            assert_eq!(run(code), (vec![1000, 1000, 500], false));
        }
    }

    #[test]
    fn other_errors_drop_the_batch_and_a_full_buffer_keeps_it() {
        let unreachable = |_: &[u8], _| Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
        assert_eq!(
            send_some(&[0; 2500], 1000, true, unreachable).unwrap(),
            2500
        );
        assert_eq!(
            send_some(&[0; 2500], 1000, false, unreachable).unwrap(),
            1000
        );
        let full = |_: &[u8], _| Err(io::Error::from(io::ErrorKind::WouldBlock));
        assert!(send_some(&[0; 2500], 1000, true, full).is_err());
    }

    #[test]
    fn one_socket_speaks_both_families() {
        let socket = MeshSocket::bind(0).unwrap();
        let mut buffers = vec![vec![0u8; 2048]; 2];
        let mut metas = [RecvMeta::default(); 2];
        for loopback in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            let Ok(client) = UdpSocket::bind((loopback, 0)) else {
                assert!(loopback.is_ipv6());
                continue;
            };
            client.send_to(b"there", (loopback, socket.port())).unwrap();
            socket
                .stop()
                .readable(std::iter::once(socket.fd()))
                .unwrap();
            assert_eq!(socket.receive(&mut buffers, &mut metas).unwrap(), 1);
            let from = source(&metas[0]);
            assert_eq!(from, client.local_addr().unwrap());
            let mut outbox = Outbox::default();
            outbox.push(crate::way::Way::Direct(from), b"back");
            socket.send(&mut outbox).unwrap();
            let mut answer = [0; 16];
            assert_eq!(client.recv(&mut answer).unwrap(), 4);
        }
    }
}
