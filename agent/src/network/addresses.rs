//! Addresses, links and default routes as the kernel has them, whoever made them.

use super::netlink::Netlink;
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::RouteMessage;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Netlink {
    /// All addresses.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn addresses(&self) -> anyhow::Result<Vec<AddressMessage>> {
        let all = self.handle.address().get().execute();
        Ok(self.answer(all.try_collect()).await?)
    }

    /// All interfaces, of whatever kind.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn interfaces(&self) -> anyhow::Result<Vec<LinkMessage>> {
        let all = self.handle.link().get().execute();
        Ok(self.answer(all.try_collect()).await?)
    }

    /// Default routes, and others, of every table.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn routes(&self) -> anyhow::Result<Vec<RouteMessage>> {
        let mut all = vec![];
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let some = self.handle.route().get(family).execute();
            all.extend(self.answer(some.try_collect::<Vec<_>>()).await?);
        }
        Ok(all)
    }
}

/// The interface and address that a message tells of, where others reach this machine at it: not one
/// that may still turn out to be another's (RFC 4862: tentative), that is on its way out (deprecated),
/// that changes every day on purpose (RFC 8981: temporary), or that is of one link only.
pub fn lasting(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let (mut local, mut address, mut long) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(at) => local = Some(*at),
            AddressAttribute::Address(at) => address = Some(*at),
            AddressAttribute::Flags(flags) => long = Some(*flags),
            _ => {}
        }
    }
    // Where the two differ, the other end of a point-to-point link is the second.
    let at = local.or(address)?;
    let short = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let flags = long.unwrap_or(short);
    if let IpAddr::V6(v6) = at {
        // Of IPv6, the kernel's IFA_F_TEMPORARY is IFA_F_SECONDARY.
        let passing = AddressFlags::Tentative
            | AddressFlags::Dadfailed
            | AddressFlags::Deprecated
            | AddressFlags::Secondary;
        if v6.is_unicast_link_local() || flags.intersects(passing) {
            return None;
        }
    }
    let net = IpNet::new(at, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An address as the kernel tells of it.
    pub fn message(index: u32, net: &str, flags: AddressFlags) -> AddressMessage {
        let net: IpNet = net.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = net.prefix_len();
        message.attributes = vec![
            AddressAttribute::Address(net.addr()),
            AddressAttribute::Flags(flags),
        ];
        message
    }

    #[test]
    fn only_addresses_that_last_are_told_of() {
        let told = |net, flags| lasting(&message(2, net, flags)).map(|(_, net)| net.to_string());
        let none = AddressFlags::empty();
        for net in ["192.0.2.7/24", "2001:db8::7/64", "fec0::7/64", "fd00::7/64"] {
            assert_eq!(told(net, none).as_deref(), Some(net));
            assert_eq!(told(net, AddressFlags::Permanent).as_deref(), Some(net));
        }
        assert_eq!(told("fe80::7/64", AddressFlags::Permanent), None);
        for flag in [
            AddressFlags::Tentative,
            AddressFlags::Deprecated,
            AddressFlags::Dadfailed | AddressFlags::Permanent,
            AddressFlags::Secondary,
        ] {
            assert_eq!(told("2001:db8::7/64", flag), None, "{flag:?}");
        }
        // Of IPv4 the flag says that it is the network's second.
        assert!(told("192.0.2.8/24", AddressFlags::Secondary).is_some());
        let mut peer = message(3, "198.51.100.1/32", none);
        let own = AddressAttribute::Local("192.0.2.7".parse().unwrap());
        peer.attributes.push(own);
        assert_eq!(lasting(&peer), Some((3, "192.0.2.7/32".parse().unwrap())));
        // Kernels before 3.14 tell the short flags only.
        let mut old = message(2, "2001:db8::7/64", none);
        old.attributes.pop();
        old.header.flags = rtnetlink::packet_route::address::AddressHeaderFlags::Tentative;
        assert_eq!(lasting(&old), None);
    }
}
