//! Which of the members that a lighthouse lists are kept: the list is anything that it likes.

use crate::documents::Trusted;
use holdfast_core::api::MemberList;
use holdfast_core::cluster::ClusterId;
use holdfast_core::grant::{Member, MemberError, VerifiedMember, verify};
use holdfast_core::keys::PublicKey;
use holdfast_core::state::CachedMember;
use std::collections::{BTreeMap, BTreeSet};

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

/// Keeps what a grant vouches for. Of two records by one key the newer counts, also where only
/// `held`, what was kept before, has it: a lighthouse can withhold, but not turn time back.
pub fn worth_keeping(
    list: &MemberList,
    held: &[CachedMember],
    cluster: ClusterId,
    trusted: &Trusted,
) -> Listed {
    let check = |member: &Member| verify(member, cluster, &trusted.operators, &trusted.policy);
    let mut kept: BTreeMap<PublicKey, (u64, CachedMember)> = BTreeMap::new();
    let mut first: Option<MemberError> = None;
    let mut strange = list.members.len().saturating_sub(MAX);
    for entry in list.members.iter().take(MAX) {
        match check(&entry.member) {
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
    keep_newer(&mut kept, held, check);
    Listed {
        members: kept.into_values().map(|(_, m)| m).collect(),
        unvouched: match first {
            Some(error) => Some(format!("{strange}, the first: {error}")),
            None if strange > 0 => Some(format!("{strange} more than a cluster can have")),
            None => None,
        },
    }
}

/// Puts held records back in the place of older ones; where a member is now is the list's to say.
fn keep_newer(
    kept: &mut BTreeMap<PublicKey, (u64, CachedMember)>,
    held: &[CachedMember],
    check: impl Fn(&Member) -> Result<VerifiedMember, MemberError>,
) {
    // Mostly the list says what is held: no signature needs another look.
    let text = |m: &CachedMember| serde_json::to_string(&m.member.record).ok();
    let listed: BTreeSet<_> = kept.values().map(|(_, m)| text(m)).collect();
    for old in held.iter().filter(|old| !listed.contains(&text(old))) {
        let Ok(good) = check(&old.member) else {
            continue;
        };
        if let Some((counter, listed)) = kept.get_mut(&good.record.signing_key)
            && good.record.counter > *counter
        {
            *counter = good.record.counter;
            listed.member = old.member.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::{CLUSTER, key, set};
    use holdfast_core::api::MemberEntry;
    use holdfast_core::cluster::MeshIndex;
    use holdfast_core::documents::Roots;
    use holdfast_core::grant::{Grant, MemberRecord};
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
            names: None,
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
            via: None,
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
        let kept = worth_keeping(&list, &[], CLUSTER, &trusted);
        assert_eq!(kept.members.len(), 2);
        assert!(kept.members.iter().any(|m| m.member == newer.member));
        assert!(kept.unvouched.is_none());
        // A grant that no operator signed, over and over.
        list.members = vec![entry(8, 6, 1); MAX + 5];
        list.members[3] = good;
        let kept = worth_keeping(&list, &[], CLUSTER, &trusted);
        assert_eq!(kept.members.len(), 1);
        assert!(
            kept.unvouched
                .unwrap()
                .starts_with(&format!("{}, ", MAX + 4))
        );
    }

    #[test]
    fn a_replayed_record_does_not_displace_a_newer_one() {
        let roots = Roots(vec![key(7).public()]);
        let trusted = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
        let held = |e: MemberEntry| CachedMember {
            member: e.member,
            endpoint: None,
            other: Default::default(),
        };
        let (old, new) = (entry(1, 3, 1), entry(1, 3, 2));
        let seen = "192.0.2.1:1".parse().ok();
        let list = MemberList {
            revision: 1,
            members: vec![MemberEntry {
                endpoint: seen,
                ..old
            }],
            generations: [1; 4],
            time: 1,
        };
        // One that no grant vouches for any more, and one that the list has no more, stay out.
        let before = [
            held(new.clone()),
            held(entry(8, 3, 9)),
            held(entry(1, 5, 1)),
        ];
        let kept = worth_keeping(&list, &before, CLUSTER, &trusted);
        assert_eq!(kept.members.len(), 1);
        assert_eq!(kept.members[0].member, new.member);
        assert_eq!(kept.members[0].endpoint, seen);
    }
}
