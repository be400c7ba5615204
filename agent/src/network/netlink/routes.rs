//! Routes and rules.

use super::Netlink;
use crate::network::plan::Route;
use anyhow::Context as _;
use ipnet::IpNet;
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::{Error, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A table of routes that no DHCP or router advertisement writes to, and the rule that leads there: in
/// front of the main table's (32766), behind the kernel's own for local addresses (0).
const TABLE: u32 = 1380;
const PREFERENCE: u32 = 1380;

impl Netlink {
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
                self.answer(
                    add.v4()
                        .destination_prefix(to.addr(), to.prefix_len())
                        .execute(),
                )
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
                self.answer(
                    add.v6()
                        .destination_prefix(to.addr(), to.prefix_len())
                        .execute(),
                )
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
            Err(Error::NetlinkError(e)) if e.raw_code() == -libc::EEXIST => {}
            other => other.with_context(|| format!("rule for {net}"))?,
        }
        let add = self.handle.route().add(message).replace();
        self.answer(add.execute())
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
        match self.answer(rule.del(message).execute()).await {
            Err(Error::NetlinkError(e)) if e.raw_code() == -libc::ENOENT => Ok(()),
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
        self.answer(self.handle.route().add(message).replace().execute())
            .await
            .with_context(|| format!("route to {}", route.to))
    }
}
