//! Which peers this node has and what they may send to it, from what it verified.

use crate::documents::Trusted;
use crate::identity;
use crate::lighthouse::known::Known;
use crate::node;
use anyhow::Context as _;
use holdfast_core::access::{Access, connects};
use holdfast_core::documents::Lighthouse;
use holdfast_core::grant::{Grant, MemberError};
use holdfast_core::peers::{PeerPlan, by_index, plan_verified};
use holdfast_core::state::StateDoc;
use holdfast_mesh::Rules;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// The outcome.
#[derive(Debug, Default, PartialEq)]
pub struct Planned {
    /// The lighthouses, and the members that this node may reach or that may reach it, but itself.
    pub peers: Vec<PeerPlan>,
    /// What each member may send here, and through here.
    pub rules: Rules,
    /// Why members are refused.
    pub refused: Vec<String>,
}

/// Plans.
///
/// # Errors
/// Before the join.
pub fn planned(
    doc: &StateDoc,
    trusted: &Trusted,
    known: &Known,
    lighthouses: &[(Lighthouse, Option<SocketAddr>)],
) -> anyhow::Result<Planned> {
    let admission = doc.admission.as_ref().context("this node has not joined")?;
    let identity = doc.identity.as_ref().context("this node has no keys")?;
    let check = |member| {
        let opened = known.open(member)?;
        opened.stands(admission.cluster_id, &trusted.operators, &trusted.policy)?;
        Ok::<_, MemberError>(opened)
    };
    let (mut good, mut refused) = (vec![], vec![]);
    for listed in &doc.members {
        match check(&listed.member) {
            Ok(opened) => good.push((opened, listed.endpoint)),
            Err(error) => refused.push(error.to_string()),
        }
    }
    // Whoever has an address gives it its rights too.
    let good: Vec<_> = by_index(good.into_iter(), |(m, _)| &m.record)
        .into_values()
        .collect();
    // Its own groups do not hang on what a lighthouse lists.
    let own = check(&admission.member);
    let own = own
        .as_ref()
        .map_or(&[][..], |own| own.grant.groups.as_slice());
    let rules = &trusted.policy.rules;
    let reaches = |grant: &Grant| connects(rules, own, &grant.groups);
    let mine = identity::mesh_public(identity);
    let mut peers = plan_verified(
        (identity.signing.public(), Some(mine)),
        &node::plan(admission),
        lighthouses,
        good.iter().map(|(m, at)| (&m.record, &m.grant, *at)),
        reaches,
    );
    peers.retain(|p| p.key != mine);
    let plan = node::plan(admission);
    let addresses = |index| {
        [
            IpAddr::from(plan.address4(index)),
            plan.address6(index).into(),
        ]
    };
    let mut filter = Rules {
        here: addresses(admission.index).to_vec(),
        through: (!rules.is_empty()).then(HashMap::new),
        ..Rules::default()
    };
    for (member, _) in good.iter().filter(|(m, _)| reaches(&m.grant)) {
        let between = Access::between(rules, own, &member.grant.groups);
        let at = addresses(member.record.index);
        filter.own.extend(at.map(|a| (a, between.clone())));
        if member.record.via != Some(mine) {
            continue;
        }
        filter.clients.extend(at);
        let Some(through) = &mut filter.through else {
            continue;
        };
        for (other, _) in &good {
            let between = Access::between(rules, &member.grant.groups, &other.grant.groups);
            let pairs = at.into_iter().zip(addresses(other.record.index));
            through.extend(pairs.map(|pair| (pair, between.clone())));
        }
    }
    // Last: a member that claims a lighthouse's place gets no more than that.
    for (lighthouse, _) in lighthouses {
        let at = addresses(lighthouse.index);
        filter.own.extend(at.map(|a| (a, Access::lighthouse())));
    }
    Ok(Planned {
        peers,
        rules: filter,
        refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::{CLUSTER, key};
    use crate::lighthouse::tests::doc;
    use holdfast_core::cluster::MeshIndex;
    use holdfast_core::documents::{Policy, Rule};
    use holdfast_core::grant::{Member, MemberRecord};
    use holdfast_core::keys::{MeshKey, PrivateKey};
    use holdfast_core::signed::Signed;
    use holdfast_core::state::{CachedMember, Identity};

    fn grouped(n: u8, index: u16, group: &str) -> Member {
        let (mut grant, _) = doc().admission.unwrap().member.grant.open_self().unwrap();
        grant.groups = vec![group.parse().unwrap()];
        let record = MemberRecord {
            cluster: CLUSTER,
            grant: grant.id.clone(),
            name: format!("n{n}").parse().unwrap(),
            index: index.try_into().unwrap(),
            mesh_key: MeshKey([n; 32]),
            signing_key: key(n).public(),
            counter: 1,
            via: None,
            own: None,
        };
        Member {
            record: Signed::sign(&record, &key(2)).unwrap(),
            grant: Signed::sign(&grant, &key(1)).unwrap(),
        }
    }

    fn plan(rules: Vec<Rule>, evicted: &[u8]) -> Planned {
        let members = [grouped(30, 17, "phones"), grouped(31, 18, "strangers")];
        plan_of(members, rules, evicted)
    }

    fn plan_of(members: [Member; 2], rules: Vec<Rule>, evicted: &[u8]) -> Planned {
        let mut doc = doc();
        let cached = |member: Member| CachedMember {
            member,
            endpoint: None,
            other: Default::default(),
        };
        doc.identity = Some(Identity {
            signing: key(3),
            mesh: PrivateKey::from_bytes([4; 32]),
            machine: None,
            other: Default::default(),
        });
        if let Some(admission) = &mut doc.admission {
            admission.member = grouped(3, 16, "web");
        }
        doc.members = members.map(cached).into();
        let roots = holdfast_core::documents::Roots(vec![key(7).public()]);
        let set = doc.documents.as_ref().unwrap();
        let mut trusted = Trusted::open(set, &roots, CLUSTER).unwrap();
        trusted.policy = Policy {
            rules,
            evicted: evicted.iter().map(|n| key(*n).public()).collect(),
            ..trusted.policy
        };
        let lighthouses: Vec<_> = trusted.lighthouses.lighthouses.clone();
        let lighthouses: Vec<_> = lighthouses.into_iter().map(|l| (l, None)).collect();
        planned(&doc, &trusted, &Known::default(), &lighthouses).unwrap()
    }

    fn keys(plan: &Planned) -> Vec<u8> {
        plan.peers.iter().map(|p| p.key.0[0]).collect()
    }

    #[test]
    fn peers_are_those_whom_a_rule_connects_and_lighthouses_always() {
        let at = |plan: &Planned, index: u16| {
            let admission = doc().admission.unwrap();
            let addresses = node::plan(&admission);
            let index = MeshIndex::try_from(index).unwrap();
            let (four, six) = (addresses.address4(index), addresses.address6(index));
            let four = plan.rules.own.get(&IpAddr::V4(four)).cloned();
            let six = plan.rules.own.get(&IpAddr::V6(six));
            assert_eq!(four.as_ref(), six);
            four
        };
        let all = plan(vec![], &[]);
        assert_eq!(keys(&all), [20, 21, 30, 31]);
        assert!(at(&all, 17).unwrap().theirs.everything && all.rules.through.is_none());
        assert_eq!(at(&all, 1), Some(Access::lighthouse()));

        let rule = Rule::new("phones".parse().unwrap(), "web".parse().unwrap());
        let some = plan(vec![rule], &[]);
        assert_eq!(keys(&some), [20, 21, 30]);
        let phone = at(&some, 17).unwrap();
        assert!(phone.theirs.everything && !phone.ours.everything);
        assert_eq!(at(&some, 18), None);

        let fewer = plan(vec![], &[30]);
        assert_eq!((keys(&fewer), fewer.refused.len()), (vec![20, 21, 31], 1));
    }

    #[test]
    fn who_has_an_address_has_its_rights_too() {
        let rule = Rule::new("phones".parse().unwrap(), "web".parse().unwrap());
        let one = || grouped(30, 17, "phones");
        let other = || grouped(31, 17, "strangers");
        let (lower, higher) = match key(30).public() < key(31).public() {
            true => (one(), other()),
            false => (other(), one()),
        };
        let alone = plan_of([lower.clone(), lower.clone()], vec![rule.clone()], &[]);
        for members in [[lower.clone(), higher.clone()], [higher, lower]] {
            let both = plan_of(members, vec![rule.clone()], &[]);
            assert_eq!((&both.peers, &both.rules), (&alone.peers, &alone.rules));
        }
    }
}
