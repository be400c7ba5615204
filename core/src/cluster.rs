//! What `cluster new` fixes for ever: the cluster's id and the addresses that follow from it
//! (decision 15).

use crate::keys::{hex, unhex};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// MTU of the mesh interface, in bytes: leaves room for IPv6, a relay header and PPPoE.
pub const MESH_MTU: u16 = 1380;
/// TCP port of a node's control server, on its mesh address only.
pub const CONTROL_PORT: u16 = 7443;
/// UDP port that a node asks for first; the one it got is persisted.
pub const MESH_PORT: u16 = 51820;
/// The mesh interface's name on a node.
pub const MESH_INTERFACE: &str = "hf0";

/// 16 bytes that name a cluster, in hex: random, but for the last four of a [wide](Self::wide) one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

/// The last bytes of a wide cluster's id. They say so to everybody who knows the id, which is in
/// seeds, states, documents and images alike: no format had to change. Of the clusters from before,
/// whose ids are all random, one in 2^32 has them.
const WIDE: [u8; 4] = *b"/18\0";
/// Places in one /20: all but its first and its last address.
const BLOCK: u16 = 4094;

impl ClusterId {
    /// The id of a new cluster: its mesh has four times the places.
    #[must_use]
    pub fn wide(random: [u8; 16]) -> Self {
        let mut bytes = random;
        bytes[12..].copy_from_slice(&WIDE);
        Self(bytes)
    }

    fn is_wide(self) -> bool {
        self.0.ends_with(&WIDE)
    }

    /// The last place in this cluster's mesh.
    #[must_use]
    pub fn last_index(self) -> MeshIndex {
        if self.is_wide() {
            MeshIndex::LAST
        } else {
            MeshIndex(BLOCK)
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}
impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl std::str::FromStr for ClusterId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        unhex(text)
            .and_then(|v| v.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a cluster id: 32 hex digits"))
    }
}
impl Serialize for ClusterId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for ClusterId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// A member's number in the mesh: its addresses in both families follow from it.
/// 1 to 15 are for lighthouses, nodes begin at 16; the last is [`ClusterId::last_index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct MeshIndex(u16);

impl MeshIndex {
    /// The first lighthouse.
    pub const LIGHTHOUSE: Self = Self(1);
    /// The first index a node may have.
    pub const FIRST_NODE: Self = Self(16);
    /// The last index of a wide cluster: a /18 without the first and last address of each /20.
    pub const LAST: Self = Self(4 * BLOCK);

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for MeshIndex {
    type Error = String;
    fn try_from(n: u16) -> Result<Self, String> {
        if (1..=Self::LAST.0).contains(&n) {
            Ok(Self(n))
        } else {
            Err(format!(
                "mesh index {n} is not within 1 and {}",
                Self::LAST.0
            ))
        }
    }
}
impl From<MeshIndex> for u16 {
    fn from(i: MeshIndex) -> u16 {
        i.0
    }
}

/// The cluster's ranges, all derived from its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPlan {
    /// ULA prefix (RFC 4193) of the cluster, a /48.
    pub ula: Ipv6Net,
    /// Mesh addresses, IPv6: subnet 0 of the ULA prefix, a /64.
    pub mesh6: Ipv6Net,
    /// Mesh addresses, IPv4: a /18 of 100.64.0.0/10 (RFC 6598); of clusters made before there were
    /// wide ones a /20.
    pub mesh4: Ipv4Net,
    /// Pods, IPv4: a /16.
    pub pods: Ipv4Net,
    /// Services, IPv4: a /16.
    pub services: Ipv4Net,
    /// Whether pods and services have IPv6 ranges too.
    pub dual_stack: bool,
    /// The first address of the /20 that the first indexes are in.
    base4: Ipv4Addr,
}

impl AddressPlan {
    /// The plan of cluster `id`.
    #[must_use]
    pub fn new(id: ClusterId, dual_stack: bool) -> Self {
        let b = id.0;
        let ula6 = Ipv6Addr::new(
            0xfd00 | u16::from(b[0]),
            u16::from_be_bytes([b[1], b[2]]),
            u16::from_be_bytes([b[3], b[4]]),
            0,
            0,
            0,
            0,
            0,
        );
        // 1024 /20s in 100.64.0.0/10. A wide cluster has the /18 around its /20: low indexes have the
        // same address either way.
        let block = u32::from(u16::from_be_bytes([b[5], b[6]]) % 1024);
        let base4 = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + (block << 12));
        let mesh4 = Ipv4Net::new_assert(base4, if id.is_wide() { 18 } else { 20 }).trunc();
        // 10.64 to 10.255: clear of the defaults 10.42 and 10.43 and of most home networks
        let pair = 64 + 2 * (b[7] % 96);
        Self {
            ula: Ipv6Net::new_assert(ula6, 48),
            mesh6: Ipv6Net::new_assert(ula6, 64),
            mesh4,
            pods: Ipv4Net::new_assert(Ipv4Addr::new(10, pair, 0, 0), 16),
            services: Ipv4Net::new_assert(Ipv4Addr::new(10, pair + 1, 0, 0), 16),
            dual_stack,
            base4,
        }
    }

    /// The IPv4 mesh address of `index`.
    #[must_use]
    pub fn address4(&self, index: MeshIndex) -> Ipv4Addr {
        // The first 4094 in the cluster's own /20, then the other /20s of the /18 in a circle.
        let (block, host) = ((index.0 - 1) / BLOCK, (index.0 - 1) % BLOCK + 1);
        let base = self.base4.to_bits();
        let inside = (base + (u32::from(block) << 12)) & 0x3fff;
        Ipv4Addr::from_bits((base & !0x3fff) + inside + u32::from(host))
    }

    /// The IPv6 mesh address of `index`.
    #[must_use]
    pub fn address6(&self, index: MeshIndex) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.mesh6.network().to_bits() + u128::from(index.0))
    }

    /// The cluster's DNS service address: the tenth of the service range, as k3s has it.
    #[must_use]
    pub fn cluster_dns(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.services.network().to_bits() + 10)
    }

    /// Which of the plan's IPv4 ranges overlaps `lan`, if any.
    #[must_use]
    pub fn overlap(&self, lan: Ipv4Net) -> Option<Ipv4Net> {
        [self.mesh4, self.pods, self.services]
            .into_iter()
            .find(|r| r.contains(&lan.network()) || lan.contains(&r.network()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_never_overlap_and_addresses_lie_inside(id: [u8; 16], n: u16, wide: bool) {
            let id = if wide { ClusterId::wide(id) } else { ClusterId(id) };
            let plan = AddressPlan::new(id, false);
            let i = MeshIndex::try_from(n % id.last_index().get() + 1).unwrap();
            prop_assert!(plan.mesh4.contains(&plan.address4(i)));
            prop_assert!(plan.mesh6.contains(&plan.address6(i)));
            prop_assert!(plan.ula.contains(&plan.mesh6));
            prop_assert!(!plan.pods.contains(&plan.services.network()));
            let cgn: Ipv4Net = "100.64.0.0/10".parse().unwrap();
            prop_assert!(cgn.contains(&plan.mesh4));
        }
    }

    #[test]
    fn a_wide_clusters_addresses_differ_and_the_first_are_those_of_a_narrow_one() {
        for block in [0u8, 1, 2, 3] {
            let mut bytes = [7; 16];
            bytes[6] = block;
            let (narrow, wide) = (ClusterId(bytes), ClusterId::wide(bytes));
            assert_eq!(narrow.last_index().get(), 4094);
            assert_eq!(wide.last_index().get(), 16_376);
            let (narrow, wide) = (
                AddressPlan::new(narrow, false),
                AddressPlan::new(wide, false),
            );
            assert_eq!(
                (narrow.mesh4.prefix_len(), wide.mesh4.prefix_len()),
                (20, 18)
            );
            assert!(wide.mesh4.contains(&narrow.mesh4));
            let mut seen = std::collections::BTreeSet::new();
            for n in 1..=16_376 {
                let address = wide.address4(MeshIndex(n));
                if n <= 4094 {
                    assert_eq!(address, narrow.address4(MeshIndex(n)));
                }
                assert!(wide.mesh4.contains(&address) && seen.insert(address), "{n}");
                let host = address.to_bits() & 0xfff;
                assert!(host != 0 && host != 0xfff, "{address}");
            }
        }
    }

    #[test]
    fn a_cluster_from_before_keeps_its_addresses() {
        let id = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        let plan = AddressPlan::new(id, false);
        assert_eq!(plan.mesh4.to_string(), "100.80.96.0/20");
        assert_eq!(plan.address4(MeshIndex(4094)).to_string(), "100.80.111.254");
    }
}
