//! What the agent asks of the kernel's routing socket.

use super::plan::{Link, Route};
use crate::forever::forever;
use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// A table of routes that no DHCP or router advertisement writes to, and the rule that leads there: in
/// front of the main table's (32766), behind the kernel's own for local addresses (0).
const TABLE: u32 = 1380;
const PREFERENCE: u32 = 1380;

/// What the kernel tells of by itself.
const LISTENED: [MulticastGroup; 3] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

/// The routing socket; clones share it.
#[derive(Clone)]
pub struct Netlink {
    pub(super) handle: Handle,
    /// Of the socket that listens: it lives as long.
    _listens: Handle,
    /// Counts changes of links and addresses.
    changes: Arc<watch::Sender<u64>>,
}

impl Netlink {
    /// Opens the socket, and another one that listens for changes of links and addresses: where the
    /// kernel has more to tell than the socket holds it drops answers too, and nobody would ask again.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn open() -> anyhow::Result<Self> {
        let unopened = "the kernel's routing socket cannot be opened";
        let (connection, handle, _) = rtnetlink::new_connection().context(unopened)?;
        forever("netlink", connection);
        let (connection, listens, mut events) =
            rtnetlink::new_multicast_connection(&LISTENED).context(unopened)?;
        forever("netlink events", connection);
        let changes = Arc::new(watch::Sender::new(0));
        let told = changes.clone();
        forever("links", async move {
            while events.next().await.is_some() {
                told.send_modify(|n| *n += 1);
            }
        });
        Ok(Self {
            handle,
            _listens: listens,
            changes,
        })
    }

    /// Told of each change of a link or an address.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All Ethernet interfaces.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn links(&self) -> anyhow::Result<Vec<Link>> {
        let mut all = self.handle.link().get().execute();
        let mut out = vec![];
        while let Some(message) = all.try_next().await? {
            if message.header.link_layer_type != LinkLayerType::Ether {
                continue;
            }
            let mut link = Link {
                index: message.header.index,
                name: String::new(),
                mac: vec![],
                physical: false,
                wireless: false,
                up: message.header.flags.contains(LinkFlags::Up),
                carrier: message.header.flags.contains(LinkFlags::LowerUp),
            };
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    LinkAttribute::Address(mac) => link.mac = mac,
                    _ => {}
                }
            }
            let shown = Path::new("/sys/class/net").join(&link.name);
            link.physical = shown.join("device").exists();
            link.wireless = shown.join("phy80211").exists();
            if link.wireless {
                // A radio has a carrier as soon as it talks to an access point, and is of use once
                // keys are agreed on (RFC 2863: no longer dormant).
                link.carrier = message.header.flags.contains(LinkFlags::Running);
            }
            out.push(link);
        }
        Ok(out)
    }

    /// The number of the interface `name`, if there is one.
    ///
    /// # Errors
    /// As the kernel says, other than that there is none.
    pub async fn index_of(&self, name: &str) -> anyhow::Result<Option<u32>> {
        let mut found = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        match found.try_next().await {
            Ok(message) => Ok(message.map(|m| m.header.index)),
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => Ok(None),
            Err(e) => Err(e).with_context(|| format!("interface {name}")),
        }
    }

    /// Sets an interface up, and its MTU where one is given.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn up(&self, index: u32, mtu: Option<u16>) -> anyhow::Result<()> {
        let mut link = LinkUnspec::new_with_index(index).up();
        if let Some(mtu) = mtu {
            link = link.mtu(mtu.into());
        }
        self.handle
            .link()
            .set(link.build())
            .execute()
            .await
            .context("the interface does not come up")
    }

    /// Adds an address, or leaves it as it is; `metric`: of the route to its network, which else is
    /// the kernel's, before all others.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn add_address(
        &self,
        index: u32,
        address: IpNet,
        metric: Option<u32>,
    ) -> anyhow::Result<()> {
        let mut request = self
            .handle
            .address()
            .add(index, address.addr(), address.prefix_len())
            .replace();
        let attributes = &mut request.message_mut().attributes;
        attributes.extend(metric.map(AddressAttribute::RoutePriority));
        request
            .execute()
            .await
            .with_context(|| format!("address {address}"))
    }

    /// Takes every address of an interface away that is not wanted, but for IPv6 ones that the
    /// kernel made itself. `family4`: look at IPv4 ones only.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn keep_addresses(
        &self,
        index: u32,
        wanted: &[IpNet],
        family4: bool,
    ) -> anyhow::Result<()> {
        let mut all = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute();
        let mut gone = vec![];
        while let Some(message) = all.try_next().await? {
            let address = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            let Some(address) = address else { continue };
            let ours = match address {
                IpAddr::V4(_) => true,
                IpAddr::V6(a) => !family4 && !a.is_unicast_link_local(),
            };
            let stays = wanted
                .iter()
                .any(|w| w.addr() == address && w.prefix_len() == message.header.prefix_len);
            if ours && !stays {
                gone.push(message);
            }
        }
        for message in gone {
            self.handle
                .address()
                .del(message)
                .execute()
                .await
                .context("an old address stays")?;
        }
        Ok(())
    }

    /// Has everything for `net` go over an interface, whatever routes others bring: a rule sends it to
    /// a table of its own, before the main one is looked at. Without the interface the table is empty,
    /// and the main one counts.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn prefer(&self, index: u32, net: IpNet) -> anyhow::Result<()> {
        let add = self
            .handle
            .rule()
            .add()
            .priority(PREFERENCE)
            .table_id(TABLE);
        let add = add.action(RuleAction::ToTable);
        let (ruled, message) = match net.trunc() {
            IpNet::V4(to) => (
                add.v4()
                    .destination_prefix(to.addr(), to.prefix_len())
                    .execute()
                    .await,
                RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(to.addr(), to.prefix_len())
                    .output_interface(index)
                    .table_id(TABLE)
                    .protocol(RouteProtocol::Static)
                    .scope(RouteScope::Link)
                    .build(),
            ),
            IpNet::V6(to) => (
                add.v6()
                    .destination_prefix(to.addr(), to.prefix_len())
                    .execute()
                    .await,
                RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(to.addr(), to.prefix_len())
                    .output_interface(index)
                    .table_id(TABLE)
                    .protocol(RouteProtocol::Static)
                    .build(),
            ),
        };
        match ruled {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::EEXIST => {}
            other => other.with_context(|| format!("rule for {net}"))?,
        }
        let add = self.handle.route().add(message).replace();
        add.execute()
            .await
            .with_context(|| format!("route to {net} of its own"))
    }

    /// Takes [`Netlink::prefer`]'s rule back; its route goes with the interface.
    ///
    /// # Errors
    /// As the kernel says, other than that there is none.
    pub async fn prefer_no_more(&self, net: IpNet) -> anyhow::Result<()> {
        let rule = self.handle.rule();
        let add = rule.add().priority(PREFERENCE).table_id(TABLE);
        let add = add.action(RuleAction::ToTable);
        let message = match net.trunc() {
            IpNet::V4(to) => add
                .v4()
                .destination_prefix(to.addr(), to.prefix_len())
                .message_mut()
                .clone(),
            IpNet::V6(to) => add
                .v6()
                .destination_prefix(to.addr(), to.prefix_len())
                .message_mut()
                .clone(),
        };
        match rule.del(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENOENT => Ok(()),
            other => other.with_context(|| format!("rule for {net}")),
        }
    }

    /// Adds a route, or replaces the one to the same destination with the same metric.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn add_route(&self, index: u32, route: &Route, metric: u32) -> anyhow::Result<()> {
        let message = match route.to {
            IpNet::V4(to) => {
                let mut b = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(to.addr(), to.prefix_len())
                    .output_interface(index)
                    .priority(metric)
                    .protocol(RouteProtocol::Dhcp);
                match route.via {
                    Some(IpAddr::V4(via)) => {
                        b = b.gateway(via);
                        if route.on_link {
                            b = b.onlink();
                        }
                    }
                    _ => b = b.scope(RouteScope::Link),
                }
                b.build()
            }
            IpNet::V6(to) => {
                let mut b = RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(to.addr(), to.prefix_len())
                    .output_interface(index)
                    .priority(metric)
                    .protocol(RouteProtocol::Static);
                if let Some(IpAddr::V6(via)) = route.via {
                    b = b.gateway(via);
                }
                b.build()
            }
        };
        self.handle
            .route()
            .add(message)
            .replace()
            .execute()
            .await
            .with_context(|| format!("route to {}", route.to))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::process::Command;

    /// Set where this program runs in a network that it may change.
    const INSIDE: &str = "HOLDFAST_TEST_OWN_NETWORK";

    /// Where a test runs.
    pub enum Inside {
        /// In a network of its own.
        Yes,
        /// It ran there, or none can be made.
        Done,
    }

    /// Has the test of that name run again in a network of its own; says so where none can be made.
    pub fn in_a_network_of_its_own(test: &str) -> Inside {
        if std::env::var_os(INSIDE).is_some() {
            return Inside::Yes;
        }
        let run = Command::new("unshare")
            .args(["-rn"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(INSIDE, "1")
            .output();
        match run {
            Ok(out) if !String::from_utf8_lossy(&out.stderr).contains("unshare") => {
                let told = String::from_utf8_lossy(&out.stdout).into_owned();
                assert!(out.status.success() && told.contains("1 passed"), "{told}");
            }
            _ => {
                let asked = std::env::var_os("HOLDFAST_ROOT_TESTS").is_some();
                assert!(
                    !asked,
                    "no network namespaces here, and HOLDFAST_ROOT_TESTS is set"
                );
                eprintln!("no network namespaces here: not run");
            }
        }
        Inside::Done
    }

    /// `ip LINE`.
    pub fn ip(line: &str) -> String {
        let out = Command::new("ip").args(line.split(' ')).output().unwrap();
        assert!(out.status.success(), "ip {line}: {out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    #[test]
    fn what_is_preferred_goes_its_way_whatever_routes_others_bring() {
        let name = concat!(
            "network::netlink::tests::",
            "what_is_preferred_goes_its_way_whatever_routes_others_bring"
        );
        if matches!(in_a_network_of_its_own(name), Inside::Yes) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(preferred());
        }
    }

    async fn preferred() {
        for line in [
            "lan address add 192.0.2.2/24",
            "mesh address add 100.64.16.1/20",
        ] {
            let (name, rest) = line.split_once(' ').unwrap();
            ip(&format!("tuntap add dev {name} mode tun"));
            ip(&format!("link set {name} up"));
            ip(&format!("{rest} dev {name}"));
        }
        ip("route add 100.64.17.0/24 via 192.0.2.1 dev lan");
        let netlink = Netlink::open().unwrap();
        let index = netlink.index_of("mesh").await.unwrap().unwrap();
        let way = |to: &str| ip(&format!("route get {to}"));
        assert!(way("100.64.17.9").contains("dev lan"));
        for _ in 0..2 {
            let nets = ["100.64.16.1/20", "fd00:1::1/64"];
            for net in nets {
                netlink.prefer(index, net.parse().unwrap()).await.unwrap();
            }
        }
        assert!(
            way("100.64.17.9").contains("dev mesh"),
            "{}",
            way("100.64.17.9")
        );
        assert!(way("100.64.17.9").contains("src 100.64.16.1"));
        assert!(way("192.0.2.9").contains("dev lan"));
        assert!(way("100.64.16.1").contains("dev lo"));
        assert_eq!(ip("rule show").matches("lookup 1380").count(), 1);
        // A router in a range of the cluster.
        let lan = netlink.index_of("lan").await.unwrap().unwrap();
        let route = Route {
            to: "0.0.0.0/0".parse().unwrap(),
            via: Some("100.64.20.1".parse().unwrap()),
            on_link: true,
        };
        netlink.add_route(lan, &route, 1026).await.unwrap();
        assert!(way("198.51.100.1").contains("via 100.64.20.1 dev lan"));
    }
}
