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
mod tests;
