//! Places that a full datagram does not reach whole: what goes there may be cut into fragments on
//! its way.
//!
//! As a rule it may not (DF): what does not fit is lost then, whether the network says so or not,
//! and a probe finds out. The kernel knows this for a socket only, so it is set around each send;
//! datagrams that others send meanwhile may be cut too, which does no harm.
//!
//! IPv6 knows no such leave: routers cut nothing, and the kernel only at its interface's MTU. On a
//! narrow IPv6 path TCP connections that open later fit, by their segment size ([`crate::mss`]).

use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// Places remembered; further ones are sent to as if they were wide.
const MAX: usize = 4096;

sockopt_impl!(
    /// `IP_MTU_DISCOVER`, ip(7).
    V4, SetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int,
    nix::sys::socket::sockopt::SetStruct<libc::c_int>
);
sockopt_impl!(
    /// `IPV6_MTU_DISCOVER`, ipv6(7).
    V6, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int,
    nix::sys::socket::sockopt::SetStruct<libc::c_int>
);
/// Shared by those who find out and those who send.
#[derive(Debug, Default)]
pub(crate) struct Narrow {
    any: AtomicBool,
    places: RwLock<BTreeSet<SocketAddr>>,
    /// Held around sends that may be cut, and around those that must not be.
    turn: Mutex<()>,
}

impl Narrow {
    pub(crate) fn has(&self, to: SocketAddr) -> bool {
        self.any.load(Ordering::Relaxed)
            && self
                .places
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&to)
    }

    pub(crate) fn set(&self, to: SocketAddr, narrow: bool) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        if !narrow {
            places.remove(&to);
        } else if places.len() < MAX {
            places.insert(to);
        }
        self.any.store(!places.is_empty(), Ordering::Relaxed);
    }

    /// Does `send` while datagrams of `socket` may be cut.
    pub(crate) fn cut<T>(&self, socket: &UdpSocket, send: impl FnOnce() -> T) -> T {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = allow(socket, true) {
            tracing::debug!("the system does not cut datagrams: {e}");
        }
        let sent = send();
        if let Err(e) = allow(socket, false) {
            tracing::warn!("the system goes on cutting datagrams: {e}");
        }
        sent
    }

    /// Does `send` while they are surely not.
    pub(crate) fn whole<T>(&self, send: impl FnOnce() -> T) -> T {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        send()
    }
}

/// OMIT: no DF, and whatever somebody says of the path's MTU is not believed. PROBE, as quinn-udp
/// sets it: DF, and not believed either.
fn allow(socket: &UdpSocket, cut: bool) -> io::Result<()> {
    let v4 = if cut {
        libc::IP_PMTUDISC_OMIT
    } else {
        libc::IP_PMTUDISC_PROBE
    };
    setsockopt(socket, V4, &v4)?;
    if socket.local_addr()?.is_ipv6() {
        let v6 = if cut {
            libc::IPV6_PMTUDISC_OMIT
        } else {
            libc::IPV6_PMTUDISC_PROBE
        };
        setsockopt(socket, V6, &v6)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_and_go_and_the_kernel_takes_the_options() {
        let narrow = Narrow::default();
        let [one, two]: [SocketAddr; 2] =
            ["192.0.2.1:1", "[2001:db8::1]:1"].map(|a| a.parse().unwrap());
        narrow.set(one, true);
        assert!(narrow.has(one) && !narrow.has(two));
        narrow.set(one, false);
        assert!(!narrow.has(one));
        for address in ["127.0.0.1:0", "[::]:0"] {
            let Ok(socket) = UdpSocket::bind(address) else {
                continue;
            };
            for cut in [true, false] {
                allow(&socket, cut).unwrap();
            }
        }
    }
}
