//! Which of the members that a lighthouse lists are kept: the list is anything that it likes.

use super::known::Known;
use crate::documents::Trusted;
use holdfast_core::access::connects;
use holdfast_core::api::MemberList;
use holdfast_core::cluster::MeshIndex;
use holdfast_core::grant::{Member, MemberError, OpenedMember};
use holdfast_core::keys::{MeshKey, PublicKey};
use holdfast_core::names::NodeName;
use holdfast_core::state::{Admission, CachedMember};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// No cluster has more: each member has an index of its own.
const MAX: usize = MeshIndex::LAST.get() as usize;
/// What of them fits into the node's state beside the rest, in bytes of JSON: about 11,000.
const MAX_BYTES: usize = 14 << 20;

/// What is kept of a list.
#[derive(Debug)]
pub struct Listed {
    /// Members that hold, each once, by signing key.
    pub members: Vec<CachedMember>,
    /// Those of them that the lighthouse does not know (any more), or with an older record.
    pub lacking: Vec<PublicKey>,
    /// Those whose newest record it listed.
    pub told: Vec<PublicKey>,
    /// Those of them that were not held, or with an older record.
    pub news: Vec<PublicKey>,
    /// How many were left out that neither an eviction nor a revocation explains, and the first
    /// one's fault.
    pub unvouched: Option<String>,
}

type Kept = BTreeMap<PublicKey, (Arc<OpenedMember>, CachedMember)>;

/// What only one member can have.
#[derive(Default)]
struct Places<'a> {
    indexes: BTreeSet<MeshIndex>,
    names: BTreeSet<&'a NodeName>,
    keys: BTreeSet<MeshKey>,
}

impl<'a> Places<'a> {
    fn of(members: impl Iterator<Item = &'a OpenedMember>) -> Self {
        let mut all = Self::default();
        for OpenedMember { record, .. } in members {
            all.indexes.insert(record.index);
            all.names.insert(&record.name);
            all.keys.insert(record.mesh_key);
        }
        all
    }

    fn has(&self, OpenedMember { record, .. }: &OpenedMember) -> bool {
        self.indexes.contains(&record.index)
            || self.names.contains(&record.name)
            || self.keys.contains(&record.mesh_key)
    }
}

/// Keeps what a grant vouches for. Of two records by one key the newer counts, also where only
/// `held`, what was kept before, has it: a lighthouse can withhold, but not turn time back. A list
/// that tells what changed is applied to `held`. Who is not listed stays all the same where neither
/// policy nor rules say why, and nobody listed has its place: a restored lighthouse forgot it.
pub fn worth_keeping(
    list: &MemberList,
    held: &[CachedMember],
    admission: &Admission,
    trusted: &Trusted,
    known: &Known,
) -> Listed {
    let check = |member: &Member| {
        let opened = known.open(member)?;
        opened.stands(admission.cluster_id, &trusted.operators, &trusted.policy)?;
        Ok((opened.record.signing_key, opened))
    };
    let before: Kept = held
        .iter()
        .filter_map(|old| {
            let (key, opened) = check(&old.member).ok()?;
            Some((key, (opened, old.clone())))
        })
        .collect();
    let own = known.open(&admission.member).ok();
    let mut kept = Kept::new();
    let mut first: Option<MemberError> = None;
    let mut strange = list.members.len().saturating_sub(MAX);
    for entry in list.members.iter().take(MAX) {
        match check(&entry.member) {
            Ok((key, opened)) => {
                let newer = |held: &OpenedMember| held.record.counter < opened.record.counter;
                if kept.get(&key).is_none_or(|(held, _)| newer(held)) {
                    let member = CachedMember {
                        member: entry.member.clone(),
                        endpoint: entry.endpoint,
                        other: Default::default(),
                    };
                    kept.insert(key, (opened, member));
                }
            }
            Err(MemberError::Evicted(_) | MemberError::Revoked(_)) => {}
            Err(error) => {
                strange += 1;
                first = first.or(Some(error));
            }
        }
    }
    let (mut lacking, mut told, mut news) = (vec![], vec![], vec![]);
    // Held records go in the place of older ones; where a member is now is the list's to say, if it
    // knows.
    for (key, (opened, listed)) in &mut kept {
        let held = before.get(key);
        listed.endpoint = listed.endpoint.or(held.and_then(|(_, old)| old.endpoint));
        match held {
            Some((held, old)) if held.record.counter > opened.record.counter => {
                *opened = held.clone();
                listed.member = old.member.clone();
                lacking.push(*key);
            }
            held => {
                told.push(*key);
                if held.is_none_or(|(held, _)| held.record.counter < opened.record.counter) {
                    news.push(*key);
                }
            }
        }
    }
    let gone: BTreeSet<_> = list.gone.iter().collect();
    let mut unlisted = Kept::new();
    for (key, (opened, old)) in before {
        if kept.contains_key(&key) {
            continue;
        }
        if list.since.is_some() && !gone.contains(&key) {
            kept.insert(key, (opened, old));
        } else if own.as_ref().is_some_and(|own| {
            let rules = &trusted.policy.rules;
            connects(rules, &own.grant.groups, &opened.grant.groups)
        }) {
            unlisted.insert(key, (opened, old));
        }
    }
    let taken = Places::of(kept.values().map(|(opened, _)| &**opened));
    unlisted.retain(|_, (opened, _)| !taken.has(opened));
    lacking.extend(unlisted.keys());
    lacking.retain(|key| {
        own.as_ref()
            .is_none_or(|own| own.record.signing_key != *key)
    });
    let (members, over) = fitting(kept, unlisted);
    known.keep_only(members.iter().map(|m| &m.member));
    Listed {
        members,
        lacking,
        told,
        news,
        unvouched: match first {
            Some(error) => Some(format!("{strange}, the first: {error}")),
            None if strange > 0 => Some(format!("{strange} more than a cluster can have")),
            None if over > 0 => Some(format!("{over} more than this node can keep")),
            None => None,
        },
    }
}

/// As many as the node's state takes, by signing key, those that are listed before others; and how
/// many it does not take.
fn fitting(listed: Kept, unlisted: Kept) -> (Vec<CachedMember>, usize) {
    let all = listed.len() + unlisted.len();
    let mut left = MAX_BYTES;
    let mut fits = |m: &CachedMember| {
        let size = serde_json::to_vec(m).map_or(usize::MAX, |bytes| bytes.len());
        let room = left.checked_sub(size);
        left = room.unwrap_or(0);
        room.is_some()
    };
    let mut members: Vec<_> = listed
        .into_iter()
        .chain(unlisted)
        .take_while(|(_, (_, m))| fits(m))
        .collect();
    members.sort_unstable_by_key(|(key, _)| *key);
    let over = all - members.len();
    (members.into_iter().map(|(_, (_, m))| m).collect(), over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::{CLUSTER, key, set};
    use crate::lighthouse::tests::doc;
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
            own: None,
        };
        MemberEntry {
            member: Member {
                record: Signed::sign(&record, &key(2)).unwrap(),
                grant: Signed::sign(&grant, &key(operator)).unwrap(),
            },
            endpoint: None,
        }
    }

    /// Of node 3, in no group.
    fn admission() -> Admission {
        doc().admission.unwrap()
    }

    #[test]
    fn only_granted_members_are_kept_and_each_once() {
        let roots = Roots(vec![key(7).public()]);
        let trusted = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
        let (good, newer) = (entry(1, 3, 1), entry(1, 3, 2));
        let mut list = MemberList {
            revision: 1,
            since: None,
            lasting: true,
            gone: vec![],
            documents: None,
            members: vec![good.clone(), newer.clone(), good.clone(), entry(1, 5, 1)],
            generations: [1; 4],
            time: 1,
        };
        let kept = worth_keeping(&list, &[], &admission(), &trusted, &Known::default());
        assert_eq!(kept.members.len(), 2);
        assert!(kept.members.iter().any(|m| m.member == newer.member));
        assert!(kept.unvouched.is_none());
        // A grant that no operator signed, over and over.
        list.members = vec![entry(8, 6, 1); MAX + 5];
        list.members[3] = good;
        let kept = worth_keeping(&list, &[], &admission(), &trusted, &Known::default());
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
            lasting: true,
            // An older record, a new member, one that nobody let in.
            members: vec![entry(1, 3, 1), entry(1, 9, 1), entry(8, 10, 1)],
            gone: vec![key(4).public()],
            documents: None,
            generations: [1; 4],
            time: 1,
        };
        let known = Known::default();
        let kept = worth_keeping(&list, &before, &admission(), &trusted, &known);
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
    fn who_is_forgotten_stays_and_is_lacking_unless_it_is_out_or_its_place_is_anothers() {
        let roots = Roots(vec![key(7).public()]);
        let trusted = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
        let at = |signing: u8, counter: u64, place: u8| {
            let (mut record, _) = entry(1, signing, counter)
                .member
                .record
                .open_self()
                .unwrap();
            record.name = format!("n{place}").parse().unwrap();
            record.index = MeshIndex::try_from(16 + u16::from(place)).unwrap();
            record.mesh_key = MeshKey([place; 32]);
            let mut entry = entry(1, signing, counter);
            entry.member.record = Signed::sign(&record, &key(2)).unwrap();
            entry
        };
        let held = |e: MemberEntry| CachedMember {
            member: e.member,
            endpoint: None,
            other: Default::default(),
        };
        // Forgotten; listed with an older record; the place given to another; this node itself.
        let before = [at(10, 1, 1), at(11, 5, 2), at(12, 1, 3), at(3, 1, 4)].map(held);
        let mut list = MemberList {
            revision: 1,
            since: None,
            lasting: true,
            gone: vec![],
            documents: None,
            members: vec![at(11, 4, 2), at(13, 1, 3), at(14, 1, 5)],
            generations: [1; 4],
            time: 1,
        };
        let sorted = |of: &[u8]| {
            let mut keys: Vec<_> = of.iter().map(|n| key(*n).public()).collect();
            keys.sort();
            keys
        };
        let look = |list: &MemberList, trusted: &Trusted| {
            let known = Known::default();
            let kept = worth_keeping(list, &before, &admission(), trusted, &known);
            let keys = kept.members.iter().map(|m| {
                let opened = known.open(&m.member).unwrap();
                opened.record.signing_key
            });
            let members: Vec<_> = keys.collect();
            let (mut lacking, mut told) = (kept.lacking, kept.told);
            lacking.sort();
            told.sort();
            (members, lacking, told)
        };
        let (members, lacking, told) = look(&list, &trusted);
        assert_eq!(members, sorted(&[10, 11, 13, 14, 3]));
        assert_eq!(lacking, sorted(&[10, 11]));
        assert_eq!(told, sorted(&[13, 14]));
        // In a difference only who is said to be gone.
        list.since = Some(1);
        assert_eq!(look(&list, &trusted).1, sorted(&[11]));
        list.gone = sorted(&[10]);
        assert_eq!(look(&list, &trusted).1, sorted(&[10, 11]));
        // The policy says why.
        (list.since, list.gone) = (None, vec![]);
        let mut out = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
        out.policy.evicted = sorted(&[10]);
        let (members, lacking, _) = look(&list, &out);
        assert_eq!(
            (members, lacking),
            (sorted(&[11, 13, 14, 3]), sorted(&[11]))
        );
        let mut ruled = Trusted::open(&set(1, 7), &roots, CLUSTER).unwrap();
        let rule = holdfast_core::documents::Rule::new("a".parse().unwrap(), "b".parse().unwrap());
        ruled.policy.rules = vec![rule];
        assert_eq!(look(&list, &ruled).1, sorted(&[11]));
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
            lasting: true,
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
        let kept = worth_keeping(&list, &before, &admission(), &trusted, &Known::default());
        assert_eq!(kept.members.len(), 1);
        assert_eq!(kept.members[0].member, new.member);
        assert_eq!(kept.members[0].endpoint, seen);
    }
}
