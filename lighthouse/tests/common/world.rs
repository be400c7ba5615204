//! Places as network namespaces of this process, with nftables as NATs; removed when dropped.

use holdfast_testnet::{Needs, Places, nft, run};
use std::net::IpAddr;

/// Where everybody's mesh socket is.
pub const PORT: u16 = 51_820;
/// Where the lighthouse's API is.
pub const HTTPS: u16 = 443;

/// What stands between a LAN and the wide net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    FullCone,
    AddressRestricted,
    PortRestricted,
    Symmetric,
    /// A port-restricted one behind another.
    Double,
    /// Full cone; two LANs that reach each other by the outer address only.
    Hairpin,
    /// Lets no UDP through, in either direction.
    NoUdp,
    /// No NAT and no IPv4: IPv6 behind a firewall that lets in answers only.
    V6Only,
}

impl Nat {
    pub fn v6(self) -> bool {
        self == Self::V6Only
    }

    /// One outer address and port, whoever is written to.
    pub fn cone(self) -> bool {
        use Nat::{AddressRestricted, Double, FullCone, PortRestricted};
        matches!(self, FullCone | AddressRestricted | PortRestricted | Double)
    }

    /// Whether two members behind these can reach each other directly.
    pub fn meets(self, other: Self) -> bool {
        use Nat::{AddressRestricted, FullCone, Hairpin, Symmetric, V6Only};
        match (self, other) {
            // It writes from a port that nobody knows before: whoever looks at addresses alone lets it in.
            (Symmetric, cone) | (cone, Symmetric) => {
                matches!(cone, FullCone | AddressRestricted)
            }
            (V6Only, V6Only) | (Hairpin, Hairpin) => true,
            (a, b) => a.cone() && b.cone(),
        }
    }

    /// What `nft` is told; `host` is the member behind it, `outer` the router's address.
    fn rules(self, host: &str, outer: &str) -> String {
        if self == Self::Hairpin {
            return hairpin(host, outer);
        }
        let into = match self {
            Self::FullCone => format!("iifname \"wan\" udp dport {PORT} dnat to {host}"),
            Self::AddressRestricted => {
                format!("iifname \"wan\" ip saddr @seen udp dport {PORT} dnat to {host}")
            }
            _ => String::new(),
        };
        let masquerade = match self {
            Self::V6Only => "",
            Self::Symmetric => "oifname \"wan\" masquerade fully-random",
            _ => "oifname \"wan\" masquerade",
        };
        let udp = match self {
            Self::NoUdp => "meta l4proto udp drop",
            _ => "",
        };
        format!(
            "table ip n {{
               set seen {{ type ipv4_addr; flags dynamic,timeout; timeout 60s; size 1000; }}
               chain before {{ type nat hook prerouting priority dstnat
                 {into}
               }}
               chain onward {{ type filter hook forward priority 0
                 oifname \"wan\" meta l4proto udp update @seen {{ ip daddr }}
               }}
               chain blocked {{ type filter hook forward priority 1
                 {udp}
               }}
               chain inward {{ type filter hook input priority 0
                 iifname \"wan\" meta l4proto udp drop
               }}
               chain inward_all {{ type filter hook prerouting priority -300
               }}
               chain after {{ type nat hook postrouting priority srcnat
                 {masquerade}
               }}
             }}
             table ip6 f {{
               chain inward_all {{ type filter hook prerouting priority -300
               }}
               chain onward {{ type filter hook forward priority 0
                 iifname \"wan\" ct state established,related accept
                 iifname \"wan\" drop
               }}
             }}\n"
        )
    }
}

/// Both members' ports are kept outside; from one LAN to the other goes only what was sent to the
/// outer address.
fn hairpin(host: &str, outer: &str) -> String {
    let (one, two) = (format!("{host}:{PORT}"), format!("192.168.7.2:{PORT}"));
    let other = PORT + 1;
    format!(
        "table ip n {{
           chain before {{ type nat hook prerouting priority dstnat
             ip daddr {outer} udp dport {PORT} dnat to {one}
             ip daddr {outer} udp dport {other} dnat to {two}
           }}
           chain onward {{ type filter hook forward priority 0
             iifname {{ \"br0\", \"br1\" }} oifname {{ \"br0\", \"br1\" }} ct status dnat accept
             iifname {{ \"br0\", \"br1\" }} oifname {{ \"br0\", \"br1\" }} drop
           }}
           chain after {{ type nat hook postrouting priority srcnat
             ip saddr {host} udp sport {PORT} snat to {outer}:{PORT}
             ip saddr 192.168.7.2 udp sport {PORT} snat to {outer}:{other}
             oifname \"wan\" masquerade
           }}
         }}\n"
    )
}

/// Namespaces.
pub struct World(Places);

impl World {
    pub fn new(tag: &str) -> Self {
        let mut places = Places::new(tag);
        let wan = places.add("w");
        let inside = |line: &str| run(&format!("ip -n {wan} {line}"));
        inside("link add br0 type bridge");
        inside("addr add 203.0.113.1/24 dev br0");
        inside("addr add 2001:db8:ff::1/64 dev br0 nodad");
        inside("link set br0 up");
        Self(places)
    }

    pub fn name(&self, name: &str) -> String {
        self.0.name(name)
    }

    /// A cable from port `wan` of `place` to a bridge elsewhere.
    fn plug(&self, place: &str, at: &str, bridge: &str, address: &str, gateway: &str) {
        let end = format!("v{}", place.trim_start_matches(self.0.prefix()));
        run(&format!(
            "ip link add wan netns {place} type veth peer name {end} netns {at}"
        ));
        run(&format!("ip -n {at} link set {end} master {bridge} up"));
        run(&format!("ip -n {place} link set wan up"));
        let nodad = if address.contains(':') { " nodad" } else { "" };
        run(&format!("ip -n {place} addr add {address} dev wan{nodad}"));
        if !gateway.is_empty() {
            run(&format!("ip -n {place} route add default via {gateway}"));
        }
    }

    /// A router `name` on the wide net with a LAN of its own.
    pub fn router(&mut self, name: &str, nat: Nat, n: u8, upstream: (&str, &str)) -> String {
        let router = self.0.add(name);
        let (at, net) = (self.name(upstream.0), upstream.1);
        let gateway = if net == "203.0.113" {
            String::new()
        } else {
            format!("{net}.1")
        };
        self.plug(&router, &at, "br0", &format!("{net}.{n}0/24"), &gateway);
        let inside = |line: &str| run(&format!("ip -n {router} {line}"));
        inside("link add br0 type bridge");
        inside(&format!("addr add 192.168.{n}.1/24 dev br0"));
        if nat == Nat::Hairpin {
            inside("link add br1 type bridge");
            inside("addr add 192.168.7.1/24 dev br1");
            inside("link set br1 up");
        }
        if nat.v6() {
            inside(&format!("addr add 2001:db8:{n}::1/64 dev br0 nodad"));
            inside(&format!("addr add 2001:db8:ff::{n}0/64 dev wan nodad"));
            for other in (1..=2).filter(|o| *o != n) {
                inside(&format!(
                    "route add 2001:db8:{other}::/64 via 2001:db8:ff::{other}0"
                ));
            }
            run(&format!(
                "ip -n {at} route add 2001:db8:{n}::/64 via 2001:db8:ff::{n}0"
            ));
        }
        inside("link set br0 up");
        for knob in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            run(&format!("ip netns exec {router} sysctl -qw {knob}=1"));
        }
        let host = format!("192.168.{n}.2");
        nft(&router, &nat.rules(&host, &format!("{net}.{n}0")));
        router
    }

    /// A member's machine at bridge `bridge` of `router`.
    pub fn host(&mut self, name: &str, at: (&str, &str), n: u8, number: u8, v6: bool) -> IpAddr {
        let host = self.0.add(name);
        let (address, gateway) = if v6 {
            (
                format!("2001:db8:{n}::{number}/64"),
                format!("2001:db8:{n}::1"),
            )
        } else {
            (format!("192.168.{n}.{number}/24"), format!("192.168.{n}.1"))
        };
        self.plug(&host, at.0, at.1, &address, &gateway);
        let (own, _) = address.split_once('/').unwrap();
        own.parse().unwrap()
    }
}

/// Whether such a world can be made here; says so if not.
pub fn possible() -> bool {
    holdfast_testnet::possible(&[Needs::Nft])
}
