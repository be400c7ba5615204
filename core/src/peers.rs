//! Which peers a member has: a pure plan from what was verified.

use crate::access::connects;
use crate::cluster::{AddressPlan, ClusterId, MeshIndex};
use crate::documents::{Lighthouse, Operators, Policy};
use crate::grant::{Grant, Member, MemberError, MemberRecord, VerifiedMember, verify};
use crate::keys::{MeshKey, PublicKey};
use ipnet::IpNet;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
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
    /// A WireGuard client of another make, whose one peer this member is.
    pub plain: bool,
}

fn host_prefixes(plan: &AddressPlan, index: MeshIndex) -> Vec<IpNet> {
    vec![
        IpNet::from(std::net::IpAddr::from(plan.address4(index))),
        IpNet::from(std::net::IpAddr::from(plan.address6(index))),
    ]
}

/// A member's peers: every lighthouse, and every verified member but itself that the policy lets
/// it reach. Of two records that claim one index, the one with the lower signing key wins on every
/// member alike. Of two that claim one WireGuard key, the one with the lower index, of those whom
/// this member reaches: who is out of reach takes nobody's place. Refused members are returned with
/// the reason.
#[must_use]
pub fn plan(
    own: &PublicKey,
    addresses: &AddressPlan,
    cluster: ClusterId,
    operators: &Operators,
    policy: &Policy,
    lighthouses: &[(Lighthouse, Option<SocketAddr>)],
    members: &[(Member, Option<SocketAddr>)],
) -> (Vec<PeerPlan>, Vec<MemberError>) {
    let mut refused = vec![];
    let mut good: Vec<(VerifiedMember, Option<SocketAddr>)> = vec![];
    for (member, endpoint) in members {
        match verify(member, cluster, operators, policy) {
            Ok(v) => good.push((v, *endpoint)),
            Err(e) => refused.push(e),
        }
    }
    let mine = good.iter().find(|(v, _)| v.record.signing_key == *own);
    let own_mesh_key = mine.map(|(v, _)| v.record.mesh_key);
    let mine = mine.map(|(v, _)| v.grant.groups.clone());
    let reaches = |grant: &Grant| match &mine {
        Some(mine) => connects(&policy.rules, mine, &grant.groups),
        None => policy.rules.is_empty(),
    };
    let others = good.iter().map(|(v, at)| (&v.record, &v.grant, *at));
    let own = (*own, own_mesh_key);
    let peers = plan_verified(own, addresses, lighthouses, others, reaches);
    (peers, refused)
}

/// One member for each index: of those with one index the one with the lower signing key, of its
/// records the newest. Address and rights have to be one member's.
#[must_use]
pub fn by_index<T>(
    members: impl Iterator<Item = T>,
    record: impl Fn(&T) -> &MemberRecord,
) -> BTreeMap<MeshIndex, T> {
    let rank = |r: &MemberRecord| (r.signing_key, Reverse(r.counter));
    let mut chosen: BTreeMap<MeshIndex, T> = BTreeMap::new();
    for found in members {
        let new = record(&found);
        let better = chosen
            .get(&new.index)
            .is_none_or(|old| rank(new) < rank(record(old)));
        if better {
            chosen.insert(new.index, found);
        }
    }
    chosen
}

/// As [`plan`], of members that were verified; `own` are this one's signing key and, where it may have
/// clients, its WireGuard key; `reaches` says whether a member with that grant is a peer.
#[must_use]
pub fn plan_verified<'a>(
    (own, own_mesh_key): (PublicKey, Option<MeshKey>),
    addresses: &AddressPlan,
    lighthouses: &[(Lighthouse, Option<SocketAddr>)],
    members: impl Iterator<Item = (&'a MemberRecord, &'a Grant, Option<SocketAddr>)>,
    reaches: impl Fn(&Grant) -> bool,
) -> Vec<PeerPlan> {
    let by_index = by_index(members, |(record, ..)| record);
    let mut peers: Vec<PeerPlan> = lighthouses
        .iter()
        .map(|(l, endpoint)| PeerPlan {
            name: l.name.clone(),
            key: l.mesh_key,
            allowed_ips: host_prefixes(addresses, l.index),
            endpoint: *endpoint,
            keepalive: Some(KEEPALIVE),
            plain: false,
        })
        .collect();
    let mut taken: BTreeSet<MeshKey> = peers.iter().map(|p| p.key).collect();
    let mut clients = vec![];
    for (record, grant, endpoint) in by_index.into_values() {
        if record.signing_key == own || taken.contains(&record.mesh_key) || !reaches(grant) {
            continue;
        }
        let plain = record.via.is_some();
        match record.via {
            Some(via) if Some(via) != own_mesh_key => {
                clients.push((via, record.index));
            }
            _ => peers.push(PeerPlan {
                name: record.name.to_string(),
                key: record.mesh_key,
                allowed_ips: host_prefixes(addresses, record.index),
                // Where a client is, its own packets tell.
                endpoint: endpoint.filter(|_| !plain),
                keepalive: None,
                plain,
            }),
        }
        taken.insert(record.mesh_key);
    }
    // Through the node whose peer it is; a client of a client, or of nobody here, is not reached.
    for (via, index) in clients {
        if let Some(node) = peers
            .iter_mut()
            .find(|p| p.key == via && !p.plain && p.keepalive.is_none())
        {
            node.allowed_ips.extend(host_prefixes(addresses, index));
        }
    }
    peers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{Operator, Right, Rule};
    use crate::grant::{Grant, MemberRecord};
    use crate::keys::PrivateKey;
    use crate::names::Role;
    use crate::signed::Signed;

    const CLUSTER: ClusterId = ClusterId([9; 16]);

    fn key(n: u8) -> PrivateKey {
        PrivateKey::from_bytes([n; 32])
    }

    fn member(n: u8, group: &str, via: Option<u8>) -> (Member, Option<SocketAddr>) {
        let index = MeshIndex::try_from(16 + u16::from(n)).unwrap();
        let grant = Grant {
            cluster: CLUSTER,
            id: format!("g{n}").parse().unwrap(),
            token: key(n + 100).public(),
            role: Role::Bare,
            groups: vec![group.parse().unwrap()],
            name: None,
            names: None,
            first: index,
            last: index,
            uses: 1,
            not_after: 0,
        };
        let record = MemberRecord {
            cluster: CLUSTER,
            grant: grant.id.clone(),
            name: format!("n{n}").parse().unwrap(),
            index,
            mesh_key: MeshKey([n; 32]),
            signing_key: key(n).public(),
            counter: 1,
            via: via.map(|v| MeshKey([v; 32])),
            own: None,
        };
        let member = Member {
            record: Signed::sign(&record, &key(n + 100)).unwrap(),
            grant: Signed::sign(&grant, &key(200)).unwrap(),
        };
        (member, Some(SocketAddr::from(([192, 0, 2, n], 7))))
    }

    /// What member `own` has of peers: name, whether plain, number of networks.
    fn planned(own: u8, rules: Vec<Rule>) -> Vec<(String, bool, usize)> {
        let members = [
            member(1, "servers", None),
            member(2, "storage", None),
            member(3, "phones", Some(1)),
            member(4, "phones", Some(3)),
        ];
        let operators = Operators {
            cluster: CLUSTER,
            generation: 1,
            operators: vec![Operator {
                name: "ada".parse().unwrap(),
                key: key(200).public(),
                rights: vec![Right::All],
            }],
            former: vec![],
        };
        let policy = Policy {
            cluster: CLUSTER,
            generation: 1,
            rules,
            evicted: vec![],
            revoked: vec![],
        };
        let addresses = AddressPlan::new(CLUSTER, false);
        let own = key(own).public();
        let (peers, refused) = plan(
            &own,
            &addresses,
            CLUSTER,
            &operators,
            &policy,
            &[],
            &members,
        );
        assert!(refused.is_empty(), "{refused:?}");
        let all = peers.into_iter();
        all.map(|p| {
            assert_eq!(p.endpoint.is_none(), p.plain);
            (p.name, p.plain, p.allowed_ips.len())
        })
        .collect()
    }

    fn peer(name: &str, plain: bool, networks: usize) -> (String, bool, usize) {
        (name.into(), plain, networks)
    }

    #[test]
    fn a_plain_client_is_the_peer_of_its_node_and_others_reach_it_through_that() {
        let first = planned(1, vec![]);
        assert_eq!(first, [peer("n2", false, 2), peer("n3", true, 2)]);
        let second = planned(2, vec![]);
        assert_eq!(second, [peer("n1", false, 4)]);
    }

    #[test]
    fn a_plain_client_reaches_what_its_group_may() {
        let rule = |from: &str, to: &str| Rule::new(from.parse().unwrap(), to.parse().unwrap());
        let between = vec![rule("phones", "servers"), rule("servers", "storage")];
        let first = planned(1, between.clone());
        assert_eq!(first, [peer("n2", false, 2), peer("n3", true, 2)]);
        assert_eq!(planned(2, between), [peer("n1", false, 2)]);
        let without = planned(1, vec![rule("servers", "storage")]);
        assert_eq!(without, [peer("n2", false, 2)]);
    }
}
