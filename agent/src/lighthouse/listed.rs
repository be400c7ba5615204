//! Which of the members that a lighthouse lists are kept: the list is anything that it likes.

use crate::documents::Trusted;
use holdfast_core::api::MemberList;
use holdfast_core::cluster::ClusterId;
use holdfast_core::grant::{MemberError, verify};
use holdfast_core::keys::PublicKey;
use holdfast_core::state::CachedMember;
use std::collections::BTreeMap;

/// No cluster has more: each member has an index of its own (`MeshIndex::LAST`).
const MAX: usize = 4094;

/// What is kept of a list.
#[derive(Debug)]
pub struct Listed {
    /// Members that hold, each once, by signing key.
    pub members: Vec<CachedMember>,
    /// How many were left out that neither an eviction nor a revocation explains, and the first
    /// one's fault.
    pub unvouched: Option<String>,
}

/// Keeps what a grant vouches for. Of two records by one key the newer counts.
pub fn worth_keeping(list: &MemberList, cluster: ClusterId, trusted: &Trusted) -> Listed {
    let mut kept: BTreeMap<PublicKey, (u64, CachedMember)> = BTreeMap::new();
    let mut first: Option<MemberError> = None;
    let mut strange = list.members.len().saturating_sub(MAX);
    for entry in list.members.iter().take(MAX) {
        match verify(&entry.member, cluster, &trusted.operators, &trusted.policy) {
            Ok(good) => {
                let (key, counter) = (good.record.signing_key, good.record.counter);
                if kept.get(&key).is_none_or(|(held, _)| *held < counter) {
                    let member = CachedMember {
                        member: entry.member.clone(),
                        endpoint: entry.endpoint,
                        other: Default::default(),
                    };
                    kept.insert(key, (counter, member));
                }
            }
            Err(MemberError::Evicted(_) | MemberError::Revoked(_)) => {}
            Err(error) => {
                strange += 1;
                first = first.or(Some(error));
            }
        }
    }
    Listed {
        members: kept.into_values().map(|(_, m)| m).collect(),
        unvouched: match first {
            Some(error) => Some(format!("{strange}, the first: {error}")),
            None if strange > 0 => Some(format!("{strange} more than a cluster can have")),
            None => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::{CLUSTER, key, set};
    use holdfast_core::api::MemberEntry;
    use holdfast_core::cluster::MeshIndex;
    use holdfast_core::documents::Roots;
    use holdfast_core::grant::{Grant, Member, MemberRecord};
    use holdfast_core::keys::MeshKey;
    use holdfast_core::names::Role;
    use holdfast_core::signed::Signed;

    fn entry(operator: u8, signing: u8, counter: u64) -> MemberEntry {
        let grant = Grant {
            cluster: CLUSTER,
            id: "g1".parse().unwrap(),
            token: key(2).public(),
            role: Role::Bare,
            groups: vec![],
            name: None,
            first: MeshIndex::FIRST_NODE,
            last: MeshIndex::LAST,
            uses: 9,
            not_after: 0,
        };
        let record = MemberRecord {
            cluster: CLUSTER,
            grant: grant.id.clone(),
            name: "n1".parse().unwrap(),
            index: MeshIndex::FIRST_NODE,
            mesh_key: MeshKey([4; 32]),
            signing_key: key(signing).public(),
            counter,
        };
        MemberEntry {
            member: Member {
                record: Signed::sign(&record, &key(2)).unwrap(),
                grant: Signed::sign(&grant, &key(operator)).unwrap(),
            },
            endpoint: None,
        }
    }

    #[test]
    fn only_granted_members_are_kept_and_each_once() {
        let roots = Roots(vec![key(7).public()]);
        let trusted = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
        let (good, newer) = (entry(1, 3, 1), entry(1, 3, 2));
        let mut list = MemberList {
            revision: 1,
            members: vec![good.clone(), newer.clone(), good.clone(), entry(1, 5, 1)],
            generations: [1; 4],
            time: 1,
        };
        let kept = worth_keeping(&list, CLUSTER, &trusted);
        assert_eq!(kept.members.len(), 2);
        assert!(kept.members.iter().any(|m| m.member == newer.member));
        assert!(kept.unvouched.is_none());
        // A grant that no operator signed, over and over.
        list.members = vec![entry(8, 6, 1); MAX + 5];
        list.members[3] = good;
        let kept = worth_keeping(&list, CLUSTER, &trusted);
        assert_eq!(kept.members.len(), 1);
        assert!(
            kept.unvouched
                .unwrap()
                .starts_with(&format!("{}, ", MAX + 4))
        );
    }
}
