//! The stack's state and the task that moves it.

use super::listener::{self, Listeners};
use super::phy::Queues;
use ipnet::IpNet;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Bytes kept of what a connection sends: 20 ms at 100 Mbit/s.
const SEND_BUFFER: usize = 256 * 1024;
/// And of what it receives. A larger window is told in steps of 2 bytes and more, rounded down (RFC
/// 7323): a nearly full buffer takes back a few bytes that the peer has used. smoltcp drops them, and
/// then every acknowledgment of that peer, whose numbers lie behind them; with both directions full
/// the connection stood still for good.
const RECEIVE_BUFFER: usize = 65_535;
/// A connection whose peer stays silent this long is given up.
const SILENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(120);
/// Silence is asked about this often.
const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(25);
/// Ports that outgoing connections use (RFC 6335).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// Packets taken in before the stack is moved.
const BATCH: usize = 64;

/// What streams, listeners and the driver share.
pub(super) struct Shared {
    stack: Mutex<Stack>,
    /// Something is to be done.
    wake: Notify,
}

pub(super) struct Stack {
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    queues: Queues,
    /// Sockets nobody holds any more; removed once they are closed.
    orphans: Vec<SocketHandle>,
    pub listeners: Listeners,
    next_port: u16,
}

impl Shared {
    pub(super) fn new(addresses: &[IpNet], mtu: usize) -> io::Result<Arc<Self>> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
        let of_family = |v4: bool| {
            addresses
                .iter()
                .filter(|a| a.addr().is_ipv4() == v4)
                .count()
        };
        if addresses.is_empty() || of_family(true) > 1 || of_family(false) > 1 {
            return Err(invalid(
                "the mesh stack takes one IPv4 and one IPv6 address at most, and one at least",
            ));
        }
        let mut seed = [0u8; 8];
        getrandom::fill(&mut seed)
            .map_err(|e| io::Error::other(format!("no random bytes: {e}")))?;
        let mut queues = Queues {
            received: VecDeque::new(),
            to_send: VecDeque::new(),
            mtu,
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from_ne_bytes(seed);
        let mut interface = Interface::new(config, &mut queues, now());
        let mut full = false;
        interface.update_ip_addrs(|list| {
            for net in addresses {
                full |= list
                    .push(IpCidr::new(net.addr().into(), net.prefix_len()))
                    .is_err();
            }
        });
        for net in addresses {
            // Everything goes to the engine; it knows the peers' addresses.
            let result = match net.addr() {
                IpAddr::V4(a) => interface.routes_mut().add_default_ipv4_route(a).map(drop),
                IpAddr::V6(a) => interface.routes_mut().add_default_ipv6_route(a).map(drop),
            };
            full |= result.is_err();
        }
        if full {
            return Err(invalid("the mesh stack has no room for these addresses"));
        }
        let stack = Stack {
            interface,
            sockets: SocketSet::new(Vec::new()),
            queues,
            orphans: Vec::new(),
            listeners: Listeners::default(),
            next_port: EPHEMERAL.start() + u16::from_ne_bytes([seed[0], seed[1]]) % 16_000,
        };
        Ok(Arc::new(Self {
            stack: Mutex::new(stack),
            wake: Notify::new(),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the driver that a socket has something to do.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }
}

impl Stack {
    /// smoltcp has no backlog and resets what finds no listening socket: each connection about
    /// to open gets one, up to a bound; beyond it the request is dropped, to be sent again.
    fn make_room(&mut self) {
        let mut arriving: BTreeMap<u16, usize> = BTreeMap::new();
        let received = std::mem::take(&mut self.queues.received);
        for packet in received {
            let port = listener::opens(&packet).filter(|port| self.listeners.has(*port));
            if let Some(port) = port {
                let count = arriving.entry(port).or_default();
                *count += 1;
                if !self.listeners.prepare(port, *count, &mut self.sockets) {
                    continue;
                }
            }
            self.queues.received.push_back(packet);
        }
    }

    /// A local port that no connection uses.
    pub(super) fn free_port(&mut self) -> Option<u16> {
        let used: BTreeSet<u16> = self
            .sockets
            .iter()
            .filter_map(|(_, socket)| match socket {
                smoltcp::socket::Socket::Tcp(tcp) => tcp.local_endpoint().map(|e| e.port),
            })
            .collect();
        for _ in EPHEMERAL {
            let port = self.next_port;
            self.next_port = if port == *EPHEMERAL.end() {
                *EPHEMERAL.start()
            } else {
                port + 1
            };
            if !used.contains(&port) && !self.listeners.has(port) {
                return Some(port);
            }
        }
        None
    }

    /// Closes a socket whose stream is gone; what was written is still delivered.
    pub(super) fn abandon(&mut self, handle: SocketHandle) {
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
        self.orphans.push(handle);
    }

    /// Moves everything that can move; gives the time until the next timer.
    fn advance(&mut self) -> Option<Duration> {
        self.make_room();
        let Self {
            interface,
            sockets,
            queues,
            orphans,
            ..
        } = self;
        interface.poll(now(), queues, sockets);
        orphans.retain(|handle| {
            let closed = sockets.get::<tcp::Socket<'_>>(*handle).state() == tcp::State::Closed;
            if closed {
                sockets.remove(*handle);
            }
            !closed
        });
        let delay = interface.poll_delay(now(), sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }
}

/// A socket with our settings.
pub(super) fn add_socket(sockets: &mut SocketSet<'static>) -> SocketHandle {
    let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
    let mut socket = tcp::Socket::new(buffer(RECEIVE_BUFFER), buffer(SEND_BUFFER));
    socket.set_nagle_enabled(false);
    socket.set_timeout(Some(SILENCE));
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket.set_congestion_control(tcp::CongestionControl::Cubic);
    sockets.add(socket)
}

fn now() -> Instant {
    Instant::now()
}

/// A mesh address in the stack's form.
pub(super) fn address(ip: IpAddr) -> IpAddress {
    ip.into()
}

/// Moves the stack until nobody holds it or the engine is gone; then no stream moves any more.
pub(super) async fn run(
    shared: Weak<Shared>,
    mut from_engine: mpsc::Receiver<Vec<u8>>,
    to_engine: mpsc::Sender<Vec<u8>>,
) {
    let mut incoming = Vec::with_capacity(BATCH);
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let (outgoing, delay) = {
            let mut stack = shared.lock();
            stack.queues.received.extend(incoming.drain(..));
            let delay = stack.advance();
            (std::mem::take(&mut stack.queues.to_send), delay)
        };
        let more = !outgoing.is_empty();
        for packet in outgoing {
            // Waiting here is what slows senders down to the pace of the engine.
            if to_engine.send(packet).await.is_err() {
                shared.close();
                return;
            }
        }
        let delay = if more {
            Duration::ZERO
        } else {
            delay.unwrap_or(Duration::from_secs(1))
        };
        // The last holder may go while we wait: look again every second.
        let delay = delay.min(Duration::from_secs(1));
        tokio::select! {
            got = from_engine.recv_many(&mut incoming, BATCH) => {
                if got == 0 {
                    shared.close();
                    return;
                }
            }
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}

impl Shared {
    /// The engine is gone: nothing will ever move again, so nobody may wait.
    fn close(&self) {
        let mut stack = self.lock();
        for (_, socket) in stack.sockets.iter_mut() {
            let smoltcp::socket::Socket::Tcp(tcp) = socket;
            tcp.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_packet_of_a_peer_panics(
            packets in proptest::collection::vec(
                (prop_oneof![Just(4u8), Just(6)], any::<bool>(),
                 proptest::collection::vec(any::<u8>(), 0..120)), 0..40)
        ) {
            let addresses = ["100.64.0.1/32".parse().unwrap(), "fd00::1/128".parse().unwrap()];
            let shared = Shared::new(&addresses, 1380).unwrap();
            let mut stack = shared.lock();
            stack.listeners.open(7);
            for (version, to_us, mut bytes) in packets {
                bytes.resize(bytes.len().max(60), 0);
                let len = bytes.len() as u16;
                if version == 4 {
                    bytes[0] = 0x45;
                    bytes[2..4].copy_from_slice(&len.to_be_bytes());
                    bytes[6..8].fill(0);
                    bytes[9] = 6;
                    if to_us { bytes[16..20].copy_from_slice(&[100, 64, 0, 1]); }
                    bytes[22..24].copy_from_slice(&7u16.to_be_bytes());
                } else {
                    bytes[0] = 0x60;
                    bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                    bytes[6] = 6;
                    if to_us { bytes[24..40].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]); }
                    bytes[42..44].copy_from_slice(&7u16.to_be_bytes());
                }
                stack.queues.received.push_back(bytes);
            }
            stack.advance();
            prop_assert!(stack.sockets.iter().count() <= 64);
        }
    }

    #[test]
    fn addresses_are_checked() {
        assert!(Shared::new(&[], 1380).is_err());
        let two = [
            "100.64.0.1/32".parse().unwrap(),
            "100.64.0.2/32".parse().unwrap(),
        ];
        assert!(Shared::new(&two, 1380).is_err());
    }
}
