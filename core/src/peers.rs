//! Which peers a member has: a pure plan from what was verified.

use crate::cluster::{AddressPlan, ClusterId, MeshIndex};
use crate::documents::{Lighthouse, Operators, Policy};
use crate::grant::{Member, MemberError, VerifiedMember, verify};
use crate::keys::{MeshKey, PublicKey};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Seconds between keepalives to lighthouses.
pub const KEEPALIVE: u16 = 25;

/// One peer, in the terms of a WireGuard configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPlan {
    /// For people: node or lighthouse name.
    pub name: String,
    /// Its key.
    pub key: MeshKey,
    /// Its mesh addresses, as host prefixes.
    pub allowed_ips: Vec<IpNet>,
    /// Where it is, if known.
    pub endpoint: Option<SocketAddr>,
    /// Seconds; only for what must stay reachable.
    pub keepalive: Option<u16>,
}

fn host_prefixes(plan: &AddressPlan, index: MeshIndex) -> Vec<IpNet> {
    vec![
        IpNet::from(std::net::IpAddr::from(plan.address4(index))),
        IpNet::from(std::net::IpAddr::from(plan.address6(index))),
    ]
}

/// A member's peers: every lighthouse, and every verified member but itself that the policy lets
/// it reach. Of two records that claim one index or one key, the one with the lower signing key
/// wins on every member alike. Refused members are returned with the reason.
#[must_use]
pub fn plan(
    own: &PublicKey,
    plan: &AddressPlan,
    cluster: ClusterId,
    operators: &Operators,
    policy: &Policy,
    lighthouses: &[(Lighthouse, Option<SocketAddr>)],
    members: &[(Member, Option<SocketAddr>)],
) -> (Vec<PeerPlan>, Vec<MemberError>) {
    let mut refused = vec![];
    let mut by_index: BTreeMap<MeshIndex, (VerifiedMember, Option<SocketAddr>)> = BTreeMap::new();
    for (member, endpoint) in members {
        match verify(member, cluster, operators, policy) {
            Ok(v) => {
                let better = by_index.get(&v.record.index).is_none_or(|(old, _)| {
                    (v.record.signing_key, std::cmp::Reverse(v.record.counter))
                        < (
                            old.record.signing_key,
                            std::cmp::Reverse(old.record.counter),
                        )
                });
                if better {
                    by_index.insert(v.record.index, (v, *endpoint));
                }
            }
            Err(e) => refused.push(e),
        }
    }
    let mine = by_index
        .values()
        .find(|(v, _)| v.record.signing_key == *own)
        .map(|(v, _)| v.grant.groups.clone());
    let reaches = |to: &VerifiedMember| {
        let Some(mine) = &mine else {
            return policy.rules.is_empty();
        };
        policy.rules.is_empty()
            || policy.rules.iter().any(|r| {
                (mine.contains(&r.from) && to.grant.groups.contains(&r.to))
                    || (mine.contains(&r.to) && to.grant.groups.contains(&r.from))
            })
    };
    let mut peers: Vec<PeerPlan> = lighthouses
        .iter()
        .map(|(l, endpoint)| PeerPlan {
            name: l.name.clone(),
            key: l.mesh_key,
            allowed_ips: host_prefixes(plan, l.index),
            endpoint: *endpoint,
            keepalive: Some(KEEPALIVE),
        })
        .collect();
    for (v, endpoint) in by_index.into_values() {
        let taken = peers.iter().any(|p| p.key == v.record.mesh_key);
        if v.record.signing_key != *own && !taken && reaches(&v) {
            peers.push(PeerPlan {
                name: v.record.name.to_string(),
                key: v.record.mesh_key,
                allowed_ips: host_prefixes(plan, v.record.index),
                endpoint,
                keepalive: None,
            });
        }
    }
    (peers, refused)
}
