//! Places that a full datagram does not reach whole: what goes there may be cut into fragments on
//! its way.
//!
//! As a rule it may not (DF): what does not fit is lost then, whether the network says so or not,
//! and a probe finds out. The kernel knows this for a socket only, so it is set around each send;
//! datagrams that others send meanwhile may be cut too, which does no harm.
//!
//! IPv6 knows no such leave: there what is too large is cut before it is sent ([`crate::parts`]).

use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use std::collections::BTreeMap;
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

/// Shared by those who find out and those who send.
#[derive(Debug, Default)]
pub(crate) struct Narrow {
    any: AtomicBool,
    /// With the UDP payload that they take whole.
    places: RwLock<BTreeMap<SocketAddr, u16>>,
    /// Held around sends that may be cut, and around those that must not be.
    turn: Mutex<()>,
}

impl Narrow {
    /// The UDP payload that gets there whole, where that is less than a full datagram.
    pub(crate) fn size(&self, to: SocketAddr) -> Option<u16> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(&to).copied()
    }

    /// False: there is no room for one more.
    pub(crate) fn set(&self, to: SocketAddr, size: Option<u16>) -> bool {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        match size {
            None => {
                places.remove(&to);
            }
            Some(size) if places.len() < MAX || places.contains_key(&to) => {
                places.insert(to, size);
            }
            Some(_) => return false,
        }
        self.any.store(!places.is_empty(), Ordering::Relaxed);
        true
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
        narrow.set(one, Some(1372));
        assert_eq!((narrow.size(one), narrow.size(two)), (Some(1372), None));
        narrow.set(one, None);
        assert_eq!(narrow.size(one), None);
        let many = |n: u16| SocketAddr::from(([192, 0, 2, 1], n));
        assert!((0..MAX as u16).all(|n| narrow.set(many(n), Some(1372))));
        assert!(!narrow.set(two, Some(1372)) && narrow.set(many(7), Some(1300)));
        assert!(narrow.set(many(7), None) && narrow.set(two, Some(1372)));
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
