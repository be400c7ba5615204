//! Talks to routers of IPv6: asks them to advertise, and hears what name servers they tell of.

use super::advertised::{Advertised, parse};
use crate::forever::forever;
use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt,
    socket, sockopt,
};
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often it is looked whose time has run out.
const LOOK: Duration = Duration::from_secs(30);
/// Pause after a socket that failed.
const PAUSE: Duration = Duration::from_secs(5);
/// All routers of a link.
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// A router solicitation (RFC 4861) without options; the kernel fills the checksum in.
const SOLICITATION: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];

/// What routers told; clones share it.
#[derive(Clone, Default)]
pub struct Routers {
    held: Arc<Mutex<Advertised>>,
    /// Counts the changes.
    changes: Arc<watch::Sender<u64>>,
}

impl Routers {
    /// Hears of all interfaces for ever.
    pub fn listen() -> Self {
        let this = Self::default();
        let heard = this.clone();
        forever("routers", async move {
            loop {
                let Err(e) = heard.hear().await;
                tracing::warn!("router advertisements: {e:#}");
                tokio::time::sleep(PAUSE).await;
            }
        });
        this
    }

    async fn hear(&self) -> anyhow::Result<std::convert::Infallible> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let group = 1 << (MulticastGroup::NdUseropt as u32 - 1);
        let bound = socket.socket_mut().bind(&SocketAddr::new(0, group));
        bound.context("the kernel does not tell of them")?;
        loop {
            let Ok(datagram) = tokio::time::timeout(LOOK, socket.recv_from_full()).await else {
                self.changed();
                continue;
            };
            let now = Instant::now();
            let news = self.with(|held| {
                let mut news = false;
                for told in parse(&datagram?.0) {
                    news |= held.hear(told, now);
                }
                std::io::Result::Ok(news)
            });
            if news? {
                self.changed();
            }
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Advertised) -> T) -> T {
        work(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Told of each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Name servers on an interface, as `resolv.conf` names them.
    pub fn name_servers(&self, interface: u32, name: &str) -> Vec<String> {
        let servers = self.with(|held| held.servers(interface, Instant::now()));
        servers
            .into_iter()
            .map(|at| match at.is_unicast_link_local() {
                true => format!("{at}%{name}"),
                false => at.to_string(),
            })
            .collect()
    }

    /// Forgets an interface's: its link was lost, and the next may be another network's.
    pub fn forget(&self, interface: u32) {
        self.with(|held| held.forget(interface));
    }
}

/// Asks the routers on an interface to advertise. The kernel does so when a link comes up; an agent
/// that was started anew has not heard what they answered then.
///
/// # Errors
/// As the kernel says; also while the interface has no address of its link yet.
pub fn solicit(interface: u32) -> nix::Result<()> {
    send(interface, ROUTERS, &SOLICITATION)
}

/// Sends an ICMPv6 message as one of neighbour discovery.
fn send(interface: u32, to: Ipv6Addr, message: &[u8]) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(
        AddressFamily::Inet6,
        SockType::Raw,
        flags,
        SockProtocol::IcmpV6,
    )?;
    // What came through a router has less, and is not taken (RFC 4861).
    setsockopt(&socket, sockopt::Ipv6MulticastHops, &255)?;
    let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, interface));
    sendto(socket.as_raw_fd(), message, &to, MsgFlags::empty()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::addresses::lasting;
    use crate::network::netlink::Netlink;
    use crate::network::netlink::tests::{Inside, in_a_network_of_its_own, ip};

    const HERE: &str = concat!(
        "network::routers::tests::",
        "a_router_gives_an_address_and_a_name_server"
    );

    /// A router's advertisement: itself, the prefix 2001:db8:7::/64, a name server in it.
    fn advertisement() -> Vec<u8> {
        let prefix: [u8; 8] = [0x20, 1, 0xd, 0xb8, 0, 7, 0, 0];
        let mut all = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        all.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
        all.extend(prefix);
        all.extend([0; 8]);
        all.extend([25, 3, 0, 0, 0, 0, 2, 88]);
        all.extend(prefix);
        all.extend([0, 0, 0, 0, 0, 0, 0, 53]);
        all
    }

    #[test]
    fn a_router_gives_an_address_and_a_name_server() {
        match in_a_network_of_its_own(HERE) {
            Inside::Yes => {}
            Inside::Done => return,
        }
        ip("link add name left type veth peer name right");
        for (setting, value) in [("accept_dad", "0"), ("accept_ra", "2")] {
            for name in ["left", "right"] {
                let path = format!("/proc/sys/net/ipv6/conf/{name}/{setting}");
                std::fs::write(path, value).unwrap();
            }
        }
        std::fs::write("/proc/sys/net/ipv6/conf/right/accept_ra_from_local", "1").unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let netlink = Netlink::open().unwrap();
            let index = async |name| netlink.index_of(name).await.unwrap().unwrap();
            let (a, b) = (index("left").await, index("right").await);
            let routers = Routers::listen();
            let mut news = routers.changes();
            ip("link set left up");
            ip("link set right up");
            let end = Instant::now() + Duration::from_secs(20);
            let all_nodes = "ff02::1".parse().unwrap();
            let pause = Duration::from_millis(100);
            loop {
                assert!(Instant::now() < end, "{}", ip("address"));
                // Fails while the link has no address.
                let _ = send(a, all_nodes, &advertisement());
                let _ = tokio::time::timeout(pause, news.changed()).await;
                let all = netlink.addresses().await.unwrap();
                let mut own = all.iter().filter_map(lasting).filter(|(at, _)| *at == b);
                if own.any(|(_, net)| net.to_string().starts_with("2001:db8:7:"))
                    && !routers.name_servers(b, "right").is_empty()
                {
                    break;
                }
            }
            assert_eq!(routers.name_servers(b, "right"), ["2001:db8:7::35"]);
            routers.forget(b);
            assert!(routers.name_servers(b, "right").is_empty());
            solicit(b).unwrap();
        });
    }
}
