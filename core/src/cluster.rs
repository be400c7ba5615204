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

/// 16 random bytes that name a cluster, in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

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
/// 1 to 15 are for lighthouses, nodes begin at 16; at most 4094 (a /20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct MeshIndex(u16);

impl MeshIndex {
    /// The first lighthouse.
    pub const LIGHTHOUSE: Self = Self(1);
    /// The first index a node may have.
    pub const FIRST_NODE: Self = Self(16);
    /// The last index.
    pub const LAST: Self = Self(4094);

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u16 {
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
    /// Mesh addresses, IPv4: a /20 of 100.64.0.0/10 (RFC 6598).
    pub mesh4: Ipv4Net,
    /// Pods, IPv4: a /16.
    pub pods: Ipv4Net,
    /// Services, IPv4: a /16.
    pub services: Ipv4Net,
    /// Whether pods and services have IPv6 ranges too.
    pub dual_stack: bool,
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
        // 1024 /20s in 100.64.0.0/10
        let block = u32::from(u16::from_be_bytes([b[5], b[6]]) % 1024);
        let mesh4 = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + (block << 12));
        // 10.64 to 10.255: clear of the defaults 10.42 and 10.43 and of most home networks
        let pair = 64 + 2 * (b[7] % 96);
        Self {
            ula: Ipv6Net::new_assert(ula6, 48),
            mesh6: Ipv6Net::new_assert(ula6, 64),
            mesh4: Ipv4Net::new_assert(mesh4, 20),
            pods: Ipv4Net::new_assert(Ipv4Addr::new(10, pair, 0, 0), 16),
            services: Ipv4Net::new_assert(Ipv4Addr::new(10, pair + 1, 0, 0), 16),
            dual_stack,
        }
    }

    /// The IPv4 mesh address of `index`.
    #[must_use]
    pub fn address4(&self, index: MeshIndex) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.mesh4.network().to_bits() + u32::from(index.0))
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
        fn ranges_never_overlap_and_addresses_lie_inside(id: [u8; 16], n in 1u16..=4094) {
            let plan = AddressPlan::new(ClusterId(id), false);
            let i = MeshIndex::try_from(n).unwrap();
            prop_assert!(plan.mesh4.contains(&plan.address4(i)));
            prop_assert!(plan.mesh6.contains(&plan.address6(i)));
            prop_assert!(plan.ula.contains(&plan.mesh6));
            prop_assert!(!plan.pods.contains(&plan.services.network()));
            let cgn: Ipv4Net = "100.64.0.0/10".parse().unwrap();
            prop_assert!(cgn.contains(&plan.mesh4));
        }
    }
}
