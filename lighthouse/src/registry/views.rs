//! Member lists as they are sent: one encoding for all who see the same.

use super::journal::{Change, Groups};
use super::state::{Entry, State};
use super::unix_now;
use bytes::{Bytes, BytesMut};
use holdfast_core::access::connects;
use holdfast_core::api::MemberEntry;
use holdfast_core::documents::{DocumentSet, Rule};
use holdfast_core::keys::PublicKey;
use holdfast_core::names::GroupName;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// What somebody is told of: callers with the same view get the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum View {
    /// Everything that the store holds: for operators.
    All,
    /// Members that one of these groups may reach, or that may reach one of them; without rules all
    /// but those put out. Every reader verifies.
    Groups(Vec<GroupName>),
    /// One that stopped being a member while it waited: documents only.
    Nobody,
}

impl View {
    /// Of a member with `groups`. Those that no rule names, now or before `change`, make no
    /// difference.
    pub fn of(groups: &[GroupName], rules: &[Rule], change: Option<&Change>) -> Self {
        let before = change.and_then(|c| c.rules.as_deref()).unwrap_or(rules);
        let named = |group: &&GroupName| {
            let mut all = rules.iter().chain(before);
            all.any(|r| r.from == **group || r.to == **group)
        };
        let mut groups: Vec<_> = groups.iter().filter(named).cloned().collect();
        groups.sort_unstable();
        Self::Groups(groups)
    }

    pub fn shows(&self, rules: &[Rule], groups: Option<&[GroupName]>) -> bool {
        match self {
            Self::All => true,
            Self::Nobody => false,
            Self::Groups(own) => groups.is_some_and(|groups| connects(rules, own, groups)),
        }
    }
}

/// A list's bytes, in the parts that are shared and those that are not.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Up to the last member.
    shared: Bytes,
    /// Whether a member is in it.
    some: bool,
}

impl Encoded {
    /// The whole body: `own` is the caller's own entry, where the view does not show it.
    pub fn body(&self, own: Option<&MemberEntry>) -> [Bytes; 2] {
        let mut tail = BytesMut::new();
        if let Some(own) = own.and_then(|own| serde_json::to_vec(own).ok()) {
            if self.some {
                tail.extend_from_slice(b",");
            }
            tail.extend_from_slice(&own);
        }
        // The time is not shared: whoever asks sets a clock by it.
        tail.extend_from_slice(format!("],\"time\":{}}}", unix_now()).as_bytes());
        [self.shared.clone(), tail.freeze()]
    }
}

/// The encodings of the revision that is published now.
#[derive(Debug, Default)]
pub struct Views {
    made: Mutex<HashMap<(View, Option<u64>), Encoded>>,
}

/// Bytes of encodings that are kept; of more kinds of callers some are encoded again. A full
/// cluster's list takes about 20 MB.
const KEPT: usize = 64 << 20;

impl Views {
    /// Forgets what was made for an earlier revision.
    pub fn clear(&self) {
        self.hold().clear();
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, HashMap<(View, Option<u64>), Encoded>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes for `view` since `since` (none: the whole list), made once.
    pub fn get(&self, view: &View, since: Option<u64>, make: impl FnOnce() -> Encoded) -> Encoded {
        let mut made = self.hold();
        let key = (view.clone(), since);
        if let Some(found) = made.get(&key) {
            return found.clone();
        }
        let fresh = make();
        let held: usize = made.values().map(|e| e.shared.len()).sum();
        if held + fresh.shared.len() > KEPT {
            made.clear();
        }
        made.insert(key, fresh.clone());
        fresh
    }
}

pub fn entry(state: &State, key: &PublicKey, entry: &Entry) -> MemberEntry {
    MemberEntry {
        member: entry.row.member.clone(),
        endpoint: state.endpoints.get(key).copied(),
    }
}

/// `MemberList` without its members and its time.
#[derive(Serialize)]
struct Head<'a> {
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    lasting: bool,
    generations: [u64; 4],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<PublicKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<&'a DocumentSet>,
}

fn encode<'a>(head: &Head<'_>, members: impl Iterator<Item = MemberEntry> + 'a) -> Encoded {
    // These types have no value that JSON cannot write.
    let mut bytes = serde_json::to_vec(head).unwrap_or_default();
    bytes.pop();
    bytes.extend_from_slice(b",\"members\":[");
    let mut some = false;
    for member in members {
        if some {
            bytes.push(b',');
        }
        some |= serde_json::to_writer(&mut bytes, &member).is_ok();
    }
    Encoded {
        shared: bytes.into(),
        some,
    }
}

/// Everything that `view` shows.
pub fn whole(state: &State, view: &View, revision: u64) -> Encoded {
    let head = Head {
        revision,
        since: None,
        lasting: true,
        generations: state.held.generations(),
        gone: vec![],
        documents: None,
    };
    let rules = &state.held.policy.rules;
    let shown = state
        .members
        .iter()
        .filter(|(_, e)| view.shows(rules, e.told()));
    encode(&head, shown.map(|(key, e)| entry(state, key, e)))
}

/// What changed for `view`.
pub fn delta(state: &State, view: &View, since: u64, revision: u64, change: &Change) -> Encoded {
    let rules = &state.held.policy.rules;
    let before = change.rules.as_ref().unwrap_or(rules);
    let (mut shown, mut gone) = (vec![], vec![]);
    let mut look = |key: &PublicKey, old: Option<&Groups>| {
        let now = state.members.get(key);
        // Whoever was told in the middle of it may hold anybody, or not, by rules that are neither.
        let was = change.seen
            || match old {
                Some(groups) => view.shows(before, groups.as_deref()),
                None => now.is_some_and(|e| view.shows(before, e.told())),
            };
        match now.filter(|e| view.shows(rules, e.told())) {
            Some(e) if old.is_some() || change.seen || !was => shown.push(entry(state, key, e)),
            Some(_) => {}
            None if was => gone.push(*key),
            None => {}
        }
    };
    if change.rules.is_some() {
        // Others may show, or show no more, that did not change themselves.
        let others = state.members.keys();
        others
            .filter(|key| !change.members.contains_key(key))
            .for_each(|key| look(key, None));
    }
    change
        .members
        .iter()
        .for_each(|(key, old)| look(key, Some(old)));
    let head = Head {
        revision,
        since: Some(since),
        lasting: true,
        generations: state.held.generations(),
        gone,
        documents: change.documents.then_some(&state.held.set),
    };
    encode(&head, shown.into_iter())
}
