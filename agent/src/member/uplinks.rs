//! The machine's own addresses, which others look after: looked at again whenever the kernel tells of a
//! change.

use crate::forever::forever;
use crate::network::Uplinks;
use crate::network::addresses::lasting;
use crate::network::netlink::Netlink;
use holdfast_core::cluster::MESH_INTERFACE;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch::{Receiver, Sender};
use tokio::time::{sleep, timeout};

/// Changes come in groups: an address, another one, a route.
const SETTLE: Duration = Duration::from_millis(200);
/// How long after a change is looked again, for the routes that follow it,
const AGAIN: Duration = Duration::from_secs(2);
/// and without any: the table of routes may be long.
const EVERY: Duration = Duration::from_secs(30);

/// Interfaces of other networks on top of this machine's, and of containers. One of them may carry the
/// default route.
const INNER: [&str; 23] = [
    "br-",
    "cali",
    "cilium",
    "cni",
    "docker",
    "flannel",
    "ipsec",
    "kube",
    "lxc",
    "lxd",
    "nebula",
    "nordlynx",
    "podman",
    "proton",
    "tailscale",
    "tap",
    "tun",
    "utun",
    "veth",
    "virbr",
    "vxlan",
    "wg",
    "zt",
];

/// Kinds of the same.
const INNER_KINDS: [InfoKind; 6] = [
    InfoKind::Tun,
    InfoKind::Vti,
    InfoKind::Vti6,
    InfoKind::Vxlan,
    InfoKind::Wireguard,
    InfoKind::Xfrm,
];

/// What the kernel shows at one time.
struct Shown {
    interfaces: Vec<LinkMessage>,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
}

impl Shown {
    async fn now(netlink: &Netlink) -> anyhow::Result<Self> {
        Ok(Self {
            interfaces: netlink.interfaces().await?,
            addresses: netlink.addresses().await?,
            routes: netlink.routes().await?,
        })
    }

    /// The interfaces over which default routes lead.
    fn ways_out(&self) -> BTreeSet<u32> {
        let mut out = BTreeSet::new();
        for route in &self.routes {
            let header = &route.header;
            if header.destination_prefix_length != 0 || header.kind != RouteType::Unicast {
                continue;
            }
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => drop(out.insert(*index)),
                    RouteAttribute::MultiPath(hops) => {
                        out.extend(hops.iter().map(|h| h.interface_index));
                    }
                    _ => {}
                }
            }
        }
        out
    }

    /// Interfaces that lead to other machines' networks: with a `device` behind them, or a default
    /// route over them; and their addresses. A bridge with a machine's cable in it has the second only,
    /// and so has a container's end.
    fn uplinks(&self, device: impl Fn(&str) -> bool) -> Uplinks {
        let ways_out = self.ways_out();
        let mut found = Uplinks::new();
        for link in &self.interfaces {
            let Some(name) = name(link) else { continue };
            let flags = link.header.flags;
            if !flags.contains(LinkFlags::Running) || flags.contains(LinkFlags::Loopback) {
                continue;
            }
            let index = link.header.index;
            if !device(name) && (!ways_out.contains(&index) || inner(link, name)) {
                continue;
            }
            let own = self.addresses.iter().filter_map(lasting);
            let own: Vec<_> = own
                .filter_map(|(on, net)| (on == index).then_some(net))
                .collect();
            if !own.is_empty() {
                found.entry(name.to_owned()).or_default().addresses = own;
            }
        }
        found
    }
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn inner(link: &LinkMessage, name: &str) -> bool {
    let mut infos = link.attributes.iter().flat_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => infos.as_slice(),
        _ => &[],
    });
    name == MESH_INTERFACE
        || INNER.iter().any(|inner| name.starts_with(inner))
        || infos.any(|i| matches!(i, LinkInfo::Kind(kind) if INNER_KINDS.contains(kind)))
}

async fn now(netlink: &Netlink) -> anyhow::Result<Uplinks> {
    let shown = Shown::now(netlink).await?;
    let device = |name: &str| {
        let at = Path::new("/sys/class/net").join(name).join("device");
        at.exists()
    };
    Ok(shown.uplinks(device))
}

/// Tells of each change.
///
/// # Errors
/// When the kernel does not say what there is now.
pub async fn watch(netlink: Netlink) -> anyhow::Result<Receiver<Uplinks>> {
    let mut changes = netlink.changes();
    let tell = Sender::new(now(&netlink).await?);
    let told = tell.subscribe();
    forever("uplinks", async move {
        let mut wait = AGAIN;
        loop {
            wait = match timeout(wait, changes.changed()).await {
                Ok(_) => {
                    sleep(SETTLE).await;
                    changes.mark_unchanged();
                    AGAIN
                }
                Err(_) => EVERY,
            };
            match now(&netlink).await {
                Ok(found) => drop(tell.send_if_modified(|held| {
                    let changed = *held != found;
                    *held = found;
                    changed
                })),
                Err(e) => tracing::warn!("this machine's addresses: {e:#}"),
            }
        }
    });
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::addresses::tests::message;
    use rtnetlink::packet_route::address::AddressFlags;
    use rtnetlink::packet_route::route::RouteNextHop;

    fn link(index: u32, name: &str, kind: Option<InfoKind>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up | LinkFlags::Running;
        link.attributes.push(LinkAttribute::IfName(name.into()));
        let info = kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        link.attributes.extend(info);
        link
    }

    fn route(len: u8, attribute: RouteAttribute) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.destination_prefix_length = len;
        route.header.kind = RouteType::Unicast;
        route.attributes.push(attribute);
        route
    }

    fn over(index: u32) -> RouteMessage {
        route(0, RouteAttribute::Oif(index))
    }

    /// Links of these names and kinds, numbered from 1, each with an address.
    fn shown(links: &[(&str, Option<InfoKind>)], routes: Vec<RouteMessage>) -> Shown {
        let all = || (1..).zip(links);
        Shown {
            interfaces: all()
                .map(|(n, (name, k))| link(n, name, k.clone()))
                .collect(),
            addresses: all()
                .map(|(n, _)| message(n, &format!("192.0.2.{n}/24"), AddressFlags::empty()))
                .collect(),
            routes,
        }
    }

    fn names(of: &Shown) -> Vec<String> {
        of.uplinks(|name| name.starts_with("en"))
            .into_keys()
            .collect()
    }

    #[test]
    fn devices_and_ways_out_are_uplinks() {
        let links = [
            ("enp1s0", None),
            ("vmbr0", Some(InfoKind::Bridge)),
            ("bond0", Some(InfoKind::Bond)),
            ("ppp0", Some(InfoKind::Other("ppp".into()))),
            ("eth0", Some(InfoKind::Veth)),
            ("dummy0", Some(InfoKind::Dummy)),
        ];
        let mut hop = RouteNextHop::default();
        hop.interface_index = 3;
        let both = route(0, RouteAttribute::MultiPath(vec![hop]));
        let other = route(24, RouteAttribute::Oif(6));
        let all = shown(&links, vec![over(2), both, over(4), over(5), other]);
        assert_eq!(names(&all), ["bond0", "enp1s0", "eth0", "ppp0", "vmbr0"]);
        assert_eq!(names(&shown(&links, vec![])), ["enp1s0"]);
    }

    #[test]
    fn other_networks_on_top_of_this_machines_are_none_whatever_goes_over_them() {
        let inner = [
            "tailscale0",
            "wg0",
            "cali12ab",
            "cilium_host",
            "lxcbr0",
            "podman0",
            "tun0",
            "docker0",
            "br-12ab",
            "veth12",
            "cni0",
            "flannel.1",
            "virbr0",
            "ztabcd",
            MESH_INTERFACE,
        ];
        let mut links: Vec<_> = inner.map(|name| (name, None)).into();
        // Those whose names say nothing.
        links.extend(INNER_KINDS.map(|kind| ("office", Some(kind))));
        let count = u32::try_from(links.len()).unwrap();
        let all = shown(&links, (1..=count).map(over).collect());
        assert_eq!(names(&all), Vec::<String>::new());
    }

    #[test]
    fn what_is_down_or_has_no_address_is_none() {
        let mut all = shown(
            &[("enp1s0", None), ("enp2s0", None), ("enp3s0", None)],
            vec![],
        );
        all.interfaces[0].header.flags = LinkFlags::Up;
        all.addresses.remove(1);
        assert_eq!(names(&all), ["enp3s0"]);
    }
}
