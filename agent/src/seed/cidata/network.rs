//! `network-config` of a cidata drive: cloud-init's network configuration of version 1, which
//! Proxmox VE writes, or 2 (netplan). What a seed's `[network]` can say is taken, the rest is named.

use super::yaml::{self, Node};
use holdfast_core::seed::SeedNetwork;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// What was understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Addresses, gateways and name servers; its interface is not set.
    pub network: SeedNetwork,
    /// The interface with the addresses, by hardware address and by name.
    pub interface: Option<Interface>,
    /// What was not, by where it stands.
    pub ignored: Vec<String>,
}

/// Which interface is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// In small letters.
    pub mac: Option<String>,
    /// As the machine's first system was to call it.
    pub name: Option<String>,
}

/// Reads a `network-config`.
///
/// # Errors
/// Where it is no YAML, or no such configuration.
pub fn parse(text: &str) -> Result<Config, String> {
    let tree = yaml::parse(text)?;
    let tree = tree.get("network").unwrap_or(&tree);
    let mut config = Config::default();
    match tree.get("version").and_then(Node::text) {
        Some("1") => config.version_1(tree),
        Some("2") => config.version_2(tree),
        other => {
            return Err(format!(
                "version {}: 1 or 2 is expected",
                other.unwrap_or("(none)")
            ));
        }
    }
    Ok(config)
}

impl Config {
    fn ignore(&mut self, what: impl Into<String>) {
        // A file of 64 KiB could name thousands.
        if self.ignored.len() < 8 {
            self.ignored.push(what.into());
        }
    }

    /// Keys of `node` that are not among `known`.
    fn unknown(&mut self, at: &str, node: &Node, known: &[&str]) {
        for (key, _) in node.entries() {
            if !known.contains(&key.as_str()) {
                self.ignore(format!("{at}.{key}"));
            }
        }
    }

    fn version_1(&mut self, tree: &Node) {
        self.unknown("network", tree, &["version", "config"]);
        let items = tree.get("config").map(Node::items).unwrap_or_default();
        for (n, item) in items.iter().enumerate() {
            let at = format!("config[{n}]");
            match item.get("type").and_then(Node::text) {
                Some("physical") => self.physical(&at, item),
                Some("nameserver") => {
                    self.unknown(&at, item, &["type", "address", "search", "interface"]);
                    self.dns(&at, item.get("address"));
                }
                other => self.ignore(format!("{at}: type {}", other.unwrap_or("(none)"))),
            }
        }
    }

    fn physical(&mut self, at: &str, item: &Node) {
        let known = ["type", "name", "mac_address", "subnets"];
        self.unknown(at, item, &known);
        let mut found = Found::default();
        let subnets = item.get("subnets").map(Node::items).unwrap_or_default();
        for (n, subnet) in subnets.iter().enumerate() {
            let at = format!("{at}.subnets[{n}]");
            let text = |key| subnet.get(key).and_then(Node::text);
            match text("type") {
                Some("static" | "static6") => {
                    let known = [
                        "type",
                        "address",
                        "netmask",
                        "gateway",
                        "dns_nameservers",
                        "dns_search",
                    ];
                    self.unknown(&at, subnet, &known);
                    match text("address").and_then(|a| with_mask(a, text("netmask"))) {
                        Some(address) => found.addresses.push(address),
                        None => self.ignore(format!("{at}: address")),
                    }
                    self.gateway(&at, subnet.get("gateway"), &mut found);
                    self.dns(&at, subnet.get("dns_nameservers"));
                }
                // What an interface without static addresses does anyway; router advertisements
                // count beside static addresses too.
                Some("dhcp" | "dhcp4" | "dhcp6" | "ipv6_slaac") => found.automatic = true,
                other => self.ignore(format!("{at}: type {}", other.unwrap_or("(none)"))),
            }
        }
        let interface = Interface {
            mac: mac(item.get("mac_address")),
            name: item.get("name").and_then(Node::text).map(Into::into),
        };
        self.interface(at, interface, found);
    }

    fn version_2(&mut self, tree: &Node) {
        self.unknown("network", tree, &["version", "ethernets", "renderer"]);
        let ethernets = tree.get("ethernets").map(Node::entries).unwrap_or_default();
        for (name, item) in ethernets {
            let at = format!("ethernets.{name}");
            let known = [
                "match",
                "set-name",
                "addresses",
                "gateway4",
                "gateway6",
                "routes",
                "nameservers",
                "dhcp4",
                "dhcp6",
                "accept-ra",
                "optional",
            ];
            self.unknown(&at, item, &known);
            let mut found = Found::default();
            for address in item.get("addresses").map(Node::items).unwrap_or_default() {
                // An address with options is a map of one entry.
                let text = address
                    .text()
                    .or_else(|| address.entries().first().map(|(key, _)| key.as_str()));
                match text.and_then(|a| with_mask(a, None)) {
                    Some(address) => found.addresses.push(address),
                    None => self.ignore(format!("{at}.addresses")),
                }
            }
            self.gateway(&at, item.get("gateway4"), &mut found);
            self.gateway(&at, item.get("gateway6"), &mut found);
            for route in item.get("routes").map(Node::items).unwrap_or_default() {
                match route.get("to").and_then(Node::text) {
                    Some("default" | "0.0.0.0/0" | "::/0") => {
                        self.gateway(&at, route.get("via"), &mut found);
                    }
                    other => self.ignore(format!("{at}.routes: to {}", other.unwrap_or("(none)"))),
                }
            }
            let yes = |key| item.get(key).and_then(Node::text) == Some("true");
            found.automatic = yes("dhcp4") || yes("dhcp6");
            self.dns(
                &at,
                item.get("nameservers").and_then(|n| n.get("addresses")),
            );
            let matched = item.get("match");
            let own_name = || {
                let by_match = matched.and_then(|m| m.get("name")).and_then(Node::text);
                by_match.or_else(|| matched.is_none().then_some(name.as_str()))
            };
            let interface = Interface {
                mac: mac(matched.and_then(|m| m.get("macaddress"))),
                name: item
                    .get("set-name")
                    .and_then(Node::text)
                    .or_else(own_name)
                    .map(Into::into),
            };
            self.interface(&at, interface, found);
        }
    }

    fn gateway(&mut self, at: &str, gateway: Option<&Node>, found: &mut Found) {
        match gateway.and_then(Node::text).map(str::parse::<IpAddr>) {
            Some(Ok(gateway)) if !found.gateways.contains(&gateway) => found.gateways.push(gateway),
            Some(Err(_)) => self.ignore(format!("{at}: gateway")),
            _ => {}
        }
    }

    fn dns(&mut self, at: &str, servers: Option<&Node>) {
        for server in servers.map(Node::items).unwrap_or_default() {
            let parsed = server.text().map(str::parse::<IpAddr>);
            match parsed {
                // The host's own resolver, which Proxmox hands on where none is set.
                Some(Ok(server)) if server.is_loopback() => {
                    self.ignore(format!("{at}: name server {server}"));
                }
                Some(Ok(server)) if self.network.dns.contains(&server) => {}
                Some(Ok(server)) => self.network.dns.push(server),
                _ => self.ignore(format!("{at}: name server")),
            }
        }
    }

    /// A seed addresses one interface: the first with static addresses.
    fn interface(&mut self, at: &str, interface: Interface, found: Found) {
        if found.addresses.is_empty() {
            if !found.gateways.is_empty() {
                self.ignore(format!("{at}: a gateway without an address"));
            }
            return;
        }
        if self.interface.is_some() {
            self.ignore(format!("{at}: a second interface with addresses"));
            return;
        }
        if found.automatic {
            self.ignore(format!("{at}: DHCP beside static addresses"));
        }
        self.interface = Some(interface);
        self.network.addresses = found.addresses;
        self.network.gateways = found.gateways;
    }
}

#[derive(Default)]
struct Found {
    addresses: Vec<IpNet>,
    gateways: Vec<IpAddr>,
    automatic: bool,
}

fn mac(node: Option<&Node>) -> Option<String> {
    node.and_then(Node::text).map(str::to_ascii_lowercase)
}

/// `address/prefix`, or an address with a netmask (dotted, or a prefix length).
fn with_mask(address: &str, mask: Option<&str>) -> Option<IpNet> {
    if let Ok(net) = address.parse() {
        return Some(net);
    }
    let address: IpAddr = address.parse().ok()?;
    let mask = mask?;
    let prefix = match (mask.parse::<u8>(), mask.parse::<Ipv4Addr>()) {
        (Ok(prefix), _) => prefix,
        (_, Ok(mask)) => ipnet::ipv4_mask_to_prefix(mask).ok()?,
        _ => return None,
    };
    IpNet::new(address, prefix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Proxmox VE writes it for `ipconfig0: ip=192.168.1.10/24,gw=192.168.1.1,ip6=auto`.
    const PROXMOX: &str = "\
version: 1
config:
    - type: physical
      name: eth0
      mac_address: 'bc:24:11:0a:0b:0c'
      subnets:
      - type: static
        address: '192.168.1.10'
        netmask: '255.255.255.0'
        gateway: '192.168.1.1'
      - type: ipv6_slaac
    - type: nameserver
      address:
      - '192.168.1.1'
      - '127.0.0.53'
      search:
      - 'example.com'
";
    const NETPLAN: &str = "\
network:
  version: 2
  ethernets:
    net0:
      match:
        macaddress: \"BC:24:11:0A:0B:0C\"
      set-name: eth0
      addresses:
      - '192.168.1.10/24'
      - 'fd00::10/64'
      routes:
      - {to: default, via: 192.168.1.1}
      gateway6: 'fd00::1'
      mtu: 1400
      nameservers:
        addresses: [192.168.1.1]
    net1:
      dhcp4: true
";

    fn ips<T: std::str::FromStr<Err: std::fmt::Debug>>(all: &[&str]) -> Vec<T> {
        all.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn proxmox_version_1() {
        let config = parse(PROXMOX).unwrap();
        assert_eq!(config.network.addresses, ips(&["192.168.1.10/24"]));
        assert_eq!(config.network.gateways, ips::<IpAddr>(&["192.168.1.1"]));
        assert_eq!(config.network.dns, ips::<IpAddr>(&["192.168.1.1"]));
        let interface = config.interface.unwrap();
        assert_eq!(interface.mac.as_deref(), Some("bc:24:11:0a:0b:0c"));
        assert_eq!(interface.name.as_deref(), Some("eth0"));
        assert_eq!(
            config.ignored,
            [
                "config[0]: DHCP beside static addresses",
                "config[1]: name server 127.0.0.53"
            ]
        );
    }

    #[test]
    fn version_2() {
        let config = parse(NETPLAN).unwrap();
        let addresses = ips(&["192.168.1.10/24", "fd00::10/64"]);
        assert_eq!(config.network.addresses, addresses);
        let gateways = ips::<IpAddr>(&["fd00::1", "192.168.1.1"]);
        assert_eq!(config.network.gateways, gateways);
        let interface = config.interface.unwrap();
        assert_eq!(interface.mac.as_deref(), Some("bc:24:11:0a:0b:0c"));
        assert_eq!(config.ignored, ["ethernets.net0.mtu"]);
    }

    #[test]
    fn dhcp_alone_changes_nothing_but_name_servers() {
        let text = "version: 1\nconfig:\n- type: physical\n  name: eth0\n  subnets:\n  - type: dhcp4\n- type: nameserver\n  address: 9.9.9.9\n- type: bond\n";
        let config = parse(text).unwrap();
        assert_eq!(config.interface, None);
        assert!(config.network.addresses.is_empty());
        assert_eq!(config.network.dns, ips::<IpAddr>(&["9.9.9.9"]));
        assert_eq!(config.ignored, ["config[2]: type bond"]);
    }

    #[test]
    fn nonsense_is_told() {
        for (text, words) in [
            ("hello", "version (none)"),
            ("version: 3\n", "version 3"),
            ("a: [", "line"),
            ("auto eth0\niface eth0 inet dhcp\n", "version"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let masks = [
            ("10.0.0.1", Some("24"), true),
            ("10.0.0.1", Some("255.0.255.0"), false),
            ("10.0.0.1", None, false),
            ("fd00::1", Some("129"), false),
        ];
        for (address, mask, good) in masks {
            assert_eq!(
                with_mask(address, mask).is_some(),
                good,
                "{address} {mask:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(crate::seed::fuzz::cases())]
        #[test]
        fn any_text_is_read_without_a_panic(
            text in "[-a-z0-9:\\[\\]{}#&*!|>'\", \n\t.?%@/]{0,400}",
            changes in proptest::collection::vec((0usize..1000, "[-:\\[\\]{}&*|>'\"\n \t#?!%@a1]{0,3}"), 0..12),
        ) {
            let _ = parse(&text);
            for good in [PROXMOX, NETPLAN] {
                let mut good = good.to_owned();
                for (at, with) in &changes {
                    let at = at % good.len();
                    good.replace_range(at..=at, with);
                    if good.is_empty() {
                        break;
                    }
                }
                if let Ok(config) = parse(&good) {
                    prop_assert!(config.ignored.len() <= 8);
                }
            }
        }
    }
}
