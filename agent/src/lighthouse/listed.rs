//! Which of the members that a lighthouse lists are kept: the list is anything that it likes.

use super::known::Known;
use crate::documents::Trusted;
use holdfast_core::api::MemberList;
use holdfast_core::cluster::{ClusterId, MeshIndex};
use holdfast_core::grant::{Member, MemberError};
use holdfast_core::keys::PublicKey;
use holdfast_core::state::CachedMember;
use std::collections::{BTreeMap, BTreeSet};

/// No cluster has more: each member has an index of its own.
const MAX: usize = MeshIndex::LAST.get() as usize;
/// What of them fits into the node's state beside the rest, in bytes of JSON: about 11,000.
const MAX_BYTES: usize = 14 << 20;

/// What is kept of a list.
#[derive(Debug)]
pub struct Listed {
    /// Members that hold, each once, by signing key.
    pub members: Vec<CachedMember>,
    /// How many were left out that neither an eviction nor a revocation explains, and the first
    /// one's fault.
    pub unvouched: Option<String>,
}

type Kept = BTreeMap<PublicKey, (u64, CachedMember)>;

/// Keeps what a grant vouches for. Of two records by one key the newer counts, also where only
/// `held`, what was kept before, has it: a lighthouse can withhold, but not turn time back. A list
/// that tells what changed is applied to `held`.
pub fn worth_keeping(
    list: &MemberList,
    held: &[CachedMember],
    cluster: ClusterId,
    trusted: &Trusted,
    known: &Known,
) -> Listed {
    let check = |member: &Member| {
        let opened = known.open(member)?;
        opened.stands(cluster, &trusted.operators, &trusted.policy)?;
        Ok((opened.record.signing_key, opened.record.counter))
    };
    let before: Kept = held
        .iter()
        .filter_map(|old| {
            let (key, counter) = check(&old.member).ok()?;
            Some((key, (counter, old.clone())))
        })
        .collect();
    let mut kept = Kept::new();
    let mut first: Option<MemberError> = None;
    let mut strange = list.members.len().saturating_sub(MAX);
    for entry in list.members.iter().take(MAX) {
        match check(&entry.member) {
            Ok((key, counter)) => {
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
    // Held records go in the place of older ones; where a member is now is the list's to say.
    for (key, (counter, listed)) in &mut kept {
        if let Some((held, old)) = before.get(key)
            && held > counter
        {
            *counter = *held;
            listed.member = old.member.clone();
        }
    }
    if list.since.is_some() {
        let gone: BTreeSet<_> = list.gone.iter().collect();
        for (key, old) in before {
            if !gone.contains(&key) {
                kept.entry(key).or_insert(old);
            }
        }
    }
    let (members, over) = fitting(kept);
    known.keep_only(members.iter().map(|m| &m.member));
    Listed {
        members,
        unvouched: match first {
            Some(error) => Some(format!("{strange}, the first: {error}")),
            None if strange > 0 => Some(format!("{strange} more than a cluster can have")),
            None if over > 0 => Some(format!("{over} more than this node can keep")),
            None => None,
        },
    }
}

/// As many as the node's state takes, and how many it does not.
fn fitting(kept: Kept) -> (Vec<CachedMember>, usize) {
    let all = kept.len();
    let mut left = MAX_BYTES;
    let mut fits = |m: &CachedMember| {
        let size = serde_json::to_vec(m).map_or(usize::MAX, |bytes| bytes.len());
        let room = left.checked_sub(size);
        left = room.unwrap_or(0);
        room.is_some()
    };
    let members: Vec<_> = kept
        .into_values()
        .map(|(_, m)| m)
        .take_while(|m| fits(m))
        .collect();
    let over = all - members.len();
    (members, over)
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
            since: None,
            gone: vec![],
            documents: None,
            members: vec![good.clone(), newer.clone(), good.clone(), entry(1, 5, 1)],
            generations: [1; 4],
            time: 1,
        };
        let kept = worth_keeping(&list, &[], CLUSTER, &trusted, &Known::default());
        assert_eq!(kept.members.len(), 2);
        assert!(kept.members.iter().any(|m| m.member == newer.member));
        assert!(kept.unvouched.is_none());
        // A grant that no operator signed, over and over.
        list.members = vec![entry(8, 6, 1); MAX + 5];
        list.members[3] = good;
        let kept = worth_keeping(&list, &[], CLUSTER, &trusted, &Known::default());
        assert_eq!(kept.members.len(), 1);
        assert!(
            kept.unvouched
                .unwrap()
                .starts_with(&format!("{}, ", MAX + 4))
        );
    }

    #[test]
    fn what_changed_is_applied_to_what_is_held_and_counts_no_more_than_a_list() {
        let roots = Roots(vec![key(7).public()]);
        let trusted = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
        let held = |e: MemberEntry| CachedMember {
            member: e.member,
            endpoint: None,
            other: Default::default(),
        };
        let before = [
            held(entry(1, 3, 2)),
            held(entry(1, 4, 1)),
            held(entry(1, 5, 1)),
            // No operator lets it in any more.
            held(entry(8, 6, 1)),
        ];
        let list = MemberList {
            revision: 8,
            since: Some(7),
            // An older record, a new member, one that nobody let in.
            members: vec![entry(1, 3, 1), entry(1, 9, 1), entry(8, 10, 1)],
            gone: vec![key(4).public()],
            documents: None,
            generations: [1; 4],
            time: 1,
        };
        let known = Known::default();
        let kept = worth_keeping(&list, &before, CLUSTER, &trusted, &known);
        let keys: Vec<_> = kept
            .members
            .iter()
            .map(|m| {
                let record = &known.open(&m.member).unwrap().record;
                (record.signing_key, record.counter)
            })
            .collect();
        let mut wanted = [3u8, 5, 9].map(|n| (key(n).public(), if n == 3 { 2 } else { 1 }));
        wanted.sort();
        assert_eq!(keys, wanted);
        assert!(kept.unvouched.unwrap().starts_with("1, "));
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
            since: None,
            gone: vec![],
            documents: None,
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
        let kept = worth_keeping(&list, &before, CLUSTER, &trusted, &Known::default());
        assert_eq!(kept.members.len(), 1);
        assert_eq!(kept.members[0].member, new.member);
        assert_eq!(kept.members[0].endpoint, seen);
    }
}
