//! Which interfaces are used and how, as decisions on values.

use super::Wanted;
use holdfast_core::cluster::AddressPlan;
use holdfast_core::seed::SeedNetwork;
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr};

/// An interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Kernel's number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Vec<u8>,
    /// It has a device behind it: no bridge, veth or tunnel.
    pub physical: bool,
    /// It is a radio.
    pub wireless: bool,
    /// It is switched on.
    pub up: bool,
    /// A cable is in, and the other side is up; a radio is let into its network.
    pub carrier: bool,
}

/// How an uplink gets its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// DHCPv4, and router advertisements.
    Automatic,
    /// What the seed says.
    Static,
}

/// The mode of `link`, or `None` when it is no uplink. A radio is one where there is a network for
/// it. Static addresses are Ethernet's, unless they are said to be a radio's.
pub fn mode(link: &Link, wanted: &Wanted) -> Option<Mode> {
    let named = wanted.seed.interface.as_deref();
    if named.is_some_and(|n| n != link.name) || (named.is_none() && !link.physical) {
        return None;
    }
    if link.mac.len() != 6 || (link.wireless && wanted.wifi.is_none()) {
        return None;
    }
    let fixed = !wanted.seed.addresses.is_empty() && (!link.wireless || named.is_some());
    Some(if fixed { Mode::Static } else { Mode::Automatic })
}

/// The metric of Ethernet's routes, to which the interface's number is added; the kernel gives the
/// same to routes that routers advertise.
const ETHERNET: u32 = 1024;
/// The same of radios, far beyond any number of an interface: Ethernet comes first.
pub const WIRELESS: u32 = 1 << 20;

/// What the routes over an uplink differ in from those over others: the lowest is used.
pub fn metric(link: &Link) -> u32 {
    let base = if link.wireless { WIRELESS } else { ETHERNET };
    base.saturating_add(link.index)
}

/// A route over an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to; a zero-length prefix is the default route.
    pub to: IpNet,
    /// By whom; none: on the link itself.
    pub via: Option<IpAddr>,
    /// Whoever that is, is on the link, whatever other routes say.
    pub on_link: bool,
}

/// What one uplink was told to use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uplink {
    /// Addresses with their prefixes.
    pub addresses: Vec<IpNet>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Name servers that routers advertise, as `resolv.conf` names them.
    pub advertised: Vec<String>,
    /// Time servers.
    pub ntp: Vec<String>,
    /// The link's MTU, where the network says one that a link may have (RFC 791: 68 at least).
    pub mtu: Option<u16>,
    /// Counts how often its link came up: the network may be another one each time, whatever its
    /// addresses.
    pub came_up: u64,
}

/// The default route of a family.
pub fn default_net(via: IpAddr) -> IpNet {
    match via {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// A seed's static configuration.
pub fn from_seed(seed: &SeedNetwork) -> Uplink {
    Uplink {
        addresses: seed.addresses.clone(),
        routes: seed
            .gateways
            .iter()
            .map(|g| Route {
                to: default_net(*g),
                via: Some(*g),
                on_link: false,
            })
            .collect(),
        dns: seed.dns.clone(),
        ntp: seed.ntp.clone(),
        ..Uplink::default()
    }
}

/// A DHCP lease, in plain values.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Ours.
    pub address: Ipv4Addr,
    /// The network's mask.
    pub mask: Ipv4Addr,
    /// Routers (option 3).
    pub gateways: Vec<Ipv4Addr>,
    /// Classless routes (option 121): destination, prefix length, router. Where there are any,
    /// the routers above are not used (RFC 3442).
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// The link's MTU.
    pub mtu: Option<u16>,
}

/// The smallest MTU that is taken from DHCP: IPv6 needs it (RFC 8200).
const LEAST_MTU: u16 = 1280;

/// What a lease means; the seed's name and time servers come before the network's. `plan`: the
/// cluster's ranges, of which whoever answers DHCP gets nothing: a route or network inside of one, with
/// a longer prefix, would take the cluster's packets out of the mesh. Wider ones do no harm.
pub fn from_lease(lease: &Lease, seed: Option<&SeedNetwork>, plan: Option<&AddressPlan>) -> Uplink {
    let inside = |net: Ipv4Net| {
        let ranges = plan.map(|p| [p.mesh4, p.pods, p.services]);
        ranges.is_some_and(|all| all.iter().any(|range| range.contains(&net)))
    };
    let prefix = ipnet::ipv4_mask_to_prefix(lease.mask).unwrap_or(32);
    let address = Ipv4Net::new(lease.address, prefix)
        .ok()
        .filter(|net| !inside(net.trunc()))
        .unwrap_or_else(|| Ipv4Net::from(lease.address));
    let mut routes: Vec<Route> = lease
        .routes
        .iter()
        .filter_map(|(to, len, via)| {
            let via = (!via.is_unspecified()).then_some(IpAddr::V4(*via));
            let to = Ipv4Net::new(*to, *len).ok()?.trunc();
            (!inside(to)).then_some(Route {
                to: to.into(),
                via,
                on_link: false,
            })
        })
        .collect();
    if routes.is_empty() {
        // Two default routes of one metric would be refused: the first router counts.
        routes.extend(lease.gateways.first().map(|g| {
            let via = IpAddr::V4(*g);
            Route {
                to: default_net(via),
                via: Some(via),
                on_link: false,
            }
        }));
    }
    // A router outside of our network is reached over the link (cloud networks with a /32).
    let mut outside: Vec<Route> = vec![];
    for route in &mut routes {
        let Some(IpAddr::V4(via)) = route.via else {
            continue;
        };
        if inside(via.into()) {
            route.on_link = true;
        } else if !address.contains(&via) {
            outside.push(Route {
                to: Ipv4Net::from(via).into(),
                via: None,
                on_link: false,
            });
        }
    }
    for route in outside {
        if !routes.contains(&route) {
            routes.insert(0, route);
        }
    }
    let own_dns = seed.map(|s| s.dns.clone()).unwrap_or_default();
    let own_ntp = seed.map(|s| s.ntp.clone()).unwrap_or_default();
    Uplink {
        addresses: vec![address.into()],
        routes,
        dns: if own_dns.is_empty() {
            lease.dns.iter().map(|d| (*d).into()).collect()
        } else {
            own_dns
        },
        ntp: if own_ntp.is_empty() {
            lease.ntp.iter().map(ToString::to_string).collect()
        } else {
            own_ntp
        },
        mtu: lease.mtu.filter(|m| *m >= LEAST_MTU),
        ..Uplink::default()
    }
}

/// Says so when a local network overlaps the cluster's ranges.
pub fn overlap(plan: &AddressPlan, addresses: &[IpNet]) -> Option<String> {
    addresses.iter().find_map(|a| {
        let IpNet::V4(lan) = a else { return None };
        let range = plan.overlap(*lan)?;
        Some(format!(
            "the local network {} overlaps the cluster's {range}: local machines in it cannot be reached; give that network other addresses",
            lan.trunc()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, physical: bool) -> Link {
        Link {
            index: 2,
            name: name.into(),
            mac: vec![2; 6],
            physical,
            wireless: name.starts_with("wl"),
            up: true,
            carrier: true,
        }
    }

    fn lease() -> Lease {
        Lease {
            address: "10.0.2.15".parse().unwrap(),
            mask: "255.255.255.0".parse().unwrap(),
            gateways: vec!["10.0.2.2".parse().unwrap()],
            routes: vec![],
            dns: vec!["10.0.2.3".parse().unwrap()],
            ntp: vec![],
            mtu: None,
        }
    }

    #[test]
    fn physical_links_are_uplinks_unless_the_seed_names_one() {
        let any = Wanted::default();
        assert_eq!(mode(&link("eth0", true), &any), Some(Mode::Automatic));
        assert_eq!(mode(&link("cni0", false), &any), None);
        let named = |name: &str| Wanted {
            seed: SeedNetwork {
                interface: Some(name.into()),
                ..SeedNetwork::default()
            },
            ..Wanted::default()
        };
        let one = named("eth1");
        assert_eq!(mode(&link("eth0", true), &one), None);
        assert_eq!(mode(&link("eth1", false), &one), Some(Mode::Automatic));
        let mut fixed = one;
        fixed.seed.addresses = vec!["10.1.1.2/24".parse().unwrap()];
        assert_eq!(mode(&link("eth1", true), &fixed), Some(Mode::Static));
    }

    #[test]
    fn a_radio_is_an_uplink_where_it_has_a_network_and_comes_after_ethernet() {
        let (cable, radio) = (link("eth0", true), link("wlan0", true));
        let mut wanted = Wanted::default();
        assert_eq!(mode(&radio, &wanted), None);
        wanted.wifi = Some(super::super::wifi::tests::settings(&[]));
        assert_eq!(mode(&radio, &wanted), Some(Mode::Automatic));
        assert_eq!(mode(&cable, &wanted), Some(Mode::Automatic));
        // One address cannot be on both.
        wanted.seed.addresses = vec!["10.1.1.2/24".parse().unwrap()];
        assert_eq!(mode(&radio, &wanted), Some(Mode::Automatic));
        assert_eq!(mode(&cable, &wanted), Some(Mode::Static));
        wanted.seed.interface = Some("wlan0".into());
        assert_eq!(mode(&radio, &wanted), Some(Mode::Static));
        assert_eq!(mode(&cable, &wanted), None);
        let late = Link {
            index: 9000,
            ..cable
        };
        assert!(metric(&late) < metric(&radio));
    }

    #[test]
    fn qemus_user_network() {
        let up = from_lease(&lease(), None, None);
        assert_eq!(up.addresses, ["10.0.2.15/24".parse().unwrap()]);
        assert_eq!(up.routes.len(), 1);
        assert_eq!(up.routes[0].via, Some("10.0.2.2".parse().unwrap()));
        assert_eq!(up.dns, ["10.0.2.3".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_router_outside_of_the_network_gets_a_route_over_the_link_first() {
        let cloud = Lease {
            mask: "255.255.255.255".parse().unwrap(),
            ..lease()
        };
        let up = from_lease(&cloud, None, None);
        assert_eq!(
            up.routes[0],
            Route {
                to: "10.0.2.2/32".parse().unwrap(),
                via: None,
                on_link: false,
            }
        );
        assert_eq!(up.routes[1].to, "0.0.0.0/0".parse::<IpNet>().unwrap());
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let zero = Ipv4Addr::UNSPECIFIED;
        let routes = vec![
            ("169.254.169.254".parse().unwrap(), 32, zero),
            (zero, 0, "10.0.2.9".parse().unwrap()),
        ];
        let up = from_lease(&Lease { routes, ..lease() }, None, None);
        assert_eq!(up.routes.len(), 2);
        assert_eq!(up.routes[0].via, None);
        assert_eq!(up.routes[1].via, Some("10.0.2.9".parse().unwrap()));
    }

    #[test]
    fn whoever_answers_dhcp_gets_nothing_of_the_clusters_ranges() {
        let plan = AddressPlan::new(holdfast_core::cluster::ClusterId([1; 16]), false);
        let router: Ipv4Addr = "10.0.2.2".parse().unwrap();
        let zero = Ipv4Addr::UNSPECIFIED;
        let halves = |net: Ipv4Net| {
            let len = net.prefix_len() + 1;
            let all: Vec<_> = net.subnets(len).unwrap().collect();
            all.into_iter().map(move |n| (n.network(), len, router))
        };
        let routes: Vec<_> = halves(plan.mesh4)
            .chain(halves(plan.pods))
            .chain([(plan.services.network(), 16, zero)])
            .chain([
                ("100.64.0.0".parse().unwrap(), 10, router),
                (zero, 0, router),
            ])
            .collect();
        let hijack = Lease { routes, ..lease() };
        let up = from_lease(&hijack, None, Some(&plan));
        let to: Vec<_> = up.routes.iter().map(|r| r.to.to_string()).collect();
        assert_eq!(to, ["100.64.0.0/10", "0.0.0.0/0"]);
        // A network inside of a range, too; its router is still one.
        let pod = plan.pods.hosts().nth(700).unwrap();
        let within = Lease {
            address: plan.pods.hosts().nth(600).unwrap(),
            mask: "255.255.254.0".parse().unwrap(),
            gateways: vec![pod],
            ..lease()
        };
        let up = from_lease(&within, None, Some(&plan));
        assert_eq!(up.addresses, [IpNet::from(Ipv4Net::from(within.address))]);
        let default = Route {
            to: default_net(pod.into()),
            via: Some(pod.into()),
            on_link: true,
        };
        assert_eq!(up.routes, [default]);
        // Before the node knows of a cluster there is nothing to keep.
        assert_eq!(
            from_lease(&within, None, None).addresses[0].prefix_len(),
            23
        );
    }

    #[test]
    fn an_overlap_is_named() {
        let plan = AddressPlan::new(holdfast_core::cluster::ClusterId([1; 16]), false);
        let lan: IpNet = plan.pods.into();
        assert!(
            overlap(&plan, &[lan])
                .unwrap()
                .contains(&plan.pods.to_string())
        );
        assert!(overlap(&plan, &["192.168.1.5/24".parse().unwrap()]).is_none());
    }
}
