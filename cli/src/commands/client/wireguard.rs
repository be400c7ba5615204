//! A configuration as every WireGuard program takes it (`wg-quick(8)`).

use holdfast_core::cluster::{AddressPlan, MESH_MTU, MeshIndex};
use holdfast_core::keys::MeshKey;
use holdfast_core::peers::KEEPALIVE;
use holdfast_mesh::MeshPrivateKey;
use std::fmt::Write as _;
use zeroize::Zeroizing;

/// All that a client needs to know.
pub struct Configuration<'a> {
    /// Its private key.
    pub key: &'a MeshPrivateKey,
    /// Its place in the mesh.
    pub index: MeshIndex,
    /// The cluster's addresses.
    pub plan: &'a AddressPlan,
    /// The node's key.
    pub node: MeshKey,
    /// The lighthouse's mesh socket, `host:port`.
    pub endpoint: &'a str,
}

impl Configuration<'_> {
    /// The file's text. Only the mesh goes through it, and no name server is set: a phone would ask
    /// that one for every name.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(512));
        let (v4, v6) = (
            self.plan.address4(self.index),
            self.plan.address6(self.index),
        );
        let private = Zeroizing::new(self.key.to_text());
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "[Interface]\n\
             PrivateKey = {}\n\
             Address = {v4}/32, {v6}/128\n\
             MTU = {MESH_MTU}\n\
             \n\
             [Peer]\n\
             PublicKey = {}\n\
             Endpoint = {}\n\
             AllowedIPs = {}, {}\n\
             PersistentKeepalive = {KEEPALIVE}\n",
            *private, self.node, self.endpoint, self.plan.mesh4, self.plan.mesh6,
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::cluster::ClusterId;

    #[test]
    fn a_configuration_is_what_wireguard_programs_read() {
        let plan = AddressPlan::new(ClusterId([3; 16]), false);
        let text = Configuration {
            key: &MeshPrivateKey::from_bytes([1; 32]),
            index: MeshIndex::FIRST_NODE,
            plan: &plan,
            node: MeshKey([2; 32]),
            endpoint: "lighthouse.example.net:51820",
        }
        .text();
        let values: Vec<_> = text
            .lines()
            .filter_map(|l| l.split_once(" = "))
            .map(|(key, _)| key)
            .collect();
        let wanted = [
            "PrivateKey",
            "Address",
            "MTU",
            "PublicKey",
            "Endpoint",
            "AllowedIPs",
            "PersistentKeepalive",
        ];
        assert_eq!(values, wanted);
        assert!(text.contains("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="));
        assert!(text.contains(&format!("AllowedIPs = {}, {}\n", plan.mesh4, plan.mesh6)));
    }
}
