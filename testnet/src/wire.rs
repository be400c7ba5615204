//! Machines on one wire.

use crate::{Places, nft, run};

/// Machines `1`, `2`, ... at 10.98.0.1, 10.98.0.2, ... on one wire; gone when dropped.
#[derive(Debug)]
pub struct Wire(Places);

impl Wire {
    /// So many machines; `tag` tells the wires of one program apart.
    pub fn new(tag: &str, machines: u8) -> Self {
        let mut places = Places::new(tag);
        let hub = places.add("hub");
        run(&format!("ip -n {hub} link add br0 type bridge"));
        run(&format!("ip -n {hub} link set br0 up"));
        for n in 1..=machines {
            let place = places.add(&n.to_string());
            run(&format!(
                "ip link add wire netns {place} type veth peer name m{n} netns {hub}"
            ));
            run(&format!("ip -n {hub} link set m{n} master br0 up"));
            run(&format!("ip -n {place} addr add 10.98.0.{n}/24 dev wire"));
            run(&format!("ip -n {place} link set wire up"));
        }
        Self(places)
    }

    /// The namespace of a machine; the first is 1.
    pub fn at(&self, machine: usize) -> &str {
        self.0.at(machine)
    }

    /// Gives a machine the TUN device `hf0`, as init makes it, with these addresses.
    pub fn tun(&self, machine: usize, addresses: &[&str]) {
        let at = self.at(machine);
        run(&format!("ip -n {at} tuntap add dev hf0 mode tun vnet_hdr"));
        self.address(machine, "hf0", addresses);
    }

    /// Addresses, MTU and link state of a mesh interface.
    pub fn address(&self, machine: usize, device: &str, addresses: &[&str]) {
        let at = self.at(machine);
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            run(&format!(
                "ip -n {at} addr add {address} dev {device}{nodad}"
            ));
        }
        run(&format!("ip -n {at} link set {device} mtu 1380 up"));
    }

    /// No UDP leaves or reaches a machine any more: lighthouses alone lead to it.
    pub fn without_udp(&self, machine: usize) {
        let rules = "table inet no_udp {
           chain out { type filter hook output priority 0
             oifname wire meta l4proto udp drop
           }
           chain in { type filter hook input priority 0
             iifname wire meta l4proto udp drop
           }
         }";
        nft(self.at(machine), rules);
    }
}
