//! Which peer an inner address belongs to: longest prefix wins, both ways.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use std::net::IpAddr;

/// Allowed networks of all peers; a peer is named by its index.
#[derive(Debug, Default, Clone)]
pub(crate) struct Routes {
    v4: PrefixMap<Ipv4Net, u32>,
    v6: PrefixMap<Ipv6Net, u32>,
}

impl Routes {
    pub(crate) fn insert(&mut self, net: IpNet, peer: u32) {
        match net.trunc() {
            IpNet::V4(net) => self.v4.insert(net, peer),
            IpNet::V6(net) => self.v6.insert(net, peer),
        };
    }

    pub(crate) fn lookup(&self, addr: IpAddr) -> Option<u32> {
        match addr {
            IpAddr::V4(a) => self.v4.get_lpm(&Ipv4Net::from(a)).map(|(_, peer)| *peer),
            IpAddr::V6(a) => self.v6.get_lpm(&Ipv6Net::from(a)).map(|(_, peer)| *peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_a_plain_search(
            nets in proptest::collection::btree_map((0u32..64, 24u8..=32), 0u32..9, 0..24),
            host in 0u32..256,
        ) {
            // Networks inside 100.64.0.0/24, so that they overlap.
            let nets: Vec<(IpNet, u32)> = nets
                .into_iter()
                .map(|((host, len), peer)| {
                    let addr = std::net::Ipv4Addr::from(0x6440_0000 | (host << 2));
                    (IpNet::new(addr.into(), len).unwrap().trunc(), peer)
                })
                .collect();
            let mut routes = Routes::default();
            for (net, peer) in &nets {
                routes.insert(*net, *peer);
            }
            let addr = IpAddr::from(std::net::Ipv4Addr::from(0x6440_0000 | host));
            // Of equal networks the last one given counts.
            let want = nets
                .iter()
                .filter(|(net, _)| net.contains(&addr))
                .max_by_key(|(net, _)| net.prefix_len())
                .map(|(net, _)| nets.iter().rev().find(|(n, _)| n == net).unwrap().1);
            prop_assert_eq!(routes.lookup(addr), want);
        }
    }
}
