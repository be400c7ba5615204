//! The machine's own addresses, which others look after: looked at again and again.

use crate::forever::forever;
use crate::network::Uplinks;
use crate::network::plan::Uplink;
use holdfast_core::cluster::MESH_INTERFACE;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch::{Receiver, Sender};

const EVERY: Duration = Duration::from_secs(2);

/// Interfaces that lead to no other machine's network: bridges and ends of containers.
const INNER: [&str; 6] = ["docker", "veth", "cni", "flannel", "virbr", "br-"];

fn now() -> Uplinks {
    let mut found = Uplinks::new();
    for at in getifaddrs().into_iter().flatten() {
        let name = at.interface_name.as_str();
        let down = !at.flags.contains(InterfaceFlags::IFF_RUNNING);
        if name == MESH_INTERFACE
            || down
            || at.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            || INNER.iter().any(|inner| name.starts_with(inner))
        {
            continue;
        }
        let Some(address) = at.address.as_ref().and_then(address) else {
            continue;
        };
        let uplink: &mut Uplink = found.entry(name.to_owned()).or_default();
        uplink.addresses.push(IpNet::from(address));
    }
    found
}

fn address(of: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = of.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    let v6 = of.as_sockaddr_in6()?.ip();
    (!v6.is_unicast_link_local()).then(|| v6.into())
}

/// Tells of each change.
pub fn watch() -> Receiver<Uplinks> {
    let tell = Sender::new(now());
    let told = tell.subscribe();
    forever("uplinks", async move {
        loop {
            tokio::time::sleep(EVERY).await;
            let found = now();
            tell.send_if_modified(|held| {
                let changed = *held != found;
                *held = found;
                changed
            });
        }
    });
    told
}
